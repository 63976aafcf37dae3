"""Numbers that Python and C++ both write down are the same: a program made of the headers prints C++'s.

Which names there are is read from the text of the headers, so that a new one without its partner in PARTNERS
fails; what they are worth is the compiler's answer.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from _compile import CSRC, compile_source, cxx

from lif_cuda import _ops, surrogate
from lif_cuda._parameters import LEARNABLE

INPUTS = (
    *("state", "parameter", "lengths", "table", "checkpoints", "bits", "first_spike", "peak", "grad"),
    "count",
)
PLACES = (
    *(0, _ops.FIRST_PARAMETER, _ops.LENGTHS, _ops.TABLE, _ops.CHECKPOINTS, _ops.BITS, _ops.FIRST_SPIKE),
    _ops.PEAK,
)
READOUTS = {
    "Spikes": "spikes",
    "Count": "count",
    "Rate": "rate",
    "FirstSpike": "first_spike",
    "Trace": "trace",
    "TraceBefore": "trace_before_reset",
    "TraceMax": "trace_max",
    "TraceMean": "trace_mean",
}
STATES = {"kMembrane": "membrane", "kCurrent": "current", "kAdaptation": "adaptation", "kSilence": "silence"}
PARAMETERS = {
    "kBeta": "beta",
    "kThreshold": "threshold",
    "kResetTo": "v_reset",
    "kGain": "gain",
    "kAlpha": "alpha",
    "kKappa": "kappa",
    "kRho": "rho",
    "kFloor": "v_min",
}
SHAPES = {
    "fast_sigmoid": (surrogate.FastSigmoid, surrogate.SuperSpike, surrogate.SoftSign),
    "atan": (surrogate.ATan,),
    "sigmoid": (surrogate.Sigmoid,),
    "triangle": (surrogate.Triangle,),
    "piecewise_exp": (surrogate.PiecewiseExp,),
    "gaussian": (surrogate.Gaussian,),
    "rectangle": (surrogate.Rectangle, surrogate.StraightThrough),
    "table": (surrogate.Custom,),
}
SMOOTH_STATES = sum(name in _ops.STATES for name in _ops.INCOMING)

# Header and enum -> what each enumerator is worth in Python. "" stands for the constants of the header.
PARTNERS: dict[tuple[str, str], dict[str, int]] = {
    ("ops/interface.h", "Trait"): {
        "kStrict": _ops.STRICT,
        "kDelayed": _ops.DELAYED,
        "kDetachReset": _ops.DETACH_RESET,
        "kSynapse": _ops.SYNAPSE,
        "kAdaptive": _ops.ADAPTIVE,
        "kDecayInput": _ops.DECAY_INPUT,
        "kFloored": _ops.FLOORED,
    },
    ("ops/interface.h", "Output"): {
        **{f"k{cpp}": _ops.OUTPUTS[python] for cpp, python in READOUTS.items()},
        "kTotal": _ops.OUTPUTS["total"],
        "kPeak": _ops.OUTPUTS["peak"],
        "kFinalState": _ops.OUTPUTS[_ops.STATES[0]],
        "kCheckpoints": _ops.OUTPUTS["checkpoints"],
        "kBits": _ops.OUTPUTS["bits"],
        "kPacked": _ops.OUTPUTS["packed"],
    },
    ("ops/interface.h", "Incoming"): {
        **{f"kOf{cpp}": _ops.INCOMING.index(python) for cpp, python in READOUTS.items()},
        "kOfState": _ops.INCOMING.index(_ops.STATES[0]),
        "kIncoming": len(_ops.INCOMING),
    },
    ("ops/interface.h", "Wanted"): {
        "kGradX": 1 << _ops.WANTED.index("x"),
        "kGradState": 1 << _ops.WANTED.index(_ops.STATES[0]),
        "kGradParameter": 1 << _ops.WANTED.index(_ops.PARAMETERS[0]),
    },
    ("ops/interface.h", "Slot"): dict(zip(INPUTS, (*PLACES, _ops.FIRST_GRADIENT, _ops.SLOTS), strict=True)),
    ("ops/interface.h", "Int"): {name: i for i, name in enumerate((*_ops.INTS, "count"))},
    ("ops/interface.h", "Float"): {
        "number": _ops.FLOATS.index(_ops.PARAMETERS[0]),
        **{name: _ops.FLOATS.index(name) for name in ("rest", "slope", "scale")},
        "count": len(_ops.FLOATS),
    },
    ("neuron/params.h", "ParameterName"): {
        **{cpp: _ops.PARAMETERS.index(python) for cpp, python in PARAMETERS.items()},
        "kParameters": len(_ops.PARAMETERS),
    },
    ("neuron/params.h", ""): {"kStepsOfWord": _ops.STEPS_OF_WORD, "kLearnable": len(LEARNABLE)},
    ("neuron/step.h", "Reset"): _ops.RESETS,
    ("neuron/step.h", "StateName"): {
        **{cpp: _ops.STATES.index(python) for cpp, python in STATES.items()},
        "kStates": len(_ops.STATES),
    },
    ("neuron/step.h", ""): {"kResets": len(_ops.RESETS), "kSmoothStates": SMOOTH_STATES},
    ("neuron/surrogate.h", "Shape"): {name: classes[0].code for name, classes in SHAPES.items()},
    ("neuron/surrogate.h", ""): {"kShapes": len({c.code for some in SHAPES.values() for c in some})},
    ("cpu/simd.h", "Simd"): {name: i for i, name in enumerate(_ops._SIMD_LEVELS)},
}
HEADERS = sorted({header for header, _ in PARTNERS})


def names_of(header: str) -> dict[tuple[str, str], dict[str, str]]:
    """The names of a header, as Python looks them up -> as C++ does."""
    text = re.sub(r"//[^\n]*", "", (CSRC / header).read_text(encoding="utf-8"))
    space = "lif::ops::" if "namespace lif::ops" in text else "lif::"
    found: dict[tuple[str, str], dict[str, str]] = {}
    constants = re.findall(r"^constexpr (?:int|int64_t|size_t) (\w+) =", text, re.MULTILINE)
    if constants:
        found[header, ""] = {name: f"{space}{name}" for name in constants}
    # `enum [class] Name : type { ... }`, or `struct Name { enum : type { ... }; }` for one without a name.
    enums = re.findall(r"(?:struct (\w+) \{\s*)?enum(?: class)?\s*(\w*)[^{;]*\{([^}]*)\}", text)
    assert len(enums) == len(re.findall(r"\benum\b", text)), f"an enum of {header} is not understood"
    for struct, enum, body in enums:
        names = re.findall(r"(?:^|,)\s*(\w+)", re.sub(r"=[^,]*", "", body))
        found[header, struct or enum] = {name: f"{space}{struct or enum}::{name}" for name in names}
    return found


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, int]]:
    """Each name of the headers, and what it is worth in C++."""
    names = {place: some for header in HEADERS for place, some in names_of(header).items()}
    lines = [cpp for some in names.values() for cpp in some.values()]
    folder = tmp_path_factory.mktemp("interface")
    source = folder / "print.cpp"
    source.write_text(
        "".join(f'#include "{header}"\n' for header in HEADERS)
        + "#include <cstdio>\nint main() {\n"
        + "".join(f'  std::printf("%lld\\n", static_cast<long long>({cpp}));\n' for cpp in lines)
        + "}\n",
        encoding="utf-8",
    )
    compiler = cxx()
    assert compiler is not None, "no C++ compiler; set CXX"
    program: Path = folder / "print"
    compile_source([compiler, "-std=c++20", f"-I{CSRC}", source, "-o", program])
    printed = iter(subprocess.check_output([str(program)], text=True).split())
    return {place: {name: int(next(printed)) for name in some} for place, some in names.items()}


def test_each_enum_has_a_partner(values: dict[tuple[str, str], dict[str, int]]) -> None:
    assert set(values) == set(PARTNERS), "an enum, or the constants of a header, that only one side has"


@pytest.mark.parametrize("place", PARTNERS, ids=lambda place: ":".join(place))
def test_the_same_names_are_worth_the_same(
    place: tuple[str, str], values: dict[tuple[str, str], dict[str, int]]
) -> None:
    header, enum = place
    in_cpp, in_python = values[place], PARTNERS[place]
    assert set(in_cpp) == set(in_python), f"names of {enum or 'constants'} in csrc/{header}, and in Python"
    differ = {
        name: f"{in_cpp[name]} in csrc/{header}, {value} in Python"
        for name, value in in_python.items()
        if in_cpp[name] != value
    }
    assert not differ, f"{enum}: {differ}"


def test_states_and_parameters_come_in_one_order() -> None:
    """C++ counts on from the first of them, where it names no more."""
    first = _ops.OUTPUTS[_ops.STATES[0]]
    assert [_ops.OUTPUTS[name] for name in _ops.STATES] == [first << i for i in range(len(_ops.STATES))]
    smooth = _ops.STATES[:SMOOTH_STATES]
    assert _ops.INCOMING[-SMOOTH_STATES:] == smooth
    assert ("x", *smooth, *LEARNABLE) == _ops.WANTED and _ops.PARAMETERS[: len(LEARNABLE)] == LEARNABLE
    assert _ops.FLOATS[: len(_ops.PARAMETERS)] == _ops.PARAMETERS


def test_each_surrogate_has_the_code_of_its_shape() -> None:
    classes = {
        cls
        for cls in vars(surrogate).values()
        if isinstance(cls, type) and issubclass(cls, surrogate.Surrogate) and cls is not surrogate.Surrogate
    }
    assert classes == {cls for some in SHAPES.values() for cls in some}, "a surrogate without its shape here"
    for shape, some in SHAPES.items():
        assert len({cls.code for cls in some}) == 1, f"{shape}: {[(cls.__name__, cls.code) for cls in some]}"
