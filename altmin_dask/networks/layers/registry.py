"""Every kind of layer, by the name that settings give it; a new one is one more entry."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from altmin_dask.networks.layers.convolution import ConvolutionSettings
from altmin_dask.networks.layers.settings import LayerSettings

LAYERS: Mapping[str, type[LayerSettings]] = MappingProxyType(
    {settings.kind: settings for settings in (ConvolutionSettings,)}
)
