"""How residuals are held: squares (L2), absolute values (L1) or multipliers (hard constraints).

All three meet the z- and the W-update as the same quadratic Σ_i ρ_i ‖r_i + o_i‖², with r_i = z_i − W̃_i ã_{i−1} and an
offset o_i of every sample that these leave alone:

* L2: o = 0, and ρ_i = μ_i is the penalty itself.
* Multipliers: o_i = u_i, the multipliers of r_i = 0 divided by 2ρ_i; u_i ← u_i + r_i (augmented Lagrangian).
* L1, Σ μ_i ‖r_i‖₁: r_i is split off as e_i, o_i = u_i − e_i, and e_i ← soft(r_i + u_i, κ_i), u_i ← u_i + r_i − e_i with
  κ_i = μ_i / 2ρ_i (ADMM; Boyd et al. 2011, "Distributed optimization and statistical learning via the alternating
  direction method of multipliers"). With s_i = r_i + u_i before the step, u_i is s_i clipped to ±κ_i and e_i the rest,
  so s_i is all that is remembered.

A visit of a sample renews s_i from its residual under the weights of the moment, and then z. ρ_i follows the residuals
of ADMM: where the constraint is further from being met than the multipliers are from rest, it grows, and the other way
round (residual balancing, relative as in Wohlberg 2017, "ADMM penalty parameter selection by residual balancing").

A multiplier, 2ρ_i u_i, does not change when ρ_i does: u_i is rescaled at the next visit. Until then a sample stands
in the sums of the W-update by the ρ_i of its last visit, in its offset as in its weight: the sums are
Σ ρ_i (z_i + o_i) ãᵀ and Σ ρ_i ã ãᵀ, each sample with its own ρ_i, so that W̃_i minimises one augmented Lagrangian,
whoever has been visited since ρ_i moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from altmin_dask.networks.network import Point
from altmin_dask.networks.workspace import Workspace, strips
from altmin_dask.solvers.statistics import Statistics
from altmin_dask.types import Array, Weights

Kind = Literal["l2", "l1", "multipliers"]

BALANCE = 3.0
"""ρ_i moves when one relative residual exceeds this multiple of the other."""
STEP = 2.0
"""By at most this factor a pass, and less and less: ADMM converges once ρ rests."""
RANGE = 3.0, 1e3
"""ρ_i falls by the first factor at most, else z follows the targets and W whatever z does; and grows by the second."""
SETTLE = 25
"""Passes after which changes of ρ shrink, with the square of their number: what is still to come is bounded then, as
convergence wants it (He, Yang & Wang 2000, "Alternating direction method with self-adaptive penalty parameters")."""
FAVOUR, MET = 2.0, 1e-4
"""From then on the primal residual counts more and more, in the end so many times, unless it is below the second:
constraints are to be met, and a ρ that is too large for speed comes of more."""
FALL, GROWTH = 0.95, 1.2
"""ρ_i grows by this factor in a pass whose primal gap is not below this share of the smallest one so far."""


@dataclass(frozen=True)
class Penalty:
    """How the residuals of one visit are held.

    Attributes
    ----------
    kind : {"l2", "l1", "multipliers"}
        Which.
    rho : tuple of float
        ρ_1 … ρ_L of the quadratic that z and W are updated with; μ itself for L2.
    mu : tuple of float
        μ_1 … μ_L of L1; not used by the others.
    """

    kind: Kind
    rho: tuple[float, ...]
    mu: tuple[float, ...] = ()

    @property
    def has_dual(self) -> bool:
        """Whether something is remembered of every sample besides z."""
        return self.kind != "l2"

    def clipped(self, layer: int, s: Array, out: Array) -> Array:
        """u_i of s_i."""
        if self.kind == "multipliers":
            out[...] = s
            return out
        kappa = s.dtype.type(self.mu[layer] / (2 * self.rho[layer]))
        return np.clip(s, -kappa, kappa, out=out)

    def offset(self, layer: int, s: Array, out: Array) -> Array:
        """o_i = u_i − e_i = 2u_i − s_i."""
        self.clipped(layer, s, out)
        if self.kind == "l1":
            out *= 2
            out -= s
        return out

    def value(self, layer: int, residual: Array, u: Array) -> float:
        """What the penalty costs: μ_i ‖r_i‖₁, or ρ_i (‖r_i + u_i‖² − ‖u_i‖²); a sum over samples."""
        if self.kind == "l1":
            return self.mu[layer] * float(np.abs(residual).sum(dtype=np.float64))
        return self.rho[layer] * (_dot(residual, residual) + 2 * _dot(residual, u))


@dataclass
class ADMMResiduals:
    """What a visit finds: at the z of the last one, under the weights of the moment. One vector, added over samples.

    Attributes
    ----------
    layers : int
        L.
    vector : ndarray, (3 + 6L,)
        All of it.
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

    layers: int
    vector: Array = None  # type: ignore[assignment]
    totals: Array = field(init=False, repr=False)
    primal: Array = field(init=False, repr=False)
    change: Array = field(init=False, repr=False)
    multipliers: Array = field(init=False, repr=False)
    zeros: Array = field(init=False, repr=False)
    residuals: Array = field(init=False, repr=False)
    squares: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.vector is None:
            self.vector = np.zeros(admm_residuals_size(self.layers))  # type: ignore[unreachable]
        self.totals = self.vector[:3]
        parts = self.vector[3:].reshape(6, self.layers)
        self.primal, self.change, self.multipliers, self.zeros, self.residuals, self.squares = parts

    @property
    def objective(self) -> float:
        """The relaxed objective without its ridge, a mean over samples."""
        return float(self.totals[1] / max(self.totals[0], 1.0))


def relative(squares: Array, unit: Array) -> Array:
    """√(squares / unit), element by element; nought of nothing is 0, anything of nothing 1."""
    found = np.divide(squares, unit, out=np.asarray(squares > 0, np.float64), where=unit > 0)
    root: Array = np.sqrt(found)
    return root


def _dot(left: Array, right: Array) -> float:
    """Σ of products: of a row in the arrays' dtype, over rows in float64."""
    return float(np.vecdot(left, right).sum(dtype=np.float64))


def admm_residuals_size(layers: int) -> int:
    """How many numbers `ADMMResiduals` has."""
    return 3 + 6 * layers


def renew(
    penalty: Penalty,
    before: Penalty,
    point: Point,
    s: Array,
    out: Array,
    measures: ADMMResiduals,
    work: Workspace,
) -> list[Array]:
    """Renew what is remembered of a block of samples, and shift the residuals by its offsets.

    Parameters
    ----------
    penalty, before : Penalty
        Of this visit, and of the last one of the block.
    point : Point
        At the z of the last visit, under the weights of the moment; its residuals and squares become those of r + o.
    s, out : ndarray, (n, Σ d_i)
        What is remembered, and where the new memory is written.
    measures : Measures
        To which this block is added.
    work : Workspace
        Where the offsets are kept.

    Returns
    -------
    list of ndarray, (n, d_i)
        The new offsets.
    """
    offsets, start, cost = [], 0, float(point.loss.sum(dtype=np.float64))
    for layer, (z, residual) in enumerate(zip(point.z, point.residuals, strict=True)):
        columns = slice(start, start + residual.shape[1])
        start = columns.stop
        ratio = residual.dtype.type(before.rho[layer] / penalty.rho[layer])
        offset = work.like(f"offset {layer}", residual)
        for rows in strips(*residual.shape):
            r, old, new = residual[rows], s[rows, columns], out[rows, columns]
            u = before.clipped(layer, old, work.like("multiplier", r))
            if penalty.kind == "l1":
                e = np.subtract(old, u, out=work.like("split", r))
            u *= ratio
            measures.residuals[layer] += _dot(r, r)
            measures.squares[layer] += _dot(z[rows], z[rows])
            cost += penalty.value(layer, r, u)
            np.add(u, r, out=new)
            now = penalty.clipped(layer, new, offset[rows])
            measures.multipliers[layer] += _dot(now, now)
            u -= now
            measures.primal[layer] += _dot(u, u)
            if penalty.kind == "l1":
                np.subtract(new, now, out=u)
                measures.zeros[layer] += u.size - np.count_nonzero(u)
                e -= u
                measures.change[layer] += _dot(e, e)
                now -= u
            r += now
            np.vecdot(r, r, out=point.squares[layer][rows])
        offsets.append(offset)
    measures.totals[:2] += (len(point.loss), cost)
    return offsets


@dataclass
class ADMMState:
    """What training remembers of L1 or multipliers besides every sample's own: goes into a commit.

    Attributes
    ----------
    rho : ndarray, (L,)
        ρ_i now.
    held : ndarray, (groups, 2, L)
        ρ_i and μ_i at the last visit of each group.
    measures : ndarray, (groups, 3 + 6L)
        `ADMMResiduals` of the last visit of each group.
    first : ndarray, (L,)
        ρ_i at first.
    best : ndarray, (L,)
        The smallest primal gaps so far.
    anchor : tuple of ndarray
        The weights when ρ was last balanced.
    balanced : int
        How often it was.
    gap : float or None
        The largest relative gap of any layer then: the primal one, the dual one in units of ‖u_i‖, or the step of z.
    covered : int
        Over how many samples.
    first_gradient : float or None
        Norm of the nested objective's gradient before the first visit.
    gradient, checked : float or None, int
        The same when the gaps were met last, and `balanced` then.
    """

    rho: Array
    held: Array
    measures: Array
    first: Array
    best: Array
    anchor: Weights
    balanced: int = 0
    gap: float | None = None
    covered: int = 0
    first_gradient: float | None = None
    gradient: float | None = None
    checked: int = -1

    @classmethod
    def start(cls, rho: Sequence[float], groups: int, weights: Weights) -> ADMMState:
        """Before anything has been visited."""
        layers = len(weights)
        return cls(
            np.array(rho, np.float64),
            np.ones((groups, 2, layers)),
            np.zeros((groups, admm_residuals_size(layers))),
            np.array(rho, np.float64),
            np.full(layers, np.finfo(float).max),
            weights,
        )

    def penalty(self, kind: Kind, mu: tuple[float, ...]) -> Penalty:
        """That of the next visit."""
        return Penalty(kind, tuple(map(float, self.rho)), mu)

    def before(self, kind: Kind, group: int) -> Penalty:
        """That of the last visit of a group."""
        rho, mu = self.held[group]
        return Penalty(kind, tuple(map(float, rho)), tuple(map(float, mu)))

    def hold(self, group: int, penalty: Penalty, measures: Array | None = None) -> None:
        """Note how a group was visited."""
        self.held[group] = penalty.rho, penalty.mu or penalty.rho
        self.measures[group] = 0.0 if measures is None else measures

    @property
    def total(self) -> ADMMResiduals:
        """Over all groups."""
        return ADMMResiduals(self.rho.size, self.measures.sum(axis=0))

    def gaps(self, statistics: Statistics, weights: Weights) -> tuple[Array, Array]:
        """How far ADMM is from a solution, in units of ‖z_i‖ (or ‖W̃_i ã‖, where z_i is nought), both (L,).

        Primal, ‖r_i − e_i‖, and dual, ‖Δ(W̃_i ã) + Δe_i‖ (bounded by its two parts) since ρ was last balanced, which
        times 2ρ_i is what z's optimality lacks. ‖u_i‖ as the unit of the dual, as for convex problems, is no use where
        multipliers begin at zero: ρ falls until nothing holds z.
        """
        total = self.total
        # what has entered since the last visits moves with the others, but was not measured
        share = total.totals[0] / max(statistics.samples, 1.0)
        moved = np.array(
            [
                max(float(np.vdot((d := (w - old).astype(np.float64)) @ gram, d)), 0.0) * share / rho
                for w, old, gram, rho in zip(weights, self.anchor, statistics.gram, self.rho, strict=True)
            ]
        )
        unit = np.maximum(total.squares, total.residuals)
        return relative(total.primal, unit), relative(moved + total.change, unit)

    def balance(self, statistics: Statistics, weights: Weights, *, move: bool, enough: float = 0.0) -> None:
        """Measure the gaps after a pass over all samples in the sums, and `move` ρ.

        Towards equal gaps; and upwards by a little where the primal one does not fall, as augmented Lagrangians do,
        but not below `enough`: a large ρ ends all motion without being a solution.
        """
        primal, dual = self.gaps(statistics, weights)
        total = self.total
        rest = dual * relative(np.maximum(total.squares, total.residuals), total.multipliers)
        # a step s of residual coordinates has −∇F·δ = 2ρ‖s‖²
        unit = 2 * self.rho * np.maximum(total.squares, total.residuals)
        step = relative(np.maximum(total.totals[2:], 0.0), unit.sum(keepdims=True))
        self.gap = float(max(primal.max(), rest.max(), step.max()))
        self.covered = int(total.totals[0])
        late = max(1.0, (1 + self.balanced) / SETTLE)
        largest, growth = STEP ** (late**-2), GROWTH ** (late**-2)
        for layer, (p, d) in enumerate(zip(primal, dual, strict=True)):
            if not move:
                continue
            favour = min(late, FAVOUR) if p > MET else 1.0
            if p < enough:
                self.rho[layer] /= largest if d > BALANCE * p else 1.0
            elif favour * p > BALANCE * d:
                self.rho[layer] *= largest
            elif d > BALANCE * favour * p:
                self.rho[layer] /= largest
            elif p > FALL * self.best[layer]:
                self.rho[layer] *= growth
        np.clip(self.rho, self.first / RANGE[0], self.first * RANGE[1], out=self.rho)
        self.best = np.minimum(self.best, primal)
        self.anchor = weights
        self.balanced += 1

    def tensors(self) -> dict[str, Array]:
        """All arrays by name."""
        anchor = {f"anchor_{layer}": w for layer, w in enumerate(self.anchor)}
        return {name: getattr(self, name) for name in ("rho", "held", "measures", "first", "best")} | anchor

    def scalars(self) -> dict[str, Any]:
        """All that is not an array."""
        names = ("balanced", "gap", "covered", "first_gradient", "gradient", "checked")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def restore(cls, tensors: dict[str, Array], scalars: dict[str, Any]) -> ADMMState:
        """Undo `tensors` and `scalars`."""
        rho = tensors["rho"]
        anchor = tuple(tensors[f"anchor_{layer}"] for layer in range(rho.size))
        return cls(
            rho, tensors["held"], tensors["measures"], tensors["first"], tensors["best"], anchor, **scalars
        )


def offsets_of(penalty: Penalty, s: Array, widths: Sequence[int], work: Workspace, name: str) -> list[Array]:
    """o_i of what is remembered, (n, Σ d_i)."""
    parts: list[Any] = np.split(s, np.cumsum(widths)[:-1], axis=1)
    return [
        penalty.offset(layer, part, work.like(f"{name} {layer}", part)) for layer, part in enumerate(parts)
    ]
