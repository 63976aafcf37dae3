"""What to build and how: the decisions of setup.py, apart from it so that they can be tested.

Nothing here asks for a GPU: what counts is the CUDA that torch was built with, and the compiler.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent

SWITCH = "LIF_CUDA_BUILD"
CHOICES = ("auto", "cpu", "cuda")
FOR_TORCH = "LIF_CUDA_FOR_TORCH"
TORCH_MINIMUM = (2, 11)

# Ampere and Hopper, and PTX, from which newer devices compile when the library is first loaded.
DEFAULT_ARCHS = ("8.0", "9.0+PTX")

# Multiplications and additions are rounded apart, as in the reference: no contraction to FMA.
# Without -fno-trapping-math the comparisons do not vectorise. -g0 undoes the -g of Python's own
# flags, with which torch's headers are slow to compile and the libraries large.
CXX_FLAGS = [
    "-O3",
    "-g0",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    # GCC would turn "fire, then reset if it fired" into branches, and vectorise neither.
    "-fno-thread-jumps",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
]
NVCC_FLAGS = [
    "-O3",
    "--fmad=false",
    "--threads=2",
    "-Xcompiler=-g0,-ffp-contract=off,-fvisibility=hidden",
]
# An operator that is declared and not defined fails here and not when the library is loaded.
LINK_FLAGS = ["-Wl,--no-undefined"]

BUILD_COMMANDS = frozenset({"bdist_wheel", "build", "build_ext", "develop", "editable_wheel", "install"})


class BuildError(Exception):
    """The build cannot be what was asked for; the message says what is missing and what to do."""


@dataclass(frozen=True)
class Nvcc:
    """A CUDA compiler: the toolkit's folder and its version, such as "13.0"."""

    home: Path
    version: str


@dataclass(frozen=True)
class Plan:
    """What is built, and against what."""

    torch_version: str
    torch_cuda: str | None
    nvcc: Nvcc | None
    # Why there is no CUDA half; empty where there is one.
    no_cuda_because: str = ""

    @property
    def kind(self) -> str:
        """ "cuda" (both halves) or "cpu"."""
        return "cpu" if self.nvcc is None else "cuda"


def facts_module() -> ModuleType:
    """lif_cuda/_build_facts.py, loaded without the package around it (which is not built yet)."""
    spec = importlib.util.spec_from_file_location("lif_build_facts", ROOT / "lif_cuda" / "_build_facts.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find_nvcc(environ: Mapping[str, str]) -> Path | None:
    """The CUDA compiler that CUDA_HOME or CUDA_PATH names; else on PATH; else the usual one."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if environ.get(name):
            named = Path(environ[name], "bin", "nvcc")
            return named if named.is_file() else None
    on_path = shutil.which("nvcc", path=environ.get("PATH", os.defpath))
    usual = Path("/usr/local/cuda/bin/nvcc")
    if on_path is not None:
        return Path(on_path)
    return usual if usual.is_file() else None


def _output(command: Iterable[str | Path]) -> str:
    done = subprocess.run(list(command), capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def describe_nvcc(nvcc: Path) -> Nvcc:
    """Ask the compiler for its version and for its toolkit's folder.

    The folder is asked for because nvcc may be a script elsewhere that calls the real one.
    """
    version = re.search(r"release (\d+\.\d+)", _output([nvcc, "--version"]))
    if version is None:
        raise BuildError(
            f"{nvcc} --version did not name a CUDA release; set CUDA_HOME to the folder of a "
            f"working CUDA toolkit, or {SWITCH}=cpu to build without CUDA"
        )
    top = re.search(r"^#\$ TOP=(.+)$", _output([nvcc, "--dryrun", "x.cu"]), re.MULTILINE)
    home = Path(top.group(1)) if top else nvcc.parent.parent
    return Nvcc(home.resolve(), version.group(1))


def _major(version: str) -> str:
    return version.split(".")[0]


def decide(
    choice: str,
    torch_version: str,
    torch_cuda: str | None,
    look_for_nvcc: Callable[[], Nvcc | None],
) -> Plan:
    """Choose between a CPU-only build and one with both halves.

    Args:
        choice: the value of LIF_CUDA_BUILD: "auto", "cpu" or "cuda".
        torch_version: ``torch.__version__``.
        torch_cuda: ``torch.version.cuda``; None where torch was built without CUDA.
        look_for_nvcc: finds the CUDA compiler; called only where it matters.

    Raises:
        BuildError: an unknown choice, or "cuda" where it is impossible.
    """
    if choice not in CHOICES:
        raise BuildError(f"{SWITCH} must be one of {', '.join(CHOICES)}; got {choice!r}")
    if choice == "cpu":
        return Plan(torch_version, torch_cuda, None, f"{SWITCH}=cpu asked for it")

    nvcc = None
    if torch_cuda is None:
        cause = f"torch {torch_version} was built without CUDA"
        remedy = "install a torch built with CUDA first"
    else:
        nvcc = look_for_nvcc()
        cause = "no CUDA compiler (nvcc) was found"
        remedy = (
            f"install a CUDA {torch_cuda} toolkit with nvcc, and set CUDA_HOME to its folder or "
            "put nvcc on PATH"
        )
        if nvcc is not None:
            cause = (
                f"nvcc is of CUDA {nvcc.version}, but torch {torch_version} was built with CUDA "
                f"{torch_cuda}, and the major versions must agree"
            )
    if nvcc is not None and torch_cuda is not None and _major(nvcc.version) == _major(torch_cuda):
        return Plan(torch_version, torch_cuda, nvcc)
    if choice == "cuda":
        raise BuildError(
            f"{SWITCH}=cuda asks for the CUDA kernels, but {cause}. Remedy: {remedy}; or set "
            f"{SWITCH}=cpu to build without them."
        )
    return Plan(torch_version, torch_cuda, None, cause)


def make_plan(environ: Mapping[str, str]) -> Plan:
    """The plan for this machine and the torch that can be imported here.

    Raises:
        BuildError: see :func:`decide`; or torch is missing.
    """
    try:
        with warnings.catch_warnings():
            # torch misses NumPy in the isolated environment; the build does not.
            warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
            import torch
    except ImportError as error:
        raise BuildError(
            f"torch cannot be imported ({error}); a build without isolation needs torch>=2.11, "
            "setuptools and ninja installed beforehand: pip install 'torch>=2.11' setuptools ninja"
        ) from error

    def look_for_nvcc() -> Nvcc | None:
        found = find_nvcc(environ)
        return None if found is None else describe_nvcc(found)

    choice = environ.get(SWITCH) or "auto"
    return decide(choice, str(torch.__version__), torch.version.cuda, look_for_nvcc)


def warning(plan: Plan) -> str | None:
    """What to say aloud about a CPU-only build beside a torch with CUDA; None where all is well."""
    if plan.nvcc is not None or plan.torch_cuda is None:
        return None
    message: str = facts_module().cuda_missing_message(
        plan.torch_version, plan.torch_cuda, plan.no_cuda_because
    )
    return message


def ninja_warning() -> str | None:
    """What to say aloud where there is no ninja; None where there is."""
    if shutil.which("ninja") is not None:
        return None
    return (
        "lif_cuda is built without ninja: each library compiles one file after the other, which is slow, and "
        "the next build starts from nothing. Remedy: `pip install ninja` or `uv pip install ninja`."
    )


def say_aloud(message: str) -> None:
    """Warn so that it stands out in a build's log.

    A Python warning, because pip 26 shows those of a build in its own output. It also lands on
    stderr, which is all that an older pip has to show, with -v.
    """
    bar = "!" * 90
    warnings.warn(f"\n{bar}\n{message}\n{bar}", stacklevel=2)


def oldest_torch(environ: Mapping[str, str], torch_version: str) -> str:
    """The oldest torch that the operators will load beside, such as "2.11".

    That is the one being built against, unless LIF_CUDA_FOR_TORCH names an older one, as a wheel for many
    does: with an older target the texts of torch's inner errors are lost.

    Raises:
        BuildError: LIF_CUDA_FOR_TORCH names none of those between the minimum and the one built against.
    """
    built = _release(torch_version)
    asked = environ.get(FOR_TORCH)
    if not asked:
        return ".".join(map(str, built))
    oldest = _release(asked) if re.fullmatch(r"\d+\.\d+", asked) else (0, 0)
    if not TORCH_MINIMUM <= oldest <= built:
        first, last = (".".join(map(str, version)) for version in (TORCH_MINIMUM, built))
        raise BuildError(
            f"{FOR_TORCH} must be a version of torch from {first} to {last}, the one that is built against; "
            f"got {asked!r}"
        )
    return asked


def _release(version: str) -> tuple[int, int]:
    """Of a version of torch: 2 and 13 of "2.13.0+cpu"."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def target_version(torch_version: str) -> str:
    """TORCH_TARGET_VERSION for the stable ABI: a version of torch, without its patch."""
    major, minor = _release(torch_version)
    return f"0x{major << 56 | minor << 48:016x}"


def arch_list(environ: Mapping[str, str], capabilities: Iterable[tuple[int, int]], nvcc_codes: str) -> str:
    """TORCH_CUDA_ARCH_LIST: the user's, else the default and the devices at hand.

    Args:
        environ: the environment.
        capabilities: compute capabilities of the visible devices, if any.
        nvcc_codes: what ``nvcc --list-gpu-code`` prints. A device that this compiler does not know
            runs from the PTX.
    """
    given = environ.get("TORCH_CUDA_ARCH_LIST")
    if given:
        return given
    archs = list(DEFAULT_ARCHS)
    known = {arch.removesuffix("+PTX") for arch in archs}
    for major, minor in sorted(set(capabilities)):
        if f"{major}.{minor}" not in known and f"sm_{major}{minor}" in nvcc_codes.split():
            archs.insert(-1, f"{major}.{minor}")
    return ";".join(archs)


def settle_environment(plan: Plan, environ: dict[str, str] | os._Environ[str]) -> None:
    """Set what torch's build helpers read from the environment. Call before importing them."""
    # ninja lies beside the interpreter; without isolation that folder need not be on PATH.
    environ["PATH"] = os.pathsep.join([environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    if plan.nvcc is None:
        return
    import torch

    environ["CUDA_HOME"] = str(plan.nvcc.home)
    visible = range(torch.cuda.device_count())
    environ["TORCH_CUDA_ARCH_LIST"] = arch_list(
        environ,
        [torch.cuda.get_device_capability(index) for index in visible],
        _output([plan.nvcc.home / "bin" / "nvcc", "--list-gpu-code"]),
    )
