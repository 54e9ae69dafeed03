"""Samples that are fewer than their values: which form of the first input factor a run takes, and its rows."""

from __future__ import annotations

from altmin_dask.execution.timing import activity
from altmin_dask.solvers.kronecker import Forms
from altmin_dask.solvers.row_space import RowSpace
from altmin_dask.storage.zarr_chunks import ChunkView
from altmin_dask.training.context import RunContext
from altmin_dask.training.grouping import RowGroup, all_rows


def forms_of(context: RunContext) -> Forms:
    """How a run keeps its factors, by its network and its rows alone, so that whoever resumes finds the same.

    A first layer that takes what an encoder makes of the samples has other rows than the store.
    """
    forms = Forms.of(context.network, context.rows)
    return forms if context.problem.task_context.encoder is None else Forms(False, forms.diagonal)


def row_space(context: RunContext, group: RowGroup | None = None) -> RowSpace:
    """The rows of the store for training, or of a group, in this process."""
    store = context.problem.train.store
    group = group or all_rows(store)
    location = f"{store.path.rstrip('/')}/x"
    view = ChunkView.select(
        location, store.x.shape, store.chunk_rows, store.x.dtype, group.chunks, group.part
    )
    with activity("read"):
        chunks = (view.read(index) for index in range(len(view.seen)))
        return RowSpace(chunks, context.problem.task_context.dtype)
