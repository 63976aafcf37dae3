"""MNIST as arrays: finding the four idx files, reading them, and saying plainly what was found.

Files that are already there are read with NumPy and gzip alone; torchvision is needed only to
download them. Where neither works, the 8x8 digits bundled with scikit-learn stand in, and the
result says so.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

ENVIRONMENT = "LIF_CUDA_DATA"
DIGITS = "digits"

MNIST_COUNTS = (60_000, 10_000)
MNIST_IMAGE = (28, 28)
# sha256 over the pixels and labels in the order of `ImageData.digest`. Fashion-MNIST and others
# come in files of the same names and sizes; only the content tells them apart.
MNIST_DIGEST = "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16"

# In the order train images, train labels, test images, test labels.
_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_SUBFOLDERS = ("", "mnist", "MNIST/raw")
_MAGIC = {"images": 0x0803, "labels": 0x0801}
_AXES = {"images": 3, "labels": 1}
_CLASSES = 10

Bytes = npt.NDArray[np.uint8]


class DataError(Exception):
    """A data file or folder is not what it should be; the message names it and the remedy."""


@dataclass(frozen=True)
class ImageData:
    """Training and test images with their labels, and where they came from.

    Attributes:
        train_images, test_images: uint8 [N, rows, columns], 0 (background) to ``white``.
        train_labels, test_labels: uint8 [N], 0 to 9.
        white: the largest pixel value the format has: 255 for MNIST, 16 for the 8x8 digits.
        mean, std: of the training pixels divided by ``white``; what :meth:`tensors` normalises by.
        name: ``"MNIST"`` or ``"digits"``.
        source: how it was found, in words, without the path.
        warning: what a reader of the results must know, or None if this is MNIST itself.
    """

    train_images: Bytes
    train_labels: Bytes
    test_images: Bytes
    test_labels: Bytes
    white: int
    mean: float
    std: float
    name: str
    source: str
    warning: str | None = None

    @property
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of one image."""
        return self.train_images.shape[1], self.train_images.shape[2]

    @property
    def input_size(self) -> int:
        """Pixels of one image: the input size of a network."""
        return math.prod(self.image_shape)

    def digest(self) -> str:
        """The sha256, in hex, of all pixels and labels: the same for the same data."""
        return _digest(self.train_images, self.train_labels, self.test_images, self.test_labels)

    def tensors(
        self, split: str, limit: int | None = None, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor]:
        """One split as tensors in memory.

        Args:
            split: ``"train"`` or ``"test"``.
            limit: take only the first ``limit`` images. None: all.
            device: where the tensors go.

        Returns:
            Normalised images, float32 [N, rows * columns], and labels, int64 [N].

        Raises:
            ValueError: ``split`` is neither, or ``limit`` is not from 1 to the number of images.
        """
        if split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test', got {split!r}")
        training = split == "train"
        images = self.train_images if training else self.test_images
        labels = self.train_labels if training else self.test_labels
        if limit is not None and not 1 <= limit <= len(images):
            raise ValueError(
                f"limit must be from 1 to {len(images)}, the {split} images of {self.name}, got {limit}"
            )
        pixels = torch.from_numpy(images[:limit].reshape(-1, self.input_size)).to(device)
        scaled = pixels.float().div_(self.white).sub_(self.mean).div_(self.std)
        return scaled, torch.from_numpy(labels[:limit]).to(device).long()


def load(data: str | os.PathLike[str] | None = None) -> ImageData:
    """Find MNIST and read it.

    Looks, in this order, at: ``data``; the environment variable ``LIF_CUDA_DATA``; the files a
    former call downloaded; a download by torchvision; the 8x8 digits of scikit-learn.

    Args:
        data: a folder that holds the four idx files, gzipped or not, directly or under ``mnist/``
            or ``MNIST/raw/``; or ``"digits"`` for the 8x8 digits (a folder of that name is
            ``./digits``).

    Returns:
        The images; ``warning`` is set unless they are MNIST itself.

    Raises:
        DataError: a folder was named and does not hold the files, a file is damaged or is not what
            its name says, or no data can be had at all.
    """
    if data is not None and str(data) == DIGITS:
        return _digits("they were asked for by name")
    if data is not None:
        return read_folder(data, named_by="--data")
    if os.environ.get(ENVIRONMENT):
        return read_folder(os.environ[ENVIRONMENT], named_by=ENVIRONMENT)
    cache = cache_folder()
    if _find(cache) is not None:
        return read_folder(cache, named_by="the download cache")
    try:
        _download(cache)
    except _DOWNLOAD_ERRORS as error:
        return _digits(f"no MNIST files were named and torchvision cannot fetch them ({error})")
    return read_folder(cache, named_by="torchvision's download")


def read_folder(
    folder: str | os.PathLike[str],
    *,
    named_by: str = "folder",
    counts: tuple[int, int] = MNIST_COUNTS,
    image_shape: tuple[int, int] = MNIST_IMAGE,
) -> ImageData:
    """Read the four idx files of a folder.

    Args:
        folder: holds the files directly, or under ``mnist/`` or ``MNIST/raw/``.
        named_by: who named the folder, for the messages and for ``source``.
        counts: training and test images that must be there.
        image_shape: rows and columns that each image must have.

    Raises:
        DataError: the folder or a file is missing, damaged or not what its name says.
    """
    root = Path(folder).expanduser()
    paths = _find(root)
    if paths is None:
        raise DataError(_missing(root, named_by))
    train, test = counts
    arrays = (
        read_idx(paths[0], "images", (train, *image_shape)),
        read_idx(paths[1], "labels", (train,)),
        read_idx(paths[2], "images", (test, *image_shape)),
        read_idx(paths[3], "labels", (test,)),
    )
    warning = None
    if _digest(*arrays) != MNIST_DIGEST:
        warning = (
            "the files are well formed, but their content is not the published MNIST: results are "
            "not comparable with results on MNIST"
        )
    return ImageData(
        *arrays,
        white=255,
        mean=0.1307,
        std=0.3081,
        name="MNIST" if warning is None else "idx files that are not MNIST",
        source=f"idx files, folder from {named_by}",
        warning=warning,
    )


def read_idx(path: str | os.PathLike[str], kind: str, shape: tuple[int, ...]) -> Bytes:
    """Read one idx file of unsigned bytes.

    Whether it is gzipped is told by its content, not its name: browsers and archive tools unpack a
    file without renaming it.

    Args:
        path: the file.
        kind: ``"images"`` (magic number 0x0803) or ``"labels"`` (0x0801).
        shape: what the header must say: (N, rows, columns) for images, (N,) for labels.

    Returns:
        uint8 array of that shape; labels are 0 to 9.

    Raises:
        DataError: the file is not that; the message names it, what was expected and what was found.
    """
    path = Path(path)
    content = _content(path)
    axes = _AXES[kind]
    header = 4 + 4 * axes
    if len(content) < header:
        raise _damaged(path, f"an idx header of {header} bytes", f"{len(content)} bytes")
    magic, *found = (int(n) for n in np.frombuffer(content, ">u4", count=1 + axes))
    if magic != _MAGIC[kind]:
        other = next((k for k, value in _MAGIC.items() if value == magic), None)
        what = f"magic number 0x{magic:08x}" + (f", that of {other}" if other else "")
        expected = f"{kind}, magic number 0x{_MAGIC[kind]:08x}"
        raise _damaged(path, expected, what, mislabelled=other is not None)
    if tuple(found) != shape:
        raise _damaged(
            path,
            f"{_sizes(shape)} {kind}",
            f"a header that says {_sizes(tuple(found))}",
            mislabelled=True,
        )
    size = math.prod(shape)
    if len(content) - header != size:
        found_size = f"{len(content) - header:,} bytes after the header"
        cut = " (the file is cut off)" if len(content) - header < size else ""
        raise _damaged(path, f"{size:,} bytes after the header", found_size + cut)
    values = np.frombuffer(content, np.uint8, offset=header).reshape(shape)
    if kind == "labels" and values.size and int(values.max()) >= _CLASSES:
        raise _damaged(path, f"labels from 0 to {_CLASSES - 1}", f"a label {int(values.max())}")
    # frombuffer on bytes is read-only, and torch.from_numpy warns about such arrays.
    return values.copy()


def cache_folder() -> Path:
    """Where downloaded files are kept: ``$XDG_CACHE_HOME/lif_cuda``, or ``~/.cache/lif_cuda``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lif_cuda"


def _digest(*arrays: Bytes) -> str:
    total = hashlib.sha256()
    for array in arrays:
        total.update(array.tobytes())
    return total.hexdigest()


def _file(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def _find(root: Path) -> tuple[Path, ...] | None:
    """The four files in the first subfolder that holds them all."""
    for sub in _SUBFOLDERS:
        paths = tuple(path for name in _FILES if (path := _file(root / sub, name)) is not None)
        if len(paths) == len(_FILES):
            return paths
    return None


def _missing(root: Path, named_by: str) -> str:
    """Why ``_find`` found nothing, with what is there and what to do."""
    if not root.exists():
        return f"{named_by}: {root} does not exist; name a folder that holds the MNIST files"
    if not root.is_dir():
        return f"{named_by}: {root} is not a folder; name the folder that holds the MNIST files"
    lacking = f"it has none of {', '.join(_FILES)}"
    for sub in _SUBFOLDERS:
        absent = [name for name in _FILES if _file(root / sub, name) is None]
        if len(absent) < len(_FILES):
            lacking = f"{root / sub} lacks {', '.join(absent)}"
            break
    return (
        f"{named_by}: {root} must hold the four MNIST files (each also as .gz) directly "
        f"or under mnist/ or MNIST/raw/: {lacking}; put them there, name another folder, or name "
        "none to have torchvision download them"
    )


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, "a whole gzip file", f"a damaged one ({error})") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{n:,}" for n in shape)


def _damaged(path: Path, expected: str, found: str, *, mislabelled: bool = False) -> DataError:
    remedy = (
        "the file has the wrong name or is of another data set: put the right one in its place"
        if mislabelled
        else "delete it and fetch it again"
    )
    return DataError(f"{path}: expected {expected}, found {found}; {remedy}")


# A torchvision built for another torch raises RuntimeError or AttributeError when imported.
_DOWNLOAD_ERRORS = (ImportError, RuntimeError, AttributeError, OSError)


def _download(folder: Path) -> None:
    from torchvision.datasets import MNIST

    MNIST(str(folder), download=True)


def _digits(reason: str) -> ImageData:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            f"no data: {reason}, and scikit-learn with its 8x8 digits is not installed; name a "
            f"folder with the MNIST files by --data or {ENVIRONMENT}, or pip install torchvision or "
            "scikit-learn"
        ) from error
    bunch: Any = load_digits()
    images = bunch.images.astype(np.uint8)
    labels = bunch.target.astype(np.uint8)
    # The file is in order of the writers; mixed, both splits hold all of them.
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[:360], order[360:]
    scaled = images[train] / 16.0
    return ImageData(
        images[train],
        labels[train],
        images[test],
        labels[test],
        white=16,
        mean=round(float(scaled.mean()), 4),
        std=round(float(scaled.std()), 4),
        name=DIGITS,
        source="the 8x8 digits bundled with scikit-learn",
        warning=(
            f"this is NOT MNIST but the 1,797 8x8 digits bundled with scikit-learn, because "
            f"{reason}: results are not comparable with results on MNIST"
        ),
    )
