"""Long comparisons of the fused neuron with the reference, beyond what fits into a run of the suite.

    python -P tools/long_run.py numbers --neuron-steps 1e10
    python -P tools/long_run.py fuzz --cases 20000

``numbers`` draws whole calls of the family as tests/family.py does, at sizes of 2^16 to 2^20 neuron-steps, so
that the eager reference stays in the cache. Outputs and final states of each are compared bit for bit; with
``--backward-share`` of the calls, so are the gradients of the input and of the initial states. (Those of
parameters are sums in another order, whose bound tests/test_numpy.py holds.) ``--double-share`` of the calls
are in float64, the others in float32. A call follows from its seed alone: the first that differs ends the run
with status 1 and the command that runs it again.

``fuzz`` runs the tests of tests/test_fuzz.py that hypothesis draws, each with so many cases; 300 are those of
the suite, any other number draws its own.

Both log to bench/results (``--json`` names another file): command, commit, machine, versions, counts, time.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import hypothesis
import torch
from _compile import ROOT
from compare import assert_identical
from family import Case, SeededPick, assert_same, draw_case, flat, run
from torch import Tensor
from tqdm import tqdm

from common import commit, machine
from common.files import write_json
from lif_cuda import NeuronState, _build_facts, functional, reference

# Exponents of 2. With fewer neurons a step of the reference costs its two dozen launches, and no arithmetic.
SIZE = (16.0, 20.0)
NEURONS = (13.0, 16.0)
BATCHES = (1, 1, 2, 3, 16, 31)
FUZZED = ("test_drawn_calls_equal_the_reference", "test_drawn_gradients_equal_the_reference")


@dataclass
class Tally:
    """What was compared, of one type and in one direction."""

    calls: int = 0
    neuron_steps: int = 0
    spikes: int = 0


def draw(seed: int, double_share: float) -> Case:
    """A call of the family, as large as a chunk; the spikes are among its outputs."""
    sizes = random.Random(f"size {seed}")
    size = 2 ** sizes.uniform(*SIZE)
    neurons = 2 ** sizes.uniform(*NEURONS)
    batch = sizes.choice(BATCHES)
    features = (batch, math.ceil(neurons / batch)) if batch > 1 else (math.ceil(neurons),)
    dtype = torch.float64 if sizes.random() < double_share else torch.float32
    case = draw_case(SeededPick(seed), seed, [dtype], [math.ceil(size / math.prod(features))], [features])
    case.outputs = ("spikes", *(name for name in case.outputs if name != "spikes"))
    case.options["output"] = case.outputs
    return case


def forward(function: Callable[..., Any], case: Case) -> dict[str, Tensor]:
    """Outputs and final states by name, without autograd."""
    membrane: Any = None
    if case.states:
        membrane = NeuronState(**case.states) if len(case.state_names) > 1 else case.states["membrane"]
    with torch.no_grad():
        result = function(
            case.view(case.x), **case.parameters, membrane=membrane, **case.options, **case.lengths_option
        )
    return dict(zip([*case.outputs, *case.state_names], flat(result), strict=True))


def bits(tensor: Tensor) -> Tensor:
    """The bits of a tensor as integers, which are never NaN, and of which no two zeros are equal."""
    return tensor.view(torch.int64 if tensor.element_size() == 8 else torch.int32)


def compare(case: Case, backward: bool) -> Tensor:
    """The spikes of the fused call; AssertionError says what differs from the reference."""
    if backward:
        expected = run(reference.lif, case)
        actual = run(functional.lif, case)
        assert_same(actual, replace(expected, parameter_gradients={}), case.x.dtype)
        return actual.results["spikes"]
    wanted, results = forward(reference.lif, case), forward(functional.lif, case)
    for name, tensor in wanted.items():
        if not torch.equal(bits(results[name]), bits(tensor)):
            assert_identical(results[name], tensor, name)
            raise AssertionError(f"{name}: equal numbers of different bits: the signs of zeros, or NaN")
    return results["spikes"]


def facts() -> dict[str, Any]:
    """Where the numbers of a log come from."""
    return {
        "command": machine.command(),
        "commit": commit.commit(),
        "machine": machine.machine(torch.device("cpu")) | {"simd_of_kernels": _build_facts.facts()["simd"]},
        "versions": machine.versions() | {"hypothesis": hypothesis.__version__},
    }


def numbers(arguments: argparse.Namespace) -> int:
    """Calls from seeds, until so many neuron-steps are compared."""
    tallies: dict[str, Tally] = {}
    wanted = int(arguments.neuron_steps)
    done, seed, difference = 0, arguments.first_seed, None
    torch.set_num_threads(arguments.threads)
    log = facts()
    start = time.perf_counter()
    with tqdm(total=wanted, unit="neuron-step", unit_scale=True, disable=arguments.quiet) as progress:
        while done < wanted:
            backward = random.Random(f"backward {seed}").random() < arguments.backward_share
            case = draw(seed, arguments.double_share)
            try:
                spikes = compare(case, backward)
            except AssertionError as error:
                difference = {"seed": seed, "call": str(case), "message": str(error)}
                break
            kind = f"{case.x.dtype}, {'with backward' if backward else 'forward'}"
            tally = tallies.setdefault(kind.removeprefix("torch."), Tally())
            tally.calls += 1
            tally.neuron_steps += spikes.numel()
            tally.spikes += int(spikes.count_nonzero())
            done += spikes.numel()
            seed += 1
            progress.update(spikes.numel())
    log |= {
        "seconds": round(time.perf_counter() - start, 1),
        "seeds": [arguments.first_seed, seed],
        "neuron_steps": done,
        "spikes": sum(tally.spikes for tally in tallies.values()),
        "differences": int(difference is not None),
        "first_difference": difference,
        "of": {kind: asdict(tally) for kind, tally in sorted(tallies.items())},
    }
    write_json(arguments.json, log)
    if difference is not None:
        print(f"seed {seed} differs: {difference['message']}\n{difference['call']}", file=sys.stderr)
        print(
            f"again: python -P tools/long_run.py numbers --neuron-steps 1 --first-seed {seed} "
            f"--backward-share {arguments.backward_share} --double-share {arguments.double_share}",
            file=sys.stderr,
        )
        return 1
    print(f"{done:,} neuron-steps with {log['spikes']:,} spikes in {log['seconds']} s: no difference")
    return 0


def fuzz(arguments: argparse.Namespace) -> int:
    """The tests that hypothesis draws, each with so many cases, outside pytest and under one progress bar."""
    # Read when the tests are defined.
    os.environ["LIF_CUDA_FUZZ"] = str(arguments.cases)
    tests: Any = importlib.import_module("test_fuzz")
    drawn = dict.fromkeys(FUZZED, 0)
    failure = None
    log = facts()
    start = time.perf_counter()
    with tqdm(total=len(FUZZED) * arguments.cases, unit="case", disable=arguments.quiet) as progress:
        draw_it = tests.draw_case
        for name in FUZZED:

            def counted(*args: Any, name: str = name, **options: Any) -> Case:
                case: Case = draw_it(*args, **options)
                drawn[name] += 1
                progress.update()
                return case

            tests.draw_case = counted
            try:
                getattr(tests, name)()
            except Exception:
                failure = traceback.format_exc()
                break
    log |= {
        "seconds": round(time.perf_counter() - start, 1),
        "cases": drawn,
        "result": "passed" if failure is None else "failed",
        "failure": failure,
    }
    write_json(arguments.json, log)
    if failure is not None:
        print(failure, file=sys.stderr)
        return 1
    print(f"{sum(drawn.values()):,} cases in {log['seconds']} s: no difference")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", type=Path, help="where the log goes")
    common.add_argument("--quiet", action="store_true", help="no progress bar")
    commands = parser.add_subparsers(required=True, dest="what")
    long = commands.add_parser("numbers", parents=[common], help="large calls from seeds")
    long.add_argument("--neuron-steps", type=float, default=1e10, help="compared at least (%(default)g)")
    long.add_argument("--first-seed", type=int, default=0, help="%(default)s")
    long.add_argument("--backward-share", type=float, default=0.02, help="of the calls (%(default)s)")
    long.add_argument("--double-share", type=float, default=0.2, help="of the calls (%(default)s)")
    # A step of the reference is too short for two: they would wait for each other more than they compute.
    long.add_argument("--threads", type=int, default=1, help="of torch (%(default)s)")
    long.set_defaults(run=numbers)
    drawn = commands.add_parser("fuzz", parents=[common], help="the drawn cases of tests/test_fuzz.py")
    drawn.add_argument("--cases", type=int, default=20000, help="of each test (%(default)s)")
    drawn.set_defaults(run=fuzz)
    arguments = parser.parse_args(argv)
    if arguments.json is None:
        arguments.json = ROOT / "bench" / "results" / f"long_run_{arguments.what}.json"
    status: int = arguments.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
