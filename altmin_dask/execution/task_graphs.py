"""One step of training as a lazy Dask graph: a task per chunk, their statistics summed up a tree.

A task reads one chunk of the samples and of z, computes (`altmin_dask.execution.tasks`), writes the new z as the *next*
generation, and returns its statistics as one packed row. Running a task twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

import dask.array as da
import numpy as np

from altmin_dask.execution import tasks
from altmin_dask.execution.pieces import WHOLE, Cut, Share, added, branch
from altmin_dask.execution.samples import PerBlock, Samples, lazy
from altmin_dask.execution.series import Turn, take_turns
from altmin_dask.execution.tasks import TaskContext
from altmin_dask.solvers.evaluation import Evaluation, Moments, RelaxedSums
from altmin_dask.solvers.kernels import VisitSums, sends_inputs
from altmin_dask.solvers.kfac import KFACSettings
from altmin_dask.solvers.kronecker import MATRICES, Forms, KroneckerSums, QuadraticModel
from altmin_dask.solvers.local_steps import LocalSteps
from altmin_dask.solvers.measures import NOTHING, Measure
from altmin_dask.solvers.packing import packed_size
from altmin_dask.solvers.penalty import Penalty
from altmin_dask.solvers.statistics import Statistics
from altmin_dask.solvers.tallies import TalliedRows
from altmin_dask.storage.latent import LatentStore
from altmin_dask.storage.zarr_chunks import ChunkView, Part
from altmin_dask.types import Array, Each


@dataclass(frozen=True)
class Step:
    """What all steps have in common.

    Attributes
    ----------
    context, samples : TaskContext, Samples
        What is computed on what.
    chunks : tuple of int
        Which chunks take part.
    token : str
        Part of the task names that no other step shares.
    weights : str
        File of the weights, for `altmin_dask.storage.weights.read_weights`.
    split_every : int
        Statistics that are added up in one task.
    part : Part, optional
        Which rows of the chunks take part, if not all.
    cut : Cut
        How steps that keep no z share the rows among tasks.
    """

    context: TaskContext
    samples: Samples
    chunks: tuple[int, ...]
    token: str
    weights: str = ""
    split_every: int = 4
    part: Part | None = None
    cut: Cut = WHOLE

    @property
    def shares(self) -> tuple[Share, ...]:
        """What each task has of which block of rows: of a chunk, or of parts of several that are read together."""
        store = self.samples.store
        view = ChunkView.select("", store.x.shape, store.chunk_rows, store.x.dtype, self.chunks, self.part)
        starts = self.chunks if self.part is None else [block[0] for block in self.part.blocks(self.chunks)]
        return self.cut.shares(starts, view.blocks)

    def rows(
        self,
        task: Callable[..., Array],
        columns: int,
        *,
        name: str = "",
        arrays: Mapping[str, da.Array] | None = None,
        **settings: Any,
    ) -> da.Array:
        """Let a task for each chunk give one row.

        Parameters
        ----------
        task, columns, settings
            As in `per_chunk`, `own` among them; a task is told the context and, where there are some, the weights'
            file, too.
        name : str
            Of the tasks, if not that of the function.
        arrays : mapping of str to da.Array, optional
            What is read of every chunk, if not the samples.
        """
        if self.weights:
            settings["weights"] = self.weights
        if arrays is None:
            arrays = self.samples.arrays(self.chunks, self.token, self.part)
        name = f"altmin_{name or task.__name__}-{self.token}"
        return per_chunk(task, arrays, name=name, columns=columns, context=self.context, **settings)

    def sum(self, task: Callable[..., Array], columns: int, *, name: str = "", **settings: Any) -> da.Array:
        """The sum of `rows` over the chunks."""
        rows = self.rows(task, columns, name=name, **settings)
        return tree_sum(rows, self.split_every, f"altmin_{name or task.__name__}")

    def few(self, task: Callable[..., Array], columns: int, *, name: str = "", **settings: Any) -> da.Array:
        """As `sum`, but a few rows are left as they are, for `pieces.total`: a task more takes longer than adding."""
        rows = self.rows(task, columns, name=name, **settings)
        if rows.numblocks[0] <= branch(self.split_every):
            return rows
        return tree_sum(rows, self.split_every, f"altmin_{name or task.__name__}")

    def latent(self, latent: LatentStore, generation: int) -> da.Array:
        """The z of the chunks, lazily."""
        return lazy(latent.view(generation, self.chunks), f"altmin_read_z-{self.token}")


def moments(step: Step, *, with_gram: bool = True) -> da.Array:
    """Packed `altmin_dask.solvers.evaluation.Moments` of samples."""
    columns = packed_size(Moments.layout(step.context.network, with_gram=with_gram))
    return step.sum(tasks.moments, columns, with_gram=with_gram)


def enter(step: Step, latent: LatentStore, generation: int, penalty: Penalty) -> da.Array:
    """Bring chunks into the sums: their z by a forward pass, written as `generation`; packed statistics."""
    columns = packed_size(Statistics.layout(step.context.network.shapes, with_inputs=True))
    written = latent.view(generation, step.chunks).pieces
    return step.sum(tasks.enter, columns, own={"written": written}, penalty=penalty)


def collect(step: Step, latent: LatentStore, generation: int, penalty: Penalty) -> da.Array:
    """Packed statistics, as of `enter`, of the z that is there, last visited under `penalty`."""
    columns = packed_size(Statistics.layout(step.context.network.shapes, with_inputs=True))
    return step.sum(tasks.collect, columns, z=step.latent(latent, generation), penalty=penalty)


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
    network = step.context.network
    columns = packed_size(VisitSums.layout(network.shapes, sends_inputs(network, penalty, previous)))
    return step.sum(
        tasks.visit,
        columns,
        name="newton",
        z=step.latent(latent, generation),
        own={"written": latent.view(generation + 1, step.chunks).pieces},
        penalty=penalty,
        previous=previous,
        replace_all=replace_all,
    )


def objective(step: Step, latent: LatentStore, generation: int) -> da.Array:
    """Packed `altmin_dask.solvers.evaluation.RelaxedSums` of the z that is there."""
    columns = packed_size(RelaxedSums.layout(len(step.context.network.widths)))
    return step.sum(tasks.objective, columns, z=step.latent(latent, generation))


def lost(step: Step, latent: LatentStore, generation: int) -> da.Array:
    """1 for each chunk whose z of a generation was lost or altered, 0 for the others, (chunks, 1)."""
    view = latent.view(generation, step.chunks)
    return da.blockwise(
        tasks.lost,
        "ij",
        PerBlock(view.chunks, view.pieces),
        "ij",
        name=f"altmin_lost-{step.token}",
        adjust_chunks={"i": 1, "j": 1},
        dtype=np.float64,
        meta=np.empty((0, 0)),
        align_arrays=False,
    )


def gradient(step: Step) -> da.Array:
    """What samples say about the weights where constraints hold exactly, packed: `KroneckerSums` without curvature."""
    columns = packed_size(KroneckerSums.layout(step.context.network.shapes, curvature=False))
    own = {"share": replace(step, cut=WHOLE).shares}
    return step.sum(tasks.kfac_sums, columns, name="gradient", own=own, mu=None, seed=None)


def kfac_sums(
    step: Step,
    mu: tuple[float, ...] | None,
    seed: tuple[int, ...] | None,
    every: int,
    forms: Forms = MATRICES,
) -> tuple[da.Array, ...]:
    """What chunks say about the weights, and the part of their samples that `quadratic_model` will ask for.

    The first is packed `altmin_dask.solvers.kronecker.KroneckerSums`, with curvature where there is a seed for its
    noise, in the `forms` given. The samples are every `every`-th of each array of `Samples.arrays`, in its order: kept
    where they were read, so that no chunk is read twice.
    """
    columns = packed_size(KroneckerSums.layout(step.context.network.shapes, seed is not None, forms))
    arrays = step.samples.arrays(step.chunks, step.token, step.part, step.cut.tasks)
    own: dict[str, Iterable[Any]] = {"share": step.shares}
    if forms.rows:
        own["block"] = step.samples.view(step.chunks, step.part, step.cut.tasks).pieces
    total = step.few(
        tasks.kfac_sums,
        columns,
        name="kfac",
        arrays=arrays,
        mu=mu,
        seed=seed,
        own=own,
        forms=forms,
    )
    return total, *(
        _thinned(array, step.shares, every, f"altmin_keep_{name}-{step.token}")
        for name, array in arrays.items()
    )


def local_steps(
    step: Step,
    columns: int,
    mu: tuple[float, ...] | None,
    seed: tuple[int, ...],
    how: LocalSteps,
    each: Each = map,
) -> da.Array:
    """What has become of weights and all that is remembered after several steps on each chunk, times its rows.

    `altmin_dask.solvers.local_steps.mean_of` makes a mean of it. The halves of a step are computed by `each`.
    """
    own = {"share": replace(step, cut=WHOLE).shares}
    return step.few(tasks.local_steps, columns, name="steps", own=own, mu=mu, seed=seed, how=how, each=each)


def series(
    context: TaskContext,
    turns: tuple[Turn, ...],
    weights: str,
    settings: KFACSettings,
    columns: int,
    token: str,
) -> da.Array:
    """What has become of all that a file has after the steps of several groups, which one task takes."""
    return da.blockwise(
        partial(take_turns, context=context, weights=weights, settings=settings),
        "ij",
        PerBlock(((1,), (columns,)), [turns]),
        "ij",
        name=f"altmin_series-{token}",
        dtype=np.float64,
        meta=np.empty((0, 0)),
        align_arrays=False,
    )


def quadratic_model(
    step: Step, kept: tuple[da.Array, ...], every: int, direction: str, previous: str
) -> da.Array:
    """Packed `altmin_dask.solvers.kronecker.QuadraticModel` of samples, along what the files hold."""
    arrays = dict(zip(step.samples.names, kept, strict=True))
    columns = packed_size(QuadraticModel.layout())
    return step.few(
        tasks.quadratic_model,
        columns,
        name="model",
        arrays=arrays,
        own={"share": step.shares},
        every=every,
        direction=direction,
        previous=previous,
    )


def _thinned(array: da.Array, shares: tuple[Share, ...], every: int, name: str) -> da.Array:
    """Every `every`-th row of every piece."""
    return da.map_blocks(
        Call(tasks.thin, ("values",), {"every": every}),
        array,
        _own(array, {"share": shares}),
        name=name,
        dtype=array.dtype,
        meta=array._meta,
        chunks=(tuple(sum(share.sizes(every)) for share in shares), array.chunks[1]),
    )


def evaluate(step: Step, measure: Measure = NOTHING) -> da.Array:
    """Packed `altmin_dask.solvers.evaluation.Evaluation` of the real network; a measure is of all chunks of a store."""
    own = {"first": count(0, step.samples.store.chunk_rows)}
    head, size = (packed_size(Evaluation.layout(each)) for each in (measure.summed, measure))
    if head == size or len(step.chunks) <= branch(step.split_every):
        return step.few(tasks.evaluate, size, own=own, measure=measure)
    tallied = TalliedRows(head, size)
    rows = step.rows(tasks.evaluate, size, own=own, measure=measure, tallied=tallied)
    return tree_sum(rows, step.split_every, "altmin_evaluate", tallied)


def tree_sum(
    rows: da.Array, split_every: int, name: str = "altmin_sum", tallied: TalliedRows | None = None
) -> da.Array:
    """Sum over the chunks up a binary tree, a `branch` of it in a task, so that rounding is always the same.

    Dask makes one task of a chunk's and of the first of the sum, and calls it by the `name` of the latter. Rows that
    are `tallied` have sizes of their own, and Dask thinks of the one that the sum has.
    """
    add = _add if tallied is None else partial(_add_tallied, rows=tallied)
    return da.reduction(
        rows,
        chunk=_keep,
        combine=add,
        aggregate=add,
        axis=0,
        split_every=branch(split_every),
        dtype=rows.dtype,
        concatenate=False,
        name=name,
        meta=np.empty((0,)),
    )


def per_chunk(
    task: Callable[..., Array],
    arrays: Mapping[str, da.Array],
    *,
    name: str,
    columns: int,
    z: da.Array | None = None,
    own: Mapping[str, Iterable[Any]] | None = None,
    **settings: Any,
) -> da.Array:
    """One task a chunk, each giving one row of `columns` numbers.

    Parameters
    ----------
    task : callable
        Is given the arrays of its chunk by name, its z if there is one, its `own`, and `settings`.
    arrays : mapping of str to da.Array, (n, columns)
        What is read of every chunk.
    name : str
        Of the tasks.
    columns : int
        Numbers in a row.
    z : da.Array, optional
        What is kept of the same chunks.
    own : mapping of str to iterable, optional
        Settings of which each task has one of its own. Of the other tasks' it is told nothing, or a graph would grow
        with the square of the chunks.
    """
    names = tuple(arrays)
    given = tuple(arrays.values()) if z is None else (*arrays.values(), z)
    return da.map_blocks(
        Call(task, names, settings),
        *given,
        _own(given[0], own or {}),
        name=name,
        dtype=np.float64,
        chunks=((1,) * len(given[0].chunks[0]), (columns,)),
        meta=np.empty((0, 0)),
    )


def _own(array: da.Array, own: Mapping[str, Iterable[Any]]) -> PerBlock:
    """For each block of rows of an array the settings that are its own."""
    each = zip(range(array.numblocks[0]), *own.values(), strict=False)  # of which some have no end
    return PerBlock(array.chunks, [dict(zip(own, values, strict=True)) for _, *values in each])


@dataclass(frozen=True, eq=False)
class Call:
    """What a task does: its function, with what was read of a chunk and with the settings of all of them.

    Whole, in one object that Dask does not look into: for small steps that is most of what a graph costs.

    Attributes
    ----------
    task, settings
        As in `per_chunk`.
    names : tuple of str
        Of the arrays; what is behind them is z.
    """

    task: Callable[..., Array]
    names: tuple[str, ...]
    settings: Mapping[str, Any]
    mark: int = field(default_factory=count().__next__)

    def __call__(self, *values: Any) -> Array:
        """The row of a chunk, of its arrays, its z, if there is one, and the settings that are its own."""
        *given, own = values
        arrays = dict(zip(self.names, given, strict=False))
        return self.task(arrays, *given[len(self.names) :], **own, **self.settings)

    def __dask_tokenize__(self) -> tuple[str, int]:
        """That it is itself, and no other."""
        return "altmin", self.mark


def _keep(block: Array, axis: Any, keepdims: bool) -> Array:
    return block


def _add(blocks: Any, axis: Any, keepdims: bool) -> Array:
    """Add a (nested) list of one-row blocks, in order."""
    total = added(list(_flatten(blocks)))
    return total if keepdims else total[0]


def _add_tallied(blocks: Any, axis: Any, keepdims: bool, rows: TalliedRows) -> Array:
    """The same of rows that are tallied; at the end all sums."""
    total = added([block[0] for block in _flatten(blocks)], rows.add)
    return total[None] if keepdims else rows.whole(total)


def _flatten(blocks: Any) -> Iterator[Array]:
    if isinstance(blocks, list):
        for block in blocks:
            yield from _flatten(block)
    else:
        yield blocks
