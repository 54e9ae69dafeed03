"""What groups of samples send for a K-FAC step: the gradient and both factors, and then a model along the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from altmin_dask.networks.network import Network
from altmin_dask.solvers.packing import Layout, PackedArrays, Shape
from altmin_dask.solvers.row_space import RowSpace
from altmin_dask.types import Array, Weights

WIDE = 1024
"""Inputs, or outputs, from which on a factor is not kept as a square matrix where something smaller says the same."""
ROWS_SHARE = 0.5
"""The most rows for each input with which they are taken in place of the inputs' matrix."""


@dataclass(frozen=True)
class Forms:
    """How the two factors that may be far too wide are kept; all others are matrices.

    Attributes
    ----------
    rows : int
        How many rows there are for training, if the first layer's input factor is known by a weight of each: then no
        factor is sent, and of the gradient the part of each row (`altmin_dask.solvers.row_space`). Else 0.
    diagonal : bool
        Whether the last layer's output factor is a diagonal, which it is but for the noise of sampling where the
        curvature of the loss is element-wise.
    """

    rows: int = 0
    diagonal: bool = False

    @classmethod
    def of(cls, network: Network, rows: int) -> Forms:
        """Those for a network, and so many samples for training."""
        first, last = network.layers[0], network.layers[-1]
        wide = first.takes_whole and first.inputs >= WIDE and rows <= ROWS_SHARE * first.inputs
        return cls(rows if wide else 0, network.loss.elementwise and last.units >= WIDE)

    def gradient_shapes(self, shapes: Sequence[tuple[int, int]]) -> list[Shape]:
        """Of gradients."""
        found: list[Shape] = list(shapes)
        return [(self.rows, shapes[0][0]), *found[1:]] if self.rows else found

    def input_shapes(self, shapes: Sequence[tuple[int, int]]) -> list[Shape]:
        """Of the input factors."""
        found: list[Shape] = [(k, k) for _, k in shapes]
        return [(self.rows,), *found[1:]] if self.rows else found

    def output_shapes(self, shapes: Sequence[tuple[int, int]]) -> list[Shape]:
        """Of the output factors."""
        found: list[Shape] = [(d, d) for d, _ in shapes]
        return [*found[:-1], found[-1][:1]] if self.diagonal else found


MATRICES = Forms()
"""All factors as they are."""


class KroneckerSums(PackedArrays):
    """Per-group sums for one K-FAC step: gradient and, optionally, both factors, packed for transport.

    Parameters
    ----------
    shapes : sequence of (int, int)
        The shape of each W̃_i.
    curvature : bool
        Whether the factors are part of it.
    vector : ndarray, optional
        All of it; zeros by default.
    dtype : dtype
        Of the zeros: that of the weights.
    forms : Forms
        How factors are kept.

    Attributes
    ----------
    totals : ndarray, (3,)
        Number of samples, Σ ℓ, Σ ℓ² under the weights before the step.
    negative_gradient : list of ndarray, (d_i, d_{i−1} + 1)
        2μ_i Σ r_i ãᵀ, which is −Σ g_i ãᵀ for μ → ∞; where `forms` say so, of the first layer 2μ_1 r_1 of every row,
        (N, d_1).
    input_factors, output_factors : list of ndarray
        The lower triangles of Σ ã ãᵀ, (d_{i−1} + 1)², and Σ J_iᵀ H J_i, (d_i)², where `forms` say no other; no arrays
        without curvature.
    """

    totals: Array
    negative_gradient: list[Array]
    input_factors: list[Array]
    output_factors: list[Array]

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        curvature: bool,
        vector: Array | None = None,
        dtype: npt.DTypeLike = np.float32,
        forms: Forms = MATRICES,
    ) -> None:
        super().__init__(self.layout(shapes, curvature, forms), vector, dtype)
        self.shapes, self.curvature = shapes, curvature

    @property
    def is_finite(self) -> bool:
        """Whether all numbers are."""
        return bool(np.isfinite(self.vector).all())

    @staticmethod
    def layout(shapes: Sequence[tuple[int, int]], curvature: bool, forms: Forms = MATRICES) -> Layout:
        """What a chunk sends."""
        return {
            "totals": (3,),
            "negative_gradient": forms.gradient_shapes(shapes),
            "input_factors": forms.input_shapes(shapes) if curvature else [],
            "output_factors": forms.output_shapes(shapes) if curvature else [],
        }

    def slope(self, way: Weights) -> float:
        """Of the mean nested loss along a way, ⟨∇, way⟩."""
        pairs = zip(self.negative_gradient, way, strict=True)
        return -sum(float(np.vdot(negative, along)) for negative, along in pairs) / float(self.totals[0])

    def gradient_norm(
        self, weights: Weights, ridge: float, penalize_bias: bool = True, space: RowSpace | None = None
    ) -> float:
        """‖∇‖ over all layers, of the mean nested loss (for μ → ∞) and the ridge λ/N = `ridge`."""
        total, n, first = 0.0, self.totals[0], 0
        if space is not None:
            held = weights[0] if penalize_bias else without_bias(weights[0])
            total, first = space.squared_norm(self.negative_gradient[0].T / n, 2 * ridge, held), 1
        for negative, w in zip(self.negative_gradient[first:], weights[first:], strict=True):
            gradient = negative / n
            if ridge:
                penalized = gradient if penalize_bias else gradient[:, :-1]
                penalized -= w.dtype.type(2 * ridge) * w[:, : penalized.shape[1]]
            total += float(np.vdot(gradient, gradient))
        return math.sqrt(total)


def without_bias(w: Array) -> Array:
    """W̃ with its last column zero."""
    kept = w.copy()
    kept[:, -1] = 0
    return kept


class QuadraticModel(PackedArrays):
    """The Gauss–Newton model of the nested loss along D and P = W̃ − W̃_previous: sums over the samples of a part.

    Parameters
    ----------
    vector : ndarray, float64, optional
        All of it; zeros by default.

    Attributes
    ----------
    samples : ndarray, ()
        How many.
    slope : ndarray, (2,)
        Σ gᵀ(J D), Σ gᵀ(J P).
    curvature : ndarray, (2, 2)
        Σ (J ·)ᵀ H (J ·).
    """

    samples: Array
    slope: Array
    curvature: Array

    def __init__(self, vector: Array | None = None) -> None:
        super().__init__(self.layout(), vector)

    @staticmethod
    def layout() -> Layout:
        """What a chunk sends."""
        return {"samples": (), "slope": (2,), "curvature": (2, 2)}
