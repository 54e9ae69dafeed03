"""Every kind of layer, by the name that settings and files of models give it; a new one is one more entry."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from altmin_dask.errors import ConfigError
from altmin_dask.networks.activations import get_activation
from altmin_dask.networks.layers.dense import Dense
from altmin_dask.networks.layers.layer import Block, Layer
from altmin_dask.networks.layers.recurrent import Recurrent

__all__ = ["LAYERS", "Block", "Dense", "Layer", "Recurrent", "build_layer", "get_layer"]

LAYERS: Mapping[str, type[Layer]] = MappingProxyType({layer.kind: layer for layer in (Dense, Recurrent)})


def get_layer(kind: str) -> type[Layer]:
    """Look a kind of layer up by name.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    try:
        return LAYERS[kind]
    except KeyError:
        raise ConfigError(f"layer '{kind}' is unknown; choose one of {', '.join(LAYERS)}") from None


def build_layer(description: Mapping[str, Any]) -> Layer:
    """Make a layer of what `Layer.describe` gave.

    Raises
    ------
    ConfigError
        If the settings fit no layer.
    KeyError, TypeError
        If they are no settings of a layer at all.
    """
    settings = dict(description)
    kind, activation = get_layer(settings.pop("kind")), get_activation(settings.pop("activation"))
    return kind(**{name: _frozen(value) for name, value in settings.items()}, activation=activation)


def _frozen(value: Any) -> Any:
    """A list of JSON as the tuple it was."""
    return tuple(map(_frozen, value)) if type(value) is list else value
