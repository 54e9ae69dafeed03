"""Damping and decay of K-FAC steps unless they are given: by the unknowns for each target number."""

from __future__ import annotations

import math

from altmin_dask.networks.network import Network

LEAST_DAMPING = 1 / 6
"""Share of the loss's σ that is always there (row 88)."""


def default_input_damping(network: Network, rows: int) -> float:
    """A share of the unknowns per target number of a group of `rows` samples, by the layers or the loss."""
    given = network.defaults.proximal_share
    share = network.loss.proximal_share if given is None else given
    return share * unknowns_per_number(network, rows)


def default_weight_decay(network: Network, samples: float) -> float:
    """δ: it grows with the root of the unknowns per target number of all `samples`."""
    given, loss = network.defaults.decay_share, network.loss
    share = loss.decay_share if given is None else given
    return min(share * math.sqrt(unknowns_per_number(network, samples)), loss.most_decay)


def default_output_damping(network: Network, rows: int) -> float:
    """σ, by the layers, or by the loss and the unknowns per target number of a group of `rows` samples."""
    given, loss = network.defaults.output_damping, network.loss
    if given is not None:
        return given
    share = loss.damped_unknowns / unknowns_per_number(network, rows)
    return loss.output_damping * min(1.0, max(LEAST_DAMPING, share))


def unknowns_per_number(network: Network, samples: float) -> float:
    """How many weights there are for each target number of so many samples."""
    return sum(d * k for d, k in network.shapes) / (samples * network.widths[-1])
