"""φ_L in other programs: that of an activation, or softmax."""

from __future__ import annotations

from typing import Any

from altmin_dask.networks.activations import ACTIVATIONS
from altmin_dask.networks.network import Network


def output_onnx(network: Network, graph: Any, values: str) -> str:
    """Add φ_L to a graph of `altmin_dask.export.onnx`, and name it."""
    name = network.loss.output_activation
    if name == "softmax":
        node: str = graph.node("Softmax", [values], axis=1)
        return node
    return ACTIVATIONS[name].onnx(graph, values)


def output_torch(network: Network, nn: Any) -> Any:
    """φ_L as a module of `torch.nn`."""
    name = network.loss.output_activation
    return nn.Softmax(dim=1) if name == "softmax" else ACTIVATIONS[name].torch(nn)
