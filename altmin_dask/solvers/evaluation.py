"""Sums over a chunk that change nothing: what training begins from, and how good weights and z are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from altmin_dask.networks.network import Network
from altmin_dask.networks.workspace import Workspace
from altmin_dask.solvers.measures import NOTHING, Measure, Outputs
from altmin_dask.solvers.packing import Layout, PackedArrays, packed_size, split_layers
from altmin_dask.solvers.tallies import Tally
from altmin_dask.types import Array, Batch, Weights

numbers_may_overflow = np.errstate(over="ignore", invalid="ignore")
"""Of weights that explode: the sums are not finite then, and the step that led there is taken back."""


class Moments(PackedArrays):
    """First and second moments of samples, in float64.

    Attributes
    ----------
    gram : ndarray, (d_0 + 1, d_0 + 1)
        Σ x̃ x̃ᵀ of the first layer's augmented inputs; empty where it is not asked for.
    targets : ndarray, (d_L,)
        Σ of the targets; of labels, how many there are of each.
    """

    gram: Array
    targets: Array

    def __init__(self, network: Network, vector: Array | None = None, *, with_gram: bool = True) -> None:
        super().__init__(self.layout(network, with_gram=with_gram), vector)

    @staticmethod
    def layout(network: Network, *, with_gram: bool = True) -> Layout:
        """Of a network's samples."""
        k = network.shapes[0][1] if with_gram else 0
        return {"gram": (k, k), "targets": (network.widths[-1],)}


class RelaxedSums(PackedArrays):
    """What F is made of at z that are given, in float64.

    Attributes
    ----------
    loss : ndarray, ()
        Σ ℓ.
    residuals, squares : ndarray, (L,)
        Σ ‖r_i‖² and Σ ‖z_i‖².
    """

    loss: Array
    residuals: Array
    squares: Array

    def __init__(self, layers: int, vector: Array | None = None) -> None:
        super().__init__(self.layout(layers), vector)

    @staticmethod
    def layout(layers: int) -> Layout:
        """Of L layers."""
        return {"loss": (), "residuals": (layers,), "squares": (layers,)}


class Evaluation(PackedArrays):
    """Quality of the real network on some samples: sums over samples, which add up over chunks.

    Parameters
    ----------
    vector : ndarray, optional
        Sums; zeros by default.
    measure : Measure
        What else is summed.

    Attributes
    ----------
    samples, loss : ndarray, ()
        Number of samples, Σ ℓ of a forward pass.
    counted, correct : ndarray, ()
        Σ of the weights of outputs, of every step that has a target, and of those that are classified rightly (0
        without labels).
    more : ndarray
        What the measure adds up, packed.
    """

    samples: Array
    loss: Array
    counted: Array
    correct: Array
    more: Array

    def __init__(self, vector: Array | None = None, measure: Measure = NOTHING) -> None:
        self.measure = measure
        super().__init__(self.layout(measure), vector)

    @staticmethod
    def layout(measure: Measure = NOTHING) -> Layout:
        """Four numbers, and those of the measure."""
        more = {"more": (packed_size(measure.layout()),)}
        return {"samples": (), "loss": (), "counted": (), "correct": (), **more}

    @property
    def mean_loss(self) -> float:
        """The nested loss."""
        return float(self.loss / self.samples)

    @property
    def accuracy(self) -> float:
        """Share of labels predicted rightly."""
        return float(self.correct / self.counted)

    def metrics(self, names: Sequence[Any] | None = None, units: Array | None = None) -> dict[str, Any]:
        """What the measure tells (`altmin_dask.solvers.measures.Measure.metrics`)."""
        return self.measure.metrics(self.more, names, units)


def moments_chunk(network: Network, batch: Batch, *, with_gram: bool = True) -> Moments:
    """Moments of a chunk. Every sample counts the same: where training begins does not hang on weights."""
    sums = Moments(network, with_gram=with_gram)
    product, work = np.empty_like(sums.gram), Workspace()
    for _, block in batch.blocks(network.block_rows):
        y = block.y
        if with_gram:
            inputs = network.first_inputs(block, np.float64, work)
            sums.gram += np.matmul(inputs.T, inputs, out=product)
        if y is None:
            sums.targets += block.x.reshape(len(block), -1).sum(axis=0, dtype=np.float64)
        elif network.loss.target == "labels":
            sums.targets += np.bincount(y, minlength=network.widths[-1])
        else:
            sums.targets += y.sum(axis=0, dtype=np.float64)
    return sums


def objective_chunk(network: Network, weights: Weights, batch: Batch, z: Array) -> RelaxedSums:
    """What F is made of at the z of a chunk, (n, Σ d_i).

    Every r_i is formed in float64 and squared, so that nothing cancels but what cancels in r_i itself.
    """
    sums, double = RelaxedSums(len(network.widths)), tuple(w.astype(np.float64) for w in weights)
    for rows, block in batch.blocks(network.block_rows):
        layers = split_layers(z[rows].astype(np.float64), network.widths)
        fixed = network.prepare(double, block, Workspace())
        point = network.evaluate(double, fixed, network.loss.targets(block, np.float64), layers)
        sums.loss += point.loss.sum()
        sums.residuals += [np.vdot(r, r) for r in point.residuals]
        sums.squares += [np.vdot(layer, layer) for layer in layers]
    return sums


@numbers_may_overflow
def evaluate_chunk(
    network: Network,
    weights: Weights,
    batch: Batch,
    measure: Measure = NOTHING,
    first: int = 0,
    tallies: list[Tally] | None = None,
) -> Evaluation:
    """The nested loss, for labels the hits, and what a measure adds up, of a chunk whose first sample has a number.

    Where there is a list for tallies they are put there, and the sums are of `Measure.summed`.
    """
    sums, loss, steps = Evaluation(measure=measure), network.loss, network.loss.steps or 1
    if tallies is not None:
        sums = Evaluation(measure=measure.summed)
    sums.samples += len(batch)
    for rows, block in batch.blocks(network.block_rows):
        z = network.forward(weights, block)[-1]
        targets = loss.targets(block, z.dtype)
        a, counts = loss.predict(z), loss.counts(block)
        values = loss.value(z, a, targets)
        sums.loss += values.sum(dtype=np.float64)
        sums.counted += counts.sum()
        sums.correct += np.dot(counts, loss.hits(z, targets))
        outputs = Outputs(loss, z, a, targets, counts, (first + rows.start) * steps, values)
        sums.measure.add(sums.more, outputs)
        if tallies is not None:
            tallies.append(measure.tally(outputs))
    return sums
