"""What ADMM knows of all samples together: ρ_i, which follows the residuals, and how far it is from a solution.

Where the constraint is further from being met than the multipliers are from rest, ρ_i grows, and the other way round:
residual balancing (Boyd et al. 2011, section 3.4.1), relative as in Wohlberg 2017, "ADMM penalty parameter selection by
residual balancing". Changes fade, so that it converges (He, Yang & Wang 2000, "Alternating direction method with
self-adaptive penalty parameters").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from altmin_dask.solvers.packing import packed_size
from altmin_dask.solvers.penalty import ADMMResiduals, Penalty
from altmin_dask.solvers.statistics import Statistics
from altmin_dask.types import Array, Weights

BALANCE = 3.0
"""ρ_i moves when one relative residual exceeds this multiple of the other (10 in Boyd et al. 2011)."""
STEP = 2.0
"""By at most this factor a pass (ibid.), and less and less: ADMM converges once ρ rests."""
RANGE = 3.0, 1e3
"""ρ_i falls by the first factor at most, else z follows the targets and W whatever z does; and grows by the second."""
SETTLE = 25
"""Passes after which changes of ρ shrink, with the square of their number: what is still to come is bounded then, as
convergence wants it (rows 48 and 49 of benchmarks/LOG.md)."""
FAVOUR, MET = 2.0, 1e-4
"""From then on the primal residual counts more and more, in the end so many times, unless it is below the second:
constraints are to be met, and a ρ that is too large for speed comes of more (row 49)."""
FALL, GROWTH = 0.95, 1.2
"""ρ_i grows by this factor in a pass whose primal gap is not below this share of the smallest one so far, as in
augmented Lagrangian methods (Nocedal & Wright 2006, "Numerical optimization", algorithm 17.4)."""


@dataclass
class ADMMState:
    """What training knows of a split penalty besides every sample's own s: part of a commit.

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
            np.zeros((groups, packed_size(ADMMResiduals.layout(layers)))),
            np.array(rho, np.float64),
            np.full(layers, np.finfo(float).max),
            weights,
        )

    def penalty(self, kind: type[Penalty], mu: tuple[float, ...]) -> Penalty:
        """That of the next visit."""
        return kind(tuple(map(float, self.rho)), mu)

    def previous(self, kind: type[Penalty], group: int) -> Penalty:
        """That of the last visit of a group."""
        rho, mu = self.held[group]
        return kind(tuple(map(float, rho)), tuple(map(float, mu)))

    def hold(self, group: int, penalty: Penalty, measured: ADMMResiduals | None = None) -> None:
        """Note how a group was visited, or that it has entered."""
        self.held[group] = penalty.rho, penalty.mu
        self.measures[group] = 0.0 if measured is None else measured.vector

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
        size = np.maximum(total.squares, total.residuals)
        rest = dual * relative(size, total.multipliers)
        # a step s of residual coordinates has −∇F·δ = 2ρ‖s‖²
        unit = 2 * self.rho * size
        step = relative(np.maximum(total.totals[2:], 0.0), unit.sum(keepdims=True))
        self.gap = float(max(primal.max(), rest.max(), step.max()))
        self.covered = int(total.totals[0])
        if move:
            self._move(primal, dual, enough)
        np.clip(self.rho, self.first / RANGE[0], self.first * RANGE[1], out=self.rho)
        self.best = np.minimum(self.best, primal)
        self.anchor = weights
        self.balanced += 1

    def _move(self, primal: Array, dual: Array, enough: float) -> None:
        """Bring ρ_i closer to where both gaps are equal, less and less far."""
        late = max(1.0, (1 + self.balanced) / SETTLE)
        step, growth = STEP ** (late**-2), GROWTH ** (late**-2)
        for layer, (p, d) in enumerate(zip(primal, dual, strict=True)):
            favour = min(late, FAVOUR) if p > MET else 1.0
            if p < enough:
                self.rho[layer] /= step if d > BALANCE * p else 1.0
            elif favour * p > BALANCE * d:
                self.rho[layer] *= step
            elif d > BALANCE * favour * p:
                self.rho[layer] /= step
            elif p > FALL * self.best[layer]:
                self.rho[layer] *= growth

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


def relative(squares: Array, unit: Array) -> Array:
    """√(squares / unit), element by element; nought of nothing is 0, anything of nothing 1."""
    found = np.divide(squares, unit, out=np.asarray(squares > 0, np.float64), where=unit > 0)
    root: Array = np.sqrt(found)
    return root
