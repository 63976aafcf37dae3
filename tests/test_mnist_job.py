"""bench/mnist.py: what it writes, that its numbers hold together, and that a killed run goes on.

The runs are on the 8x8 digits of scikit-learn with small layers, and take a second or two.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lif_cuda import LIF, ReferenceLIF

pytest.importorskip("sklearn", reason="scikit-learn, whose digits the job is run on, is missing")
pytest.importorskip("tqdm", reason="tqdm, which the job needs, is not installed")
pytest.importorskip("matplotlib", reason="matplotlib, which draws the pictures, is not installed")

import mnist
import train_step
from _torchrun import torchrun

from common import distributed, files
from job import checkpoint, training

SCRIPT = Path(mnist.__file__)
SMALL = ["--data", "digits", "--hidden", "16", "--steps", "6", "--batch-size", "64"]
SMALL += ["--threads", "1", "--seed", "5", "--lr", "5e-3"]
PICTURES = ("training_curves.png", "accuracy.png", "energy.png", "firing_rates.png", "spikes.png")
SECONDS = ("seconds_per_epoch", "training_seconds_by_epoch", "evaluation_seconds_by_epoch")


@pytest.fixture(autouse=True)
def torch_as_before() -> Iterator[None]:
    """The job sets threads and determinism for its whole process."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def run(out: Path, *options: str) -> dict[str, Any]:
    """Run the job in this process and return its results.json."""
    mnist.main([*SMALL, "--out", str(out), *options])
    return results(out)


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def without_times(report: dict[str, Any]) -> dict[str, Any]:
    report = copy.deepcopy(report)
    for network in ("snn", "snn_reference", "ann"):
        for key in SECONDS:
            report.get(network, {}).pop(key, None)
    for key in ("command", "started", "resumed", "commit"):
        report.pop(key)
    report.get("comparison", {}).pop("seconds_per_epoch", None)
    report.get("comparison", {}).pop("speedup", None)
    return report


def weights(out: Path, name: str) -> dict[str, torch.Tensor]:
    content = torch.load(out / f"checkpoint_{name}.pt", weights_only=True)
    found: dict[str, torch.Tensor] = content["model"]
    return found


def assert_same_run(one: Path, other: Path, names: tuple[str, ...]) -> None:
    assert without_times(results(one)) == without_times(results(other))
    for name in names:
        a, b = weights(one, name), weights(other, name)
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert torch.equal(value, b[key]), f"{name}: {key}"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both backends over three epochs."""
    out = tmp_path_factory.mktemp("both")
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    run(out, "--epochs", "3", "--backend", "both")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    return out


def test_results_hold_what_is_promised(both: Path) -> None:
    found = results(both)
    assert found["snn"]["backend"] == "fused"
    assert found["snn_reference"]["backend"] == "reference"
    assert found["ann"]["backend"] is None
    for name in ("snn", "snn_reference", "ann"):
        network = found[name]
        for split in ("test", "train"):
            assert len(network[f"{split}_accuracy_by_epoch"]) == 3
            assert network[f"{split}_accuracy"] == network[f"{split}_accuracy_by_epoch"][-1]
            assert 0 <= network[f"{split}_accuracy"] <= 100
        assert network["loss"] == network["loss_by_epoch"][-1]
        assert network["layer_sizes"] == [64, 16, 16, 10]
        assert len(network["training_seconds_by_epoch"]) == 3
        assert network["seconds_per_epoch"] > 0
    snn, ann = found["snn"], found["ann"]
    dense = 64 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10
    assert (ann["parameters"], ann["decay_parameters"]) == (dense, 0)
    assert (snn["parameters"], snn["decay_parameters"]) == (dense + 32, 32)
    assert set(snn["firing_rates"]) == {"lif1", "lif2", "mean"}
    assert found["settings"]["seed"] == 5 and found["settings"]["epochs"] == 3
    assert found["machine"]["threads"] == 1
    assert {"python", "torch", "lif_cuda", "numpy"} <= set(found["versions"])
    assert {"cpu", "cores", "device"} <= set(found["machine"])
    assert {"hash", "changed"} == set(found["commit"])


def test_operations_and_energy_follow_from_the_rates(both: Path) -> None:
    found = results(both)
    snn, macs = found["snn"], found["ann"]["operations"]["macs"]
    rates = snn["firing_rates"]
    assert macs == 64 * 16 + 16 * 16 + 16 * 10
    assert rates["mean"] == pytest.approx((rates["lif1"] + rates["lif2"]) / 2)
    sops = snn["operations"]["published"]["sops"]
    assert sops == pytest.approx(macs * 6 * rates["mean"])
    assert snn["energy"]["published"]["energy"] == pytest.approx(sops / 5)
    honest = snn["operations"]["honest"]
    assert honest["sops_by_layer"]["fc2"] == pytest.approx(rates["lif1"] * 6 * 16 * 16)
    assert honest["sops_by_layer"]["fc3"] == pytest.approx(rates["lif2"] * 6 * 16 * 10)
    assert snn["energy"]["honest"]["energy"] == pytest.approx(64 * 16 + honest["sops"] / 5)


def test_digits_are_said_loudly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(tmp_path, "--epochs", "1")
    printed = capsys.readouterr().out
    assert printed.count("NOT MNIST") == 2
    assert found["data"]["is_mnist"] is False
    assert "NOT MNIST" in found["data"]["warning"]
    assert found["data"]["image_shape"] == [8, 8]


def test_comparison_of_the_backends(both: Path) -> None:
    found = results(both)["comparison"]
    batches = 3 * -(-1437 // 64)
    assert found["batches"] == batches
    # The first batch has the same weights and the same bits; after it, only rounding parts them.
    assert 1 <= found["batches_with_equal_loss_from_the_start"] <= batches
    for key in (
        "max_abs_batch_loss_difference_by_epoch",
        "loss_difference_by_epoch",
        "test_accuracy_difference_by_epoch",
        "train_accuracy_difference_by_epoch",
    ):
        assert len(found[key]) == 3
    assert abs(found["test_accuracy_difference_by_epoch"][-1]) < 5
    seconds = found["seconds_per_epoch"]
    assert found["speedup"] == pytest.approx(seconds["reference"] / seconds["fused"])


def test_pictures_are_png_files_and_nothing_else_is_left(both: Path) -> None:
    for name in PICTURES:
        assert (both / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n"), name
    checkpoints = {f"checkpoint_{name}.pt" for name in ("snn", "snn_reference", "ann")}
    assert {path.name for path in both.iterdir()} == {"results.json", *PICTURES, *checkpoints}


def test_table_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "--epochs", "1", "--backend", "both")
    printed = capsys.readouterr().out
    for text in ("SNN fused", "SNN reference", "ANN", "test accuracy, %", "train accuracy, %"):
        assert text in printed
    for text in ("parameters", "firing rate of lif1", "firing rate of lif2", "SOPs", "MACs"):
        assert text in printed
    assert "as published" in printed and "honest count" in printed and "seconds an epoch" in printed
    assert "fused against reference" in printed


def test_one_backend_gives_the_same_network_as_both(both: Path, tmp_path: Path) -> None:
    """So the two trainings of ``both`` do not touch each other."""
    alone = run(tmp_path, "--epochs", "3", "--backend", "reference")
    assert alone["snn"]["loss_by_epoch"] == results(both)["snn_reference"]["loss_by_epoch"]
    assert alone["ann"]["loss_by_epoch"] == results(both)["ann"]["loss_by_epoch"]


def test_another_seed_gives_another_network(both: Path, tmp_path: Path) -> None:
    assert (
        run(tmp_path, "--epochs", "1", "--seed", "6")["snn"]["loss_by_epoch"][0]
        != (results(both)["snn"]["loss_by_epoch"][0])
    )


def test_network_learns(both: Path) -> None:
    for name in ("snn", "snn_reference", "ann"):
        assert results(both)[name]["test_accuracy"] > 60


# Killed and resumed


def command(out: Path, *options: str) -> list[str]:
    return [sys.executable, str(SCRIPT), *SMALL, "--out", str(out), *options]


def kill_when(process: subprocess.Popen[str], there: Path, before: float) -> None:
    """kill -9 as soon as ``there`` was written after ``before``."""
    limit = time.monotonic() + 120
    while not (there.exists() and there.stat().st_mtime > before):
        assert process.poll() is None, f"ended before it was killed: {process.communicate()}"
        assert time.monotonic() < limit, f"{there} was not written"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_killed_and_resumed_is_bit_identical_to_undisturbed(tmp_path: Path) -> None:
    options = ["--epochs", "3", "--backend", "both", "--batch-size", "32", "--threads", "2"]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    run(undisturbed, *options)
    # Once within the first epoch of a network, once within a later one.
    for name, resume in (("snn", []), ("ann", ["--resume"])):
        process = subprocess.Popen(
            command(killed, *options, *resume),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        kill_when(process, killed / f"checkpoint_{name}.pt", before=0.0)
        assert not (killed / "results.json").exists()
    run(killed, *options, "--resume")
    assert_same_run(undisturbed, killed, ("snn", "snn_reference", "ann"))


@pytest.mark.slow
def test_more_epochs_may_be_added_at_a_constant_rate(tmp_path: Path) -> None:
    options = ["--schedule", "constant", "--backend", "both"]
    run(tmp_path / "whole", "--epochs", "3", *options)
    run(tmp_path / "grown", "--epochs", "1", *options)
    run(tmp_path / "grown", "--epochs", "3", *options, "--resume")
    assert_same_run(tmp_path / "whole", tmp_path / "grown", ("snn", "snn_reference", "ann"))


def test_no_epochs_may_be_added_to_a_cosine(both: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = failing(capsys, "--out", str(both), "--epochs", "4", "--backend", "both", "--resume")
    assert "schedule_epochs is 4 and was 3" in message


def test_the_cosine_falls_from_the_rate_to_zero() -> None:
    rates = [training.learning_rate(0.1, "cosine", progress) for progress in (0.0, 0.5, 1.0)]
    assert rates == pytest.approx([0.1, 0.05, 0.0])
    assert training.learning_rate(0.1, "constant", 0.7) == 0.1


def test_fewer_epochs_than_the_checkpoint_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "--epochs", "2", "--schedule", "constant")
    out = ["--out", str(tmp_path), "--schedule", "constant", "--resume"]
    assert "holds 2 epochs already and --epochs is 1" in failing(capsys, *out, "--epochs", "1")


@pytest.mark.slow
def test_resuming_a_whole_run_only_writes_its_results_again(tmp_path: Path) -> None:
    first = run(tmp_path, "--epochs", "1")
    checkpoint = (tmp_path / "checkpoint_snn.pt").read_bytes()
    (tmp_path / "results.json").unlink()
    assert without_times(run(tmp_path, "--epochs", "1", "--resume")) == without_times(first)
    assert (tmp_path / "checkpoint_snn.pt").read_bytes() == checkpoint


@pytest.mark.slow
def test_resume_without_a_checkpoint_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "--epochs", "1", "--resume")
    assert "no checkpoint" in capsys.readouterr().out


@pytest.mark.slow
def test_without_resume_a_run_starts_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(tmp_path, "--epochs", "1", "--backend", "both")
    again = run(tmp_path, "--epochs", "1")
    assert "starting anew" in capsys.readouterr().out
    assert again["snn"]["loss_by_epoch"] == first["snn"]["loss_by_epoch"]
    assert not (tmp_path / "checkpoint_snn_reference.pt").exists()


# Several processes

# The last batch of an epoch, and the test images, are two: one of three processes has none of them.
SHARED = ["--schedule", "constant", "--train-limit", "578", "--test-limit", "2"]
needs_torchrun = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch has no distributed package"
)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three processes over two epochs."""
    out = tmp_path_factory.mktemp("three")
    done = torchrun(3, SCRIPT, *SMALL, *SHARED, "--epochs", "2", "--out", str(out))
    assert done.returncode == 0, done.stdout[-6000:]
    assert done.stdout.count("epoch  1/2  snn ") == 1 and done.stdout.count("test accuracy, %") == 1
    return out


def keys(value: Any) -> Any:
    """A nested dict with nothing in it but its keys."""
    return {key: keys(inner) for key, inner in value.items()} if isinstance(value, dict) else None


@needs_torchrun
def test_three_processes_train_what_one_does(three: Path, tmp_path: Path) -> None:
    one, shared = run(tmp_path, *SHARED, "--epochs", "2"), results(three)
    assert keys(one) == keys(shared)
    assert (one["settings"].pop("processes"), shared["settings"].pop("processes")) == (1, 3)
    assert one["settings"] == shared["settings"] and one["data"] == shared["data"]
    assert shared["command"].startswith("torchrun --nnodes 1 --nproc-per-node 3 bench/mnist.py --data")
    # Spikes are where rounding may show: one more or less is a step.
    for name, tolerance in (("ann", 1e-5), ("snn", 1e-2)):
        for key, unit in (("loss_by_epoch", 1), ("train_accuracy_by_epoch", 100)):
            assert shared[name][key] == pytest.approx(one[name][key], abs=unit * tolerance)
        alone = weights(tmp_path, name)
        for key, value in weights(three, name).items():
            torch.testing.assert_close(value, alone[key], rtol=0, atol=tolerance, msg=f"{name}: {key}")
    assert shared["snn"]["firing_rates"] == pytest.approx(one["snn"]["firing_rates"], rel=0.1)
    assert shared["ann"]["test_accuracy_by_epoch"] == one["ann"]["test_accuracy_by_epoch"]


BREAKS = """
import os
from job import training
import mnist

order = training.batch_order

def batch_order(seed, epoch, images):
    if epoch == 1 and os.environ["RANK"] == "1":
        raise RuntimeError("this process breaks")
    return order(seed, epoch, images)

training.batch_order = batch_order
mnist.main()
"""


@pytest.mark.slow
@needs_torchrun
def test_a_process_that_breaks_ends_the_job_which_then_goes_on(three: Path, tmp_path: Path) -> None:
    script, out = tmp_path / "breaks.py", tmp_path / "out"
    script.write_text(BREAKS)
    options = [*SMALL, *SHARED, "--epochs", "2", "--out", str(out)]
    done = torchrun(3, script, *options)
    assert done.returncode != 0 and "RuntimeError: this process breaks" in done.stdout
    assert not (out / "results.json").exists()
    done = torchrun(3, SCRIPT, *options, "--resume")
    assert done.returncode == 0, done.stdout[-6000:]
    assert done.stdout.count("snn: going on after epoch 1") == 1
    assert_same_run(out, three, ("snn", "ann"))


@needs_torchrun
def test_an_error_is_said_once(tmp_path: Path) -> None:
    done = torchrun(2, SCRIPT, *SMALL, "--out", str(tmp_path / "out"), "--data", "nowhere-at-all")
    assert done.returncode != 0
    assert done.stdout.count("error: --data: nowhere-at-all does not exist") == 1
    assert "exitcode  : 1 " in done.stdout and not (tmp_path / "out").exists()


@needs_torchrun
def test_another_number_of_processes_is_named(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = failing(capsys, *SHARED, "--epochs", "2", "--out", str(three), "--resume")
    assert "other settings: processes is 1 and was 3; give" in message


def test_environment_that_is_not_of_torchrun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "1")
    assert "without GROUP_WORLD_SIZE, LOCAL_WORLD_SIZE; start by torchrun" in failing(capsys)


def test_batch_smaller_than_the_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(distributed, "size", lambda: 65)
    with pytest.raises(SystemExit):
        mnist._options(SMALL)
    assert "--batch-size: must be at least 65, an image for each process, got 64" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "expected"),
    [("cuda:1", "without a number, under torchrun"), ("cuda", "got 2 for 3 processes; give torchrun")],
)
def test_gpus_for_the_processes(monkeypatch: pytest.MonkeyPatch, device: str, expected: str) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(distributed.DeviceError, match=expected):
        distributed._require_gpus(torch.device(device))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 64])
def test_shares_are_all_and_nothing_twice(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(distributed, "size", lambda: 3)
    found = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        found += range(count)[distributed.share(count)]
    assert found == list(range(count))


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message with which the job exits."""
    with pytest.raises(SystemExit) as caught:
        mnist.main([*SMALL, *arguments])
    assert caught.value.code not in (0, None)
    return f"{caught.value.code} {capsys.readouterr().err}"


def test_other_settings_are_named(both: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (both / "checkpoint_snn.pt").read_bytes()
    out = ["--out", str(both), "--epochs", "3", "--backend", "both", "--resume"]
    message = failing(capsys, *out, "--hidden", "32", "--lr", "0.5")
    assert "hidden is 32 and was 16" in message and "lr is 0.5 and was 0.005" in message
    assert "seed" not in message
    assert "train_images is 100 and was 1437" in failing(capsys, *out, "--train-limit", "100")
    assert "backend is 'reference' and was 'fused'" in failing(capsys, *out, "--backend", "reference")
    assert "schedule is 'constant' and was 'cosine'" in failing(capsys, *out, "--schedule", "constant")
    assert (both / "checkpoint_snn.pt").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None], ids=["empty", "text", "cut"])
def test_damaged_checkpoint(
    both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    whole = (both / "checkpoint_snn.pt").read_bytes()
    (tmp_path / "checkpoint_snn.pt").write_bytes(whole[:-100] if content is None else content)
    message = failing(capsys, "--out", str(tmp_path), "--resume")
    assert "checkpoint_snn.pt is damaged" in message and "without" not in message.split(";")[0]


def test_checkpoint_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {}}, tmp_path / "checkpoint_snn.pt")
    assert "is not a checkpoint of this job" in failing(capsys, "--out", str(tmp_path), "--resume")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, lambda file: file.write(b"whole"))

    def fail(file: Any) -> None:
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.write_atomically(path, fail)
    assert path.read_bytes() == b"whole"


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not (tmp_path / "x.json").exists()


# Arguments


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--epochs", "0", "at least 1, got '0'"),
        ("--steps", "-1", "at least 1, got '-1'"),
        ("--hidden", "2.5", "whole number of at least 1, got '2.5'"),
        ("--batch-size", "many", "whole number of at least 1, got 'many'"),
        ("--lr", "nan", "finite number above 0, got 'nan'"),
        ("--lr", "0", "finite number above 0, got '0'"),
        ("--seed", "-3", "from 0 to 4294967295, got '-3'"),
        ("--threads", "0", "at least 1, got '0'"),
        ("--backend", "fast", "invalid choice: 'fast'"),
        ("--device", "abacus", "--device must be a device of torch"),
        ("--train-limit", "1438", "--train-limit: limit must be from 1 to 1437"),
        ("--data", "nowhere-at-all", "nowhere-at-all does not exist"),
    ],
)
def test_bad_arguments_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, expected: str
) -> None:
    message = failing(capsys, "--out", str(tmp_path / "out"), option, value)
    assert option in message and expected in message
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_without_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "sees no CUDA device" in failing(capsys, "--device", "cuda")


def test_out_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert "cannot be made a folder" in failing(capsys, "--out", str(tmp_path / "file"))


def test_diverging_training_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = failing(capsys, "--out", str(tmp_path), "--lr", "1e38", "--epochs", "3")
    assert "training diverged" in message and "lower --lr" in message


# Parts


def test_batch_order_is_a_permutation_that_seed_and_epoch_decide() -> None:
    order = training.batch_order(1, 2, 50)
    assert sorted(order.tolist()) == list(range(50))
    assert torch.equal(order, training.batch_order(1, 2, 50))
    for seed, epoch in ((1, 3), (2, 2), (2, 1)):
        assert not torch.equal(order, training.batch_order(seed, epoch, 50))


@pytest.mark.parametrize("layer", [LIF, ReferenceLIF])
def test_spikes_are_counted_in_spikes_and_in_counts(layer: Any) -> None:
    network = training.build(
        "snn", layer, backend="", input_size=12, hidden=8, steps=5, seed=0, lr=1e-3,
        schedule="constant", device=torch.device("cpu"),
    )  # fmt: skip
    model: Any = network.model
    x = 2 * torch.randn(6, 12)
    with torch.no_grad():
        with training.count_spikes(model) as counted:
            network.classify(x)
            network.classify(x)
        first = model.lif1(model.fc1(x), steps=5)
        second = model.lif2(model.fc2(first))
        network.classify(x)
    assert counted["lif1"] == (2 * first.count().double(), 8)
    assert counted["lif2"] == (2 * second.double().sum(), 8)
    assert int(first.count()) > 0


def test_checkpoint_keeps_model_optimiser_and_history(tmp_path: Path) -> None:
    def network() -> training.Network:
        return training.build(
            "snn", LIF, backend="fused", input_size=6, hidden=4, steps=3, seed=0, lr=1e-2,
            schedule="cosine", device=torch.device("cpu"),
        )  # fmt: skip

    torch.manual_seed(1)
    split = training.Split(torch.randn(20, 6), torch.randint(10, (20,)))
    one, other = network(), network()
    training.run_epoch(one, split, split, seed=0, batch_size=8, epochs=2)
    path = checkpoint.path_of(tmp_path, "snn")
    checkpoint.save(path, one, {"lr": 1e-2})
    checkpoint.restore(path, other, {"lr": 1e-2}, epochs=2)
    assert other.history == one.history
    for net in (one, other):
        training.run_epoch(net, split, split, seed=0, batch_size=8, epochs=2)
    assert other.history.step_losses == one.history.step_losses
    for key, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[key]), key


# The training-step benchmark, which shares the machinery


def test_train_step_verifies_times_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "step.json"
    sizes = ["--batch-size", "8", "--input-size", "12", "--hidden", "8", "--steps", "4"]
    train_step.main([*sizes, "--repeats", "3", "--threads", "1", "--json", str(path)])
    found = json.loads(path.read_text())
    names = {"fused", "fused dense", "reference", "step loop", "plain loop", "no neurons"}
    assert set(found["milliseconds"]) == names
    for times in found["milliseconds"].values():
        assert 0 < times["q1"] <= times["median"] <= times["q3"]
    assert found["times_of_fused"]["fused"]["median"] == 1.0
    assert found["settings"]["steps"] == 4 and found["machine"]["threads"] == 1
    parts = found["parts_of_fused"]
    assert abs(sum(parts.values()) - 1) < 1e-9
    assert all(parts[name] > 0 for name in parts if name != "other"), parts
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)


def test_train_step_times_nothing_over_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: Any, x: torch.Tensor, steps: int) -> torch.Tensor:
        return x.new_ones(len(x), 10)

    monkeypatch.setattr(train_step, "_plain_loop", wrong)
    with pytest.raises(SystemExit, match="plain loop and reference agree on 0.0%"):
        train_step.main(["--batch-size", "8", "--input-size", "12", "--hidden", "8"])


# Real MNIST


def test_real_mnist_for_a_moment(tmp_path: Path) -> None:
    if not os.environ.get("LIF_CUDA_DATA"):
        pytest.skip("LIF_CUDA_DATA does not name a folder with the MNIST files")
    mnist.main(
        ["--out", str(tmp_path), "--epochs", "1", "--train-limit", "4000", "--test-limit", "1000"]
        + ["--batch-size", "64", "--hidden", "64"]
    )
    found = results(tmp_path)
    assert found["data"]["is_mnist"] and found["data"]["warning"] is None
    assert found["data"]["train_images"] == 4000
    assert found["snn"]["layer_sizes"] == [784, 64, 64, 10]
    assert found["snn"]["test_accuracy"] > 70
    assert found["ann"]["test_accuracy"] > 70


@pytest.mark.parametrize("linear", ["events", "dense"])
def test_additions_are_of_a_linear_that_adds(
    linear: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A product that multiplies executes no additions to count, and saves nothing by that."""
    snn = run(tmp_path, "--epochs", "1", "--backend", "fused", "--linear", linear)["snn"]
    adds = linear == "events"
    for part in ("operations", "energy"):
        assert ("executed" in snn[part]) == adds
    assert ("as executed" in capsys.readouterr().out) == adds
    if adds:
        assert snn["operations"]["executed"]["additions"] > 0
