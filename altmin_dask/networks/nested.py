"""The nested network itself, z_i = W̃_i ã_{i−1} exactly: a forward pass and the derivatives of its loss.

What `Network.linearise` takes at any z is taken here where the constraints hold: the limit μ → ∞ of the relaxation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from altmin_dask.networks.layers import Block
from altmin_dask.networks.linearisation import Linearisation
from altmin_dask.networks.losses import Curvature
from altmin_dask.networks.mean_loss import Targets
from altmin_dask.networks.network import Network
from altmin_dask.networks.workspace import ArraySpec, Workspace, strips
from altmin_dask.types import Array, Batch, Weights


@dataclass(frozen=True)
class Pass:
    """A forward pass of a block of samples.

    Attributes
    ----------
    network : Network
        The model.
    targets : Targets
        What the outputs are compared with.
    inputs : list of ndarray, (n · steps, inputs)
        Augmented inputs ã_{i−1} of each layer, row by row; the first holds the samples.
    linear : Linearisation
        The tangent map there.
    z, output, gradient : ndarray, (n, size)
        z_L, φ_L(z_L), and ∂ℓ/∂z_L.
    loss : ndarray, (n,)
        ℓ of every sample.
    work : Workspace
        Where arrays are kept until their next use.
    """

    network: Network
    targets: Targets
    inputs: list[Array]
    linear: Linearisation
    z: Array
    output: Array
    gradient: Array
    loss: Array
    work: Workspace

    @classmethod
    def forward(cls, network: Network, weights: Weights, batch: Batch, work: Workspace | None = None) -> Pass:
        """Pass samples through the network."""
        work = work or Workspace()
        targets = network.loss.targets(batch, weights[0].dtype)
        blocks: list[Block] = []
        inputs: list[Array] = []
        slopes: list[Array] = []
        for i, (block, rows_in, z, values) in enumerate(network.propagate(weights, batch, work)):
            out = z
            if values is not None:
                network.layers[i].differentiate(
                    z, values, z, block
                )  # in its place: nobody asks for z any more
                slopes.append(z)
            blocks.append(block)
            inputs.append(rows_in.reshape(-1, network.layers[i].inputs))
        linear = Linearisation(network.layers, weights, weights, slopes, tuple(blocks), work)
        loss = np.empty(len(batch), out.dtype)
        output, gradient = work.like("pass output", out), work.like("pass gradient", out)
        for rows in strips(*out.shape):
            a = network.loss.predict(out[rows], output[rows])
            loss[rows] = network.loss.value(out[rows], a, targets[rows], work)
            gradient[rows] = network.loss.gradient(out[rows], a, targets[rows], work)
        return cls(network, targets, inputs, linear, out, output, gradient, loss, work)

    @staticmethod
    def arrays(network: Network) -> Iterator[ArraySpec]:
        """What a pass forward and one back take of a workspace."""
        yield from network.input_arrays("pass", 0)
        for i, layer in enumerate(network.layers):
            yield ArraySpec(f"pass z {i}", layer.size)
        yield from Linearisation.arrays(network.layers, slopes=False)
        out = network.widths[-1]
        for name in ("pass output", "pass gradient"):
            yield ArraySpec(name, out)
        yield from network.loss.arrays(out, "value", "gradient")

    @staticmethod
    def sample_arrays(network: Network) -> Iterator[ArraySpec]:
        """What `sample` takes besides."""
        yield ArraySpec("sampled", network.widths[-1])
        yield from network.loss.arrays(network.widths[-1], "curvature")

    @staticmethod
    def directional_arrays(network: Network, name: str) -> Iterator[ArraySpec]:
        """What `directional` takes besides."""
        for i, layer in enumerate(network.layers):
            yield ArraySpec(f"{name} {i}", layer.size)

    def curvature(self) -> Curvature:
        """The Gauss–Newton curvature of ℓ in z_L."""
        return self.network.loss.curvature(self.z, self.output, self.targets, self.work)

    def sample(self, noise: Array) -> Array:
        """Vectors u with E[u uᵀ] = H in z_L, from independent noise of mean 0 and variance 1, (n, size)."""
        sampled = self.work.like("sampled", noise)
        loss = self.network.loss
        for rows in strips(*noise.shape):
            curvature = loss.curvature(self.z[rows], self.output[rows], self.targets[rows], self.work)
            curvature.sample(noise[rows], sampled[rows])
        return sampled

    def backward(self, at_output: Array) -> list[Array]:
        """Carry what is at the output, (n, size), back to the rows of all layers, (n · steps, units): J_iᵀ."""
        found = [*self.linear.adjoint(at_output), at_output]
        return [a.reshape(-1, layer.units) for a, layer in zip(found, self.network.layers, strict=True)]

    def directional(self, change: Weights, name: str = "along") -> Array:
        """The derivative of z_L along a change of all weights at once, (n, size)."""
        own = []
        for i, (layer, inputs, w) in enumerate(zip(self.network.layers, self.inputs, change, strict=True)):
            rows = self.work.take(f"{name} {i}", len(self.loss), layer.size, w.dtype)
            np.matmul(inputs, w.T, out=rows.reshape(-1, layer.units))
            own.append(rows)
        if len(own) > 1:
            own[-1] += self.linear.tangent(own[:-1])[1]
        return own[-1]
