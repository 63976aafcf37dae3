# ruff: noqa: E501  (a mutation is a line)
"""Break the kernels, one way at a time, and see the suite catch each.

    python -P tests/mutation_check.py            all, some fifteen minutes on two cores
    python -P tests/mutation_check.py tail leak  those whose names contain a word

Works on a copy of the repository; prints a line for each mutation and exits with 1 if one survives. Not part of
the normal suite: it compiles the kernels some twenty times.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from _compile import CXX_FLAGS, ROOT, cxx
from host_cuda.harness import TARGET_FLAG

CUDA, STEP = "csrc/cuda/kernels.cuh", "csrc/neuron/step.h"
ROWS, PLAIN, PLAIN_ROWS, BACK, GENERAL = (
    f"csrc/cpu/{name}.inl" for name in ("rows", "plain", "plain_rows", "plain_backward", "general")
)

# Seconds for tests that take some two minutes: a broken kernel may go round in circles.
PATIENCE = 900


@dataclass(frozen=True)
class Mutation:
    """A text of a source file, and the wrong one in its place."""

    name: str
    path: str
    right: str
    wrong: str


MUTATIONS = [
    Mutation("reset sign", STEP, "return sub(u, mul(theta, s));", "return add(u, mul(theta, s));"),
    Mutation("strict and not", STEP, "(strict ? u > theta : u >= theta)", "(strict ? u >= theta : u > theta)"),
    Mutation("silence a step short", STEP, "s != S(0) ? refractory :", "s != S(0) ? refractory - S(1) :"),
    Mutation("reset gradient sign", STEP, "sub(g, mul(theta, a))", "add(g, mul(theta, a))"),
    Mutation("adaptation forgets", STEP, "return add(mul(rho, b), s);", "return add(b, s);"),
    Mutation("cpu: missing detach", GENERAL, "detached = neuron.detach_reset || neuron.delayed", "detached = false"),
    Mutation("cpu: lost tail", ROWS, "tiling.neurons ? left :", "tiling.neurons ? left - (left % 8 == 3) :"),
    Mutation("cpu: repeat ignored", ROWS, "int64_t at = block.neuron / parameter.repeat %", "int64_t at = block.neuron %"),
    Mutation("cpu: count as rate", ROWS, "static_cast<S>(steps > 0 ? steps : 1), block.size);", "S(1), block.size);"),
    Mutation("cpu: checkpoint late", GENERAL, "until_checkpoint = args.checkpoint_every - 1;", "until_checkpoint = args.checkpoint_every;"),
    Mutation("cpu: states swapped", GENERAL, "state[~t & 1];\n    if (checkpoint", "state[t & 1];\n    if (checkpoint"),
    Mutation("cpu: silent neurons learn", GENERAL, "clear_row(rows.h, silence, n);", ""),
    Mutation("cpu: trace gradient lost", GENERAL, "add_row(a, read_row(args.grad_trace, block, t, rows.trace), n);", ""),
    Mutation("cpu: gain forgotten", GENERAL, "gain ? product_row(through_input", "false ? product_row(through_input"),
    Mutation("plain: leak forgotten", BACK, "a.at[k] = mul(beta.at[k], d.at[k]);", "a.at[k] = d.at[k];"),
    Mutation("plain: end of a block", PLAIN, "if (whole < n) {\n    Tail<T> x,", "if (whole + 1 < n) {\n    Tail<T> x,"),
    Mutation("plain: end of a block, slopes", BACK, "if (whole < n) {\n    Tail<T> x;", "if (whole + 1 < n) {\n    Tail<T> x;"),
    Mutation("plain: end of a block, backward", BACK, "if (whole < n) {\n    Tail<T> g,", "if (whole + 1 < n) {\n    Tail<T> g,"),
    Mutation("plain: checkpoint late", PLAIN, "      until_checkpoint = args.checkpoint_every;\n", "      until_checkpoint = args.checkpoint_every + 1;\n"),
    Mutation("plain: a tile over a checkpoint", PLAIN, "smaller(most, smaller(steps - t, until_checkpoint));", "smaller(most, steps - t);"),
    Mutation("plain: missing detach", BACK, "neuron.detach_reset ? backward_groups<kReset, true>(", "neuron.detach_reset ? backward_groups<kReset, false>("),
    Mutation("plain: first step of a chunk", BACK, "tile.first = t == begin;", "tile.first = t == 0;"),
    Mutation("plain: counts forgotten", BACK, "tile.counted = constant != nullptr;", "tile.counted = false;"),
    Mutation("plain: gain forgotten", BACK, "if (rows.has_gain) {\n      d =", "if (false) {\n      d ="),
    Mutation("plain: gain forgotten, slopes", BACK, "if (!kUnit && rows.has_gain) {", "if (false) {"),
    Mutation("plain: a scale is left out", BACK, "const bool unit = !rows.has_gain && tile.scale == S(1);", "const bool unit = !rows.has_gain;"),
    Mutation("plain: threshold alone", BACK, "if (tile.by_theta) {", "if (false) {"),
    Mutation("plain: a scale is left out on the way", BACK, "const bool unit = surrogate.scale == S(1);", "const bool unit = true;"),
    Mutation("plain: another shape on the way", BACK, "return kSlopes == Slopes::atan ?", "return false ?"),
    Mutation("plain: membrane of this step", BACK, "before = load_group(tile.u.at(j - 1, i));", "before = load_group(tile.u.at(j, i));"),
    Mutation("plain: counts beside spikes", BACK, "|| moves == counted) {", "|| (!moves && !counted)) {"),
    Mutation("plain: repeated gradient, no counts", ROWS, "any ? add_row(sum, term, n) : copy_row(sum, term, n);", "copy_row(sum, term, n);"),
    Mutation("plain: odd neurons are even", PLAIN_ROWS, "to[i + 2 * lane + 1] = row[i + kHalf + lane];", "to[i + 2 * lane + 1] = row[i + lane];"),
    Mutation("plain: end of a pair", PLAIN_ROWS, "row[i + j % 2 * kHalf + j / 2] = clean(from[i + j]);", "row[i + j] = clean(from[i + j]);"),
    Mutation("plain: digits of NaN", PLAIN_ROWS, "std::isnan(value) ? std::numeric_limits<S>::quiet_NaN() : value;", "value;"),
    Mutation("plain: a short tile", PLAIN_ROWS, "if (steps == kTileSteps) {", "if (steps >= kTileSteps - 1) {"),
    Mutation("plain: sum of the last step", BACK, "sum = each(sum, d, plus);", "sum = d;"),
    Mutation("plain: slopes, and the threshold learns", BACK, " && args.grad_parameter[kThreshold] == nullptr", ""),
    Mutation("plain: slopes of another shape", BACK, "shape == Shape::atan ? slopes_groups", "true ? slopes_groups"),
    Mutation("plain: entered the tile, not the step", BACK, "v = load_group(tile.entered.at(j, i));", "v = load_group(tile.entered.at(0, i));"),
    Mutation("plain: streams where it cannot", PLAIN, "bool collide = reinterpret_cast<uintptr_t>(spikes) % kLine != 0;", "bool collide = false;"),
    Mutation("cuda: lost tail", CUDA, "if (neuron >= neurons(args.extent)) {", "if (neuron + 1 >= neurons(args.extent)) {"),
    Mutation("cuda: one step ahead", CUDA, "load(t + kDirection * kAhead)", "load(t + kDirection * (kAhead - 1))"),
    Mutation("cuda: v of this step", CUDA, "v_before = reset_all(u_before);", "v_before = reset_all(u);"),
    Mutation("cuda: current gradient lost", CUDA, "dx = add(dx, grad_current);", ""),
    Mutation("cuda: chunk's last step", CUDA, "begin + args.chunk < steps ? begin + args.chunk : steps;", "begin + args.chunk < steps ? begin + args.chunk - 1 : steps;"),
    Mutation("cuda: rest in the gradient", CUDA, "options.rest == S(0) ? from : sub(from, options.rest)", "from"),
    Mutation("cuda: total of one lane", CUDA, "*total += spikes;", "*total = spikes;"),
]  # fmt: skip


def build_cpu(folder: Path) -> None:
    """The CPU operator library of a copy, next to its Python files."""
    compiler = cxx()
    assert compiler is not None, "no C++ compiler"
    include = Path(torch.__path__[0]) / "include"
    x86 = platform.machine() in ("x86_64", "AMD64")
    sources = ["bindings/schema", "bindings/ops_cpu", "cpu/lif_baseline"]
    sources += ["cpu/lif_avx2", "cpu/lif_avx512"] if x86 else []
    flags = [
        *CXX_FLAGS,
        "-std=c++17",
        "-fPIC",
        f"-I{folder / 'csrc'}",
        "-isystem",
        str(include),
    ]
    flags.append(TARGET_FLAG)

    def compile_one(source: str) -> Path:
        target = folder / f"{Path(source).name}.o"
        command = [compiler, *flags, "-c", folder / "csrc" / f"{source}.cpp", "-o", target]
        subprocess.run([str(part) for part in command], check=True, capture_output=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [str(path) for path in pool.map(compile_one, sources)]
    libraries = [f"-L{include.parent / 'lib'}", "-lc10", "-ltorch", "-ltorch_cpu"]
    library = folder / "lif_cuda" / "_kernels.so"
    subprocess.run([compiler, "-shared", "-o", str(library), *objects, *libraries], check=True)


def caught(mutation: Mutation) -> str | None:
    """The test that failed on the broken kernels, or None."""
    import lif_cuda

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("csrc", "tests", "build_backend", "lif_cuda"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("setup.py", "pyproject.toml"):
            shutil.copy(ROOT / part, folder / part)
        for library in Path(lif_cuda.__path__[0]).glob("*.so"):
            if not (folder / "lif_cuda" / library.name).exists():
                shutil.copy(library, folder / "lif_cuda" / library.name)
        source = folder / mutation.path
        text = source.read_text()
        assert mutation.right in text, f"{mutation.name}: {mutation.path} no longer says {mutation.right!r}"
        source.write_text(text.replace(mutation.right, mutation.wrong))
        tests = ["tests/test_cuda_on_host.py", "-k", "not sanitized"]
        if mutation.path != CUDA:
            build_cpu(folder)
            # Drawn cases last: hypothesis takes minutes to make a failure small.
            tests = [f"tests/test_{name}.py" for name in ("numpy", "lif", "halves", "family", "fuzz")]
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
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
        return failed[0].split(" - ")[0] if failed else done.stdout[-300:]


def main() -> int:
    """Run those that were asked for."""
    words = sys.argv[1:]
    survivors = 0
    for mutation in MUTATIONS:
        if words and not any(word in mutation.name for word in words):
            continue
        test = caught(mutation)
        survivors += test is None
        print(f"{'SURVIVED' if test is None else 'caught  '}  {mutation.name:28} {test or ''}", flush=True)
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
