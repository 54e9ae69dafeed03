"""One chunk's share of a step of training: blocks of rows small enough for the cache go through it one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from altmin_dask.networks.nested import Pass
from altmin_dask.networks.network import Network
from altmin_dask.networks.workspace import ArraySpec, Workspace, thread_workspace
from altmin_dask.solvers.evaluation import numbers_may_overflow
from altmin_dask.solvers.gauss_newton import update
from altmin_dask.solvers.kronecker import MATRICES, Forms, KroneckerSums, QuadraticModel
from altmin_dask.solvers.linalg import add_gram, add_product
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.packing import Layout, PackedArrays, packed_size, split_layers
from altmin_dask.solvers.penalty import ADMMResiduals, Penalty
from altmin_dask.solvers.statistics import Fit, Statistics
from altmin_dask.types import Array, Batch, Weights

_SIGNS = 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32) - 1
"""The eight signs in each byte."""


class VisitSums(PackedArrays):
    """What a visit of some samples gives.

    Attributes
    ----------
    statistics : Statistics
        Their sums, or the change of these.
    residuals : ADMMResiduals
        What was found; where nothing is kept of a sample but z, only what the z-updates promised.
    """

    statistics: Statistics
    residuals: ADMMResiduals

    def __init__(
        self, shapes: Sequence[tuple[int, int]], with_inputs: bool, vector: Array | None = None
    ) -> None:
        layout = self.layout(shapes, with_inputs)
        super().__init__(layout, vector)
        statistics, residuals = np.split(self.vector, [*layout["statistics"]])
        self.statistics = Statistics(shapes, with_inputs, statistics)
        self.residuals = ADMMResiduals(len(shapes), residuals)

    @staticmethod
    def layout(shapes: Sequence[tuple[int, int]], with_inputs: bool) -> Layout:
        """Both, one after the other."""
        parts = {
            "statistics": Statistics.layout(shapes, with_inputs),
            "residuals": ADMMResiduals.layout(len(shapes)),
        }
        return {name: (packed_size(part),) for name, part in parts.items()}


def latent_width(network: Network, penalty: type[Penalty]) -> int:
    """Numbers that are kept of a sample: Σ d_i of z, and behind them s of a penalty that is split."""
    return sum(network.widths) * (1 + penalty.per_sample_state)


def sends_inputs(network: Network, penalty: Penalty, previous: Penalty) -> bool:
    """Whether a visit changes the first Gram matrix: inputs move, or count otherwise than at the last visit."""
    return network.inputs_move or penalty.reweighs_inputs(previous)


def enter_chunk(
    network: Network, weights: Weights, penalty: Penalty, batch: Batch
) -> tuple[Array, Statistics]:
    """Bring a chunk into the sums.

    Returns
    -------
    latent : ndarray, (n, latent_width(network, penalty))
        z by a forward pass, and s zero.
    statistics : Statistics
        As of `collect_chunk`.
    """
    width = sum(network.widths)
    latent = np.zeros((len(batch), latent_width(network, type(penalty))), weights[0].dtype)
    for rows, block in batch.blocks(network.block_rows):
        np.concatenate(network.forward(weights, block), axis=1, out=latent[rows, :width])
    return latent, collect_chunk(network, weights, penalty, batch, latent)


def collect_chunk(
    network: Network, weights: Weights, penalty: Penalty, batch: Batch, latent: Array
) -> Statistics:
    """Statistics, with the input Gram matrix, of a chunk that was last visited under `penalty`."""
    statistics, work = Statistics(network.shapes, with_inputs=True), thread_workspace()
    width = sum(network.widths)
    for rows, block in batch.blocks(network.block_rows):
        z, s = split_layers(latent[rows, :width], network.widths), latent[rows, width:]
        fit = Fit(penalty.offsets(s, network.widths, work, "old offset"), penalty.counts)
        fixed: Any = network.prepare(weights, block, Workspace())
        point = network.evaluate(weights, fixed, network.loss.targets(block, weights[0].dtype), z)
        statistics.add(point, work, fit)
    return statistics


def visit_chunk(
    network: Network,
    weights: Weights,
    penalty: Penalty,
    previous: Penalty,
    batch: Batch,
    latent: Array,
    settings: NewtonSettings,
    *,
    replace_all: bool,
) -> tuple[Array, VisitSums]:
    """Update the dual variables of a chunk, where there are any, and its z.

    Parameters
    ----------
    network, weights, settings
        As in `altmin_dask.solvers.gauss_newton.update`.
    penalty, previous : Penalty
        Of this visit, and of the last one.
    batch : Batch
        The samples of the chunk.
    latent : ndarray, (n, latent_width(network, penalty))
        Their z, and what is kept beside it, which are not changed.
    replace_all : bool
        Whether the statistics are those of the new z (all chunks are visited before W is solved), or the
        difference that the visit makes to the sums (some chunks keep their z).

    Returns
    -------
    latent : ndarray, (n, latent_width(network, penalty))
        The new ones.
    sums : VisitSums
        Without the input Gram matrix unless `sends_inputs`.
    """
    work, width, widths = thread_workspace(), sum(network.widths), network.widths
    sums = VisitSums(network.shapes, sends_inputs(network, penalty, previous))
    out = np.empty_like(latent)
    for rows, block in batch.blocks(network.block_rows):
        z, s = split_layers(latent[rows, :width], widths), latent[rows, width:]
        dual = partial(
            penalty.update_dual, previous, s=s, out=out[rows, width:], measured=sums.residuals, work=work
        )
        with work.activity("newton"):
            result = update(network, weights, penalty.rho, block, z, settings, work, shift=dual)
        with work.activity("statistics"):
            fit = Fit(result.offsets, penalty.counts)
            if replace_all:
                sums.statistics.add(result.end, work, fit)
            else:
                old_fit = Fit(previous.offsets(s, widths, work, "old offset"), previous.counts)
                sums.statistics.replace(result.start, result.end, work, old_fit, fit)
        sums.residuals.totals[2] -= result.slope.sum(dtype=np.float64)
        sums.statistics.diagnostics += (result.objective_after.sum(dtype=np.float64), result.shortened)
        np.concatenate(result.end.z, axis=1, out=out[rows, :width])
    return out, sums


@numbers_may_overflow
def kfac_chunk(
    network: Network,
    weights: Weights,
    mu: Sequence[float] | None,
    batch: Batch,
    settings: NewtonSettings,
    seed: Sequence[int] | None = None,
    forms: Forms = MATRICES,
    numbers: Array | None = None,
) -> KroneckerSums:
    """What a chunk says about the weights, from z that restart at a forward pass.

    Parameters
    ----------
    network, weights, settings
        As in `altmin_dask.solvers.gauss_newton.update`.
    mu : sequence of float or None
        μ_1 … μ_L; None for μ → ∞, where the z-update is known without being made.
    batch : Batch
        The samples of the chunk.
    seed : sequence of int, optional
        Of the noise by which curvature is sampled; without it none is measured.
    forms : Forms
        How its factors are kept.
    numbers : ndarray of int, (n,), optional
        Which rows of all the samples are, where forms ask for the gradient's part of each.
    """
    work = thread_workspace()
    sums = KroneckerSums(network.shapes, seed is not None, dtype=weights[0].dtype, forms=forms)
    for number, (rows, block) in enumerate(batch.blocks(network.block_rows)):
        with work.activity("newton"):
            nested = Pass.forward(network, weights, block, work)
        loss = nested.loss
        sums.totals += (len(loss), loss.sum(dtype=np.float64), np.square(loss).sum(dtype=np.float64))
        if seed is not None:
            with work.activity("newton"):
                sampled = nested.backward(nested.sample(_signs([*seed, number], nested.output)))
            with work.activity("statistics"):
                _add_factors(sums, nested.inputs, sampled)
        with work.activity("newton"):
            if mu is None:
                scales, back, layers = [-1.0] * len(weights), nested.backward(nested.gradient), nested.inputs
            else:
                # from a forward pass: the residuals of a large μ are far below the rounding of z
                end = update(network, weights, mu, block, None, settings, work).end
                scales, back, layers = [2 * m for m in mu], end.residuals, end.inputs
        with work.activity("statistics"):
            totals = sums.negative_gradient
            if forms.rows:
                assert numbers is not None
                totals[0][numbers[rows]] = scales[0] * back[0]
            for layer in range(1 if forms.rows else 0, len(totals)):
                d, k = totals[layer].shape
                vectors, inputs = back[layer].reshape(-1, d), layers[layer].reshape(-1, k)
                add_product(totals[layer], scales[layer], vectors, inputs)
    return sums


def _add_factors(sums: KroneckerSums, inputs: list[Array], sampled: list[Array]) -> None:
    """Take rows of inputs, and sampled curvature, into the factors."""
    for total, vectors in zip(sums.output_factors, sampled, strict=True):
        if total.ndim == 2:
            add_gram(total, vectors)
        else:  # the square of a sign is 1: exact
            total += np.einsum("ij,ij->j", vectors, vectors)
    for total, rows in zip(sums.input_factors, inputs, strict=True):
        if total.ndim == 2:
            add_gram(total, rows)


def quadratic_model_arrays(network: Network) -> Iterator[ArraySpec]:
    """What `quadratic_model_chunk` takes of a workspace."""
    yield from Pass.arrays(network)
    for name in ("along", "repeated"):
        yield from Pass.directional_arrays(network, name)
    yield ArraySpec("bent", network.widths[-1])
    yield from network.loss.arrays(network.widths[-1], "curvature", rows="block")


def since(previous: Weights, weights: Weights) -> Weights:
    """What has been done since some weights, W̃ − W̃_previous, which a step may repeat."""
    return tuple(w - old for w, old in zip(weights, previous, strict=True))


@numbers_may_overflow
def quadratic_model_chunk(
    network: Network, weights: Weights, direction: Weights, repeated: Weights, batch: Batch
) -> QuadraticModel:
    """The model of the nested loss along `direction` and along what is `repeated`, on some samples."""
    work, model = thread_workspace(), QuadraticModel()
    model.samples += len(batch)
    for _, block in batch.blocks(network.block_rows):
        nested = Pass.forward(network, weights, block, work)
        ways = nested.directional(direction, "along"), nested.directional(repeated, "repeated")
        curvature, gradient = nested.curvature(), nested.gradient
        for a, way in enumerate(ways):
            model.slope[a] += np.vdot(gradient, way)
            bent = curvature.apply(way, out=work.like("bent", way))
            for b in range(a, len(ways)):
                model.curvature[a, b] += np.vdot(bent, ways[b])
    model.curvature[1, 0] = model.curvature[0, 1]
    return model


def _signs(seed: Sequence[int], like: Array) -> Array:
    """Independent signs, as many as the elements of an array."""
    random = np.frombuffer(np.random.default_rng(seed).bytes((like.size + 7) // 8), np.uint8)
    return _SIGNS.astype(like.dtype, copy=False)[random].ravel()[: like.size].reshape(like.shape)
