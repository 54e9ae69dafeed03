"""The feed-forward chain z_i = W_i φ_{i−1}(z_{i−1}) + b_i and its linearisation, for a block of samples.

Weights are kept in augmented form W̃_i = [W_i b_i] and act on augmented inputs ã = [φ(z); 1], so a forward pass
and the least-squares statistics are plain matrix products with no separate bias.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from altmin_dask.errors import ConfigError
from altmin_dask.networks.activations import Activation, get_activation, remainder
from altmin_dask.networks.losses import get_loss
from altmin_dask.networks.mean_loss import MeanLoss, Targets
from altmin_dask.networks.workspace import Workspace, strips
from altmin_dask.types import Array, Batch, Weights

if TYPE_CHECKING:
    import numpy.typing as npt

BLOCK_ROWS = 1024
"""How many samples are best computed with at a time."""


def augmented(values: Array, dtype: npt.DTypeLike, work: Workspace | None = None) -> Array:
    """[values 1] of shape (n, d + 1) in `dtype`; values of any rank ≥ 2 are flattened to (n, d)."""
    values = values.reshape(len(values), prod(values.shape[1:]))
    out = (work or Workspace()).take("inputs", len(values), values.shape[1] + 1, dtype)
    out[:, :-1] = values
    out[:, -1] = 1
    return out


@dataclass
class Point:
    """All per-sample quantities at one z; the arrays of layer i sit at index i − 1.

    Attributes
    ----------
    z : list of ndarray, (n, d_i)
        Pre-activations.
    inputs : list of ndarray, (n, d_{i−1} + 1)
        Augmented inputs ã_{i−1} of each layer; the first holds the samples.
    residuals : list of ndarray, (n, d_i)
        r_i = z_i − W̃_i ã_{i−1}.
    squares : list of ndarray, (n,)
        ‖r_i‖².
    output : ndarray, (n, d_L)
        φ_L(z_L).
    loss : ndarray, (n,)
        ℓ(φ_L(z_L), y).
    values : list of ndarray
        φ_i(z_i) of the hidden layers of a recurrent network; a chain finds them in its inputs.
    sequences : Any
        What a recurrent network knows of its samples (`altmin_dask.networks.sequences`).
    """

    z: list[Array]
    inputs: list[Array]
    residuals: list[Array]
    squares: list[Array]
    output: Array
    loss: Array
    values: list[Array] = field(default_factory=list)
    sequences: Any = None

    def assign(self, rows: Array, other: Point, taken: Array | slice = slice(None)) -> None:
        """Overwrite `rows` of this point by the rows `taken` of another."""
        for mine, theirs in zip(self._arrays(), other._arrays(), strict=True):
            mine[rows] = theirs[taken]

    def _arrays(self) -> Iterable[Array]:
        # a chain's inputs[0] holds the samples themselves: the same at every point
        inputs = self.inputs if self.values else self.inputs[1:]
        return (*self.z, *inputs, *self.residuals, *self.squares, self.output, self.loss, *self.values)


@dataclass(frozen=True)
class Drive:
    """What does not depend on z: the augmented samples, (n, d_0 + 1), and inputs W̃_1ᵀ, (n, d_1)."""

    inputs: Array
    drive: Array

    def rows(self, rows: Array) -> Drive:
        """Some of the samples."""
        return Drive(self.inputs[rows], self.drive[rows])


@dataclass(frozen=True)
class Linearisation:
    """The tangent map of the chain at a point, in coordinates scaled by the penalty.

    With scaled residual steps u_i = √m_i s_i and scaled pre-activation steps √m_i δ_i the recursion
    δ_i = s_i + W_i D_{i−1} δ_{i−1} keeps its form; all scales are folded into the diagonals `slopes`.
    """

    matrices: tuple[Array, ...]
    slopes: tuple[Array, ...]
    work: Workspace

    def tangent(self, u: Sequence[Array]) -> tuple[list[Array], Array]:
        """Propagate u_1 … u_{L−1}: the scaled hidden steps, and e = W_L D_{L−1} δ_{L−1} (unscaled), (n, d_L)."""
        steps = [u[0]]
        for layer, slope in enumerate(self.slopes):
            matrix = self.matrices[layer + 1]
            scaled = np.multiply(steps[layer], slope, out=self.work.like(f"tangent {layer}", slope))
            e = np.matmul(
                scaled, matrix.T, out=self.work.take(f"image {layer}", len(slope), len(matrix), slope.dtype)
            )
            if layer + 1 < len(self.slopes):
                e += u[layer + 1]
            steps.append(e)
        return steps[:-1], steps[-1]

    def adjoint(self, h: Array) -> list[Array]:
        """The transpose of u ↦ e: Σ over paths back to each u_i; h: (n, d_L)."""
        back: list[Array] = []
        for layer in reversed(range(len(self.slopes))):
            slope = self.slopes[layer]
            h = np.matmul(h, self.matrices[layer + 1], out=self.work.like(f"adjoint {layer}", slope))
            h *= slope
            back.append(h)
        return back[::-1]


@dataclass(frozen=True)
class Chain:
    """A feed-forward network: layer widths, an activation per hidden layer, and a loss.

    Attributes
    ----------
    sizes : tuple of int
        d_0 (features of a sample), d_1, …, d_L.
    activations : tuple of Activation
        φ_1 … φ_{L−1}.
    loss : MeanLoss
        Of a sample, with its output activation φ_L.
    """

    sizes: tuple[int, ...]
    activations: tuple[Activation, ...]
    loss: MeanLoss

    inputs_move = False
    """The first layer's inputs are the samples."""
    block_rows = BLOCK_ROWS

    @classmethod
    def build(
        cls,
        sizes: Sequence[int],
        activation: str | Sequence[str] = "sigmoid",
        loss: str = "squared",
        output_activation: str | None = None,
    ) -> Chain:
        """Make a chain from names.

        Parameters
        ----------
        sizes : sequence of int
            d_0 … d_L, at least two.
        activation : str or sequence of str
            One name for all hidden layers, or one for each.
        loss, output_activation : str
            See `get_loss`.

        Raises
        ------
        ConfigError
            If a width is not positive, a name is unknown, or the lengths do not match.
        """
        if len(sizes) < 2:
            raise ConfigError("a chain needs at least an input and an output width")
        for layer, size in enumerate(sizes):
            if size < 1:
                raise ConfigError(f"layer {layer} has width {size}; every width must be at least 1")
        hidden = len(sizes) - 2
        names = [activation] * hidden if isinstance(activation, str) else list(activation)
        if len(names) != hidden:
            raise ConfigError(
                f"{len(names)} activations were given for {hidden} hidden layers; give one for each"
            )
        return cls(
            tuple(int(size) for size in sizes),
            tuple(get_activation(name) for name in names),
            MeanLoss(get_loss(loss, output_activation)),
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """d_1 … d_L: the layers that have pre-activations."""
        return self.sizes[1:]

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The shape of each W̃_i."""
        return tuple((d, k + 1) for k, d in zip(self.sizes[:-1], self.sizes[1:], strict=True))

    def initial_weights(
        self, seed: int | np.random.Generator = 0, dtype: npt.DTypeLike = np.float32
    ) -> Weights:
        """Random weights with zero biases: uniform Glorot, or uniform He before a rectifier.

        Every layer is drawn in float64 from one generator, so float32 and float64 start alike.
        """
        rng = np.random.default_rng(seed)
        rules = [a.initialization for a in self.activations] + ["glorot"]
        weights = []
        for (d, k), rule in zip(self.shapes, rules, strict=True):
            fan_in = k - 1
            limit = np.sqrt(6 / fan_in) if rule == "he" else np.sqrt(6 / (fan_in + d))
            layer = np.zeros((d, k))
            layer[:, :-1] = rng.uniform(-limit, limit, (d, fan_in))
            weights.append(layer.astype(dtype))
        return tuple(weights)

    def forward(self, weights: Weights, batch: Batch) -> list[Array]:
        """Pre-activations z_1 … z_L of a forward pass."""
        inputs = augmented(batch.x, weights[0].dtype)
        z = [inputs @ weights[0].T]
        for layer, activation in enumerate(self.activations):
            following = np.empty((len(batch), self.shapes[layer + 1][1]), inputs.dtype)
            z.append(self._inputs(activation, z[layer], following) @ weights[layer + 1].T)
        return z

    def predict(self, weights: Weights, batch: Batch) -> Array:
        """φ_L of a forward pass, (n, d_L)."""
        return self.loss.predict(self.forward(weights, batch)[-1])

    def prepare(self, weights: Weights, batch: Batch, work: Workspace) -> Drive:
        """What does not depend on z."""
        inputs = augmented(batch.x, weights[0].dtype, work)
        drive = work.take("drive", len(batch), self.widths[0], inputs.dtype)
        return Drive(inputs, np.matmul(inputs, weights[0].T, out=drive))

    def evaluate(
        self,
        weights: Weights,
        fixed: Drive,
        targets: Targets,
        z: list[Array],
        work: Workspace | None = None,
        name: str = "",
        offsets: Sequence[Array] | None = None,
    ) -> Point:
        """Everything at z.

        Parameters
        ----------
        weights : tuple of ndarray
            W̃_1 … W̃_L.
        fixed : Drive
            As `prepare` gives it.
        targets : Targets
            As `loss.targets` gives them.
        z : list of ndarray, (n, d_i)
            Pre-activations.
        work, name : Workspace, str
            Where the point's arrays are kept, and a name that no other point in use has there.
        offsets : sequence of ndarray, (n, d_i), optional
            o_1 … o_L: what the point calls residuals is r_i + o_i then.
        """
        work = work or Workspace()
        drive = fixed.drive
        n, dtype = drive.shape[0], drive.dtype
        residuals = [
            work.take(f"{name} residual {layer}", n, d, dtype) for layer, d in enumerate(self.widths)
        ]
        squares = [np.empty(n, dtype) for _ in residuals]
        layers_in = [fixed.inputs]
        for layer, activation in enumerate(self.activations):
            following = work.take(f"{name} inputs {layer}", n, self.shapes[layer + 1][1], dtype)
            offset = None if offsets is None else offsets[layer]
            for rows, z_rows in self._residual(z[layer], drive, residuals[layer], squares[layer], offset):
                self._inputs(activation, z_rows, following[rows])
            layers_in.append(following)
            drive = np.matmul(following, weights[layer + 1].T, out=residuals[layer + 1])
        output, loss = work.like(f"{name} output", residuals[-1]), np.empty(n, dtype)
        offset = None if offsets is None else offsets[-1]
        for rows, z_rows in self._residual(z[-1], drive, residuals[-1], squares[-1], offset):
            self.loss.predict(z_rows, output[rows])
            loss[rows] = self.loss.value(z_rows, output[rows], targets[rows], work)
        return Point(z, layers_in, residuals, squares, output, loss)

    @staticmethod
    def _residual(
        z: Array, prediction: Array, out: Array, squares: Array, offset: Array | None
    ) -> Iterator[tuple[slice, Array]]:
        """Fill in a layer's residuals and their squared norms strip by strip, yielding each strip of z while at it."""
        for rows in strips(*out.shape):
            np.subtract(z[rows], prediction[rows], out=out[rows])
            if offset is not None:
                out[rows] += offset[rows]
            np.vecdot(out[rows], out[rows], out=squares[rows])
            yield rows, z[rows]

    def linearise(
        self, weights: Weights, point: Point, m: Sequence[float], work: Workspace | None = None
    ) -> Linearisation:
        """The tangent map at a point, for penalties m_i (½ m_i ‖s_i‖² is the cost of a residual step)."""
        work = work or Workspace()
        slopes = []
        for layer, activation in enumerate(self.activations):
            value = point.inputs[layer + 1][:, :-1]
            slope = work.like(f"slope {layer}", value)
            following = m[layer + 1] if layer + 1 < len(self.activations) else 1.0
            scale = slope.dtype.type(np.sqrt(following / m[layer]))
            for rows in strips(*slope.shape):
                activation.derivative(value[rows], out=slope[rows])
                if scale != 1:
                    slope[rows] *= scale
            slopes.append(slope)
        return Linearisation(tuple(w[:, :-1] for w in weights), tuple(slopes), work)

    def remainders(
        self, weights: Weights, fixed: Drive, z: list[Array], delta: list[Array], work: Workspace
    ) -> Iterator[Array]:
        """What a step δ changes W̃_i ã_{i−1} by beyond the tangent, (n, d_i) for each layer; valid until the next."""
        yield np.zeros((), z[0].dtype)
        for layer, activation in enumerate(self.activations):
            curved = work.like("curved", z[layer])
            for rows in strips(*curved.shape):
                curved[rows] = remainder(activation, z[layer][rows], delta[layer][rows])
            out = work.like("remainder", z[layer + 1])
            yield np.matmul(curved, weights[layer + 1][:, :-1].T, out=out)

    @staticmethod
    def _inputs(activation: Activation, z: Array, out: Array) -> Array:
        activation.value(z, out=out[:, :-1])
        out[:, -1] = 1
        return out

    def describe(self) -> dict[str, Any]:
        """The chain as JSON-ready settings; `Chain.build(**chain.describe())` makes it again."""
        return {
            "sizes": list(self.sizes),
            "activation": [activation.name for activation in self.activations],
            "loss": self.loss.name,
            "output_activation": self.loss.output_activation,
        }
