"""One step of training as a lazy Dask graph: a task per chunk, their statistics summed up a tree.

A task reads one chunk of x, y and z, computes with the kernels of `altmin_dask.solvers.kernels`, writes the new z
as the *next* generation, and returns its statistics as one packed row. Running a task twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dask.array as da
import numpy as np

from altmin_dask.data.sample_store import SampleStore
from altmin_dask.execution.blas import single_threaded_blas
from altmin_dask.execution.timing import TimedArray, activity, meter_kernels
from altmin_dask.networks.network import Network
from altmin_dask.solvers.evaluation import (
    Evaluation,
    Moments,
    RelaxedSums,
    evaluate_chunk,
    moments_chunk,
    objective_chunk,
)
from altmin_dask.solvers.gauss_newton import NewtonSettings
from altmin_dask.solvers.kernels import (
    VisitSums,
    collect_chunk,
    enter_chunk,
    kfac_chunk,
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
from altmin_dask.storage.zarr_chunks import ChunkView
from altmin_dask.types import Array, Batch

TARGET_ARRAYS = "y", "sample_weight"
"""Arrays of a store that say what the output is compared with, and how much that counts."""


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

    def arrays(self, chunks: tuple[int, ...], token: str) -> dict[str, da.Array]:
        """What a `Batch` is made of, by name, lazily, each (n, columns): of the chunks named, and no more of the store.

        Targets and their weights are left out where the output is compared with the samples themselves.
        """
        return chunk_arrays(self.store, self.names, chunks, token)

    @property
    def names(self) -> tuple[str, ...]:
        """Which arrays those are."""
        left_out = TARGET_ARRAYS if self.target == "inputs" else ()
        return tuple(name for name in self.store.arrays if name not in left_out)


def chunk_arrays(
    store: SampleStore, names: Iterable[str], chunks: tuple[int, ...], token: str
) -> dict[str, da.Array]:
    """Arrays of a store by their names, lazily, of the chunks named: a task reads one chunk of each once."""
    found = {}
    for name in names:
        array = store.arrays[name]
        location = f"{store.path.rstrip('/')}/{name}"
        view = ChunkView.select(location, array.shape, store.chunk_rows, array.dtype, chunks)
        found[name] = lazy(view, f"altmin_read_{name}-{token}")
    return found


@dataclass(frozen=True)
class TaskContext:
    """What every task of a run needs to know: a few kilobytes, weights excluded (they are read from a file).

    Attributes
    ----------
    network, target, dtype, settings
        What is trained, as in `Samples`, and how.
    encoder : (Network, str) or None
        A network, and the file of its weights, whose outputs take the place of the samples.
    """

    network: Network
    target: str
    dtype: str
    settings: NewtonSettings = field(default_factory=NewtonSettings)
    encoder: tuple[Network, str] | None = None

    def arrange(
        self,
        x: Array,
        y: Array | None = None,
        sample_weight: Array | None = None,
        lengths: Array | None = None,
        states: Array | None = None,
    ) -> Batch:
        """Make a batch of the arrays of a chunk, (n, columns) each, in the shape and dtype that kernels want."""
        if self.encoder is not None:
            network, file = self.encoder
            with single_threaded_blas():
                x = network.predict(read_weights(file), Batch(x))
        if y is not None:
            if self.target == "real":
                y = y.astype(self.dtype, copy=False)
            elif y.shape[1] == 1:
                y = y[:, 0]
        return Batch(
            x,
            y,
            None if sample_weight is None else sample_weight[:, 0],
            None if lengths is None else lengths[:, 0],
            states,
        )


def lazy(view: ChunkView, name: str) -> da.Array:
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

    def sum(self, name: str, block: Callable[..., Array], columns: int, **settings: Any) -> da.Array:
        """One task a chunk of the samples, and the sum of their rows."""
        return self.sum_of(name, block, columns, self.samples.arrays(self.chunks, self.token), **settings)

    def sum_of(
        self,
        name: str,
        block: Callable[..., Array],
        columns: int,
        arrays: Mapping[str, da.Array],
        **settings: Any,
    ) -> da.Array:
        """One task a chunk of the arrays, which are read already, and the sum of their rows."""
        if self.weights:
            settings["weights"] = self.weights
        rows = per_chunk(
            block, arrays, name=f"altmin_{name}-{self.token}", columns=columns, kernel=self.kernel, **settings
        )
        return tree_sum(rows, self.split_every, f"altmin_{name}")

    def latent(self, latent: LatentStore, generation: int) -> da.Array:
        """The z of the chunks, lazily."""
        return lazy(latent.view(generation, self.chunks), f"altmin_read_z-{self.token}")


def moments(step: Step) -> da.Array:
    """Packed `altmin_dask.solvers.evaluation.Moments` of samples."""
    return step.sum("moments", _moments_block, packed_size(Moments.layout(step.kernel.network)))


def enter(step: Step, latent: LatentStore, generation: int, penalty: Penalty) -> da.Array:
    """Bring chunks into the sums: their z by a forward pass, written as `generation`; packed statistics."""
    columns = packed_size(Statistics.layout(step.kernel.network.shapes, with_inputs=True))
    return step.sum(
        "enter", _enter_block, columns, written=latent.view(generation, step.chunks), penalty=penalty
    )


def collect(step: Step, latent: LatentStore, generation: int, penalty: Penalty) -> da.Array:
    """Packed statistics, as of `enter`, of the z that is there, last visited under `penalty`."""
    columns = packed_size(Statistics.layout(step.kernel.network.shapes, with_inputs=True))
    return step.sum("collect", _collect_block, columns, z=step.latent(latent, generation), penalty=penalty)


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
        "newton", _visit_block, columns, z=step.latent(latent, generation),
        written=latent.view(generation + 1, step.chunks), penalty=penalty, previous=previous,
        replace_all=replace_all,
    )  # fmt: skip


def objective(step: Step, latent: LatentStore, generation: int) -> da.Array:
    """Packed `altmin_dask.solvers.evaluation.RelaxedSums` of the z that is there."""
    columns = packed_size(RelaxedSums.layout(len(step.kernel.network.widths)))
    return step.sum("objective", _objective_block, columns, z=step.latent(latent, generation))


def gradient(step: Step) -> da.Array:
    """What samples say about the weights where constraints hold exactly, packed: `KroneckerSums` without curvature."""
    columns = packed_size(KroneckerSums.layout(step.kernel.network.shapes, curvature=False))
    return step.sum("gradient", _kfac_block, columns, mu=None, seed=None, chunks_taken=step.chunks)


def kfac_sums(
    step: Step, mu: tuple[float, ...] | None, seed: tuple[int, ...] | None, every: int
) -> tuple[da.Array, ...]:
    """What chunks say about the weights, and the part of their samples that `quadratic_model` will ask for.

    The first is packed `altmin_dask.solvers.kronecker.KroneckerSums`, with curvature where there is a seed for its
    noise. The samples are every `every`-th of each array of `Samples.arrays`, in its order: kept where they were read,
    so that no chunk is read twice.
    """
    columns = packed_size(KroneckerSums.layout(step.kernel.network.shapes, seed is not None))
    arrays = step.samples.arrays(step.chunks, step.token)
    total = step.sum_of("kfac", _kfac_block, columns, arrays, mu=mu, seed=seed, chunks_taken=step.chunks)
    return total, *(
        _thinned(array, every, f"altmin_keep_{name}-{step.token}") for name, array in arrays.items()
    )


def quadratic_model(step: Step, kept: tuple[da.Array, ...], direction: str, previous: str) -> da.Array:
    """Packed `altmin_dask.solvers.kronecker.QuadraticModel` of samples, along what the files hold."""
    arrays = dict(zip(step.samples.names, kept, strict=True))
    columns = packed_size(QuadraticModel.layout())
    return step.sum_of(
        "model", _quadratic_model_block, columns, arrays, direction=direction, previous=previous
    )


def _thinned(array: da.Array, every: int, name: str) -> da.Array:
    """Every `every`-th row of every chunk."""
    rows = tuple(-(-n // every) for n in array.chunks[0])
    return da.map_blocks(
        _thin, array, every, name=name, dtype=array.dtype, meta=array._meta, chunks=(rows, array.chunks[1])
    )


def evaluate(step: Step) -> da.Array:
    """Packed `altmin_dask.solvers.evaluation.Evaluation` of the real network."""
    return step.sum("evaluate", _evaluate_block, packed_size(Evaluation.layout()))


def tree_sum(rows: da.Array, split_every: int, name: str = "altmin_sum") -> da.Array:
    """Sum over the chunks, `split_every` at a time up a tree of fixed shape, so that rounding is always the same.

    Dask makes one task of a chunk's and of the first of the sum, and calls it by the `name` of the latter.
    """
    return da.reduction(
        rows, chunk=_keep, combine=_add, aggregate=_add, axis=0, split_every=split_every,
        dtype=rows.dtype, concatenate=False, name=name, meta=np.empty((0,)),
    )  # fmt: skip


def per_chunk(
    block: Callable[..., Array],
    arrays: Mapping[str, da.Array],
    *,
    name: str,
    columns: int,
    z: da.Array | None = None,
    **settings: Any,
) -> da.Array:
    """One task a chunk, each giving one row of `columns` numbers.

    Parameters
    ----------
    block : callable
        Is given the number of the chunk among those taken, its arrays by name, its z if there is one, and `settings`.
    arrays : mapping of str to da.Array, (n, columns)
        What is read of every chunk.
    name : str
        Of the tasks.
    columns : int
        Numbers in a row.
    z : da.Array, optional
        What is kept of the same chunks.
    """
    names = tuple(arrays)
    given = tuple(arrays.values()) if z is None else (*arrays.values(), z)
    return da.map_blocks(
        _call_block,
        *given,
        block=block,
        names=names,
        settings=settings,
        name=name,
        dtype=np.float64,
        chunks=((1,) * len(given[0].chunks[0]), (columns,)),
        meta=np.empty((0, 0)),
    )


def _call_block(
    *values: Array,
    block: Callable[..., Array],
    names: tuple[str, ...],
    settings: dict[str, Any],
    block_id: tuple[int, int],
) -> Array:
    """Call a block function with what was read of a chunk; what is behind the named arrays is z."""
    return block(block_id[0], dict(zip(names, values, strict=False)), *values[len(names) :], **settings)


def _moments_block(index: int, arrays: Mapping[str, Array], *, kernel: TaskContext) -> Array:
    batch = kernel.arrange(**arrays)
    with single_threaded_blas(), activity("statistics"):
        return moments_chunk(kernel.network, batch).vector[None]


def _enter_block(
    index: int,
    arrays: Mapping[str, Array],
    *,
    kernel: TaskContext,
    weights: str,
    written: ChunkView,
    penalty: Penalty,
) -> Array:
    with single_threaded_blas(), activity("statistics"):
        z, statistics = enter_chunk(kernel.network, read_weights(weights), penalty, kernel.arrange(**arrays))
    with activity("write"):
        written.write(index, z)
    return statistics.vector[None]


def _collect_block(
    index: int, arrays: Mapping[str, Array], z: Array, *, kernel: TaskContext, weights: str, penalty: Penalty
) -> Array:
    with single_threaded_blas(), activity("statistics"):
        batch = kernel.arrange(**arrays)
        return collect_chunk(kernel.network, read_weights(weights), penalty, batch, z).vector[None]


def _objective_block(
    index: int, arrays: Mapping[str, Array], z: Array, *, kernel: TaskContext, weights: str
) -> Array:
    with single_threaded_blas(), activity("evaluate"):
        batch = kernel.arrange(**arrays)
        return objective_chunk(kernel.network, read_weights(weights), batch, z).vector[None]


def _visit_block(
    index: int,
    arrays: Mapping[str, Array],
    z: Array,
    *,
    kernel: TaskContext,
    weights: str,
    written: ChunkView,
    penalty: Penalty,
    previous: Penalty,
    replace_all: bool,
) -> Array:
    meter_kernels()
    batch = kernel.arrange(**arrays)
    now = read_weights(weights)
    with single_threaded_blas():
        new, sums = visit_chunk(
            kernel.network, now, penalty, previous, batch, z, kernel.settings, replace_all=replace_all
        )
    with activity("write"):
        written.write(index, new)
    return sums.vector[None]


def _kfac_block(
    index: int,
    arrays: Mapping[str, Array],
    *,
    kernel: TaskContext,
    weights: str,
    mu: tuple[float, ...] | None,
    seed: tuple[int, ...] | None,
    chunks_taken: tuple[int, ...],
) -> Array:
    meter_kernels()
    batch = kernel.arrange(**arrays)
    noise = None if seed is None else [*seed, chunks_taken[index]]
    with single_threaded_blas():
        sums = kfac_chunk(kernel.network, read_weights(weights), mu, batch, kernel.settings, noise)
    return sums.vector[None]


def _thin(array: Array, every: int) -> Array:
    # not a view, which would hold on to the whole chunk
    return array[::every].copy()


def _quadratic_model_block(
    index: int,
    arrays: Mapping[str, Array],
    *,
    kernel: TaskContext,
    weights: str,
    direction: str,
    previous: str,
) -> Array:
    batch = kernel.arrange(**arrays)
    now, along, old = (read_weights(file) for file in (weights, direction, previous))
    with single_threaded_blas(), activity("model"):
        return quadratic_model_chunk(kernel.network, now, along, old, batch).vector[None]


def _evaluate_block(index: int, arrays: Mapping[str, Array], *, kernel: TaskContext, weights: str) -> Array:
    with single_threaded_blas(), activity("evaluate"):
        return evaluate_chunk(kernel.network, read_weights(weights), kernel.arrange(**arrays)).vector[None]


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
