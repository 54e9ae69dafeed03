"""The recurrent network itself: a forward pass through time and the derivatives of its loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from altmin_dask.networks.chain import Point
from altmin_dask.networks.losses import Curvature
from altmin_dask.networks.mean_loss import Targets
from altmin_dask.networks.recurrent import Recurrent
from altmin_dask.networks.sequences import SequenceLinearisation
from altmin_dask.networks.workspace import Workspace
from altmin_dask.types import Array, Batch, Weights


@dataclass(frozen=True)
class SequencePass:
    """A forward pass of a block of sequences; as `altmin_dask.networks.nested.Pass`, with one row for each step.

    Attributes
    ----------
    network, weights, targets
        The model, and what the outputs are compared with.
    point : Point
        z, inputs and values of all layers, without residuals.
    linear : SequenceLinearisation
        The tangent map there.
    output, gradient : ndarray, (n, d_L) or (n, T d_L)
        φ_L(z_L), and ∂ℓ/∂z_L.
    loss : ndarray, (n,)
        ℓ of every sample.
    work : Workspace
        Where arrays are kept until their next use.
    """

    network: Recurrent
    weights: Weights
    targets: Targets
    point: Point
    linear: SequenceLinearisation
    output: Array
    gradient: Array
    loss: Array
    work: Workspace

    @classmethod
    def forward(
        cls, network: Recurrent, weights: Weights, batch: Batch, work: Workspace | None = None
    ) -> SequencePass:
        """Pass samples through the network."""
        work = work or Workspace()
        targets = network.loss.targets(batch, weights[0].dtype)
        point = network.passed(weights, network.prepare(weights, batch, work), work)
        linear = network.linearise(weights, point, (1.0,) * len(weights), work)
        z = point.z[-1]
        output = network.loss.predict(z)
        loss = network.loss.value(z, output, targets, work)
        gradient = network.loss.gradient(z, output, targets, work).copy()
        return cls(network, weights, targets, point, linear, output, gradient, loss, work)

    @property
    def inputs(self) -> list[Array]:
        """ã of every layer, (n T, k_i), or (n, k_i) where only the last step is read."""
        return [
            a.reshape(-1, layer.inputs)
            for a, layer in zip(self.point.inputs, self.network.layers, strict=True)
        ]

    def curvature(self) -> Curvature:
        """The Gauss–Newton curvature of ℓ in z_L."""
        return self.network.loss.curvature(self.output, self.targets, self.work)

    def sample(self, noise: Array) -> Array:
        """Vectors u with E[u uᵀ] = H in z_L, from independent noise of mean 0 and variance 1, shaped as the output."""
        return self.curvature().sample(noise)

    def backward(self, at_output: Array) -> list[Array]:
        """Carry what is at the output back to every layer and step, (n T, d_i) or (n, d_i)."""
        found = [*self.linear.adjoint(at_output), at_output]
        return [back.reshape(-1, layer.width) for back, layer in zip(found, self.network.layers, strict=True)]

    def directional(self, change: Weights, name: str = "tangent") -> Array:
        """The derivative of z_L along a change of all weights at once, shaped as the output."""
        own = []
        for i, (inputs, w) in enumerate(zip(self.inputs, change, strict=True)):
            layer = self.network.layers[i]
            rows = self.work.take(f"{name} {i}", len(self.loss), layer.steps * layer.width, w.dtype)
            np.matmul(inputs, w.T, out=rows.reshape(-1, layer.width))
            own.append(rows)
        _, moved = self.linear.tangent(own[:-1])
        own[-1] += moved
        return own[-1]
