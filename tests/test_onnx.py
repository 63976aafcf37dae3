"""torch.onnx.export: the reference layer becomes a model of ONNX, and the fused one names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from family import flat
from torch import Tensor, nn

from lif_cuda import LIF, ReferenceLIF

onnxruntime = pytest.importorskip("onnxruntime", reason="runs the models; it is in the extra `test`")
pytest.importorskip("onnx", reason="torch.onnx.export writes models with it; it is in the extra `test`")
pytest.importorskip("onnxscript", reason="torch.onnx.export is built on it; it is in the extra `test`")
pytestmark = pytest.mark.filterwarnings("ignore")  # of either exporter about itself

T = 12
OPTIONS: dict[str, dict[str, Any]] = {
    "learned": {"learn_beta": True, "learn_threshold": True},
    "all states": {"alpha": 0.5, "kappa": 0.1, "rho": 0.5, "refractory": 2, "output": ("spikes", "count")},
    "reset to zero": {"reset": "zero", "v_reset": 0.1, "output": ("trace", "rate", "first_spike")},
}


def network(kind: type[nn.Module], options: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 5), kind(5, **options)).eval()


def with_dynamo(module: nn.Module, x: Tensor, path: Path) -> None:
    shapes = ({1: torch.export.Dim("batch")},)
    torch.onnx.export(module, (x,), path, dynamo=True, dynamic_shapes=shapes, verbose=False)


def with_torchscript(module: nn.Module, x: Tensor, path: Path) -> None:
    torch.onnx.export(module, (x,), path, dynamo=False, input_names=["x"], dynamic_axes={"x": {1: "batch"}})


EXPORTERS = pytest.mark.parametrize("export", [with_dynamo, with_torchscript])


@EXPORTERS
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_reference_layer(
    options: dict[str, Any], export: Callable[[nn.Module, Tensor, Path], None], tmp_path: Path
) -> None:
    """For any batch; T is that of the export. A fused layer's state_dict loads."""
    module = network(ReferenceLIF, options)
    module.load_state_dict(network(LIF, options).state_dict())
    path = tmp_path / "model.onnx"
    export(module, torch.randn(T, 4, 7), path)
    session = onnxruntime.InferenceSession(path)
    (argument,) = session.get_inputs()
    for batch in (4, 9):
        x = torch.randn(T, batch, 7)
        found = session.run(None, {argument.name: x.numpy()})
        with torch.no_grad():
            expected = flat(module(x))
        assert len(found) == len(expected)
        for mine, eager in zip(found, expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(mine), eager)
    with pytest.raises(Exception, match="Got invalid dimensions|[Ii]nvalid"):
        session.run(None, {argument.name: torch.randn(T + 1, 4, 7).numpy()})


@EXPORTERS
def test_the_fused_layer_names_the_reference(
    export: Callable[[nn.Module, Tensor, Path], None], tmp_path: Path
) -> None:
    with pytest.raises((NotImplementedError, torch.onnx.OnnxExporterError), match="ReferenceLIF"):
        export(network(LIF, {}), torch.randn(T, 4, 7), tmp_path / "model.onnx")
