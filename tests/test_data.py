"""lif_cuda.data: finding and reading the MNIST files, and refusing what is not MNIST."""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch

from lif_cuda import data
from lif_cuda.data import DataError

TRAIN, TEST, ROWS, COLUMNS = 30, 12, 5, 4
NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx(values: Any, magic: int | None = None) -> bytes:
    """``values`` (uint8) as an idx file."""
    header = [0x0800 + values.ndim if magic is None else magic, *values.shape]
    return np.array(header, ">u4").tobytes() + bytes(values.tobytes())


def arrays() -> list[Any]:
    random = np.random.default_rng(1)
    return [
        random.integers(0, 256, (TRAIN, ROWS, COLUMNS), np.uint8),
        random.integers(0, 10, TRAIN, np.uint8),
        random.integers(0, 256, (TEST, ROWS, COLUMNS), np.uint8),
        random.integers(0, 10, TEST, np.uint8),
    ]


def write(folder: Path, *, suffix: str = "", packed: bool = False) -> list[Any]:
    """The four files, small; returns their content."""
    folder.mkdir(parents=True, exist_ok=True)
    content = arrays()
    for name, values in zip(NAMES, content, strict=True):
        raw = idx(values)
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(raw) if packed else raw)
    return content


def read(folder: Path) -> data.ImageData:
    return data.read_folder(folder, counts=(TRAIN, TEST), image_shape=(ROWS, COLUMNS))


@pytest.fixture
def nothing_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No environment variable and an empty download cache, whose folder is returned."""
    monkeypatch.delenv(data.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lif_cuda"


@pytest.mark.parametrize("sub", ["", "mnist", "MNIST/raw"])
@pytest.mark.parametrize(
    ("suffix", "packed"),
    [("", False), (".gz", True), ("", True), (".gz", False)],
    ids=["raw", "gz", "gz without the suffix", "unpacked with the suffix"],
)
def test_reads_the_files_wherever_they_may_lie(tmp_path: Path, sub: str, suffix: str, packed: bool) -> None:
    expected = write(tmp_path / sub, suffix=suffix, packed=packed)
    found = read(tmp_path)
    for values, want in zip(
        (found.train_images, found.train_labels, found.test_images, found.test_labels),
        expected,
        strict=True,
    ):
        assert values.dtype == np.uint8
        np.testing.assert_array_equal(values, want)
    assert found.image_shape == (ROWS, COLUMNS)
    assert found.input_size == ROWS * COLUMNS


def test_content_that_is_not_mnist_is_said(tmp_path: Path) -> None:
    write(tmp_path)
    found = read(tmp_path)
    assert found.warning is not None and "not the published MNIST" in found.warning
    assert found.name != "MNIST"


def test_tensors_are_normalised_and_limited(tmp_path: Path) -> None:
    content = write(tmp_path)
    images, labels = read(tmp_path).tensors("test", limit=5)
    assert images.shape == (5, ROWS * COLUMNS) and images.dtype == torch.float32
    assert labels.dtype == torch.int64
    want = (content[2][:5].reshape(5, -1) / 255 - 0.1307) / 0.3081
    torch.testing.assert_close(images, torch.from_numpy(want).float(), rtol=1e-5, atol=1e-6)
    assert labels.tolist() == content[3][:5].tolist()


def test_tensors_refuse_a_limit_and_a_split_that_are_not_there(tmp_path: Path) -> None:
    write(tmp_path)
    found = read(tmp_path)
    with pytest.raises(ValueError, match=f"from 1 to {TEST}.*got {TEST + 1}"):
        found.tensors("test", limit=TEST + 1)
    with pytest.raises(ValueError, match="got 0"):
        found.tensors("train", limit=0)
    with pytest.raises(ValueError, match="'train' or 'test', got 'valid'"):
        found.tensors("valid")


def test_digest_depends_on_each_array(tmp_path: Path) -> None:
    write(tmp_path)
    before = read(tmp_path).digest()
    changed = arrays()[3]
    changed[0] = (changed[0] + 1) % 10
    (tmp_path / NAMES[3]).write_bytes(idx(changed))
    assert read(tmp_path).digest() != before


def damage(folder: Path, name: str, content: bytes) -> str:
    """Write ``content`` as one of the files and return the error that reading gives."""
    write(folder)
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(folder)
    message = str(caught.value)
    assert name in message and "expected" in message and "found" in message
    return message


def test_cut_off_file(tmp_path: Path) -> None:
    message = damage(tmp_path, NAMES[0], idx(arrays()[0])[:-7])
    assert "600 bytes" in message and "593 bytes" in message and "cut off" in message
    assert "fetch it again" in message


def test_too_long_file(tmp_path: Path) -> None:
    assert "601 bytes" in damage(tmp_path, NAMES[0], idx(arrays()[0]) + b"x")


@pytest.mark.parametrize("size", [0, 3, 9])
def test_file_without_a_whole_header(tmp_path: Path, size: int) -> None:
    assert f"{size} bytes" in damage(tmp_path, NAMES[0], idx(arrays()[0])[:size])


def test_cut_off_gzip(tmp_path: Path) -> None:
    packed = gzip.compress(idx(arrays()[0]))
    for size in (3, len(packed) // 2, len(packed) - 1):
        assert "whole gzip file" in damage(tmp_path, NAMES[0], packed[:size])


def test_gzip_with_a_flipped_bit(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(idx(arrays()[0])))
    packed[-6] ^= 1
    assert "whole gzip file" in damage(tmp_path, NAMES[0], bytes(packed))


def test_wrong_magic_number(tmp_path: Path) -> None:
    message = damage(tmp_path, NAMES[0], idx(arrays()[0], magic=0x0D03))
    assert "0x00000803" in message and "0x00000d03" in message


def test_a_web_page_in_place_of_a_file(tmp_path: Path) -> None:
    assert "0x3c21444f" in damage(tmp_path, NAMES[1], b"<!DOCTYPE html><html>not found</html>")


def test_labels_where_images_are_expected(tmp_path: Path) -> None:
    message = damage(tmp_path, NAMES[0], idx(arrays()[1]))
    assert "that of labels" in message and "wrong name" in message


def test_images_where_labels_are_expected(tmp_path: Path) -> None:
    assert "that of images" in damage(tmp_path, NAMES[3], idx(arrays()[2]))


@pytest.mark.parametrize(("name", "other"), [(NAMES[0], 2), (NAMES[1], 3), (NAMES[2], 0)])
def test_training_and_test_files_swapped(tmp_path: Path, name: str, other: int) -> None:
    message = damage(tmp_path, name, idx(arrays()[other]))
    assert "30" in message and "12" in message and "wrong name" in message


def test_images_of_another_size(tmp_path: Path) -> None:
    message = damage(tmp_path, NAMES[0], idx(np.zeros((TRAIN, 6, 4), np.uint8)))
    assert "30 x 5 x 4" in message and "30 x 6 x 4" in message


def test_label_out_of_range(tmp_path: Path) -> None:
    labels = arrays()[1]
    labels[4] = 10
    assert "a label 10" in damage(tmp_path, NAMES[1], idx(labels))


def test_named_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data: .*nowhere does not exist"):
        data.load(tmp_path / "nowhere")


def test_named_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is not a folder"):
        data.load(tmp_path / "file")


def test_named_folder_without_the_files(
    tmp_path: Path, nothing_named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="none of train-images-idx3-ubyte"):
        data.load(tmp_path)
    monkeypatch.setenv(data.ENVIRONMENT, str(tmp_path))
    with pytest.raises(DataError, match=f"{data.ENVIRONMENT}: .*none of"):
        data.load()


def test_named_folder_with_some_of_the_files(tmp_path: Path) -> None:
    write(tmp_path / "mnist")
    (tmp_path / "mnist" / NAMES[1]).unlink()
    with pytest.raises(DataError, match="mnist lacks train-labels-idx1-ubyte;"):
        read(tmp_path)


def test_option_goes_before_environment(
    tmp_path: Path, nothing_named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    write(tmp_path / "named")
    monkeypatch.setenv(data.ENVIRONMENT, str(tmp_path / "nowhere"))
    assert data.load(tmp_path / "named").source == "idx files, folder from --data"


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let load() take the small files."""
    whole = data.read_folder

    def read_small(folder: Path, *, named_by: str) -> data.ImageData:
        return whole(folder, named_by=named_by, counts=(TRAIN, TEST), image_shape=(ROWS, COLUMNS))

    monkeypatch.setattr(data, "read_folder", read_small)


def test_files_that_are_there_need_no_torchvision(
    tmp_path: Path, nothing_named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    write(nothing_named / "MNIST" / "raw")
    assert data.load().source == "idx files, folder from the download cache"
    write(tmp_path / "named")
    monkeypatch.setenv(data.ENVIRONMENT, str(tmp_path / "named"))
    assert data.load().source == f"idx files, folder from {data.ENVIRONMENT}"


def test_without_torchvision_the_digits_stand_in_loudly(
    nothing_named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn, whose digits these are, is not installed")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    found = data.load()
    assert found.name == "digits"
    assert found.warning is not None
    assert "NOT MNIST" in found.warning and "torchvision cannot fetch" in found.warning
    assert found.image_shape == (8, 8)
    assert len(found.train_images) + len(found.test_images) == 1797
    images, labels = found.tensors("train")
    assert abs(float(images.mean())) < 1e-3 and abs(float(images.std()) - 1) < 1e-3
    assert sorted(set(labels.tolist())) == list(range(10))


@pytest.mark.parametrize(
    "error", [RuntimeError("operator torchvision::nms does not exist"), OSError("no network")]
)
def test_a_broken_torchvision_or_network_is_told(
    nothing_named: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn, whose digits these are, is not installed")

    def fail(folder: Path) -> None:
        raise error

    monkeypatch.setattr(data, "_download", fail)
    warning = data.load().warning
    assert warning is not None and str(error) in warning


def test_no_data_at_all(nothing_named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchvision", "torchvision.datasets", "sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError, match=f"--data or {data.ENVIRONMENT}, or pip install"):
        data.load()


def torchvision_mnist() -> Any:
    """torchvision's MNIST class, or skip: beside a CPU-only torch it raises RuntimeError."""
    try:
        from torchvision.datasets import MNIST
    except (ImportError, RuntimeError, AttributeError) as error:
        pytest.skip(f"torchvision cannot be imported here: {error}")
    return MNIST


def test_torchvision_reads_the_same_images(tmp_path: Path) -> None:
    mnist = torchvision_mnist()
    write(tmp_path / "MNIST" / "raw")
    ours = read(tmp_path)
    for training, images, labels in (
        (True, ours.train_images, ours.train_labels),
        (False, ours.test_images, ours.test_labels),
    ):
        theirs = mnist(str(tmp_path), train=training, download=False)
        np.testing.assert_array_equal(theirs.data.numpy(), images)
        np.testing.assert_array_equal(theirs.targets.numpy(), labels)


def test_torchvision_downloads_into_the_cache(
    tmp_path: Path, nothing_named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole path without a network: torchvision's mirror is a server on this machine."""
    mnist = torchvision_mnist()
    small(monkeypatch)
    expected = write(tmp_path / "mirror", suffix=".gz", packed=True)
    resources = []
    for name in NAMES:
        content = (tmp_path / "mirror" / f"{name}.gz").read_bytes()
        resources.append((f"{name}.gz", hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(mnist, "resources", resources)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "mirror"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(mnist, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        found = data.load()
        server.shutdown()
    assert found.source == "idx files, folder from torchvision's download"
    np.testing.assert_array_equal(found.train_images, expected[0])
    assert data.load().source == "idx files, folder from the download cache"


def test_the_real_files() -> None:
    if not os.environ.get(data.ENVIRONMENT):
        pytest.skip(f"{data.ENVIRONMENT} does not name a folder with the MNIST files")
    found = data.load()
    assert found.name == "MNIST" and found.warning is None
    assert found.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert found.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    scaled = found.train_images / 255.0
    assert round(float(scaled.mean()), 4) == found.mean
    assert round(float(scaled.std()), 4) == found.std
