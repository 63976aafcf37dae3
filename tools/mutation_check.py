"""Break the kernels, one way at a time, and see the suite catch each.

    python -P tools/mutation_check.py            all, some three hours on two cores
    python -P tools/mutation_check.py tail cpu   those of a kind, and those whose names contain a word

Works on copies of the repository, as many at once as there are cores; prints a line for each mutation and
exits with 1 if one survives. Not part of the normal suite: it compiles kernels more than a hundred times.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.extend(str(Path(__file__).resolve().parents[1] / folder) for folder in ("tests", "tools"))

import torch
from _compile import CXX_FLAGS, ROOT, compile_source, cxx
from host_cuda.harness import TARGET_FLAG
from mutations import MUTATIONS, Mutation

import lif_cuda
from lif_cuda import _build_facts

# Seconds for tests that take some two minutes: a broken kernel may go round in circles.
PATIENCE = 900
# Not what runs under a sanitizer, which takes minutes, nor what compares SIMD levels, of which one is broken.
# What reads beside its tensors shows by pages that fault, and by nothing else.
LEFT_OUT = ("sanitized", "every_simd_level", "levels_have", "test_addresses", "test_threads")
X86 = platform.machine() in ("x86_64", "AMD64")
LEVELS = ("baseline", "avx2", "avx512") if X86 else ("baseline",)

# The tests that have to see a mutation. Drawn cases come last: hypothesis takes minutes to shrink a failure.
OF_NEURONS = ("numpy", "lif", "floor", "li", "halves", "family", "lengths", "surrogate", "fuzz")
TESTS_ON_CPU = {
    "cpu": OF_NEURONS,
    "plain": OF_NEURONS,
    "recurrent": ("recurrent",),
    "events": ("events", "packed"),
}
# These compile kernels themselves.
TESTS_ON_HOST = {
    "pages": ("sanitizers",),
    "cuda": ("cuda_on_host",),
    "recurrent cuda": ("recurrent_on_host",),
    "words cuda": ("words_on_host",),
}


class CpuLibrary:
    """The CPU operator library: objects of the kernels as they are, which broken ones are linked with.

    A mutation is compiled at the SIMD level in use alone, as the tests run no other. Those that do are left
    out: they would catch each mutation by the unbroken kernels of the other levels.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ways = ("backward", "forward", "events", "recurrent")
        sources = [f"csrc/cpu/{way}_{level}.cpp" for way in ways for level in LEVELS]
        sources += [f"csrc/ops/{name}.cpp" for name in ("lif_cpu", "events_cpu", "recurrent_cpu", "schema")]
        self.folder.mkdir()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            read = pool.map(lambda source: self.compile(ROOT, source, self.folder), sources)
            # What of csrc each source includes.
            self.reads = dict(zip(sources, read, strict=True))

    @staticmethod
    def object_of(source: str, folder: Path) -> Path:
        """Where the object of a source lies."""
        return folder / f"{Path(source).name}.o"

    def compile(self, root: Path, source: str, folder: Path) -> set[str]:
        """Write the object of a source of ``root``, and return what it includes of that."""
        compiler = cxx()
        assert compiler is not None, "no C++ compiler"
        target = self.object_of(source, folder)
        listing = target.with_suffix(".d")
        include = Path(torch.__path__[0]) / "include"
        compile_source(
            [
                # The last -O counts: kernels written in vectors have the same bits, in two thirds the time.
                *(compiler, *CXX_FLAGS, "-O1", "-std=c++17", "-fPIC", f"-I{root / 'csrc'}", TARGET_FLAG),
                *("-isystem", include, "-MMD", "-MF", listing, "-c", root / source, "-o", target),
            ]
        )
        paths = listing.read_text().replace("\\\n", " ").split()[1:]
        return {str(Path(path).relative_to(root)) for path in paths if path.startswith(str(root))}

    def build(self, root: Path, mutated: str) -> None:
        """Write the library of a copy whose file ``mutated`` is another, next to its Python files."""
        level = _build_facts.facts()["simd"]
        others = tuple(f"_{other}.cpp" for other in LEVELS if other != level)
        own = root / "build"
        own.mkdir()
        changed = [s for s, read in self.reads.items() if mutated in read and not s.endswith(others)]
        assert changed, f"no source of the level {level} includes {mutated}"
        for source in changed:
            self.compile(root, source, own)
        # What is new comes first: of an inline function with two bodies the linker takes the first.
        objects = [self.object_of(source, own) for source in changed]
        objects += [self.object_of(source, self.folder) for source in self.reads if source not in changed]
        torch_libraries = Path(torch.__path__[0]) / "lib"
        compile_source(
            [
                *(str(cxx()), "-shared", "-o", root / "lif_cuda" / "_kernels.so"),
                *objects,
                *(f"-L{torch_libraries}", "-lc10", "-ltorch", "-ltorch_cpu"),
            ]
        )


def copy_of_the_project(folder: Path) -> None:
    """The sources and tests, and the compiled libraries beside the Python files."""
    for part in ("csrc", "tests", "build_backend", "lif_cuda"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / part, folder / part)
    for library in Path(lif_cuda.__path__[0]).glob("*.so"):
        if not (folder / "lif_cuda" / library.name).exists():
            shutil.copy(library, folder / "lif_cuda" / library.name)


def caught(mutation: Mutation, cpu: CpuLibrary | None) -> str | None:
    """The test that failed on the broken kernels, or None."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_of_the_project(folder)
        source = folder / mutation.path
        text = source.read_text()
        assert mutation.right in text, f"{mutation.name}: {mutation.path} no longer says {mutation.right!r}"
        source.write_text(text.replace(mutation.right, mutation.wrong))
        if cpu is not None and mutation.kind in TESTS_ON_CPU:
            cpu.build(folder, mutation.path)
        names = (TESTS_ON_CPU | TESTS_ON_HOST)[mutation.kind]
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
                + ["-m", "", "-k", " and ".join(f"not {name}" for name in LEFT_OUT)]
                + [f"tests/test_{name}.py" for name in names],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(folder), "LIF_CUDA_FUZZ": "20"},
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            return f"no end within {PATIENCE} s"
        if done.returncode == 0:
            return None
        if done.returncode < 0:
            return f"the tests were ended by signal {-done.returncode}"
        failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        # Nothing is set up where nothing compiles: that is no catch.
        assert not failed or failed[0].startswith("FAILED"), f"{mutation.name} does not compile"
        return failed[0].split(" - ")[0] if failed else done.stdout[-300:]


def main() -> int:
    """Run those that were asked for."""
    words = sys.argv[1:]
    chosen = [m for m in MUTATIONS if not words or any(w in m.name or w == m.kind for w in words)]
    survivors = 0
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        on_cpu = any(mutation.kind in TESTS_ON_CPU for mutation in chosen)
        cpu = CpuLibrary(Path(name, "objects")) if on_cpu else None
        for mutation, test in zip(chosen, pool.map(lambda m: caught(m, cpu), chosen), strict=True):
            survivors += test is None
            print(
                f"{'SURVIVED' if test is None else 'caught  '}  {mutation.name:28} {test or ''}", flush=True
            )
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
