"""Sufficient statistics of the weight update: the sums a chunk sends instead of its samples.

For layer i with augmented inputs ã and pre-activations z they are the cross moment C_i = Σ z ãᵀ, the Gram matrix
G_i = Σ ã ãᵀ and Σ ‖z‖²; with them come Σ ℓ and the number of samples. They form a commutative group: sums of
chunks add up in any tree, and a group of chunks is replaced exactly by adding the difference of its statistics.
The residuals of *any* weights follow from them, without another look at the samples, as far as rounding lets them.

The first layer's Gram matrix of a chain depends on the samples alone, so it is summed once, when samples enter the
sum. A recurrent network's rows are the steps of all samples, and its first Gram matrix holds states, which move.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from altmin_dask.networks.network import Network
from altmin_dask.networks.point import Point
from altmin_dask.networks.workspace import ArraySpec, Workspace
from altmin_dask.solvers.linalg import add_product
from altmin_dask.solvers.packing import Layout, PackedArrays
from altmin_dask.types import Array, Weights

DOUBLE = 8
"""Bytes of a number in the sums."""
ROUNDING = 16 * float(np.finfo(np.float64).eps)
"""Relative error of a sum of many products in float64: errors of either sign add up like √n, in blocks."""


class Fit(NamedTuple):
    """What W̃_i ã is fitted to, z_i + o_i, and how much a sample counts in that.

    Attributes
    ----------
    offsets : sequence of ndarray, (n, d_i), or None
        o_1 … o_L of a block; None where they are nought.
    counts : sequence of float, (L,), or None
        How often the moments of each layer count, then in all of the sum; None is once.
    """

    offsets: Sequence[Array] | None = None
    counts: Sequence[float] | None = None


PLAIN = Fit()
"""z itself, once."""


class Statistics(PackedArrays):
    """The sums of some samples, and what their last z-updates were like: views into one float64 vector.

    Parameters
    ----------
    shapes : sequence of (int, int)
        The shape of each W̃_i.
    with_inputs : bool
        Whether the first Gram matrix is part of it: when samples enter, and always where it moves with z.
    vector : ndarray, float64, optional
        All of it; zeros by default.

    Attributes
    ----------
    totals : ndarray, (2,)
        Σ ℓ and the number of samples.
    diagnostics : ndarray, (2,)
        Of the last z-updates, not part of the group: Σ F_k after them, and how many samples had their step cut.
    squares : ndarray, (L,)
        Σ ‖z_i‖².
    cross, gram : list of ndarray
        C_i of shape (d_i, d_{i−1}+1), and G_i of shape (d_{i−1}+1, d_{i−1}+1); ``gram[0]`` is empty without inputs.
    """

    totals: Array
    diagnostics: Array
    squares: Array
    cross: list[Array]
    gram: list[Array]

    def __init__(
        self, shapes: Sequence[tuple[int, int]], with_inputs: bool, vector: Array | None = None
    ) -> None:
        super().__init__(self.layout(shapes, with_inputs), vector)
        self.shapes, self.with_inputs = shapes, with_inputs

    @staticmethod
    def layout(shapes: Sequence[tuple[int, int]], with_inputs: bool) -> Layout:
        """What a chunk sends."""
        first, *others = ((k, k) for _, k in shapes)
        return {
            "totals": (2,),
            "diagnostics": (2,),
            "squares": (len(shapes),),
            "cross": list(shapes),
            "gram": [first if with_inputs else (0,), *others],
        }

    @property
    def samples(self) -> float:
        """How many samples are in the sums."""
        return float(self.totals[1])

    def add(
        self,
        point: Point,
        work: Workspace | None = None,
        fit: Fit = PLAIN,
    ) -> None:
        """Add a block of samples at `point`; `work` keeps the float64 copies."""
        work = work or Workspace()
        self.totals += (point.loss.sum(dtype=np.float64), len(point.loss))
        self._add(point, 1.0, work, fit)

    def replace(
        self,
        old: Point,
        new: Point,
        work: Workspace | None = None,
        old_fit: Fit = PLAIN,
        new_fit: Fit = PLAIN,
    ) -> None:
        """Add the difference that moving a block from `old` to `new` makes; the samples are the same.

        With inputs, they, or how often they count, are taken to change too; without, the first layer has to count as
        often as before.
        """
        work = work or Workspace()
        self.totals[0] += new.loss.sum(dtype=np.float64) - old.loss.sum(dtype=np.float64)
        first = 0 if self.with_inputs else 1
        self._add(new, 1.0, work, new_fit, first)
        self._add(old, -1.0, work, old_fit, first)
        if self.with_inputs:
            return
        # the first layer's inputs do not move: one product does
        before, after = _target(old, old_fit, 0, "z64", work), _target(new, new_fit, 0, "moved", work)
        factor = 1.0 if new_fit.counts is None else new_fit.counts[0]
        self.squares[0] += factor * (_sum_of_squares(after) - _sum_of_squares(before))
        after -= before
        d, k = self.shapes[0]
        inputs = _double(new.inputs[0], "inputs64", work).reshape(-1, k)
        add_product(self.cross[0], factor, after.reshape(-1, d), inputs)

    def _add(self, point: Point, sign: float, work: Workspace, fit: Fit, first: int = 0) -> None:
        for layer in range(first, len(self.shapes)):
            d, k = self.shapes[layer]
            factor = sign if fit.counts is None else sign * fit.counts[layer]
            # of a recurrent network every step is a row
            z = _target(point, fit, layer, "z64", work).reshape(-1, d)
            inputs = _double(point.inputs[layer], "inputs64", work).reshape(-1, k)
            self.squares[layer] += factor * _sum_of_squares(z)
            add_product(self.cross[layer], factor, z, inputs)
            if self.gram[layer].size:
                gram = np.matmul(inputs.T, inputs, out=work.like("gram", self.gram[layer]))
                gram *= factor
                self.gram[layer] += gram

    @staticmethod
    def arrays(network: Network, *, with_inputs: bool, moved: bool) -> Iterator[ArraySpec]:
        """What `add`, and `replace` if the block is `moved`, take of a workspace."""
        for i, layer in enumerate(network.layers):
            yield ArraySpec("z64", layer.size, itemsize=DOUBLE)
            yield ArraySpec("inputs64", layer.steps * layer.inputs, itemsize=DOUBLE)
            if i or with_inputs:
                yield ArraySpec("gram", layer.inputs, rows="square", itemsize=DOUBLE)
        if moved:
            yield ArraySpec("moved", network.widths[0], itemsize=DOUBLE)

    def merge(self, other: Statistics) -> None:
        """Add all of `other`, which may lack the input Gram matrix this one has."""
        self.totals += other.totals
        self.diagnostics[:] = other.diagnostics
        self.squares += other.squares
        for mine, theirs in zip((*self.cross, *self.gram[1:]), (*other.cross, *other.gram[1:]), strict=True):
            mine += theirs
        if other.with_inputs:
            self.gram[0] += other.gram[0]

    def replace_all(self, other: Statistics) -> None:
        """Become `other`, which covers the same samples, keeping the input Gram matrix unless it has one."""
        inputs = 0.0 if other.with_inputs else self.gram[0].copy()
        self.vector[:] = 0
        self.merge(other)
        self.gram[0] += inputs

    def residual_squares(self, weights: Weights) -> Array:
        """Σ ‖z_i − W̃_i ã_{i−1}‖² of every layer under any weights, (L,), as exact as `rounding` says."""
        square, mixed, own = self._residual_parts(weights)
        return np.maximum(square - mixed + own, 0.0)

    def rounding(self, weights: Weights) -> Array:
        """How far rounding may have moved `residual_squares`, (L,): they are differences of much larger sums."""
        square, mixed, own = self._residual_parts(weights)
        return ROUNDING * (square + abs(mixed) + own)

    def _residual_parts(self, weights: Weights) -> tuple[Array, Array, Array]:
        """Σ ‖z‖², 2⟨C, W̃⟩ and ⟨W̃G, W̃⟩."""
        pairs = [(w.astype(np.float64), c, g) for w, c, g in zip(weights, self.cross, self.gram, strict=True)]
        mixed = np.array([2 * np.vdot(cross, w) for w, cross, _ in pairs])
        own = np.array([np.vdot(w @ gram, w) for w, _, gram in pairs])
        return self.squares, mixed, own

    def objective(
        self, weights: Weights, mu: Sequence[float], ridge: float, penalize_bias: bool = True
    ) -> float:
        """The relaxed objective F as a mean over samples, the ridge term λ Σ ‖W̃_i‖² / n included."""
        fit = self.totals[0] + np.dot(mu, self.residual_squares(weights))
        return float(fit + ridge_term(weights, ridge, penalize_bias)) / self.samples


def ridge_term(weights: Weights, ridge: float, penalize_bias: bool = True) -> float:
    """λ Σ ‖W̃_i‖², with or without the biases."""
    penalized = weights if penalize_bias else tuple(w[:, :-1] for w in weights)
    return ridge * sum(_sum_of_squares(w) for w in penalized)


def _sum_of_squares(array: Array) -> float:
    return float(np.vecdot(array, array).sum(dtype=np.float64))


def _target(point: Point, fit: Fit, layer: int, name: str, work: Workspace) -> Array:
    """z_i + o_i in float64: what W̃_i ã is to give."""
    target = _double(point.z[layer], name, work)
    if fit.offsets is not None:
        target += fit.offsets[layer]
    return target


def _double(array: Array, name: str, work: Workspace) -> Array:
    """A contiguous float64 copy.

    Products of float32 would carry errors of √n ε into the normal equations, which amplify them by their
    condition: weights would agree to three digits between one chunking and another, rather than to seven.
    """
    copy = work.like(name, array, np.float64)
    copy[...] = array
    return copy
