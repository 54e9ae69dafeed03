"""Sequences as a recurrent network reads them, and its linearisation through time, for a block of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from altmin_dask.networks.workspace import Workspace
from altmin_dask.types import Array


@dataclass(frozen=True)
class Layer:
    """Where a layer stands: what it reads, its width, its steps (T or 1), and whether it reads its own last state."""

    in_features: int
    width: int
    steps: int
    recurrent: bool

    @property
    def inputs(self) -> int:
        """Numbers in ã."""
        return self.in_features + (self.width if self.recurrent else 0) + 1


@dataclass(frozen=True)
class Sequences:
    """A block of samples, taken apart.

    Attributes
    ----------
    x : ndarray, (n, T, d_0)
        Inputs.
    mask : ndarray, (n, T, 1), or None
        1 where a sequence is, 0 where it is padded.
    last : ndarray of int, (n,), or None
        The last step of every sequence; None where it is T − 1.
    states : list of ndarray, (n, d_i), or None
        s_i⁰ of the recurrent layers; None for zero.
    """

    x: Array
    mask: Array | None
    last: Array | None
    states: list[Array] | None

    def rows(self, rows: Array) -> Sequences:
        """Some of the samples."""
        return Sequences(
            self.x[rows],
            None if self.mask is None else self.mask[rows],
            None if self.last is None else self.last[rows],
            None if self.states is None else [state[rows] for state in self.states],
        )

    def final(self, values: Array) -> Array:
        """Values (n, T, d) at the last step of every sequence, (n, d)."""
        return values[:, -1] if self.last is None else values[np.arange(len(values)), self.last]

    def spread(self, values: Array, steps: Array) -> None:
        """Undo `final`: write values into zeros (n, T, d)."""
        steps[:] = 0
        if self.last is None:
            steps[:, -1] = values
        else:
            steps[np.arange(len(values)), self.last] = values

    def masked(self, values: Array) -> Array:
        """Set (n, T, d) to zero in the padding, in place."""
        if self.mask is not None and values.shape[1] == self.mask.shape[1]:
            values *= self.mask
        return values


@dataclass(frozen=True)
class SequenceLinearisation:
    """The tangent map of a recurrent network at a point, in the coordinates of `altmin_dask.networks.chain`.

    Attributes
    ----------
    layers : tuple of Layer
        All of them.
    down, across : tuple of ndarray
        W_i √(m_i / m_{i−1}), the output's W_L / √m_{L−1}, and V_i where there is one.
    slopes : tuple of ndarray, (n, T, d_i)
        D_i, zero in the padding.
    sequences : Sequences
        Where each sequence ends.
    work : Workspace
        Where arrays are kept until their next use.
    """

    layers: tuple[Layer, ...]
    down: tuple[Array, ...]
    across: tuple[Array | None, ...]
    slopes: tuple[Array, ...]
    sequences: Sequences
    work: Workspace

    def tangent(self, u: Sequence[Array]) -> tuple[list[Array], Array]:
        """Propagate u_1 … u_{L−1}, each (n, T d_i): the scaled steps, and e at the output, unscaled."""
        steps: list[Array] = []
        delta, n = u[0], len(u[0])
        for i, layer in enumerate(self.layers):
            columns = layer.steps * layer.width
            if i:
                below = self._slope_times(i - 1, delta)
                image = self.work.take(f"image {i - 1}", n, columns, delta.dtype)
                np.matmul(
                    self._read(i, below).reshape(-1, layer.in_features),
                    self.down[i].T,
                    out=image.reshape(-1, layer.width),
                )
                if i == len(self.layers) - 1:
                    return steps, image
                image += u[i]
                delta = image
            across = self.across[i]
            if across is not None:
                if not i:
                    delta = self.work.like("tangent start", u[0])
                    delta[:] = u[0]
                moving, slope = delta.reshape(n, layer.steps, layer.width), self.slopes[i]
                carried = self.work.take("carried", n, layer.width, delta.dtype)
                product = self.work.take("across", n, layer.width, delta.dtype)
                for t in range(1, layer.steps):
                    np.multiply(slope[:, t - 1], moving[:, t - 1], out=carried)
                    moving[:, t] += np.matmul(carried, across.T, out=product)
                self.sequences.masked(moving)
            steps.append(delta)
        raise AssertionError  # the last layer has no loop

    def adjoint(self, h: Array) -> list[Array]:
        """The transpose of u ↦ e; h: (n, T d_L) or (n, d_L), results (n, T d_i)."""
        found: list[Array] = []
        n = len(h)
        for i in reversed(range(len(self.layers) - 1)):
            layer, above, slope = self.layers[i], self.layers[i + 1], self.slopes[i]
            back = self.work.take(f"adjoint {i}", n, layer.steps * layer.width, h.dtype)
            steps = back.reshape(n, layer.steps, layer.width)
            if above.steps < layer.steps:
                self.sequences.spread(np.matmul(h, self.down[i + 1]), steps)
            else:
                np.matmul(h.reshape(-1, above.width), self.down[i + 1], out=back.reshape(-1, layer.width))
            across = self.across[i]
            if across is None:
                steps *= slope
            else:
                product = self.work.take("across", n, layer.width, h.dtype)
                steps[:, -1] *= slope[:, -1]
                for t in reversed(range(layer.steps - 1)):
                    steps[:, t] += np.matmul(steps[:, t + 1], across, out=product)
                    steps[:, t] *= slope[:, t]
            found.insert(0, back)
            h = back
        return found

    def _slope_times(self, i: int, delta: Array) -> Array:
        slope = self.slopes[i]
        scaled = self.work.like(f"tangent {i}", delta).reshape(slope.shape)
        return np.multiply(delta.reshape(slope.shape), slope, out=scaled)

    def _read(self, i: int, below: Array) -> Array:
        """What layer i reads of the layer below, (n, T, d) or (n, 1, d)."""
        if self.layers[i].steps < below.shape[1]:
            return self.sequences.final(below)
        return below
