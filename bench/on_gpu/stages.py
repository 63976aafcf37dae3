"""The stages of bench/gpu.sh: what each one runs, for how long at most, and what it leaves.

No torch here: nothing is built yet when this is read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"

SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
NAMES = (
    *("build", "info", "tests", *SANITIZERS),
    *("kernels", "recurrent", "resnet", "mnist", "profile", "report"),
)
GPU_TESTS = ("tests/test_gpu.py", "tests/test_gpu_recurrent.py")
# Wheels that --wheels may hold: the rival and the one package that its import cannot do without.
RIVALS = ("spikingjelly", "loguru")
# In a rehearsal a machine of two cores does what one of sixteen does.
REHEARSAL_FACTOR = 6


@dataclass(frozen=True)
class Plan:
    """What was asked for, and what there is.

    Attributes:
        out: the folder of results.
        site: where the build goes, and where it is found again by a later run with --only.
        scratch: a folder for what nobody keeps.
        python: the interpreter.
        rehearse: everything on the CPU, with tiny sizes.
        data: the folder of the MNIST files.
        wheels: the folder of the rivals' wheels.
        sanitizer: the path of compute-sanitizer.
        profiler: the path of ncu.
    """

    out: Path
    site: Path
    scratch: Path
    python: str
    rehearse: bool = False
    data: Path | None = None
    wheels: Path | None = None
    sanitizer: str | None = None
    profiler: str | None = None

    @property
    def rivals(self) -> Path:
        """Where the rivals are installed: apart, so that they replace nothing."""
        return self.scratch / "rivals"


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        name: as in NAMES, or "rivals".
        limit: seconds.
        command: what is run, in the root of the repository.
        environment: beside the inherited one.
        result: the file that it writes; an older one is removed before it begins.
        leaves: the file in the folder of results that ``result`` becomes.
        skipped: why it is not run, although nothing is wrong; empty: it is run.
        impossible: why it cannot be run, which counts as a failure; empty: it can.
    """

    name: str
    limit: float
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    result: Path | None = None
    leaves: str = ""
    skipped: str = ""
    impossible: str = ""


def sources_digest(root: Path = ROOT) -> str:
    """What tells whether a build is of the sources that lie here."""
    files = [root / "setup.py", root / "pyproject.toml"]
    for folder in ("build_backend", "csrc", "lif_cuda"):
        files += (path for path in (root / folder).rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in sorted(files):
        if path.suffix in {".py", ".toml", ".h", ".cuh", ".inl", ".cpp", ".cu"}:
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def stages(plan: Plan) -> list[Stage]:
    """All of them, in order."""
    rehearse, python = plan.rehearse, plan.python
    device = "cpu" if rehearse else "cuda"
    made = [
        Stage(
            "build",
            240,
            (python, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index")
            + ("--target", str(plan.site), str(ROOT)),
            {"LIF_CUDA_BUILD": device},
        ),
        Stage("info", 45, (python, "-P", "-m", "lif_cuda", "info")),
        Stage(
            "tests",
            90,
            (*_gpu_tests(python), "-n", "2" if rehearse else "6"),
            # Six processes with as many threads as there are cores each would stand in each other's way.
            {"OMP_NUM_THREADS": "1" if rehearse else "2", "OMP_WAIT_POLICY": "PASSIVE"},
        ),
        *(_sanitizer(plan, tool) for tool in SANITIZERS),
        _benchmark(
            plan,
            "kernels",
            190,
            "gpu_kernels.py",
            *(("--shapes", "tiny", "--seconds", "0.05") if rehearse else ("--budget", "160")),
        ),
        _benchmark(
            plan,
            "recurrent",
            60,
            "gpu_recurrent.py",
            *(("--shapes", "tiny", "--seconds", "0.05") if rehearse else ()),
        ),
        _benchmark(
            plan,
            "resnet",
            120,
            "gpu_resnet.py",
            *(("--size", "32", "--batch", "2", "--seconds", "0.5") if rehearse else ()),
        ),
        _mnist(plan),
        _profile(plan),
        Stage("report", 30, (python, str(BENCH / "gpu_report.py"), str(plan.out))),
    ]
    assert tuple(stage.name for stage in made) == NAMES
    return made


def rivals(plan: Plan, wheels: Path) -> Stage:
    """Installs what there is of RIVALS in the folder of wheels."""
    found = [name for name in RIVALS if any(wheels.glob(f"{name}-*.whl"))]
    pip = (plan.python, "-m", "pip", "install", "--no-index", "--no-deps")
    command = (*pip, "--find-links", str(wheels), "--target", str(plan.rivals), *found)
    return Stage("rivals", 60, command, impossible="" if found else f"no wheel of {RIVALS[0]} in {wheels}")


def _gpu_tests(python: str) -> tuple[str, ...]:
    return (python, "-P", "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *GPU_TESTS)


def _sanitizer(plan: Plan, tool: str) -> Stage:
    watch = (plan.sanitizer or "", "--tool", tool, "--error-exitcode", "9")
    command = (*watch, *_gpu_tests(plan.python), "-k", "sanitizer")
    # torch's allocator hands out pieces of large blocks, in which a step too far, or a read of what nobody
    # wrote, goes unseen.
    environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return Stage(
        tool,
        40,
        command,
        environment,
        skipped="a rehearsal has no GPU to watch" if plan.rehearse else "",
        impossible="" if plan.sanitizer else "no compute-sanitizer on PATH",
    )


def _benchmark(plan: Plan, name: str, limit: float, script: str, *options: str) -> Stage:
    path = plan.out / f"{name}.json"
    device = "cpu" if plan.rehearse else "cuda"
    command = (plan.python, str(BENCH / script), "--device", device, "--json", str(path), *options)
    return Stage(name, limit, command, result=path, leaves=path.name)


def _profile(plan: Plan) -> Stage:
    return replace(
        _benchmark(plan, "profile", 75, "gpu_profile.py"),
        skipped="a rehearsal has no counters to read" if plan.rehearse else "",
        impossible="" if plan.profiler else "no ncu on PATH",
    )


def _mnist(plan: Plan) -> Stage:
    folder = plan.scratch / "mnist"
    data = str(plan.data or os.environ.get("LIF_CUDA_DATA") or ("digits" if plan.rehearse else ""))
    options = ["--epochs", "2", "--backend", "both", "--data", data, "--out", str(folder)]
    options += ["--device", "cpu" if plan.rehearse else "cuda"]
    if plan.rehearse:
        options += ["--train-limit", "512", "--test-limit", "256", "--hidden", "16", "--steps", "5"]
    return Stage(
        "mnist",
        90,
        (plan.python, str(BENCH / "mnist.py"), *options),
        result=folder / "results.json",
        leaves="mnist.json",
        skipped="" if data else "neither --data nor LIF_CUDA_DATA names the MNIST files",
    )
