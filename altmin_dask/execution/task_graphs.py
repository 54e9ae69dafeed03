"""One step of training as a lazy Dask graph: a task per chunk, their statistics summed up a tree.

A task reads one chunk of x, y and z, computes with the kernels of `altmin_dask.solvers.kernels`, writes the new z
as the *next* generation, and returns its statistics as one packed row. Running a task twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dask.array as da
import numpy as np

from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.sources import WEIGHTS
from altmin_dask.execution.blas import single_threaded_blas
from altmin_dask.execution.timing import TimedArray, activity, meter_kernels
from altmin_dask.networks.chain import Chain
from altmin_dask.networks.network import Network
from altmin_dask.networks.weighted_loss import WeightedLoss
from altmin_dask.solvers.gauss_newton import NewtonSettings
from altmin_dask.solvers.kernels import (
    VisitSums,
    collect_chunk,
    enter_chunk,
    evaluate_chunk,
    kfac_chunk,
    moments_chunk,
    objective_chunk,
    quadratic_model_chunk,
    sends_inputs,
    visit_chunk,
)
from altmin_dask.solvers.kronecker import KroneckerSums, QuadraticModel
from altmin_dask.solvers.packing import packed_size
from altmin_dask.solvers.penalty import Penalty
from altmin_dask.solvers.statistics import Statistics
from altmin_dask.storage.latent import LatentStore
from altmin_dask.storage.weights import read_weights
from altmin_dask.storage.zarr_chunks import ChunkView, JoinedView
from altmin_dask.types import Array


@dataclass(frozen=True)
class Samples:
    """A sample store as the tasks see it.

    Attributes
    ----------
    store : SampleStore
        Where x and y are.
    target : {"inputs", "labels", "real"}
        What the output is compared with: x itself, integer labels, or real targets.
    """

    store: SampleStore
    target: str

    def arrays(self, chunks: tuple[int, ...], token: str) -> tuple[da.Array, da.Array | None]:
        """X as (n, d_0) and y as (n, outputs) or None, lazily, of the chunks named.

        Behind x stand the lengths and states of sequences, behind y the weights of samples, where the store has them.
        """
        store = self.store
        first = self._view(store.x, "x", chunks)
        others = [self._view(array, name, chunks) for name, array in store.sequence_arrays.items()]
        x = lazy(JoinedView((first, *others), store.x_dtype) if others else first, f"altmin_read_x-{token}")
        if self.target == "inputs" or store.y is None:
            return x, None
        y = self._view(store.y, "y", chunks)
        if store.weights is None or store.y_dtype is None:
            return x, lazy(y, f"altmin_read_y-{token}")
        weights = self._view(store.weights, WEIGHTS, chunks)
        return x, lazy(JoinedView((y, weights), store.y_dtype), f"altmin_read_y-{token}")

    def each(self, chunks: tuple[int, ...], token: str) -> dict[str, da.Array]:
        """Every array of the store by its name, by itself, lazily, of the chunks named."""
        store = self.store
        arrays = {"x": store.x, "y": store.y, **store.sequence_arrays, WEIGHTS: store.weights}
        return {
            name: lazy(self._view(array, name, chunks), f"altmin_read_{name}-{token}")
            for name, array in arrays.items()
            if array is not None
        }

    def _view(self, array: Any, name: str, chunks: tuple[int, ...]) -> ChunkView:
        location = f"{self.store.path.rstrip('/')}/{name}"
        return ChunkView.select(location, array.shape, self.store.chunk_rows, array.dtype, chunks)


@dataclass(frozen=True)
class TaskContext:
    """What every task of a run needs to know: a few kilobytes, weights excluded (they are read from a file).

    Attributes
    ----------
    network, target, dtype, settings
        What is trained, as in `Samples`, and how.
    encoder : (Chain, str) or None
        A network, and the file of its weights, whose outputs take the place of the samples.
    """

    network: Network
    target: str
    dtype: str
    settings: NewtonSettings = field(default_factory=NewtonSettings)
    encoder: tuple[Chain, str] | None = None

    def arrange(self, x: Array, y: Array | None) -> tuple[Array, Array | None]:
        """Samples and targets in the shape and dtype the kernels want."""
        if self.encoder is not None:
            network, file = self.encoder
            with single_threaded_blas():
                x = network.predict(read_weights(file), x)
        if y is None:
            return x, None
        if self.target == "real":
            y = y.astype(self.dtype, copy=False)
        elif y.shape[1] == 1:
            y = y[:, 0]
        return x, self.network.targets(x, y)


def lazy(view: ChunkView | JoinedView, name: str) -> da.Array:
    """A view as a Dask array; the name must say which generation of the values is meant."""
    meta = np.empty((0, 0), view.dtype)
    return da.from_array(
        TimedArray(view), chunks=view.chunks, name=name, asarray=False, fancy=False, meta=meta
    )


@dataclass(frozen=True)
class Step:
    """What all steps have in common.

    Attributes
    ----------
    kernel, samples : Kernel, Samples
        What is computed on what.
    chunks : tuple of int
        Which chunks take part.
    token : str
        Part of the task names that no other step shares.
    weights : str
        File of the weights, for `altmin_dask.storage.weights.read_weights`.
    split_every : int
        Statistics that are added up in one task.
    """

    kernel: TaskContext
    samples: Samples
    chunks: tuple[int, ...]
    token: str
    weights: str = ""
    split_every: int = 4

    def sum(
        self, name: str, block: Callable[..., Array], columns: int, *z: da.Array, **settings: Any
    ) -> da.Array:
        """One task a chunk, of x, y and what else is given, and the sum of their rows."""
        return self.sum_of(
            name, block, columns, *self.samples.arrays(self.chunks, self.token), *z, **settings
        )

    def sum_of(
        self, name: str, block: Callable[..., Array], columns: int, *arrays: da.Array | None, **settings: Any
    ) -> da.Array:
        """One task a chunk of the arrays, which are read already, and the sum of their rows."""
        if self.weights:
            settings["weights"] = self.weights
        rows = per_chunk(
            block,
            *arrays,
            name=f"altmin_{name}-{self.token}",
            columns=columns,
            kernel=self.kernel,
            **settings,
        )
        return tree_sum(rows, self.split_every, f"altmin_{name}")

    def latent(self, latent: LatentStore, generation: int) -> da.Array:
        """The z of the chunks, lazily."""
        return lazy(latent.view(generation, self.chunks), f"altmin_read_z-{self.token}")


def moments(step: Step) -> da.Array:
    """The sums of `altmin_dask.solvers.kernels.moments_chunk` over chunks, packed one after the other."""
    network = step.kernel.network
    return step.sum("moments", _moments_block, network.shapes[0][1] ** 2 + network.widths[-1])


def enter(step: Step, latent: LatentStore, generation: int, penalty: Penalty) -> da.Array:
    """Bring chunks into the sums: their z by a forward pass, written as `generation`; packed statistics."""
    columns = packed_size(Statistics.layout(step.kernel.network.shapes, with_inputs=True))
    return step.sum(
        "enter", _enter_block, columns, written=latent.view(generation, step.chunks), penalty=penalty
    )


def collect(step: Step, latent: LatentStore, generation: int, penalty: Penalty) -> da.Array:
    """Packed statistics, as of `enter`, of the z that is there, last visited under `penalty`."""
    columns = packed_size(Statistics.layout(step.kernel.network.shapes, with_inputs=True))
    return step.sum("collect", _collect_block, columns, step.latent(latent, generation), penalty=penalty)


def visit(
    step: Step,
    latent: LatentStore,
    generation: int,
    penalty: Penalty,
    previous: Penalty,
    *,
    replace_all: bool,
) -> da.Array:
    """Update z of chunks from `generation`, last visited under `previous`, to the next.

    Gives packed `altmin_dask.solvers.kernels.VisitSums`: statistics, or their change unless `replace_all`.
    """
    network = step.kernel.network
    columns = packed_size(VisitSums.layout(network.shapes, sends_inputs(network, penalty, previous)))
    return step.sum(
        "newton", _visit_block, columns, step.latent(latent, generation),
        written=latent.view(generation + 1, step.chunks), penalty=penalty, previous=previous,
        replace_all=replace_all,
    )  # fmt: skip


def objective(step: Step, latent: LatentStore, generation: int) -> da.Array:
    """Packed `altmin_dask.solvers.kernels.Relaxed` of the z that is there."""
    columns = 1 + 2 * len(step.kernel.network.widths)
    return step.sum("objective", _objective_block, columns, step.latent(latent, generation))


def gradient(step: Step) -> da.Array:
    """What samples say about the weights where constraints hold exactly, packed: `KroneckerSums` without curvature."""
    columns = packed_size(KroneckerSums.layout(step.kernel.network.shapes, curvature=False))
    return step.sum("gradient", _kfac_block, columns, mu=None, seed=None, chunks_taken=step.chunks)


def kfac_sums(
    step: Step, mu: tuple[float, ...] | None, seed: tuple[int, ...] | None, every: int
) -> tuple[da.Array, ...]:
    """What chunks say about the weights, and the part of their samples that `quadratic_model` will ask for, x and y.

    The first is packed `altmin_dask.solvers.kronecker.KroneckerSums`, with curvature where there is a seed for its
    noise. The samples are every `every`-th: kept where they were read, so that no chunk is read twice.
    """
    columns = packed_size(KroneckerSums.layout(step.kernel.network.shapes, seed is not None))
    arrays = step.samples.arrays(step.chunks, step.token)
    total = step.sum_of("kfac", _kfac_block, columns, *arrays, mu=mu, seed=seed, chunks_taken=step.chunks)
    return total, *(
        da.map_blocks(
            _thin, array, every, name=f"altmin_keep_{name}-{step.token}", dtype=array.dtype, meta=array._meta,
            chunks=(tuple(-(-n // every) for n in array.chunks[0]), array.chunks[1]),
        )
        for name, array in zip("xy", arrays, strict=True) if array is not None
    )  # fmt: skip


def quadratic_model(step: Step, kept: tuple[da.Array, ...], direction: str, before: str) -> da.Array:
    """Packed `altmin_dask.solvers.kronecker.QuadraticModel` of samples, along what the files hold."""
    x, y = (*kept, None)[:2]
    columns = packed_size(QuadraticModel.layout())
    return step.sum_of("model", _quadratic_model_block, columns, x, y, direction=direction, before=before)


def evaluate(step: Step) -> da.Array:
    """The sums of `altmin_dask.solvers.kernels.Evaluation` over chunks, for the real network."""
    return step.sum("evaluate", _evaluate_block, 3)


def tree_sum(rows: da.Array, split_every: int, name: str = "altmin_sum") -> da.Array:
    """Sum over the chunks, `split_every` at a time up a tree of fixed shape, so that rounding is always the same.

    Dask makes one task of a chunk's and of the first of the sum, and calls it by the `name` of the latter.
    """
    return da.reduction(
        rows, chunk=_keep, combine=_add, aggregate=_add, axis=0, split_every=split_every,
        dtype=rows.dtype, concatenate=False, name=name, meta=np.empty((0,)),
    )  # fmt: skip


def per_chunk(
    block: Callable[..., Array], *arrays: da.Array | None, name: str, columns: int, **settings: Any
) -> da.Array:
    """One task a chunk, each giving one row of `columns` numbers."""
    blocks = len(arrays[0].chunks[0])  # type: ignore[union-attr]
    return da.map_blocks(
        block, *arrays, name=name, dtype=np.float64, chunks=((1,) * blocks, (columns,)),
        meta=np.empty((0, 0)), **settings,
    )  # fmt: skip


def _moments_block(x: Array, y: Array | None, *, kernel: TaskContext) -> Array:
    x, y = kernel.arrange(x, y)
    if y is not None and isinstance(loss := kernel.network.loss, WeightedLoss):
        y, _ = loss.split(y)  # where training begins does not hang on weights
    with single_threaded_blas(), activity("statistics"):
        gram, targets = moments_chunk(kernel.network, x, y)
    return np.concatenate([gram.ravel(), targets])[None]


def _enter_block(
    x: Array,
    y: Array | None,
    *,
    block_id: tuple[int, int],
    kernel: TaskContext,
    weights: str,
    written: ChunkView,
    penalty: Penalty,
) -> Array:
    with single_threaded_blas(), activity("statistics"):
        z, statistics = enter_chunk(kernel.network, read_weights(weights), penalty, *kernel.arrange(x, y))
    with activity("write"):
        written.write(block_id[0], z)
    return statistics.vector[None]


def _collect_block(
    x: Array, y: Array | None, z: Array, *, kernel: TaskContext, weights: str, penalty: Penalty
) -> Array:
    with single_threaded_blas(), activity("statistics"):
        statistics = collect_chunk(kernel.network, read_weights(weights), penalty, *kernel.arrange(x, y), z)
    return statistics.vector[None]


def _objective_block(x: Array, y: Array | None, z: Array, *, kernel: TaskContext, weights: str) -> Array:
    with single_threaded_blas(), activity("evaluate"):
        return objective_chunk(kernel.network, read_weights(weights), *kernel.arrange(x, y), z)[None]


def _visit_block(
    x: Array,
    y: Array | None,
    z: Array,
    *,
    block_id: tuple[int, int],
    kernel: TaskContext,
    weights: str,
    written: ChunkView,
    penalty: Penalty,
    previous: Penalty,
    replace_all: bool,
) -> Array:
    meter_kernels()
    x, y = kernel.arrange(x, y)
    now = read_weights(weights)
    with single_threaded_blas():
        new, sums = visit_chunk(
            kernel.network, now, penalty, previous, x, y, z, kernel.settings, replace_all=replace_all
        )
    with activity("write"):
        written.write(block_id[0], new)
    return sums.vector[None]


def _kfac_block(
    x: Array,
    y: Array | None,
    *,
    block_id: tuple[int, int],
    kernel: TaskContext,
    weights: str,
    mu: tuple[float, ...] | None,
    seed: tuple[int, ...] | None,
    chunks_taken: tuple[int, ...],
) -> Array:
    meter_kernels()
    x, y = kernel.arrange(x, y)
    noise = None if seed is None else [*seed, chunks_taken[block_id[0]]]
    with single_threaded_blas():
        sums = kfac_chunk(kernel.network, read_weights(weights), mu, x, y, kernel.settings, noise)
    return sums.vector[None]


def _thin(array: Array, every: int) -> Array:
    # not a view, which would hold on to the whole chunk
    return array[::every].copy()


def _quadratic_model_block(
    x: Array, y: Array | None, *, kernel: TaskContext, weights: str, direction: str, before: str
) -> Array:
    x, y = kernel.arrange(x, y)
    now, along, old = (read_weights(file) for file in (weights, direction, before))
    with single_threaded_blas(), activity("model"):
        return quadratic_model_chunk(kernel.network, now, along, old, x, y).vector[None]


def _evaluate_block(x: Array, y: Array | None, *, kernel: TaskContext, weights: str) -> Array:
    with single_threaded_blas(), activity("evaluate"):
        sums = evaluate_chunk(kernel.network, read_weights(weights), *kernel.arrange(x, y))
    return np.array([[sums.samples, sums.loss, sums.correct]])


def _keep(block: Array, axis: Any, keepdims: bool) -> Array:
    return block


def _add(blocks: Any, axis: Any, keepdims: bool) -> Array:
    """Add a (nested) list of one-row blocks, in order."""
    flat = list(_flatten(blocks))
    total = flat[0].copy() if len(flat) > 1 else flat[0]
    for block in flat[1:]:
        total += block
    return total if keepdims else total[0]


def _flatten(blocks: Any) -> Any:
    if isinstance(blocks, list):
        for block in blocks:
            yield from _flatten(block)
    else:
        yield blocks
