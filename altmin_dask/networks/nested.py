"""The nested network itself, z_i = W̃_i ã_{i−1} exactly: a forward pass and the derivatives of its loss.

What `altmin_dask.networks.chain` linearises about any z is taken here where the constraints hold: the limit μ → ∞
of the relaxation. No pre-activation but the last is kept, as derivatives follow from values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from altmin_dask.networks.chain import Chain, augmented
from altmin_dask.networks.losses import Curvature
from altmin_dask.networks.mean_loss import Targets
from altmin_dask.networks.workspace import Workspace, strips
from altmin_dask.types import Array, Batch, Weights


@dataclass(frozen=True)
class Pass:
    """A forward pass of a block of samples.

    Attributes
    ----------
    network, weights : Chain, tuple of ndarray
        The model.
    targets : Targets
        What the outputs are compared with.
    inputs : list of ndarray, (n, d_{i−1} + 1)
        Augmented inputs ã_{i−1} of each layer; the first holds the samples.
    output, gradient : ndarray, (n, d_L)
        φ_L(z_L), and ∂ℓ/∂z_L.
    loss : ndarray, (n,)
        ℓ of every sample.
    work : Workspace
        Where arrays are kept until their next use.
    """

    network: Chain
    weights: Weights
    targets: Targets
    inputs: list[Array]
    output: Array
    gradient: Array
    loss: Array
    work: Workspace

    @classmethod
    def forward(cls, network: Chain, weights: Weights, batch: Batch, work: Workspace | None = None) -> Pass:
        """Pass samples through the network."""
        work = work or Workspace()
        targets = network.loss.targets(batch, weights[0].dtype)
        inputs = augmented(batch.x, weights[0].dtype, work)
        n, layers = len(inputs), [inputs]
        for layer, activation in enumerate(network.activations):
            d = network.widths[layer]
            z = np.matmul(layers[-1], weights[layer].T, out=work.take("pass z", n, d, inputs.dtype))
            following = work.take(f"pass inputs {layer}", n, d + 1, inputs.dtype)
            for rows in strips(n, d):
                activation.value(z[rows], out=following[rows, :-1])
            following[:, -1] = 1
            layers.append(following)
        z = work.take("pass out", n, network.widths[-1], inputs.dtype)
        np.matmul(layers[-1], weights[-1].T, out=z)
        output, gradient = work.like("pass output", z), work.like("pass gradient", z)
        loss = np.empty(n, z.dtype)
        for rows in strips(*z.shape):
            a = network.loss.predict(z[rows], output[rows])
            loss[rows] = network.loss.value(z[rows], a, targets[rows], work)
            gradient[rows] = network.loss.gradient(z[rows], a, targets[rows], work)
        return cls(network, weights, targets, layers, output, gradient, loss, work)

    def curvature(self) -> Curvature:
        """The Gauss–Newton curvature of ℓ in z_L."""
        return self.network.loss.curvature(self.output, self.targets, self.work)

    def sample(self, noise: Array) -> Array:
        """Vectors u with E[u uᵀ] = H in z_L, from independent noise of mean 0 and variance 1, (n, d_L)."""
        sampled = self.work.like("sampled", noise)
        for rows in strips(*noise.shape):
            curvature = self.network.loss.curvature(self.output[rows], self.targets[rows], self.work)
            curvature.sample(noise[rows], sampled[rows])
        return sampled

    def backward(self, at_output: Array, name: str = "back") -> list[Array]:
        """Carry rows (n, d_L) at the output back to every layer: J_iᵀ of each sample, with J_i = ∂z_L/∂z_i."""
        found = [at_output]
        for layer in reversed(range(len(self.network.activations))):
            value = self.inputs[layer + 1][:, :-1]
            back = self.work.like(f"{name} {layer}", value)
            np.matmul(found[0], self.weights[layer + 1][:, :-1], out=back)
            for rows in strips(*back.shape):
                slope = self.work.like("pass slope", back[rows])
                back[rows] *= self.network.activations[layer].derivative(value[rows], out=slope)
            found.insert(0, back)
        return found

    def directional(self, change: Weights, name: str = "tangent") -> Array:
        """The derivative of z_L along a change of all weights at once, (n, d_L)."""
        moved = self._product(self.inputs[0], change[0], f"{name} 0")
        for layer, activation in enumerate(self.network.activations, 1):
            value = self.inputs[layer][:, :-1]
            for rows in strips(*moved.shape):
                slope = self.work.like("pass slope", moved[rows])
                moved[rows] *= activation.derivative(value[rows], out=slope)
            own = self._product(self.inputs[layer], change[layer], f"{name} {layer}")
            own += self._product(moved, self.weights[layer][:, :-1], "tangent carried")
            moved = own
        return moved

    def _product(self, rows: Array, matrix: Array, name: str) -> Array:
        return np.matmul(rows, matrix.T, out=self.work.take(name, len(rows), len(matrix), rows.dtype))
