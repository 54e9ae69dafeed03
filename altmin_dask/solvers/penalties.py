"""The penalties there are, by the name that settings give them; a new one is one more class and one more entry.

* L2, Σ μ_i ‖r_i‖²: is the quadratic itself.
* L1, Σ μ_i ‖r_i‖₁: e_i is s_i soft-thresholded by κ_i = μ_i / 2ρ_i, and u_i is s_i clipped to ±κ_i (Boyd et al. 2011,
  section 4.4.3).
* Augmented Lagrangian: e_i ≡ 0, so u_i = s_i are the multipliers of r_i = 0 divided by 2ρ_i (ibid., section 2.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from altmin_dask.networks.network import Network
from altmin_dask.solvers.penalty import Penalty, SplitPenalty, sum_of_products
from altmin_dask.types import Array

MU_L1 = 0.1
"""Between what is exact and what lets outliers go (rows 53 and 55 of benchmarks/LOG.md)."""


class L2(Penalty):
    """Σ μ_i ‖r_i‖², with ρ_i = μ_i; nothing is kept of samples but z."""

    schedules = ("kfac", "windows", "incremental", "batch")
    sweeps = 10.0

    @classmethod
    def default_mu(cls, network: Network) -> float | tuple[float, ...]:
        """By layer."""
        return network.default_mu

    def value(self, layer: int, residual: Array, dual: Array) -> float:
        """μ_i ‖r_i‖²."""
        return self.rho[layer] * sum_of_products(residual, residual)


class L1(SplitPenalty):
    """Σ μ_i ‖r_i‖₁: many residuals become exactly zero, and from a finite μ on all of them."""

    augmented = True
    sparse = True

    @classmethod
    def default_mu(cls, network: Network) -> float:
        """Of all layers."""
        return MU_L1

    def dual(self, layer: int, s: Array, out: Array) -> Array:
        """s_i clipped to ±μ_i / 2ρ_i."""
        kappa = s.dtype.type(self.mu[layer] / (2 * self.rho[layer]))
        return np.clip(s, -kappa, kappa, out=out)

    def value(self, layer: int, residual: Array, dual: Array) -> float:
        """μ_i ‖r_i‖₁."""
        return self.mu[layer] * float(np.abs(residual).sum(dtype=np.float64))


class AugmentedLagrangian(SplitPenalty):
    """r_i = 0, by multipliers; μ is what ρ is at first."""

    mu_moves = False
    exact = True

    @classmethod
    def default_mu(cls, network: Network) -> float:
        """ρ of all layers, at first."""
        return cls.default_rho(network)

    def dual(self, layer: int, s: Array, out: Array) -> Array:
        """All of s_i."""
        out[...] = s
        return out

    def auxiliary(self, s: Array, u: Array, out: Array) -> None:
        """Nought."""

    def offset(self, layer: int, s: Array, out: Array) -> Array:
        """u_i, as e_i is nought."""
        return self.dual(layer, s, out)

    def value(self, layer: int, residual: Array, dual: Array) -> float:
        """ρ_i (‖r_i + u_i‖² − ‖u_i‖²): the constraint's part of the augmented Lagrangian."""
        return self.rho[layer] * (sum_of_products(residual, residual) + 2 * sum_of_products(residual, dual))


PENALTIES: Mapping[str, type[Penalty]] = MappingProxyType(
    {"l2": L2, "l1": L1, "multipliers": AugmentedLagrangian}
)
