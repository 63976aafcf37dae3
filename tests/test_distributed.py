"""Training over two gloo processes gives what one process gives: DDP, FSDP2 and DTensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from _torchrun import torchrun

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch has no distributed package"
)

Found = dict[str, Any]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, Found]:
    """What the functions of _distributed_worker.py return in one process, and in two."""

    def run(processes: int) -> Found:
        out = tmp_path_factory.mktemp("distributed") / "found.pt"
        done = torchrun(processes, Path(__file__).with_name("_distributed_worker.py"), str(out))
        assert done.returncode == 0, done.stdout[-6000:]
        results: Found = torch.load(out)
        return results

    return run(1), run(2)


@pytest.mark.parametrize("kind", ["ddp", "ddp_recurrent", "fsdp2", "tensor_parallel"])
def test_two_processes_give_the_gradients_of_one(kind: str, found: tuple[Found, Found]) -> None:
    one, two = (results[kind] for results in found)
    assert any(grad.abs().sum() > 0 for grad in one.values())
    for name, grad in one.items():
        torch.testing.assert_close(two[name], grad, rtol=1e-4, atol=1e-6)


def test_distributed_tensors(found: tuple[Found, Found]) -> None:
    one, two = (results["dtensor"] for results in found)
    assert len(one) == 12
    for name, tensors in one.items():
        for at, (mine, other) in enumerate(zip(tensors, two[name], strict=True)):
            if at < 6:
                assert torch.equal(mine, other), name
            else:  # the gradient of the decay is a sum
                torch.testing.assert_close(other, mine, rtol=1e-5, atol=1e-6)


def test_padded_batches(found: tuple[Found, Found]) -> None:
    one, two = (results["padded"] for results in found)
    assert len(one) == 6
    for name, tensors in one.items():
        assert not tensors[0][3:, 2].any(), "a sample fires after its length"
        for mine, other in zip(tensors, two[name], strict=True):
            assert torch.equal(mine, other), name


def test_each_process_keeps_its_own_state(found: tuple[Found, Found]) -> None:
    for results in found:
        assert set(results["streaming"]) == {"plain", "current"}
        for name, apart in results["streaming"].items():
            assert apart == 0, name


def test_what_a_distributed_tensor_cannot_be(found: tuple[Found, Found]) -> None:
    for message, expected in zip(
        found[1]["errors"],
        [
            "ValueError: x must not be sharded over its time axis 0",
            "ValueError: x must be sharded or replicated, got a DTensor with partial sums",
            "ValueError: beta must be sharded or replicated",
            "TypeError: membrane must be a DTensor like x, got Tensor",
        ],
        strict=True,
    ):
        assert message.startswith(expected), message
