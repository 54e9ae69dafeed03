"""What a penalty of residuals is: how it is held in one visit of a sample, and what it declares of itself.

Every penalty meets the z- and the W-update as the same quadratic Σ_i ρ_i ‖r_i + o_i‖², with r_i = z_i − W̃_i ã_{i−1} and
an offset o_i of every sample that these leave alone. One that is no square itself is split by ADMM (Boyd et al. 2011,
"Distributed optimization and statistical learning via the alternating direction method of multipliers", section 3.1.1,
in scaled form): r_i = e_i holds in the limit, e_i bears the penalty φ_i, and u_i is the scaled dual variable, the
multiplier of r_i = e_i divided by 2ρ_i. With s_i = r_i + u_i before a step,

    e_i = prox_{φ_i / 2ρ_i}(s_i) = argmin_e φ_i(e) + ρ_i ‖e − s_i‖²,    u_i = s_i − e_i,    o_i = u_i − e_i,

so s_i is all that is kept of a sample besides z_i. A visit renews s_i from the residual under the weights of the
moment, and then z.

A multiplier, 2ρ_i u_i, does not change when ρ_i does: u_i is rescaled at the next visit. Until then a sample stands
in the sums of the W-update by the ρ_i of its last visit, in its offset as in its weight: the sums are
Σ ρ_i (z_i + o_i) ãᵀ and Σ ρ_i ã ãᵀ, each sample with its own ρ_i, so that W̃_i minimises one augmented Lagrangian,
whoever has been visited since ρ_i moved (row 47 of benchmarks/LOG.md).

A new penalty is a class with `value` and `dual`, and an entry in `altmin_dask.solvers.penalties.PENALTIES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from altmin_dask.networks.network import Network
from altmin_dask.networks.point import Point
from altmin_dask.networks.workspace import ArraySpec, Workspace, strips
from altmin_dask.solvers.packing import Layout, PackedArrays, split_layers
from altmin_dask.solvers.schedules import KEEP_Z
from altmin_dask.types import Array


class ADMMResiduals(PackedArrays):
    """What visits find: at the z of the last one, under the weights of the moment; it adds up over samples.

    Parameters
    ----------
    layers : int
        L.
    vector : ndarray, float64, optional
        All of it; zeros by default.

    Attributes
    ----------
    totals : ndarray, (3,)
        Number of samples, the relaxed objective without its ridge (Σ ℓ and what the penalty costs), and
        −Σ ∇F·δ, by which the z-updates were to lower it to first order: zero where z is stationary.
    primal, change, multipliers : ndarray, (L,)
        Σ ‖r_i − e_i‖², Σ ‖e_i − e_i before‖² and Σ ‖u_i‖², when s_i is renewed.
    zeros : ndarray, (L,)
        How many elements of e_i are exactly zero.
    residuals, squares : ndarray, (L,)
        Σ ‖r_i‖² and Σ ‖z_i‖².
    """

    totals: Array
    primal: Array
    change: Array
    multipliers: Array
    zeros: Array
    residuals: Array
    squares: Array

    def __init__(self, layers: int, vector: Array | None = None) -> None:
        super().__init__(self.layout(layers), vector)

    @staticmethod
    def layout(layers: int) -> Layout:
        """Of L layers."""
        by_layer = ("primal", "change", "multipliers", "zeros", "residuals", "squares")
        return {"totals": (3,), **dict.fromkeys(by_layer, (layers,))}

    @property
    def objective(self) -> float:
        """The relaxed objective without its ridge, a mean over samples."""
        return float(self.totals[1] / max(self.totals[0], 1.0))


@dataclass(frozen=True)
class Penalty(ABC):
    """How the residuals of one visit are held.

    Attributes
    ----------
    rho : tuple of float
        ρ_1 … ρ_L of the quadratic that z and W are updated with.
    mu : tuple of float
        μ_1 … μ_L, what the penalty weighs; ρ itself unless `augmented`.
    """

    rho: tuple[float, ...]
    mu: tuple[float, ...] = ()

    per_sample_state: ClassVar[int] = 0
    """How many numbers are kept of a sample beside each of its z: 1 where there is s, else 0."""
    schedules: ClassVar[tuple[str, ...]]
    """The schedules that it can be trained by, the default first."""
    sweeps: ClassVar[float]
    """How many sweeps training takes at most, unless told otherwise."""
    mu_moves: ClassVar[bool] = True
    """Whether μ may follow a schedule of its own."""
    augmented: ClassVar[bool] = False
    """Whether ρ is a setting beside μ, `solver.augmentation`."""
    exact: ClassVar[bool] = False
    """Whether residuals vanish in the end, so that the gradient of the nested loss tells how far that is."""
    sparse: ClassVar[bool] = False
    """Whether residuals become exactly zero, element by element, so that it is worth a count."""

    def __post_init__(self) -> None:
        if not self.augmented:
            object.__setattr__(self, "mu", self.rho)

    @classmethod
    @abstractmethod
    def default_mu(cls, network: Network) -> float | tuple[float, ...]:
        """μ, unless told otherwise; of all layers or of each."""

    @classmethod
    def initial_rho(
        cls, network: Network, mu: tuple[float, ...], augmentation: float | None
    ) -> tuple[float, ...]:
        """ρ_1 … ρ_L to begin with, for the μ of the first pass and what the settings say of ρ."""
        return mu

    @property
    def counts(self) -> tuple[float, ...] | None:
        """How often a sample's moments of layer i count in the sums of the W-update; None is once."""
        return None

    @abstractmethod
    def value(self, layer: int, residual: Array, dual: Array) -> float:
        """What the penalty costs: a sum over a block, of residuals and u_i, (n, d_i)."""

    def offsets(self, s: Array, widths: Sequence[int], work: Workspace, name: str) -> list[Array] | None:
        """o_1 … o_L of what is kept of a block, (n, Σ d_i), in `work`, called `name`; None where all are nought."""
        return None

    def update_dual(
        self,
        previous: Self,
        point: Point,
        s: Array,
        out: Array,
        measured: ADMMResiduals,
        work: Workspace,
    ) -> list[Array] | None:
        """Renew what is kept of a block of samples, and shift the residuals by its offsets.

        Parameters
        ----------
        previous : Penalty
            Of the last visit of the block.
        point : Point
            At the z of the last visit, under the weights of the moment; its residuals and squares become those of
            r + o.
        s, out : ndarray, (n, per_sample_state · Σ d_i)
            What is kept, and where its successor is written.
        measured : ADMMResiduals
            To which this block is added.
        work : Workspace
            Where the offsets are kept.

        Returns
        -------
        list of ndarray, (n, d_i), or None
            The new offsets; None where residuals stay what they are.
        """
        return None

    def ridge_scale(self, layer: int) -> float:
        """By which λ is divided in the W-update of a layer, whose sums do not have it in them."""
        return self.rho[layer] if self.counts is None else 1.0

    def reweighs_inputs(self, previous: Penalty) -> bool:
        """Whether the inputs of the first layer count otherwise than at the last visit."""
        now, then = self.counts, previous.counts
        return now is not None and then is not None and now[0] != then[0]


class SplitPenalty(Penalty):
    """A penalty that is split by ADMM: a subclass says what it costs, and what is left of s beyond its prox."""

    per_sample_state = 1
    schedules = KEEP_Z
    sweeps = 80.0
    """Digits by multipliers are compared after so many (rows 48 and 49 of benchmarks/LOG.md)."""

    @staticmethod
    def default_rho(network: Network) -> float:
        """ρ to begin with, unless told otherwise, by the layers or the loss."""
        given = network.defaults.dual_rho
        return network.loss.dual_rho if given is None else given

    @classmethod
    def initial_rho(
        cls, network: Network, mu: tuple[float, ...], augmentation: float | None
    ) -> tuple[float, ...]:
        """As `Penalty` says: where it stands beside μ, what is told, or the default."""
        return (augmentation or cls.default_rho(network),) * len(mu) if cls.augmented else mu

    @property
    def counts(self) -> tuple[float, ...]:
        """ρ, as at the last visit of each sample."""
        return self.rho

    @abstractmethod
    def dual(self, layer: int, s: Array, out: Array) -> Array:
        """u_i = s_i − prox_{φ_i / 2ρ_i}(s_i), by elements or by rows, (n, d_i)."""

    def auxiliary(self, s: Array, u: Array, out: Array) -> Array | None:
        """e_i = s_i − u_i; None where it is always nought."""
        return np.subtract(s, u, out=out)

    def offset(self, layer: int, s: Array, out: Array) -> Array:
        """o_i = u_i − e_i = 2u_i − s_i."""
        self.dual(layer, s, out)
        out *= 2
        out -= s
        return out

    def offsets(self, s: Array, widths: Sequence[int], work: Workspace, name: str) -> list[Array]:
        """As `Penalty` says."""
        return [
            self.offset(layer, part, work.like(f"{name} {layer}", part))
            for layer, part in enumerate(split_layers(s, widths))
        ]

    @staticmethod
    def arrays(network: Network) -> Iterator[ArraySpec]:
        """What a visit takes of a workspace: the offsets, now and at the last visit, and u and e of a strip."""
        for layer, d in enumerate(network.widths):
            for name in ("offset", "old offset"):
                yield ArraySpec(f"{name} {layer}", d)
            for name in ("multiplier", "split"):
                yield ArraySpec(name, d, rows="strip")

    def update_dual(
        self,
        previous: Self,
        point: Point,
        s: Array,
        out: Array,
        measured: ADMMResiduals,
        work: Workspace,
    ) -> list[Array]:
        """As `Penalty` says: s_i ← u_i + r_i."""
        widths = [residual.shape[1] for residual in point.residuals]
        offsets, cost = [], float(point.loss.sum(dtype=np.float64))
        kept = zip(split_layers(s, widths), split_layers(out, widths), strict=True)
        for layer, (residual, (old, new)) in enumerate(zip(point.residuals, kept, strict=True)):
            offset = work.like(f"offset {layer}", residual)
            ratio = residual.dtype.type(previous.rho[layer] / self.rho[layer])
            for rows in strips(*residual.shape):
                r, z, s_now, o = residual[rows], point.z[layer][rows], new[rows], offset[rows]
                u = previous.dual(layer, old[rows], work.like("multiplier", r))
                e = previous.auxiliary(old[rows], u, work.like("split", r))
                u *= ratio
                measured.residuals[layer] += sum_of_products(r, r)
                measured.squares[layer] += sum_of_products(z, z)
                cost += self.value(layer, r, u)
                np.add(u, r, out=s_now)
                u_now = self.dual(layer, s_now, o)
                measured.multipliers[layer] += sum_of_products(u_now, u_now)
                u -= u_now  # e_i − r_i
                measured.primal[layer] += sum_of_products(u, u)
                e_now = self.auxiliary(s_now, u_now, u)
                if e is not None and e_now is not None:
                    measured.zeros[layer] += e_now.size - np.count_nonzero(e_now)
                    e -= e_now
                    measured.change[layer] += sum_of_products(e, e)
                    o -= e_now
                r += o
                np.vecdot(r, r, out=point.squares[layer][rows])
            offsets.append(offset)
        measured.totals[:2] += (len(point.loss), cost)
        return offsets


def sum_of_products(left: Array, right: Array) -> float:
    """Σ of products: of a row in the arrays' dtype, over rows in float64."""
    return float(np.vecdot(left, right).sum(dtype=np.float64))
