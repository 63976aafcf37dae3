"""What a run on a GPU measures and says: verdicts and a report on made-up results, timing, the programs."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gpu_kernels
import gpu_profile
import gpu_report
import gpu_resnet
import pytest
import torch

from on_gpu import cases as gpu_cases
from on_gpu import targets
from on_gpu import timing as gpu_timing
from on_gpu.targets import BOTH, FORWARD, MISSED, NOT_MEASURED, REACHED
from rivals import stubs
from rivals.contenders import Contender, lif_cuda_fused, wrong, wrong_gradients

CPU = torch.device("cpu")
H200 = {
    "device": "NVIDIA H200",
    "capability": "9.0",
    "memory_gib": 139.8,
    "driver": "580.1",
    "torch": "2.11.0+cu130",
    "commit": "c0ffee",
    "changed": False,
    "rivals": {"spikingjelly": None},
}


# Targets


def timing(seconds: float) -> dict[str, float]:
    """A time without spread."""
    return {"median": seconds, "low": seconds, "high": seconds}


def case_row(name: str, forward: dict[str, float], both: dict[str, float]) -> dict[str, Any]:
    """Results of a case with these times in microseconds."""
    times = {
        mode: {who: timing(us * 1e-6) for who, us in row.items()}
        for mode, row in ((FORWARD, forward), (BOTH, both))
    }
    return {
        "name": name,
        "shape": [16, 4, 8],
        "dtype": "float32",
        "neuron_steps": 512,
        "kernel_seconds": times,
        "call_seconds": times,
        "how": {mode: dict.fromkeys(row, "graph") for mode, row in times.items()},
        "setup_seconds": {},
        "differences": {},
        "missing": {"torch.compile": "TimeoutError: too long"},
    }


def some_results() -> dict[str, Any]:
    """Results in which some targets are reached, some missed and some not measured."""
    return {
        "facts": dict(H200),
        "rehearsal": False,
        "stages": [
            {"stage": "build", "exit": 0, "seconds": 41.0, "limit": 150},
            {"stage": "tests", "exit": 124, "seconds": 90.0, "limit": 90},
            {"stage": "memcheck", "impossible": "no compute-sanitizer on PATH"},
            {"stage": "mnist", "skipped": "no data"},
        ],
        "kernels": {
            "facts": dict(H200),
            "shapes": "full",
            "cases": [
                case_row(
                    "large",
                    {"copy": 100, "lif_cuda": 109, "SpikingJelly": 220},
                    {"copy": 200, "lif_cuda": 221, "SpikingJelly": 340},
                ),
                case_row("few neurons", {"copy": 8, "lif_cuda": 29}, {"copy": 9, "lif_cuda": 62}),
                {"name": "middle", "missing": {"all of it": "RuntimeError: no"}},
            ],
            "calls": [
                {
                    "shape": [1, 1, 8],
                    "kind": kind,
                    "seconds": {"lif_cuda": timing(mine), "relu": timing(10e-6)},
                }
                for kind, mine in (("inference", 17e-6), ("training", 36e-6))
            ],
            "left_out": {"small": "out of time: 160 s had passed"},
        },
        "resnet": {
            "facts": dict(H200),
            "shape": [4, 64, 3, 224, 224],
            "images_per_second": {
                "lif_cuda": 1400.0,
                "ReLU": 1420.0,
                "SpikingJelly": 978.0,
                "SpikingJelly, x": 1366.0,
            },
            "missing": {},
        },
        "mnist": {"snn": {"test_accuracy": 97.3, "seconds_per_epoch": 0.7}},
        "not_taken": {},
    }


def test_verdicts() -> None:
    by_name = {verdict.name: verdict for verdict in targets.verdicts(some_results())}
    expected = {
        "large: forward, over the copy": (REACHED, 1.09),
        "large: forward + backward, over the copy": (MISSED, 1.105),
        "large: forward, SpikingJelly over lif_cuda": (REACHED, 220 / 109),
        "large: forward + backward, SpikingJelly over lif_cuda": (MISSED, 340 / 221),
        "large bf16: forward, over the copy": (NOT_MEASURED, None),
        "middle: forward, over the copy": (NOT_MEASURED, None),
        "few neurons: forward": (REACHED, 29.0),
        "few neurons: backward": (MISSED, 33.0),
        "SEW-ResNet-18: images a second, lif_cuda over SpikingJelly": (REACHED, 1400 / 1366),
        "a layer's inference call beyond relu's": (REACHED, 7.0),
        "a layer's training call beyond relu's": (MISSED, 26.0),
    }
    for name, (verdict, figure) in expected.items():
        assert by_name[name].verdict == verdict, name
        assert by_name[name].figure == (None if figure is None else pytest.approx(figure)), name


def test_times_of_an_h200_are_not_judged_elsewhere_and_nothing_in_a_rehearsal() -> None:
    results = some_results()
    results["facts"]["device"] = "NVIDIA H100 80GB HBM3"
    by_name = {verdict.name: verdict for verdict in targets.verdicts(results)}
    few = by_name["few neurons: forward"]
    assert few.verdict == NOT_MEASURED and few.figure == pytest.approx(29.0)
    assert by_name["large: forward, over the copy"].verdict == REACHED
    results["rehearsal"] = True
    assert {verdict.verdict for verdict in targets.verdicts(results)} == {NOT_MEASURED}
    assert {v.verdict for v in targets.verdicts({"facts": {}})} == {NOT_MEASURED}


def test_every_target_can_be_read_from_the_cases_there_are() -> None:
    """Names in the table of targets are names that the microbenchmark writes."""
    rows = []
    for case in gpu_cases.CASES:
        found, missing = gpu_cases.entries(dataclasses.replace(case.rehearsed(), rivals=()), CPU, 1)
        names = ["copy", *(entry.contender.name for entry in found), *case.rivals]
        assert len(names) == case.contenders and not missing
        rows.append(case_row(case.name, dict.fromkeys(names, 10.0), dict.fromkeys(names, 30.0)))
    results = some_results()
    results["kernels"]["cases"] = rows
    assert NOT_MEASURED not in {verdict.verdict for verdict in targets.verdicts(results)}
    names = [target.name for target in targets.TARGETS]
    assert len(set(names)) == len(names)


# The report


def test_report() -> None:
    results = some_results()
    text = gpu_report.report(results, targets.verdicts(results))
    for words in (
        "NVIDIA H200, capability 9.0, 139.8 GiB",
        "| commit | c0ffee |",
        "SpikingJelly is not installed: it was left out",
        "| build | 41.0 | 150 | passed |",
        "| tests | 90.0 | 90 | FAILED: time limit |",
        "FAILED: no compute-sanitizer on PATH",
        "skipped: no data",
        "| large: forward, over the copy | at most 1.1 | 1.09 | reached |",
        "| few neurons: backward | at most 32 us | 33 us | MISSED |",
        "| large bf16: forward, over the copy | at most 1.2 |  | not measured |",
        "torch.compile: no time: TimeoutError: too long",
        "small: left out: out of time",
        "| lif_cuda | 1400 |",
        "| snn | 97.30 % | 0.70 |",
    ):
        assert words in text, words
    assert "rehearsal" not in text
    results["rehearsal"] = True
    assert "No figure in it means anything" in gpu_report.report(results, targets.verdicts(results))


def test_results_of_another_run_are_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = some_results()
    stages = {name: results[name] for name in ("facts", "stages", "rehearsal")}
    (tmp_path / "stages.json").write_text(json.dumps(stages))
    results["kernels"]["facts"]["commit"] = "older"
    results["resnet"]["facts"]["device"] = "NVIDIA H100"
    for name in ("kernels", "resnet"):
        (tmp_path / f"{name}.json").write_text(json.dumps(results[name]))
    (tmp_path / "mnist.json").write_text(json.dumps({"commit": {"hash": "c0ffee"}} | results["mnist"]))
    found = gpu_report.gathered(tmp_path)
    assert found["kernels"] is None and found["resnet"] is None and found["mnist"] is not None
    assert found["not_taken"] == {
        "kernels.json": "of commit older",
        "resnet.json": "of another device, NVIDIA H100",
    }
    monkeypatch.setattr(sys, "argv", ["gpu_report.py", str(tmp_path)])
    assert gpu_report.main() == 0
    assert "kernels.json is of commit older" in (tmp_path / "report.md").read_text()
    judged = json.loads((tmp_path / "report.json").read_text())["targets"]
    assert {target["verdict"] for target in judged} == {NOT_MEASURED}


def test_an_empty_folder_gives_a_report(tmp_path: Path) -> None:
    results = gpu_report.gathered(tmp_path)
    assert "0 reached, 0 missed" in gpu_report.report(results, targets.verdicts(results))


# Timing


def ncu_table(*kernels: str) -> str:
    """What ncu prints for these launches, each figure being 2."""
    head = ["ID", "Kernel Name", *gpu_profile.METRICS.values(), *gpu_profile.STALLS.values()]
    rows = [head, ["", "", *["unit"] * (len(head) - 2)]]
    rows += [[str(place), name, *["2"] * (len(head) - 2)] for place, name in enumerate(kernels)]
    return "\n".join(",".join(f'"{value}"' for value in row) for row in rows)


def test_launches_belong_to_the_contender_before_them() -> None:
    printed = "==PROF== Connected\nMARK one\tplain\t64\nMARK one\tadaptive\t32\n" + ncu_table(
        "spin_kernel(long)",
        "void wide_forward_kernel<float>(A, B)",
        "void wide_backward_kernel<float>(A)",
        "spin_kernel(long)",
        "void wide_forward_kernel<float>(A, B)",
    )
    found = gpu_profile.launches(printed)
    assert [(row["contender"], row["instructions_a_neuron_step"]) for row in found] == [
        ("plain", 1),
        ("plain", 1),
        ("adaptive", 2),
    ]
    text = "\n".join(gpu_report.counters({"launches": found}))
    assert "| one | adaptive | wide_forward_kernel<float> |" in text


def test_calls_a_turn() -> None:
    assert gpu_timing.calls_a_turn(1.0) == 1
    assert gpu_timing.calls_a_turn(gpu_timing.REPLAY / 5) == 5
    assert gpu_timing.calls_a_turn(0.0) == gpu_timing.MOST_CALLS


def test_rounds_are_in_turns() -> None:
    order: list[str] = []

    def turn(name: str) -> gpu_timing.Timed:
        return gpu_timing.Timed(lambda: float(len(order.append(name) or order)), "by hand")  # type: ignore[func-returns-value]

    turns = gpu_timing.in_turns({name: turn(name) for name in "abc"}, 0.0)
    assert {len(taken) for taken in turns.seconds.values()} == {gpu_timing.FEWEST_ROUNDS}
    assert "".join(order[:9]) == "abcbcacab"
    assert turns.timing("a").median > 0
    assert gpu_timing.in_turns({}, 0.0).seconds == {}


def test_a_wall_clock_times_what_it_calls() -> None:
    timed = gpu_timing.kernels_alone(lambda: time.sleep(2e-3), CPU)
    assert timed.how == "wall clock" and 2e-3 <= timed.turn() < 1.0


class FakeCuda:
    """As much of torch.cuda as the timing calls, on a clock of its own; each call takes a millisecond."""

    def __init__(self, captures: bool) -> None:
        self.captures = captures
        self.clock = 0.0
        self.log: list[str] = []

    def call(self) -> None:
        self.clock += 1.0
        self.log.append("call")

    def sleep(self, cycles: int) -> None:
        self.log.append("sleep")

    @contextlib.contextmanager
    def capture(self, graph: FakeGraph) -> Iterator[None]:
        if not self.captures:
            raise RuntimeError("cannot be captured")
        before = self.clock
        yield
        graph.took = self.clock - before

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = fake.clock

            def synchronize(self) -> None:
                pass

            def elapsed_time(self, other: Event) -> float:
                return other.at - self.at

        class Stream:
            def __init__(self, device: torch.device | None = None) -> None:
                pass

            def wait_stream(self, other: Stream) -> None:
                pass

        replacements: dict[str, Any] = {
            "Event": Event,
            "Stream": Stream,
            "CUDAGraph": lambda: FakeGraph(fake),
            "graph": self.capture,
            "stream": lambda stream: contextlib.nullcontext(),
            "current_stream": Stream,
            "synchronize": lambda device=None: None,
            "_sleep": self.sleep,
        }
        for name, replacement in replacements.items():
            monkeypatch.setattr(torch.cuda, name, replacement)


class FakeGraph:
    """A captured graph: replayed, it takes as long as what was captured."""

    def __init__(self, fake: FakeCuda) -> None:
        self.fake = fake
        self.took = 0.0

    def replay(self) -> None:
        self.fake.clock += self.took
        self.fake.log.append("replay")


def test_kernels_are_timed_by_a_graph_and_else_by_a_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a GPU, on a made-up one."""
    fake = FakeCuda(captures=True)
    fake.install(monkeypatch)
    timed = gpu_timing.kernels_alone(fake.call, torch.device("cuda"))
    assert timed.how == "graph" and timed.turn() == pytest.approx(1e-3)
    assert fake.log[-2:] == ["replay", "replay"]
    fake = FakeCuda(captures=False)
    fake.install(monkeypatch)
    timed = gpu_timing.kernels_alone(fake.call, torch.device("cuda"))
    assert timed.how == "queue (no graph: RuntimeError)"
    fake.log.clear()
    assert timed.turn() == pytest.approx(1e-3)
    assert fake.log[0] == "sleep" and set(fake.log[1:]) == {"call"}


def test_a_block_can_be_given_a_limit() -> None:
    with gpu_timing.at_most(5, "nothing"):
        pass
    with (
        pytest.raises(TimeoutError, match="sleeping took more than 0.05 s"),
        gpu_timing.at_most(0.05, "sleeping"),
    ):
        time.sleep(5)


# The programs


def test_what_is_left_out() -> None:
    large = gpu_cases.by_name("large")
    assert gpu_kernels.left_out(large, 1.0, 160.0, 80 << 30) is None
    assert "GiB needed, 4 GiB free" in (gpu_kernels.left_out(large, 1.0, 160.0, 4 << 30) or "")
    assert "out of time" in (gpu_kernels.left_out(large, 161.0, 160.0, 80 << 30) or "")


def test_rivals_get_what_time_is_left() -> None:
    assert gpu_kernels.patience(0.0, 160.0, 12) == gpu_cases.SETUP_SECONDS
    assert gpu_kernels.patience(80.0, 160.0, 10) == 160.0 - 80.0 - 10 * gpu_kernels.SECONDS_A_CASE
    assert gpu_kernels.patience(150.0, 160.0, 6) == gpu_kernels.MOST_IMPATIENT


def test_a_wrong_gradient_gets_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    x, grad = gpu_cases.drawn((9, 4, 50), torch.float32, CPU)
    for piece in (1 << 25, 100):  # compared at once, and sample by sample
        monkeypatch.setattr("rivals.contenders.PIECE", piece)
        right = Contender("right", lif_cuda_fused)
        assert wrong(right, x) is None and wrong_gradients(right, x, grad) is None
        for learned in gpu_cases.entries(gpu_cases.by_name("learned").rehearsed(), CPU, 1)[0]:
            assert wrong_gradients(learned.contender, learned.x, learned.grad) is None
        slope = gpu_cases.variant("another slope", surrogate=gpu_cases.Rectangle())
        slope.options = {}
        assert wrong(slope, x) is None
        assert "the gradient of x" in (wrong_gradients(slope, x, grad) or "")
        beta = torch.full((50,), 0.9, requires_grad=True)
        half = gpu_cases.variant("half of a gradient", [beta], beta=beta / 2 + beta.detach() / 2)
        half.options = {"beta": beta}
        assert "learned parameter 1" in (wrong_gradients(half, x, grad) or "")


@pytest.mark.slow
def test_kernels_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every case in small, without rivals; what goes wrong is said, and fails the run."""
    cases = [dataclasses.replace(case, rivals=()) for case in gpu_cases.CASES]
    cases[3] = dataclasses.replace(cases[3], rivals=("eager loop", "SpikingJelly"))
    cases[1] = dataclasses.replace(cases[1], name="broken", tiny=(0,))
    monkeypatch.setattr(gpu_kernels, "CASES", cases)
    path = tmp_path / "kernels.json"
    arguments = ["--device", "cpu", "--shapes", "tiny", "--seconds", "0", "--json", str(path)]
    assert gpu_kernels.main(arguments) == 1
    results = json.loads(path.read_text())
    rows = {row["name"]: row for row in results["cases"]}
    assert len(rows) == len(cases) and "IndexError" in rows.pop("broken")["missing"]["lif_cuda"]
    for name, row in rows.items():
        names = set(row["kernel_seconds"][BOTH])
        assert {"copy"} < names and names == set(row["kernel_seconds"][FORWARD]) == set(
            row["call_seconds"][BOTH]
        )
        assert set(row["missing"]) <= {"SpikingJelly"}, name
    assert "eager loop" in rows["middle"]["kernel_seconds"][FORWARD]
    assert len(results["calls"]) == 4 and results["facts"]["torch"] == torch.__version__
    assert gpu_kernels.main([*arguments, "--budget", "0"]) == 0
    assert len(json.loads(path.read_text())["left_out"]) == len(cases)


def test_the_network_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "spikingjelly",
        "spikingjelly.activation_based",
    ):  # a test before this one may have imported it
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(gpu_resnet, "stand_in", lambda: nullcontext([]))
    path = tmp_path / "resnet.json"
    assert gpu_resnet.main(["--device", "cpu", "--json", str(path)]) == 0
    results = json.loads(path.read_text())
    assert results["images_per_second"] == {} and "spikingjelly" in results["missing"]["all of it"]


def test_empty_modules_stand_in() -> None:
    with stubs.stand_in(["json", "no_such_library"]) as absent:
        assert absent == ["no_such_library"]
        below = importlib.import_module("no_such_library.below")
    assert below.whatever.__name__ == "whatever"
    # Who looks for the library afterwards finds out that there is none.
    with pytest.raises(ImportError):
        importlib.import_module("no_such_library.below")
