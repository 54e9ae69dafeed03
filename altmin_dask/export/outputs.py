"""What networks need in other programs: φ_L, that of an activation or softmax, and a word where digits are too few."""

from __future__ import annotations

from typing import Any

import numpy as np

from altmin_dask.data.conversion import blurred
from altmin_dask.errors import warn
from altmin_dask.networks.activations import ACTIVATIONS
from altmin_dask.networks.network import Network
from altmin_dask.storage.model import Model


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


def warn_of_float32(model: Model, made: str) -> None:
    """Tell where what was standardized lies closer together, for its size, than float32 tells apart.

    Parameters
    ----------
    model : Model
        Which is exported.
    made : str
        What is made of float32.
    """
    how = model.preparation
    for name, scaling in (("x", None if how is None else how.x), ("output", model.output_scaling)):
        if scaling is None:
            continue
        shift, scale = np.array(scaling.shift), np.array(scaling.scale)
        if what := blurred(shift - scale, shift + scale, name):
            warn(f"{what}, of which {made} is made")
