"""The folders of csrc include what their READMEs allow, and no more: arrows run one way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[1] / "csrc"
STABLE = ("torch/csrc/stable/", "torch/headeronly/", "torch/csrc/inductor/aoti_torch/c/")
# What a file of each room may include: beginnings of paths, ours and foreign ones with a folder.
ALLOWED = {
    "neuron": ("neuron/", "cuda_fp16.h", "cuda_bf16.h"),
    "cpu": ("cpu/", "neuron/"),
    "cuda": ("cuda/", "neuron/"),
    "ops": ("ops/", "neuron/", "cpu/", "cuda/launch", "sys/mman.h", *STABLE),
    "autograd": (
        "autograd/",
        "ops/interface.h",
        "ops/direct.h",
        "ops/strides.h",
        "ATen/",
        "torch/",
        "pybind11/",
    ),
    "build_info": ("cpu/simd.h", "Python.h"),
}
INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]', re.MULTILINE)
# Without a folder: of C++, of C, of the compiler, and of CUDA.
PLAIN = re.compile(r"[a-z_0-9]+|(math|stdint|string|stddef|stdlib|dlfcn|immintrin)\.h")
CUDA = re.compile(r"cuda[a-z_0-9]*\.h")


def refused(room: str, text: str) -> list[str]:
    """What a file of this room includes and must not."""
    return [
        path
        for path in INCLUDE.findall(text)
        if not path.startswith(ALLOWED[room])
        and not PLAIN.fullmatch(path)
        and not (room == "cuda" and CUDA.fullmatch(path))
    ]


def test_rooms_are_these() -> None:
    assert {path.name for path in CSRC.iterdir()} == set(ALLOWED)


@pytest.mark.parametrize("room", ALLOWED)
def test_includes(room: str) -> None:
    files = [
        path for path in (CSRC / room).rglob("*") if path.suffix in (".h", ".inl", ".cpp", ".cu", ".cuh")
    ]
    assert files
    found = {str(path.relative_to(CSRC)): refused(room, path.read_text()) for path in files}
    assert not {name: paths for name, paths in found.items() if paths}


@pytest.mark.parametrize("room", ALLOWED)
def test_readme_has_three_lines(room: str) -> None:
    lines = (CSRC / room / "README.md").read_text().splitlines()
    assert lines[0].startswith("# ") and lines[1] == ""
    assert len(lines) == 5
    assert lines[3].startswith("May include: ")


@pytest.mark.parametrize(
    ("room", "path"),
    [
        ("neuron", "cpu/simd.h"),
        ("neuron", "cuda_runtime.h"),
        ("cpu", "torch/csrc/stable/tensor.h"),
        ("cuda", "ops/tensors.h"),
        ("ops", "ATen/core/Tensor.h"),
        ("ops", "autograd/operation.h"),
        ("autograd", "cpu/kernels.h"),
        ("build_info", "ops/interface.h"),
    ],
)
def test_a_wrong_arrow_is_seen(room: str, path: str) -> None:
    assert refused(room, f'#include "{path}"\n#include <vector>\n') == [path]
