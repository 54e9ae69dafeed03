"""A trained network as PyTorch modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from altmin_dask.errors import MissingError
from altmin_dask.networks.activations import LEAKY_SLOPE
from altmin_dask.storage.model import Model


def sequential(model: Model) -> Any:
    """A `torch.nn.Sequential` of linear layers and activations; samples (rows, features) to outputs (rows, d_L).

    Raises
    ------
    MissingError
        If PyTorch is not installed.
    """
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
    network, layers = model.network, []
    names = [*(activation.name for activation in network.activations), network.loss.output_activation]
    for weights, name in zip(model.weights, names, strict=True):
        values = torch.tensor(weights)
        linear = nn.Linear(values.shape[1] - 1, values.shape[0], dtype=values.dtype)
        with torch.no_grad():
            linear.weight.copy_(values[:, :-1])
            linear.bias.copy_(values[:, -1])
        layers += [linear, modules[name]()]
    return nn.Sequential(*layers)
