"""Backtracking on the true F_k, each sample by itself, which decides nothing by rounding.

A step t δ is taken when F falls by enough (Armijo 1966), as far as the arithmetic can tell:

    F(z + t δ) ≤ F(z) + armijo · t ∇F·δ + ε_F

ε_F is what rounding makes of F(z) = ℓ + Σ_i μ_i ‖r_i‖², from the sizes of the numbers that are added up. With c a few
units of rounding, ℓ has an error of c times its `magnitude`, and of c |∇ℓ|·|z_L| as z is rounded; and the d_i numbers
of r_i = z_i − W̃_i ã have independent ones of c S_i / √d_i with S_i = ‖z_i‖ + ‖W̃_i‖ ‖ã‖, so that

    ε_F = c (F + magnitude + |∇ℓ|·|z_L|) + Σ_i μ_i (2 ‖r_i‖ c S_i / √d_i + c² S_i²).

So a sample near its minimum, where all that a step promises is below ε_F, takes the whole step, as Newton's method has
it: it has converged, is not counted as shortened, and F is taken not to have risen. Without ε_F it would be cut or not
by luck, and by the company its rows have in a matrix product. ε_F is only worked out where the test fails without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from altmin_dask.networks.mean_loss import Targets
from altmin_dask.networks.network import Network
from altmin_dask.networks.point import Point, Prepared
from altmin_dask.networks.workspace import ArraySpec, Workspace, strips
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.types import Array, Weights

UNITS = 8
"""c in units of rounding (ε of the dtype): an activation has two or three, a sum of a thousand products as many."""


@dataclass(frozen=True)
class Step:
    """A step of all z of a block of n samples.

    Attributes
    ----------
    delta : list of ndarray, (n, d_i)
        δ_1 … δ_L.
    slope : ndarray, (n,)
        ∇F·δ of every sample.
    residuals : list of ndarray, (n, d_i), or None
        What it changes the residuals by to first order, s_i = δ_i − W_i D_{i−1} δ_{i−1}, if that was asked for.
    """

    delta: list[Array]
    slope: Array
    residuals: list[Array] | None = None


@dataclass(frozen=True)
class BlockProblem:
    """What is fixed while the z of a block of samples moves; `exactly`, residuals are formed from the steps."""

    network: Network
    weights: Weights
    mu: Sequence[float]
    prepared: Prepared
    targets: Targets
    work: Workspace
    offsets: list[Array] | None = None
    exactly: bool = False

    def evaluate(self, z: list[Array], name: str) -> Point:
        """Everything at z."""
        return self.network.evaluate(
            self.weights, self.prepared, self.targets, z, self.work, name, self.offsets
        )

    def rows(self, rows: Array) -> BlockProblem:
        """The same for some of the samples."""
        offsets = None if self.offsets is None else [offset[rows] for offset in self.offsets]
        return replace(self, prepared=self.prepared.rows(rows), targets=self.targets[rows], offsets=offsets)

    def follow(self, moved: Point, start: Point, step: Step, t: float = 1.0, rows: Any = slice(None)) -> None:
        """Form residuals after a step t from those before, r_i + t s_i − W̃_i (what is not linear in ã's change).

        As differences of z and W̃ ã they would have lost all digits that these have in common, which for a large μ are
        all that there are.
        """
        if not self.exactly or step.residuals is None:
            return
        z, delta = [z[rows] for z in start.z], [t * d[rows] for d in step.delta]
        curved = self.network.remainders(self.weights, self.prepared, z, delta, self.work)
        for layer, beyond in enumerate(curved):
            residual = moved.residuals[layer]
            np.multiply(step.residuals[layer][rows], t, out=residual)
            residual += start.residuals[layer][rows]
            residual -= beyond
            np.vecdot(residual, residual, out=moved.squares[layer])

    @np.errstate(over="ignore", invalid="ignore")
    def rounding(self, point: Point, rows: Array) -> Array:
        """ε_F of some of the samples at a point, (rows,)."""
        dtype = point.loss.dtype
        unit = dtype.type(UNITS * np.finfo(dtype).eps)
        loss, sizes, total = (
            self.network.loss,
            [np.linalg.norm(w) for w in self.weights],
            np.empty(len(rows), dtype),
        )
        for strip in strips(len(rows), max(self.network.widths)):
            some = rows[strip]
            z, a, targets = point.z[-1][some], point.output[some], self.targets[some]
            f = objective(point, self.mu, some) + loss.magnitude(z, a, targets)
            f += np.vecdot(np.abs(loss.gradient(z, a, targets)), np.abs(z))
            f *= unit
            for layer, mu in enumerate(self.mu if not self.exactly else ()):
                size = _norms(point.z[layer][some]) + sizes[layer] * _norms(point.inputs[layer][some])
                if self.offsets is not None:
                    size += _norms(self.offsets[layer][some])
                error = unit * size
                f += mu * error * (2 * np.sqrt(point.squares[layer][some] / point.z[layer].shape[1]) + error)
            total[strip] = f
        return total


def objective(point: Point, mu: Sequence[float], rows: Array | slice = slice(None)) -> Array:
    """F_k = ℓ + Σ_i μ_i ‖r_i‖² of every sample, (n,), or of some."""
    total = point.loss[rows].copy()
    for weight, square in zip(mu, point.squares, strict=True):
        total += weight * square[rows]
    return total


def line_search(
    block: BlockProblem, point: Point, before: Array, step: Step, settings: NewtonSettings, name: str
) -> tuple[Point, Array, int]:
    """Backtrack every sample until F has fallen by enough; what cannot improve stays where it was.

    Parameters
    ----------
    block : BlockProblem
        The samples.
    point, before : Point, ndarray (n,)
        Where they are, and F there.
    step : Step
        Where they are to go.
    settings : NewtonSettings
        Of which `armijo`, `backtrack` and `max_backtracks` matter.
    name : str
        What the new point's arrays are called in the workspace.

    Returns
    -------
    point : Point
        After the step.
    after : ndarray, (n,)
        F there; at most that before.
    cut : int
        How many samples took less than the whole step.
    """
    moved = [
        np.add(z, delta, out=block.work.like(f"{name} z {layer}", delta))
        for layer, (z, delta) in enumerate(zip(point.z, step.delta, strict=True))
    ]
    trial = block.evaluate(moved, name)
    block.follow(trial, point, step)
    after = objective(trial, block.mu)
    promised = _promised(settings, step)
    failed = np.flatnonzero(~(after <= before + promised))
    if not failed.size:
        return trial, after, 0
    goal, rounding = before[failed], block.rounding(point, failed)
    level = after[failed] <= goal + promised[failed] + rounding
    after[failed] = np.where(level, np.minimum(after[failed], goal), goal)
    rows, goal, rounding = failed[~level], goal[~level], rounding[~level]
    trial.assign(rows, point, rows)
    # what is not finite has no way to go
    finite = np.isfinite(step.slope[rows])
    rows, goal, rounding = rows[finite], goal[finite], rounding[finite]
    _backtrack(block, point, step, settings, trial, after, (rows, goal, rounding))
    return trial, after, rows.size


def _backtrack(
    block: BlockProblem,
    point: Point,
    step: Step,
    settings: NewtonSettings,
    trial: Point,
    after: Array,
    cut: tuple[Array, Array, Array],
) -> None:
    """Shorten the steps of `cut` samples (which, F before, ε_F), and write where they end into `trial` and `after`."""
    (rows, goal, rounding), t = cut, 1.0
    promised = _promised(settings, step)
    for _ in range(settings.max_backtracks):
        if not rows.size:
            break
        t *= settings.backtrack
        z = [p[rows] + after.dtype.type(t) * d[rows] for p, d in zip(point.z, step.delta, strict=True)]
        part = block.rows(rows)
        shorter = part.evaluate(z, "shortened")
        part.follow(shorter, point, step, t, rows)
        value = objective(shorter, block.mu)
        good = value <= goal + t * promised[rows] + rounding
        trial.assign(rows[good], shorter, good)
        after[rows[good]] = np.minimum(value[good], goal[good])
        rows, goal, rounding = rows[~good], goal[~good], rounding[~good]


def _promised(settings: NewtonSettings, step: Step) -> Array:
    """By how much F has to fall, of a whole step, negative."""
    return settings.armijo * np.minimum(step.slope, 0)


def search_arrays(network: Network, steps: int) -> Iterator[ArraySpec]:
    """What so many steps from a point take of a workspace: the point, two at most in turn, and one of cut samples."""
    for name in ("start", *(f"trial {number}" for number in range(min(steps, 2))), "shortened"):
        yield from network.point_arrays(name)
        for i, d in enumerate(network.widths if name.startswith("trial") else ()):
            yield ArraySpec(f"{name} z {i}", d)


def _norms(rows: Array) -> Array:
    """‖·‖ of every row."""
    return np.sqrt(np.vecdot(rows, rows))
