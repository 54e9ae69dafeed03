"""A trained chain as other programs see it: weight, bias and activation of one layer after the other."""

from __future__ import annotations

from dataclasses import dataclass

from altmin_dask.errors import ConfigError
from altmin_dask.networks.recurrent import Recurrent
from altmin_dask.storage.model import Model
from altmin_dask.types import Array


@dataclass(frozen=True)
class Layer:
    """φ(W a + b).

    Attributes
    ----------
    weight, bias : ndarray, (outputs, inputs) and (outputs,)
        W and b.
    activation : str
        φ: an activation of this package, or "softmax".
    """

    weight: Array
    bias: Array
    activation: str


def layers_of(model: Model) -> list[Layer]:
    """All layers, the first one first.

    Raises
    ------
    ConfigError
        If the network is recurrent.
    """
    network = model.network
    if isinstance(network, Recurrent):
        raise ConfigError(
            "recurrent networks cannot be exported; their weights are in the run folder's model"
        )
    names = [*(activation.name for activation in network.activations), network.loss.output_activation]
    return [Layer(w[:, :-1], w[:, -1], name) for w, name in zip(model.weights, names, strict=True)]
