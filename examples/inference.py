"""A network for inference: compiled, exported, and packaged for C++ without Python.

    python -P examples/inference.py --out FOLDER

writes network.pt2, a program of torch.export that any process with lif_cuda and torch can load, and
network.aoti.pt2, machine code by AOTInductor. It needs a C++ compiler. tests/aoti/main.cpp is a
program in C++ that runs such a package without Python.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, export, load, save

from lif_cuda import LIF


def main(arguments: Sequence[str] | None = None) -> dict[str, bool]:
    """Compile, export, package, and compare each with the network itself."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="a folder for the files; one that goes away if not given")
    parser.add_argument("--no-package", action="store_true", help="leave AOTInductor out")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = asked.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        same = run(folder, packaged=not asked.no_package)
    for name, equal in same.items():
        print(f"{name:>20}: {'the same logits' if equal else 'OTHER LOGITS'}")
    return same


def run(folder: Path, packaged: bool) -> dict[str, bool]:
    """Whether each way of running the network gives its logits."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(64, 128),
        LIF(128, learn_beta=True, return_state=False),
        nn.Linear(128, 128),
        LIF(128, learn_beta=True, return_state=False, output="count"),
        nn.Linear(128, 10),
    ).eval()
    x = torch.randn(25, 8, 64)  # [T, batch, features]
    longer = torch.randn(100, 3, 64)
    same: dict[str, bool] = {}
    with torch.no_grad():
        expected, expected_longer = network(x), network(longer)

        compiled = torch.compile(network, fullgraph=True)
        same["torch.compile"] = torch.allclose(compiled(x), expected, atol=1e-5)

        # One program for any number of time steps and any batch.
        sizes = ({0: Dim("T", min=2, max=100_000), 1: Dim("batch", min=2, max=4096)},)
        save(export(network, (x,), dynamic_shapes=sizes), folder / "network.pt2")
        program = load(folder / "network.pt2").module()
        same["torch.export"] = torch.allclose(program(x), expected, atol=1e-5)
        same["another T and batch"] = torch.allclose(program(longer), expected_longer, atol=1e-5)

        if packaged:
            # A series whose T is that of the example, and any batch.
            fixed = export(network, (x,), dynamic_shapes=({1: sizes[0][1]},))
            path = str(folder / "network.aoti.pt2")
            torch._inductor.aoti_compile_and_package(fixed, package_path=path)
            model = torch._inductor.aoti_load_package(path)
            same["AOTInductor"] = torch.allclose(model(x), expected, atol=1e-5)
    return same


if __name__ == "__main__":
    main()
