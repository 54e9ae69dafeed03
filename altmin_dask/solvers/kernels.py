"""One chunk's share of a sweep: blocks of rows small enough for the cache go through the z-update one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from altmin_dask.networks.chain import augmented
from altmin_dask.networks.network import Network, nested_pass
from altmin_dask.networks.workspace import Workspace, thread_workspace
from altmin_dask.solvers.gauss_newton import NewtonSettings, update
from altmin_dask.solvers.kronecker import KroneckerSums, QuadraticModel
from altmin_dask.solvers.linalg import add_gram, add_product
from altmin_dask.solvers.packing import Layout, PackedArrays, packed_size, split_layers
from altmin_dask.solvers.penalty import ADMMResiduals, Penalty
from altmin_dask.solvers.statistics import Statistics
from altmin_dask.types import Array, Weights

if TYPE_CHECKING:
    import numpy.typing as npt

_numbers_may_overflow = np.errstate(over="ignore", invalid="ignore")
"""Of weights that explode: the sums are not finite then, and the step that led there is taken back."""
_SIGNS = 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32) - 1
"""The eight signs in each byte."""


def moments_chunk(network: Network, x: Array, y: Array | None) -> tuple[Array, Array]:
    """First and second moments of a chunk, in float64: Σ x̃ x̃ᵀ (d_0 + 1, d_0 + 1), and Σ of the targets (d_L,)."""
    total = np.zeros(network.widths[-1])
    gram = np.zeros((network.shapes[0][1],) * 2)
    product, work = np.empty_like(gram), Workspace()
    for rows in _blocks(len(x), network):
        inputs = augmented(x[rows], np.float64, work)
        gram += np.matmul(inputs.T, inputs, out=product)
        if y is None:
            total += inputs[:, :-1].sum(axis=0)
        elif network.loss.target == "labels":
            total += np.bincount(y[rows], minlength=network.widths[-1])
        else:
            total += y[rows].sum(axis=0, dtype=np.float64)
    return gram, total


class VisitSums(PackedArrays):
    """What a visit of some samples gives.

    Attributes
    ----------
    statistics : Statistics
        Their sums, or the change of these.
    residuals : ADMMResiduals
        What was found; of a penalty that keeps nothing of a sample, only what the z-updates promised.
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


def sends_inputs(network: Network, penalty: Penalty, previous: Penalty) -> bool:
    """Whether a visit changes the first Gram matrix: inputs move, or count otherwise than at the last visit."""
    return network.inputs_move or penalty.reweighs_inputs(previous)


def latent_width(network: Network, penalty: type[Penalty]) -> int:
    """Numbers that are kept of a sample: Σ d_i of z, and behind them s of a penalty that is split."""
    return sum(network.widths) * (1 + penalty.per_sample_state)


def enter_chunk(
    network: Network, weights: Weights, penalty: Penalty, x: Array, y: Array | None
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
    latent = np.zeros((len(x), latent_width(network, type(penalty))), weights[0].dtype)
    for rows in _blocks(len(x), network):
        np.concatenate(network.forward(weights, x[rows]), axis=1, out=latent[rows, :width])
    return latent, collect_chunk(network, weights, penalty, x, y, latent)


def collect_chunk(
    network: Network, weights: Weights, penalty: Penalty, x: Array, y: Array | None, latent: Array
) -> Statistics:
    """Statistics, with the input Gram matrix, of a chunk that was last visited under `penalty`."""
    statistics, work = Statistics(network.shapes, with_inputs=True), thread_workspace()
    width = sum(network.widths)
    for rows in _blocks(len(x), network):
        z, s = split_layers(latent[rows, :width], network.widths), latent[rows, width:]
        offsets = penalty.offsets(s, network.widths, work, "old offset")
        fixed: Any = network.prepare(weights, x[rows], Workspace())
        point = network.evaluate(weights, fixed, _target(x[rows], y, rows, weights[0].dtype), z)
        statistics.add(point, work, offsets=offsets, counts=penalty.counts)
    return statistics


def visit_chunk(
    network: Network,
    weights: Weights,
    penalty: Penalty,
    previous: Penalty,
    x: Array,
    y: Array | None,
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
    x, y, latent : ndarray
        Samples (n, …), targets or None, z and what is kept beside it (n, latent_width(network, penalty)); none is
        changed.
    replace_all : bool
        Whether the statistics are those of the new z (all chunks are visited before W is solved), or the
        difference that the visit makes to the sums (some chunks keep their z).

    Returns
    -------
    latent : ndarray, like `latent`
    sums : VisitSums
        Without the input Gram matrix unless `sends_inputs`.
    """
    work, width = thread_workspace(), sum(network.widths)
    sums = VisitSums(network.shapes, sends_inputs(network, penalty, previous))
    out = np.empty_like(latent)
    for rows in _blocks(len(x), network):
        z, s = split_layers(latent[rows, :width], network.widths), latent[rows, width:]
        target = None if y is None else y[rows]
        shift = partial(
            penalty.update_dual, previous, s=s, out=out[rows, width:], measured=sums.residuals, work=work
        )
        with work.activity("newton"):
            result = update(network, weights, penalty.rho, x[rows], target, z, settings, work, shift)
        with work.activity("statistics"):
            if replace_all:
                sums.statistics.add(result.end, work, offsets=result.offsets, counts=penalty.counts)
            else:
                sums.statistics.replace(
                    result.start,
                    result.end,
                    work,
                    old_offsets=previous.offsets(s, network.widths, work, "old offset"),
                    offsets=result.offsets,
                    old_counts=previous.counts,
                    counts=penalty.counts,
                )
        sums.residuals.totals[2] -= result.slope.sum(dtype=np.float64)
        sums.statistics.diagnostics += (result.objective_after.sum(dtype=np.float64), result.shortened)
        np.concatenate(result.end.z, axis=1, out=out[rows, :width])
    return out, sums


def objective_chunk(network: Network, weights: Weights, x: Array, y: Array | None, z: Array) -> Array:
    """Σ ℓ, Σ ‖r_i‖² and Σ ‖z_i‖² of a chunk whose z is given, (1 + 2L,), in float64.

    Every r_i is formed and squared, so that nothing cancels but what cancels in r_i itself.
    """
    total, double = np.zeros(1 + 2 * len(network.widths)), tuple(w.astype(np.float64) for w in weights)
    for rows in _blocks(len(x), network):
        layers = split_layers(z[rows].astype(np.float64), network.widths)
        target = _target(x[rows], y, rows, np.float64)
        fixed: Any = network.prepare(double, x[rows], Workspace())
        point = network.evaluate(double, fixed, target, layers)
        total[0] += point.loss.sum()
        total[1:] += [np.vdot(a, a) for a in (*point.residuals, *layers)]
    return total


@_numbers_may_overflow
def kfac_chunk(
    network: Network,
    weights: Weights,
    mu: Sequence[float] | None,
    x: Array,
    y: Array | None,
    settings: NewtonSettings,
    seed: Sequence[int] | None = None,
) -> KroneckerSums:
    """What a chunk says about the weights, from z that restart at a forward pass.

    Parameters
    ----------
    network, weights, settings
        As in `altmin_dask.solvers.gauss_newton.update`.
    mu : sequence of float or None
        μ_1 … μ_L; None for μ → ∞, where the z-update is known without being made.
    x, y : ndarray
        Samples (n, …), targets or None.
    seed : sequence of int, optional
        Of the noise by which curvature is sampled; without it none is measured.
    """
    work = thread_workspace()
    sums = KroneckerSums(network.shapes, seed is not None, dtype=weights[0].dtype)
    for number, rows in enumerate(_blocks(len(x), network)):
        target = _target(x[rows], y, rows, weights[0].dtype)
        with work.activity("newton"):
            nested = nested_pass(network, weights, x[rows], target, work)
        loss = nested.loss
        sums.totals += (len(loss), loss.sum(dtype=np.float64), np.square(loss).sum(dtype=np.float64))
        if seed is not None:
            with work.activity("newton"):
                sampled = nested.backward(nested.sample(_signs([*seed, number], nested.output)))
            with work.activity("statistics"):
                for total, vectors in zip(sums.output_factors, sampled, strict=True):
                    add_gram(total, vectors)
                for total, inputs in zip(sums.input_factors, nested.inputs, strict=True):
                    add_gram(total, inputs)
        with work.activity("newton"):
            if mu is None:
                factors, moved, inputs_of = (
                    [-1.0] * len(weights),
                    nested.backward(nested.gradient),
                    nested.inputs,
                )
            else:
                # from a forward pass: the residuals of a large μ are far below the rounding of z
                found = None if y is None else y[rows]
                end = update(network, weights, mu, x[rows], found, None, settings, work).end
                factors, moved, inputs_of = [2 * m for m in mu], end.residuals, end.inputs
        with work.activity("statistics"):
            for total, factor, rows_of, inputs in zip(
                sums.negative_gradient, factors, moved, inputs_of, strict=True
            ):
                d, k = total.shape
                add_product(total, factor, rows_of.reshape(-1, d), inputs.reshape(-1, k))
    return sums


@_numbers_may_overflow
def quadratic_model_chunk(
    network: Network,
    weights: Weights,
    direction: Weights,
    previous: Weights,
    x: Array,
    y: Array | None,
) -> QuadraticModel:
    """The model of the nested loss along `direction` and `weights` − `previous`, on some samples."""
    work = thread_workspace()
    repeated = tuple(w - old for w, old in zip(weights, previous, strict=True))
    model = QuadraticModel()
    model.samples += len(x)
    for rows in _blocks(len(x), network):
        nested = nested_pass(network, weights, x[rows], _target(x[rows], y, rows, weights[0].dtype), work)
        ways = nested.directional(direction, "along"), nested.directional(repeated, "repeated")
        curvature, gradient = nested.curvature(), nested.gradient
        for a, way in enumerate(ways):
            model.slope[a] += np.vdot(gradient, way)
            bent = curvature.apply(way, out=work.like("bent", way))
            for b in range(a, len(ways)):
                model.curvature[a, b] += np.vdot(bent, ways[b])
    model.curvature[1, 0] = model.curvature[0, 1]
    return model


def _target(x: Array, y: Array | None, rows: slice, dtype: npt.DTypeLike) -> Array:
    """Targets of a block in the dtype of the computation; the samples themselves where there are none."""
    target = x.reshape(len(x), -1) if y is None else y[rows]
    return target.astype(dtype, copy=False) if y is None or np.issubdtype(y.dtype, np.floating) else target


def _signs(seed: Sequence[int], like: Array) -> Array:
    """Independent signs, as many as the elements of an array."""
    random = np.frombuffer(np.random.default_rng(seed).bytes((like.size + 7) // 8), np.uint8)
    return _SIGNS.astype(like.dtype, copy=False)[random].ravel()[: like.size].reshape(like.shape)


@dataclass(frozen=True)
class Evaluation:
    """Quality of the real network on some samples: sums over samples, which add up over chunks.

    Attributes
    ----------
    samples, loss, correct : float
        Number of samples, Σ ℓ of a forward pass, and how many are classified rightly (0 without labels).
    """

    samples: float = 0.0
    loss: float = 0.0
    correct: float = 0.0

    @property
    def mean_loss(self) -> float:
        """The nested loss."""
        return self.loss / self.samples

    @property
    def accuracy(self) -> float:
        """Share of samples classified rightly."""
        return self.correct / self.samples


@_numbers_may_overflow
def evaluate_chunk(network: Network, weights: Weights, x: Array, y: Array | None) -> Evaluation:
    """The nested loss, and for labels the hits, of a chunk."""
    loss = correct = 0.0
    for rows in _blocks(len(x), network):
        z = network.forward(weights, x[rows])[-1]
        target = x[rows].reshape(len(z), -1).astype(z.dtype, copy=False) if y is None else y[rows]
        loss += float(network.loss.value(z, network.loss.predict(z), target).sum(dtype=np.float64))
        correct += float(network.loss.hits(z, target).sum())
    return Evaluation(float(len(x)), loss, correct)


def _blocks(n: int, network: Network) -> Iterator[slice]:
    size = network.block_rows
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
