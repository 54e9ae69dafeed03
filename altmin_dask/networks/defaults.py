"""What settings are unless they are given, where a network says so; each from a row of benchmarks/LOG.md."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Defaults:
    """Settings that a network begins with; those of rows that are samples, unless told otherwise.

    Attributes
    ----------
    mu, mu_elsewhere : float
        μ of the layers that ask for these defaults, and of a network's others, where z persists.
    dual_rho : float or None
        ρ that L1 and multipliers begin with; None for that of the loss.
    proximal_share : float or None
        ρ of K-FAC steps relative to a mean diagonal, for one unknown per target number; None for that of the loss.
    output_damping : float or None
        σ of K-FAC steps; None for that of the loss.
    decay_share : float or None
        δ of K-FAC steps for one unknown per target number; None for that of the loss.
    group_rows : int
        About how many samples a K-FAC step is made from.
    model_every, model_rows : int
        The model along a step is measured on every so many-th sample of a group, but on so many at least.
    """

    mu: float = 0.03  # DESIGN section 5: the smaller, the faster, until relaxed and nested loss part
    mu_elsewhere: float = 0.03
    dual_rho: float | None = None
    proximal_share: float | None = None
    output_damping: float | None = None
    decay_share: float | None = None
    group_rows: int = 2000
    model_every: int = 8
    model_rows: int = 300


DEFAULTS = Defaults()
"""Of networks no layer of which asks for others."""

SEQUENCES = Defaults(
    mu=100.0,  # row 44, as are μ elsewhere and ρ: small residuals add up over the steps
    mu_elsewhere=10.0,
    dual_rho=10.0,
    proximal_share=0.2,  # row 42, as are the groups
    decay_share=0.0,
    output_damping=0.03,  # row 41: that the steps of a sequence hang together is not in the factors
    group_rows=1000,
    model_every=8,
    model_rows=125,  # row 43
)
"""Of networks through time."""
