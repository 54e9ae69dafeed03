"""Every kind of network, by the name that settings give it; a new one is one more entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from altmin_dask.networks.chain import Chain
from altmin_dask.networks.nested import Pass
from altmin_dask.networks.nested_sequences import SequencePass
from altmin_dask.networks.recurrent import Recurrent
from altmin_dask.networks.workspace import Workspace
from altmin_dask.types import Batch, Weights

Network = Chain | Recurrent

NETWORKS: Mapping[str, Callable[..., Network]] = MappingProxyType(
    {"chain": Chain.build, "recurrent": Recurrent.build}
)


def describe_network(network: Network) -> dict[str, Any]:
    """A network as JSON-ready settings, for `build_network`."""
    kind = "recurrent" if isinstance(network, Recurrent) else "chain"
    return {"network": kind, **network.describe()}


def build_network(settings: Mapping[str, Any]) -> Network:
    """Make a network of what `describe_network` gave.

    Raises
    ------
    ConfigError
        If the settings fit no network.
    KeyError, TypeError
        If they are no settings of a network at all.
    """
    others = dict(settings)
    return NETWORKS[others.pop("network", "chain")](**others)


def nested_pass(
    network: Network, weights: Weights, batch: Batch, work: Workspace | None = None
) -> Pass | SequencePass:
    """A forward pass of a block of samples, with the derivatives of its loss."""
    if isinstance(network, Recurrent):
        return SequencePass.forward(network, weights, batch, work)
    return Pass.forward(network, weights, batch, work)
