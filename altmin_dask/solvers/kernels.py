"""One chunk's share of a sweep: blocks of rows small enough for the cache go through the z-update one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from altmin_dask.networks.nested import Pass
from altmin_dask.networks.network import Network, Point
from altmin_dask.networks.workspace import Workspace, thread_workspace
from altmin_dask.solvers.gauss_newton import NewtonSettings, update
from altmin_dask.solvers.kfac import KroneckerSums, QuadraticModel
from altmin_dask.solvers.linalg import add_gram, add_product
from altmin_dask.solvers.penalties import ADMMResiduals, Penalty, offsets_of, renew
from altmin_dask.solvers.statistics import Statistics
from altmin_dask.types import Array, Batch, Weights

_numbers_may_overflow = np.errstate(over="ignore", invalid="ignore")
"""Of weights that explode: the sums are not finite then, and the step that led there is taken back."""
_SIGNS = 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32) - 1
"""The eight signs in each byte."""


def split_layers(z: Array, widths: Sequence[int]) -> list[Array]:
    """Views of z_1 … z_L in rows that hold them side by side, (n, Σ d_i)."""
    return np.split(z, np.cumsum(widths)[:-1], axis=1)


def moments_chunk(network: Network, batch: Batch) -> tuple[Array, Array]:
    """First and second moments of a chunk, in float64: Σ x̃ x̃ᵀ (d_0 + 1, d_0 + 1), and Σ of the targets (d_L,).

    Every sample counts the same: where training begins does not hang on weights.
    """
    total = np.zeros(network.widths[-1])
    gram = np.zeros((network.layers[0].inputs,) * 2)
    product, work, y = np.empty_like(gram), Workspace(), batch.y
    for rows in _blocks(len(batch), network):
        inputs = network.first_inputs(batch.rows(rows), np.float64, work)
        gram += np.matmul(inputs.T, inputs, out=product)
        if y is None:
            total += batch.x[rows].reshape(len(batch.x[rows]), -1).sum(axis=0, dtype=np.float64)
        elif network.loss.target == "labels":
            total += np.bincount(y[rows], minlength=network.widths[-1])
        else:
            total += y[rows].sum(axis=0, dtype=np.float64)
    return gram, total


def sends_inputs(network: Network, penalty: Penalty, before: Penalty) -> bool:
    """Whether a visit changes the first Gram matrix: inputs move, or count by another ρ_1 than at the last visit."""
    return network.inputs_move or (penalty.has_dual and penalty.rho[0] != before.rho[0])


def latent_width(network: Network, *, has_dual: bool) -> int:
    """Numbers that are kept of a sample: Σ d_i of z, and as many more of what `Penalty` remembers."""
    return sum(network.widths) * (2 if has_dual else 1)


def enter_chunk(
    network: Network, weights: Weights, batch: Batch, penalty: Penalty | None = None
) -> tuple[Array, Statistics]:
    """Bring a chunk into the sums: z by a forward pass, and its statistics with the input Gram matrix.

    Of a penalty that splits, what is remembered of every sample stands beside z, zero at first.
    """
    statistics = Statistics(network.shapes, with_inputs=True)
    has_dual = penalty is not None and penalty.has_dual
    rho = penalty.rho if penalty is not None and has_dual else None
    z = np.zeros((len(batch), latent_width(network, has_dual=has_dual)), weights[0].dtype)
    for rows in _blocks(len(batch), network):
        block = batch.rows(rows)
        layers = network.forward(weights, block)
        _add_block(statistics, network, weights, block, layers, rho=rho)
        np.concatenate(layers, axis=1, out=z[rows, : sum(network.widths)])
    return z, statistics


def collect_chunk(
    network: Network, weights: Weights, batch: Batch, z: Array, penalty: Penalty | None = None
) -> Statistics:
    """Statistics, with the input Gram matrix, of a chunk whose z, and what `penalty` remembers, are given."""
    statistics, work = Statistics(network.shapes, with_inputs=True), thread_workspace()
    z, s = _halves(network, z, penalty)
    for rows in _blocks(len(batch), network):
        layers = split_layers(z[rows], network.widths)
        offsets = rho = None
        if penalty is not None and s is not None:
            offsets = offsets_of(penalty, s[rows], network.widths, work, "old offset")
            rho = penalty.rho
        _add_block(statistics, network, weights, batch.rows(rows), layers, offsets, rho)
    return statistics


def objective_chunk(network: Network, weights: Weights, batch: Batch, z: Array) -> Array:
    """Σ ℓ, Σ ‖r_i‖² and Σ ‖z_i‖² of a chunk whose z is given, (1 + 2L,), in float64.

    Every r_i is formed and squared, so that nothing cancels but what cancels in r_i itself.
    """
    total, double = np.zeros(1 + 2 * len(network.widths)), tuple(w.astype(np.float64) for w in weights)
    for rows in _blocks(len(batch), network):
        layers = split_layers(z[rows].astype(np.float64), network.widths)
        block = batch.rows(rows)
        fixed = network.prepare(double, block, Workspace())
        point = network.evaluate(double, fixed, network.loss.targets(block, np.float64), layers)
        total[0] += point.loss.sum()
        total[1:] += [np.vdot(a, a) for a in (*point.residuals, *layers)]
    return total


def _add_block(
    statistics: Statistics,
    network: Network,
    weights: Weights,
    block: Batch,
    layers: list[Array],
    offsets: list[Array] | None = None,
    rho: Sequence[float] | None = None,
) -> None:
    fixed = network.prepare(weights, block, Workspace())
    point = network.evaluate(weights, fixed, network.loss.targets(block, weights[0].dtype), layers)
    statistics.add(point, thread_workspace(), offsets, rho)


def _halves(network: Network, z: Array, penalty: Penalty | None) -> tuple[Array, Array | None]:
    """Split what is kept of samples into z and what a penalty remembers."""
    if penalty is None or not penalty.has_dual:
        return z, None
    width = sum(network.widths)
    return z[:, :width], z[:, width:]


def visit_chunk(
    network: Network,
    weights: Weights,
    mu: Sequence[float],
    batch: Batch,
    z: Array,
    settings: NewtonSettings,
    *,
    renew: bool,
) -> tuple[Array, Statistics]:
    """Update z of a chunk.

    Parameters
    ----------
    network, weights, mu, settings
        As in `altmin_dask.solvers.gauss_newton.update`.
    batch : Batch
        The samples of the chunk.
    z : ndarray, (n, Σ d_i)
        Their pre-activations, which are not changed.
    renew : bool
        Whether the statistics are those of the new z (all chunks are visited before W is solved), or the
        difference that the update makes to the sums (some chunks keep their z).

    Returns
    -------
    z : ndarray, (n, Σ d_i)
    statistics : Statistics
        Without the input Gram matrix, unless it moves.
    """
    work = thread_workspace()
    statistics = Statistics(network.shapes, with_inputs=network.inputs_move)
    out = np.empty_like(z)
    for rows in _blocks(len(batch), network):
        layers = split_layers(z[rows], network.widths)
        with work.activity("newton"):
            result = update(network, weights, mu, batch.rows(rows), layers, settings, work)
        with work.activity("statistics"):
            if renew:
                statistics.add(result.end, work)
            else:
                statistics.replace(result.start, result.end, work)
        statistics.diagnostics += (result.objective_after.sum(dtype=np.float64), result.shortened)
        np.concatenate(result.end.z, axis=1, out=out[rows])
    return out, statistics


def split_visit_chunk(
    network: Network,
    weights: Weights,
    penalty: Penalty,
    before: Penalty,
    batch: Batch,
    z: Array,
    settings: NewtonSettings,
    *,
    renewed: bool,
) -> tuple[Array, Statistics, ADMMResiduals]:
    """Renew what L1 or multipliers remember of a chunk, and update its z.

    Parameters
    ----------
    network, weights, settings, batch, renewed
        As in `visit_chunk` (`renew` there).
    penalty, before : Penalty
        Of this visit, and of the last one.
    z : ndarray, (n, 2 Σ d_i)
        z and what is remembered, side by side.

    Returns
    -------
    z : ndarray, (n, 2 Σ d_i)
    statistics : Statistics
        z_i + o_i in place of z_i, and ρ_i times; without the input Gram matrix unless `sends_inputs`.
    measures : Measures
    """
    work = thread_workspace()
    statistics = Statistics(network.shapes, with_inputs=sends_inputs(network, penalty, before))
    measures = ADMMResiduals(len(network.widths))
    out = np.empty_like(z)
    width = sum(network.widths)
    for rows in _blocks(len(batch), network):
        layers, s = split_layers(z[rows, :width], network.widths), z[rows, width:]
        block, new = batch.rows(rows), out[rows, width:]

        def shift(point: Point, s: Array = s, new: Array = new) -> list[Array]:
            return renew(penalty, before, point, s, new, measures, work)

        with work.activity("newton"):
            result = update(network, weights, penalty.rho, block, layers, settings, work, shift)
        offsets = [work.like(f"offset {layer}", r) for layer, r in enumerate(result.end.residuals)]
        with work.activity("statistics"):
            if renewed:
                statistics.add(result.end, work, offsets, penalty.rho)
            else:
                old = offsets_of(before, s, network.widths, work, "old offset")
                statistics.replace(result.start, result.end, work, old, offsets, before.rho, penalty.rho)
        measures.totals[2] -= result.slope.sum(dtype=np.float64)
        statistics.diagnostics += (result.objective_after.sum(dtype=np.float64), result.shortened)
        np.concatenate(result.end.z, axis=1, out=out[rows, :width])
    return out, statistics, measures


@_numbers_may_overflow
def kfac_chunk(
    network: Network,
    weights: Weights,
    mu: Sequence[float] | None,
    batch: Batch,
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
    batch : Batch
        The samples of the chunk.
    seed : sequence of int, optional
        Of the noise by which curvature is sampled; without it none is measured.
    """
    work = thread_workspace()
    sums = KroneckerSums(network.shapes, seed is not None, weights[0].dtype)
    for number, rows in enumerate(_blocks(len(batch), network)):
        block = batch.rows(rows)
        with work.activity("newton"):
            nested = Pass.forward(network, weights, block, work)
        loss = nested.loss
        sums.totals += (len(loss), loss.sum(dtype=np.float64), np.square(loss).sum(dtype=np.float64))
        if seed is not None:
            noise = _signs([*seed, number], nested.output)
            with work.activity("newton"):
                sampled = nested.backward(nested.sample(noise))
            with work.activity("statistics"):
                for total, vectors in zip(sums.output_factors, sampled, strict=True):
                    add_gram(total, vectors)
                for total, layer in zip(sums.input_factors, nested.inputs, strict=True):
                    add_gram(total, layer)
        if mu is None:
            with work.activity("newton"):
                back = nested.backward(nested.gradient)
            with work.activity("statistics"):
                for total, gradient, layer in zip(sums.negative_gradient, back, nested.inputs, strict=True):
                    add_product(total, -1.0, gradient, layer)
            continue
        with work.activity("newton"):
            # from a forward pass: the residuals of a large μ are far below the rounding of z
            end = update(network, weights, mu, block, None, settings, work).end
        with work.activity("statistics"):
            for total, m, residual, layer in zip(
                sums.negative_gradient, mu, end.residuals, end.inputs, strict=True
            ):
                d, k = total.shape
                add_product(total, 2 * m, residual.reshape(-1, d), layer.reshape(-1, k))
    return sums


@_numbers_may_overflow
def quadratic_model_chunk(
    network: Network,
    weights: Weights,
    direction: Weights,
    before: Weights,
    batch: Batch,
) -> QuadraticModel:
    """The model of the nested loss along `direction` and `weights` − `before`, on some samples."""
    work = thread_workspace()
    repeated = tuple(w - old for w, old in zip(weights, before, strict=True))
    slope, bend = np.zeros(2), np.zeros((2, 2))
    for rows in _blocks(len(batch), network):
        nested = Pass.forward(network, weights, batch.rows(rows), work)
        ways = nested.directional(direction, "along"), nested.directional(repeated, "repeated")
        curvature, gradient = nested.curvature(), nested.gradient
        for a, way in enumerate(ways):
            slope[a] += np.vdot(gradient, way)
            bent = curvature.apply(way, out=work.like("bent", way))
            for b, other in enumerate(ways):
                bend[a, b] += np.vdot(bent, other)
    return QuadraticModel(float(len(batch)), slope, bend)


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
def evaluate_chunk(network: Network, weights: Weights, batch: Batch) -> Evaluation:
    """The nested loss, and for labels the hits, of a chunk."""
    loss = correct = 0.0
    for rows in _blocks(len(batch), network):
        block = batch.rows(rows)
        z = network.forward(weights, block)[-1]
        targets = network.loss.targets(block, z.dtype)
        loss += float(network.loss.value(z, network.loss.predict(z), targets).sum(dtype=np.float64))
        correct += float(network.loss.hits(z, targets).sum())
    return Evaluation(float(len(batch)), loss, correct)


def _blocks(n: int, network: Network) -> Iterator[slice]:
    size = network.block_rows
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
