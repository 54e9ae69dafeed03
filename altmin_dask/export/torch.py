"""A trained network as PyTorch modules, and its weights under the names these have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from altmin_dask.errors import MissingError
from altmin_dask.export.layers import Layer, layers_of
from altmin_dask.networks.activations import LEAKY_SLOPE, Array
from altmin_dask.storage.model import Model


def sequential(model: Model) -> Any:
    """A `torch.nn.Sequential` of linear layers and activations; samples (rows, features) to outputs (rows, d_L).

    Raises
    ------
    MissingError
        If PyTorch is not installed.
    ConfigError
        If the network is recurrent.
    """
    layers = layers_of(model)
    try:
        import torch
        from torch import nn
    except ImportError:
        raise MissingError("PyTorch is not installed; `pip install torch`") from None
    modules: dict[str, Callable[[], Any]] = {
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "relu": nn.ReLU,
        "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE),
        "softplus": nn.Softplus,
        "softmax": lambda: nn.Softmax(dim=1),
        "identity": nn.Identity,
    }

    def linear(layer: Layer) -> Any:
        module = nn.Linear(layer.weight.shape[1], layer.weight.shape[0], dtype=torch.tensor(layer.bias).dtype)
        with torch.no_grad():
            module.weight.copy_(torch.tensor(layer.weight))
            module.bias.copy_(torch.tensor(layer.bias))
        return module

    return nn.Sequential(
        *(module for layer in layers for module in (linear(layer), modules[layer.activation]()))
    )


def state_dict(model: Model) -> dict[str, Array]:
    """The weights by the names that the modules of `sequential` give them (``0.weight``, ``0.bias``, ``2.weight`` …).

    Raises
    ------
    ConfigError
        If the network is recurrent.
    """
    found: dict[str, Array] = {}
    for number, layer in enumerate(layers_of(model)):
        found[f"{2 * number}.weight"] = np.ascontiguousarray(layer.weight)
        found[f"{2 * number}.bias"] = np.ascontiguousarray(layer.bias)
    return found
