"""The tangent map of a network at a point, δ_i = s_i + W_i D_{i−1} δ_{i−1}, and its transpose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from altmin_dask.networks.layers import Block, Layer
from altmin_dask.networks.workspace import ArraySpec, Workspace
from altmin_dask.types import Array, Weights


@dataclass(frozen=True)
class Linearisation:
    """The tangent map of a network at a point, in coordinates scaled by the penalty.

    With scaled residual steps u_i = √m_i s_i and scaled pre-activation steps √m_i δ_i the recursion
    δ_i = s_i + W_i D_{i−1} δ_{i−1} keeps its form, W_i D_{i−1} times √(m_i / m_{i−1}): a factor of the slopes D_{i−1},
    or, where layer i − 1 reads itself by the same slopes, of a copy of W_i.

    Attributes
    ----------
    layers : tuple of Layer
        All of them.
    weights, down : tuple of ndarray
        W̃_i, and W̃_i times what the slopes below do not hold of its scale.
    slopes : list of ndarray, (n, size)
        φ_i'(z_i) of the hidden layers, zero in the padding, times what `down` above does not hold.
    blocks : tuple of Block
        The samples, as each layer sees them.
    work : Workspace
        Where arrays are kept until their next use.
    """

    layers: tuple[Layer, ...]
    weights: Weights
    down: Weights
    slopes: list[Array]
    blocks: tuple[Block, ...]
    work: Workspace

    @classmethod
    def at(
        cls,
        layers: tuple[Layer, ...],
        weights: Weights,
        z: Sequence[Array],
        values: Sequence[Array],
        m: Sequence[float],
        blocks: tuple[Block, ...],
        work: Workspace,
    ) -> Linearisation:
        """Linearise at hidden z and their values, for penalties m_i; m_L counts as 1, as the output is not scaled."""
        slopes, down = [], list(weights)
        for i, (a, layer) in enumerate(zip(values, layers, strict=False)):
            following = m[i + 1] if i + 2 < len(layers) else 1.0
            scale = float(np.sqrt(following / m[i]))
            slope = work.take(f"slope {i}", len(a), layer.size, a.dtype)
            layer.differentiate(z[i], a, slope, blocks[i], 1.0 if layer.recurrent else scale)
            if layer.recurrent and scale != 1:
                down[i + 1] = weights[i + 1] * a.dtype.type(scale)
            slopes.append(slope)
        return cls(layers, weights, tuple(down), slopes, blocks, work)

    @staticmethod
    def arrays(layers: tuple[Layer, ...], *, slopes: bool = True) -> Iterator[ArraySpec]:
        """What is taken of a workspace, layers' own arrays included; slopes unless they stand elsewhere."""
        for i, (layer, above) in enumerate(pairwise(layers)):
            names = (
                "tangent",
                "adjoint",
                *(("carried",) if layer.recurrent else ()),
                *(("slope",) if slopes else ()),
            )
            for name in names:
                yield ArraySpec(f"{name} {i}", layer.size)
            yield ArraySpec(f"image {i}", above.size)
        for layer in layers:
            for name, columns in layer.scratch().items():
                yield ArraySpec(name, columns)

    def tangent(self, u: Sequence[Array]) -> tuple[list[Array], Array]:
        """Propagate u_1 … u_{L−1}: the scaled hidden steps, and e = W_L D_{L−1} δ_{L−1} (unscaled), (n, size)."""
        steps: list[Array] = []
        for i, layer in enumerate(self.layers):
            delta = u[i] if not i else self._image(i, steps[-1])
            if i == len(self.slopes):
                break
            if i:
                delta += u[i]
            if layer.recurrent:
                given, delta = delta, self.work.like(f"carried {i}", delta)
                layer.carry(self.weights[i], self.slopes[i], given, delta, self.blocks[i])
            steps.append(delta)
        return steps, delta

    def _image(self, i: int, delta: Array) -> Array:
        """W_i D_{i−1} δ_{i−1}."""
        moved = np.multiply(delta, self.slopes[i - 1], out=self.work.like(f"tangent {i - 1}", delta))
        out = self.work.take(f"image {i - 1}", len(delta), self.layers[i].size, delta.dtype)
        return self.layers[i].image(self.down[i], moved, None, out, self.blocks[i])

    def adjoint(self, h: Array) -> list[Array]:
        """The transpose of u ↦ e: Σ over paths back to each u_i, (n, size); h: (n, size) of the output."""
        back: list[Array] = []
        for i in reversed(range(len(self.slopes))):
            out = self.work.like(f"adjoint {i}", self.slopes[i])
            h = self.layers[i + 1].adjoint(self.down[i + 1], h, out, self.blocks[i + 1])
            self.layers[i].carry_back(self.weights[i], self.slopes[i], h, self.blocks[i])
            back.append(h)
        return back[::-1]
