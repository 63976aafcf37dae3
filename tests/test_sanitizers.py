"""The CPU kernels under sanitizers, and between pages without permissions.

The numbers are compared everywhere else; what no number shows is a load beside a tensor whose value is thrown
away, a store into memory that happens to be nobody's, or two threads that write the same element. So
host_cpu/driver.cpp runs the kernels without torch, and is built three times: with the address and
undefined-behaviour sanitizers, with the thread sanitizer, and, as sanitized code is not vectorised and no
sanitizer knows a streaming store, once as setup.py builds it, with pages around each buffer that fault.

All builds and SIMD levels must print the same hashes. Under the address sanitizer fresh memory is filled with
another byte at each level: a value that the kernels read before they wrote it would change some hash.
"""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from _compile import CSRC, CXX_FLAGS, compile_source, cxx
from _processor import LEVELS, runs, skip_unless_runs

DRIVER = Path(__file__).resolve().parent / "host_cpu" / "driver.cpp"
BYTES = {"baseline": 0xFF, "avx2": 0x3F, "avx512": 0xA5}  # in fp32 a NaN, 0.75 and -3e-16
# Types, and of each kinds of neurons, resets and numbers of time steps; sizes and rates of products.
CASES = 4 * (11 * 3 * 4 + 8 * 3)
LARGE_CASES = 4 * 2

# At -O0 a level compiles in 80 s and runs in 4, at -O1 in 200 and in 2. The last flag of a kind counts, so it
# takes the place of the build's.
SANITIZED = ["-O0", "-g1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]
BUILDS = {
    "address": ["-fsanitize=address,undefined,float-cast-overflow", *SANITIZED],
    "thread": ["-fsanitize=thread", *SANITIZED],
    "plain": [],
}
# The levels that each runs at. How tasks are cut, which is what threads can get wrong, is the same at all.
ABLE = tuple(level for level in LEVELS if runs(level))
RUN = {"address": ABLE, "thread": ABLE[-1:], "plain": ABLE}


def plain_environment() -> dict[str, str]:
    """The environment without what is meant for the process of the tests, or for another sanitizer."""
    return {
        name: value
        for name, value in os.environ.items()
        if name != "LD_PRELOAD" and not name.endswith("SAN_OPTIONS")
    }


class Drivers:
    """The programs, each built when first asked for, and what they have printed so far."""

    def __init__(self, compiler: str, folder: Path) -> None:
        self._compiler = compiler
        self._folder = folder
        self._built: dict[str, Path] = {}
        self._objects: dict[Path, Path] = {}
        self._printed: dict[str, str] = {}

    def run(self, build: str, level: str, *arguments: str, options: str = "") -> None:
        """Run all cases, and compare with the runs before this one."""
        skip_unless_runs(level)
        program = self._program(build)
        environment = plain_environment() | {
            "LIF_CUDA_SIMD": level,
            "ASAN_OPTIONS": options,
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        done = subprocess.run(
            [program, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        if "ThreadSanitizer: unexpected memory mapping" in done.stderr:
            pytest.skip("the thread sanitizer does not know how this kernel lays out memory")
        found, *cases = done.stdout.splitlines() or [""]
        # A crash without a word, as at a page that faults, lies behind the last case.
        last = f"{build} {found}: status {done.returncode}, the last good case: {[found, *cases][-1]}"
        assert done.returncode == 0 and not done.stderr, f"{last}\n{done.stderr[-8000:]}"
        assert found == level
        assert len(cases) == CASES + (0 if "small" in arguments else LARGE_CASES)
        for case in cases:
            name, _, numbers = case.rpartition(": ")
            first = self._printed.setdefault(name, numbers)
            assert numbers == first, f"{build} {found} has other numbers than the runs before it: {name}"

    def _program(self, build: str) -> Path:
        if build not in self._built:
            flags = BUILDS[build]
            self._probe(build, flags)
            program = self._folder / build
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                # The driver is not what is tested: unsanitized it is the same object for all, and faster.
                jobs = [pool.submit(self._compile, DRIVER, "any", ["-O1"])]
                for level in reversed(LEVELS):  # the wider, the longer it takes: those first
                    # Sanitized it takes minutes: a level that will not run is linked as it is built.
                    of = build if level in RUN[build] else "plain"
                    for way in ("backward", "forward", "events"):
                        source = CSRC / "cpu" / f"{way}_{level}.cpp"
                        jobs.append(pool.submit(self._compile, source, of, BUILDS[of]))
            objects = [job.result() for job in jobs]
            compile_source([self._compiler, *flags, *objects, "-pthread", "-o", program])
            self._built[build] = program
        return self._built[build]

    def _compile(self, source: Path, build: str, flags: list[str]) -> Path:
        target = self._folder / f"{source.stem}.{build}.o"
        if target not in self._objects:
            command = [self._compiler, *CXX_FLAGS, "-std=c++17", f"-I{CSRC}", *flags]
            compile_source([*command, "-c", source, "-o", target])
            self._objects[target] = target
        return target

    def _probe(self, build: str, flags: list[str]) -> None:
        """Skip where not even an empty program comes through: the runtimes are packages of their own."""
        source = self._folder / "probe.cpp"
        source.write_text("int main() { return 0; }\n")
        program = self._folder / f"probe_{build}"
        commands: list[list[str | Path]] = [[self._compiler, *flags, source, "-o", program], [program]]
        for command, what in zip(commands, ("linked", "run"), strict=True):
            done = subprocess.run(
                command, env=plain_environment(), capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[0]
                pytest.skip(f"a program with {' '.join(flags[:1])} cannot be {what} here: {said}")


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    compiler = cxx()
    if compiler is None:
        pytest.skip("no C++ compiler")
    return Drivers(compiler, tmp_path_factory.mktemp("host_cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_addresses_and_undefined_behaviour(drivers: Drivers, level: str) -> None:
    fill = f"max_malloc_fill_size={1 << 30}:malloc_fill_byte={BYTES[level]}"
    # Large outputs would take most of the time, and where they are streamed they run between the pages.
    drivers.run("address", level, "heap", "small", options=fill)


@pytest.mark.slow
@pytest.mark.parametrize("level", RUN["thread"])
def test_threads(drivers: Drivers, level: str) -> None:
    """Tasks meet nowhere. Streaming stores are not seen."""
    drivers.run("thread", level, "heap", "small")


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("side", ["end", "begin"])
def test_vectors_and_streams_stay_inside(drivers: Drivers, side: str, level: str) -> None:
    """What is built, at every vector width, with a page that faults at one side of each buffer."""
    large = side == "end" and level != "baseline"  # where large outputs are streamed
    drivers.run("plain", level, side, *([] if large else ["small"]))
