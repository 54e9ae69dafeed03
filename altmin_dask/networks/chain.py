"""The feed-forward chain z_i = W_i φ_{i−1}(z_{i−1}) + b_i and its linearisation, for a block of samples.

Weights are kept in augmented form W̃_i = [W_i b_i] and act on augmented inputs ã = [φ(z); 1], so a forward pass
and the least-squares statistics are plain matrix products with no separate bias.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from altmin_dask.errors import ConfigError
from altmin_dask.networks.activations import Activation, Array, get_activation
from altmin_dask.networks.losses import Loss, get_loss

if TYPE_CHECKING:
    import numpy.typing as npt

Weights = tuple[Array, ...]
"""W̃_1 … W̃_L, each of shape (d_i, d_{i−1} + 1), the bias in the last column."""


def augmented(values: Array, dtype: npt.DTypeLike) -> Array:
    """[values 1] of shape (n, d + 1) in `dtype`; values of any rank ≥ 2 are flattened to (n, d)."""
    n = len(values)
    values = values.reshape(n, -1)
    out: Array = np.empty((n, values.shape[1] + 1), dtype)
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
    output : ndarray, (n, d_L)
        φ_L(z_L).
    loss : ndarray, (n,)
        ℓ(φ_L(z_L), y).
    """

    z: list[Array]
    inputs: list[Array]
    residuals: list[Array]
    output: Array
    loss: Array

    def assign(self, rows: Array, other: Point, taken: Array | slice = slice(None)) -> None:
        """Overwrite `rows` of this point by the rows `taken` of another."""
        for mine, theirs in zip(self._arrays(), other._arrays(), strict=True):
            mine[rows] = theirs[taken]

    def _arrays(self) -> Iterable[Array]:
        # inputs[0] holds the samples themselves: the same at every point
        return (*self.z, *self.inputs[1:], *self.residuals, self.output, self.loss)


@dataclass(frozen=True)
class Linearisation:
    """The tangent map of the chain at a point, in coordinates scaled by the penalty.

    With scaled residual steps u_i = √m_i s_i and scaled pre-activation steps √m_i δ_i the recursion
    δ_i = s_i + W_i D_{i−1} δ_{i−1} keeps its form; all scales are folded into the diagonals `slopes`.
    """

    matrices: tuple[Array, ...]
    slopes: tuple[Array, ...]

    def tangent(self, u: Sequence[Array]) -> tuple[list[Array], Array]:
        """Propagate u_1 … u_{L−1}: the scaled hidden steps, and e = W_L D_{L−1} δ_{L−1} (unscaled), (n, d_L)."""
        steps: list[Array] = []
        e = u[0]
        for layer, slope in enumerate(self.slopes):
            step = u[layer] if layer == 0 else np.add(e, u[layer], out=e)
            steps.append(step)
            e = (step * slope) @ self.matrices[layer + 1].T
        return steps, e

    def adjoint(self, h: Array) -> list[Array]:
        """The transpose of u ↦ e: Σ over paths back to each u_i; h: (n, d_L)."""
        back: list[Array] = []
        for layer in reversed(range(len(self.slopes))):
            h = h @ self.matrices[layer + 1]
            h *= self.slopes[layer]
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
    loss : Loss
        ℓ with its output activation φ_L.
    """

    sizes: tuple[int, ...]
    activations: tuple[Activation, ...]
    loss: Loss

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
            raise ConfigError(f"{len(names)} activations were given for {hidden} hidden layers; give one for each")
        return cls(
            tuple(int(size) for size in sizes),
            tuple(get_activation(name) for name in names),
            get_loss(loss, output_activation),
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """d_1 … d_L: the layers that have pre-activations."""
        return self.sizes[1:]

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The shape of each W̃_i."""
        return tuple((d, k + 1) for k, d in zip(self.sizes[:-1], self.sizes[1:], strict=True))

    def initial_weights(self, seed: int | np.random.Generator = 0, dtype: npt.DTypeLike = np.float32) -> Weights:
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

    def forward(self, weights: Weights, x: Array) -> list[Array]:
        """Pre-activations z_1 … z_L of a forward pass; x: (n, d_0) or any (n, …) of that many features."""
        inputs = augmented(x, weights[0].dtype)
        z = [inputs @ weights[0].T]
        for layer, activation in enumerate(self.activations):
            z.append(self._inputs(activation, z[layer]) @ weights[layer + 1].T)
        return z

    def predict(self, weights: Weights, x: Array) -> Array:
        """φ_L of a forward pass, (n, d_L)."""
        return self.loss.predict(self.forward(weights, x)[-1])

    def evaluate(self, weights: Weights, inputs: Array, drive: Array, y: Array, z: list[Array]) -> Point:
        """Everything at z; `inputs` are the augmented samples and `drive` = inputs W̃_1ᵀ, which z does not change."""
        layers_in = [inputs]
        residuals = [z[0] - drive]
        for layer, activation in enumerate(self.activations):
            layers_in.append(self._inputs(activation, z[layer]))
            prediction = layers_in[-1] @ weights[layer + 1].T
            residuals.append(np.subtract(z[layer + 1], prediction, out=prediction))
        output = self.loss.predict(z[-1])
        return Point(z, layers_in, residuals, output, self.loss.value(z[-1], output, y))

    def linearise(self, weights: Weights, point: Point, m: Sequence[float]) -> Linearisation:
        """The tangent map at a point, for penalties m_i (½ m_i ‖s_i‖² is the cost of a residual step)."""
        slopes = []
        for layer, activation in enumerate(self.activations):
            slope = activation.derivative(point.inputs[layer + 1][:, :-1], out=np.empty_like(point.z[layer]))
            following = m[layer + 1] if layer + 1 < len(self.activations) else 1.0
            scale = float(np.sqrt(following / m[layer]))
            if scale != 1.0:
                slope *= slope.dtype.type(scale)
            slopes.append(slope)
        return Linearisation(tuple(w[:, :-1] for w in weights), tuple(slopes))

    @staticmethod
    def _inputs(activation: Activation, z: Array) -> Array:
        out: Array = np.empty((len(z), z.shape[1] + 1), z.dtype)
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
