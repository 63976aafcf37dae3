"""Each SIMD level of the CPU kernels against the reference; LIF_CUDA_SIMD chooses it, once a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from _processor import LEVELS, skip_unless_runs

# Lengths beyond a vector, a task of neurons and a chunk of steps; nothing a multiple of anything.
COMPARISON = """
import torch
from lif_cuda import functional, reference
from lif_cuda._build_facts import facts

for dtype in (torch.float32, torch.float64):
    for steps, batch, size in ((1, 1, 1), (3, 5, 13), (25, 3, 1031), (101, 1, 37)):
        torch.manual_seed(steps)
        x = torch.randn(steps, batch, size, dtype=dtype) * 0.8 + 0.3
        beta = torch.rand(size, dtype=dtype)
        threshold = 0.5 + torch.rand(size, dtype=dtype)
        membrane = torch.randn(batch, size, dtype=dtype)
        grads = torch.randn_like(x), torch.randn_like(membrane)
        results = []
        for lif in (functional.lif, reference.lif):
            inputs = [t.clone().requires_grad_() for t in (x, membrane, beta, threshold)]
            outputs = lif(inputs[0], inputs[2], inputs[3], inputs[1])
            results.append((outputs, torch.autograd.grad(outputs, inputs, grads)))
        (fused, fused_grads), (eager, eager_grads) = results
        for a, b in zip((*fused, *fused_grads[:2]), (*eager, *eager_grads[:2]), strict=True):
            assert torch.equal(a, b), (dtype, steps, size)
        for a, b in zip(fused_grads[2:], eager_grads[2:], strict=True):
            bound = 1000 * torch.finfo(dtype).eps * b.abs().max().item()
            torch.testing.assert_close(a, b, rtol=0, atol=bound)
print(facts()["simd"])
"""


# Recurrent layers have the same bits at every level, all gradients included: so has what is printed.
RECURRENT = """
import hashlib, torch
from test_recurrent import draw, gradients_by, call
from lif_cuda import functional
from lif_cuda._build_facts import facts

digest = hashlib.sha256()
for dtype in (torch.float32, torch.float64, torch.bfloat16):
    for size in ((3, 2, 5), (9, 5, 70), (6, 17, 150), (2, 3, 300)):
        tensors = draw(*size, dtype)
        found = gradients_by(functional.recurrent_lif, tensors)
        outputs, state = call(functional.recurrent_lif, tensors)
        for tensor in (*outputs, *state, *(found[name] for name in sorted(tensors))):
            digest.update(tensor.double().numpy().tobytes())
print(facts()["simd"], digest.hexdigest())
"""


def python(code: str, tmp_path: Path, level: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a process of its own at a SIMD level."""
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        # With the imports of this process, wherever they come from.
        env=os.environ | {"LIF_CUDA_SIMD": level, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_level_agrees_with_reference(level: str, tmp_path: Path) -> None:
    skip_unless_runs(level)
    done = python(COMPARISON, tmp_path, level)
    assert (done.returncode, done.stdout) == (0, f"{level}\n"), done.stderr


@pytest.mark.slow
def test_recurrent_layers_have_the_same_bits(tmp_path: Path) -> None:
    found = set()
    for level in LEVELS:
        skip_unless_runs(level)
        done = python(RECURRENT, tmp_path, level)
        assert done.returncode == 0, done.stderr
        name, digest = done.stdout.split()
        assert name == level
        found.add(digest)
    assert len(found) == 1


@pytest.mark.parametrize("level", ["avx1024", "AVX2"])
def test_unknown_level_is_an_error(level: str, tmp_path: Path) -> None:
    """Not ignored: whoever sets it measures something, and should measure what they named."""
    done = python("import lif_cuda", tmp_path, level)
    assert done.returncode != 0
    assert "ImportError" in done.stderr and "LIF_CUDA_SIMD" in done.stderr
    assert "baseline, avx2, avx512" in done.stderr and repr(level) in done.stderr
