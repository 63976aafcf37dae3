# ruff: noqa: E501  (a mutation is a line)
"""Break the kernels, one way at a time, and see the suite catch each.

    python -P tests/mutation_check.py            all, some forty minutes on two cores
    python -P tests/mutation_check.py tail leak  those whose names contain a word

Works on a copy of the repository; prints a line for each mutation and exits with 1 if one survives. Not part of
the normal suite: it compiles the kernels some seventy times.
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

STEP, STEP_BACK, MEMBER = (f"csrc/neuron/{name}.h" for name in ("step", "back", "member"))
ACCESS, AHEAD, SLOPES, READOUT, BITS, TIERS = (
    f"csrc/cuda/{name}.cuh" for name in ("access", "ahead", "slopes", "readout", "bits", "tiers")
)
WIDE_FORWARD, WIDE_BACKWARD, LONG_FORWARD, LONG_BACKWARD, ANY = (
    f"csrc/cuda/{name}.cuh"
    for name in ("wide_forward", "wide_backward", "long_forward", "long_backward", "general")
)
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
    Mutation("strict and not", STEP, "return u > theta ? number<S>(1)", "return u >= theta ? number<S>(1)"),
    Mutation("silence a step short", STEP, "? refractory : fewer;", "? refractory - number<S>(1) : fewer;"),
    Mutation("reset gradient sign", STEP_BACK, "sub(g, mul(theta, a))", "add(g, mul(theta, a))"),
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
    Mutation("cuda: lost tail", WIDE_FORWARD, "if (neuron >= neurons(args.extent)) {", "if (neuron + 1 >= neurons(args.extent)) {"),
    Mutation("cuda: lost tail, backward", WIDE_BACKWARD, "if (neuron >= neurons(args.extent)) {", "if (neuron + 1 >= neurons(args.extent)) {"),
    Mutation("cuda: a load too few", AHEAD, "if (left - j > kSteps) {", "if (left - j > kSteps + 1) {"),
    Mutation("cuda: checkpoint late", WIDE_FORWARD, "/ kAhead<T, W>;", "/ kAhead<T, W> + 1;"),
    Mutation("cuda: first step of a chunk", WIDE_BACKWARD, "decltype(at_end)::value && here.own == column.own;", "false && here.own == column.own;"),
    Mutation("cuda: v of this step", WIDE_BACKWARD, "const Step<S> before{earlier[w].u, earlier[w].s,", "const Step<S> before{was[w].u, was[w].s,"),
    Mutation("cuda: adaptation kept", WIDE_BACKWARD, "pack_of<W>(states, kAdaptation);", "pack_of<W>(states, kMembrane);"),
    Mutation("cuda: counts forgotten", WIDE_BACKWARD, "g_now.at[w] = add(g_now.at[w], constant.at[w]);", ""),
    Mutation("cuda: silent neurons learn", SLOPES, "h.at[w] = q.at[w] > S(0) ? S(0) : h.at[w];", ""),
    Mutation("cuda: reciprocals of any size", SLOPES, "return most < kReciprocalIsNormal;", "return true;"),
    Mutation("cuda: missing detach", MEMBER, "same = same && Kind::detached == neuron.detach_reset;", ""),
    Mutation("cuda: strict forgotten", ACCESS, "neuron.strict && !kind.strict ? next_above(own.theta) : own.theta;", "own.theta;"),
    Mutation("cuda: a channel too long", ACCESS, "if (++within == parameter.repeat) {", "if (within++ == parameter.repeat) {"),
    Mutation("cuda: aligned rows", TIERS, "aligned_ = aligned_ && stride % width_ == 0;", "static_cast<void>(stride);"),
    Mutation("cuda: total of one lane", READOUT, "*total += spikes;", "*total = spikes;"),
    Mutation("cuda: gradient of a sum", READOUT, "if (steady_spikes(args)) {", "if (false) {"),
    Mutation("cuda: current gradient lost", STEP_BACK, "dx = add(dx, to.of[kCurrent]);", ""),
    Mutation("cuda: rest in the gradient", STEP_BACK, "kind.rested ? sub(from, own.rest) : from", "from"),
    Mutation("cuda: delayed threshold", STEP_BACK, "sums.theta = sub(sums.theta, mul(r, d));", ""),
    Mutation("cuda: a last word's steps", BITS, "word.at[w] >>= 2 * missing;", "word.at[w] >>= 0 * missing;"),
    Mutation("cuda: a first word's steps", BITS, "word.at[w] <<= 2 * (kStepsOfWord - in_word);", ""),
    Mutation("cuda: inside is fired", BITS, "word.at[w] & kInsideAtTop ?", "word.at[w] & kFiredAtTop ?"),
    Mutation("cuda: a copy too early", LONG_FORWARD, "__pipeline_wait_prior(kStages - 2);", "__pipeline_wait_prior(kStages - 1);"),
    Mutation("cuda: no barrier of a warp", LONG_FORWARD, "__syncwarp();", ""),
    Mutation("cuda: rest of a stage", LONG_FORWARD, "j < steps - whole * kStage", "j + 1 < steps - whole * kStage"),
    Mutation("cuda: last checkpoint", LONG_FORWARD, "keep_states(whole);", ""),
    Mutation("cuda: rounds share a buffer", LONG_BACKWARD, "(round % 2 * producers + producer)", "(producer)"),
    Mutation("cuda: no barrier of a block", LONG_BACKWARD, "    __syncthreads();\n", ""),
    Mutation("cuda: later than the first spike", ANY, "later = first_spike_earlier(grad_first, later, was.s);", ""),
    Mutation("cuda: trace gradient lost", ANY, "a = add(a, lif::widen(g_trace[t * args.grad_trace.time_stride]));", "a = add(a, lif::widen(T{}));"),
]  # fmt: skip


def build_cpu(folder: Path) -> None:
    """The CPU operator library of a copy, next to its Python files."""
    compiler = cxx()
    assert compiler is not None, "no C++ compiler"
    include = Path(torch.__path__[0]) / "include"
    x86 = platform.machine() in ("x86_64", "AMD64")
    levels = ("baseline", "avx2", "avx512") if x86 else ("baseline",)
    sources = [f"cpu/{way}_{level}" for way in ("backward", "forward") for level in levels]
    sources += ["bindings/schema", "bindings/ops_cpu"]
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
        if not mutation.name.startswith("cuda:"):
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
        # Nothing is set up where nothing compiles: that is no catch.
        assert not failed or failed[0].startswith("FAILED"), f"{mutation.name} does not compile"
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
