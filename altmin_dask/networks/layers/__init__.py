"""Every kind of layer, by the name that settings and files of models give it; a new one is one more entry."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from altmin_dask.errors import ConfigError, did_you_mean
from altmin_dask.networks.activations import get_activation
from altmin_dask.networks.layers.convolution import ConvolutionSettings
from altmin_dask.networks.layers.dense import Dense, DenseSettings
from altmin_dask.networks.layers.layer import Block, Layer
from altmin_dask.networks.layers.recurrent import Recurrent, RecurrentSettings
from altmin_dask.networks.layers.settings import LayerSettings

__all__ = [
    "LAYERS",
    "Block",
    "Dense",
    "DenseSettings",
    "Layer",
    "LayerSettings",
    "Recurrent",
    "RecurrentSettings",
    "build_layer",
    "get_layer",
    "read_settings",
]

LAYERS: Mapping[str, type[LayerSettings]] = MappingProxyType(
    {settings.layer.kind: settings for settings in (DenseSettings, RecurrentSettings, ConvolutionSettings)}
)


def get_layer(kind: Any) -> type[LayerSettings]:
    """Look the settings of a kind of layer up by its name; their `layer` is the kind itself.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if not isinstance(kind, str) or kind not in LAYERS:
        raise ConfigError(
            f"layer {kind!r} is unknown; choose one of {', '.join(LAYERS)}{did_you_mean(kind, LAYERS)}"
        )
    return LAYERS[kind]


def read_settings(settings: Any) -> LayerSettings:
    """Make settings of a table with a `kind`, as files have it; settings that are made are taken as they are.

    Raises
    ------
    ConfigError
        If it is no table, its kind is missing or unknown, or `LayerSettings.read` refuses it.

    Examples
    --------
    >>> read_settings({"kind": "convolution", "channels": 8}).describe()["kernel_size"]
    (3, 3)
    """
    if isinstance(settings, LayerSettings):
        return settings
    if not isinstance(settings, Mapping) or "kind" not in settings:
        raise ConfigError('a layer is a table with a kind, such as {kind = "dense", units = 64}')
    others = dict(settings)
    return get_layer(others.pop("kind")).read(others)


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
    kind, activation = get_layer(settings.pop("kind")).layer, get_activation(settings.pop("activation"))
    return kind(**{name: _frozen(value) for name, value in settings.items()}, activation=activation)


def _frozen(value: Any) -> Any:
    """A list of JSON as the tuple it was."""
    return tuple(map(_frozen, value)) if type(value) is list else value
