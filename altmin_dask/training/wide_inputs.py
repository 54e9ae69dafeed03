"""Samples that are fewer than their values: which form of the first input factor a run takes, and its rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from altmin_dask.solvers.kronecker import Forms
from altmin_dask.solvers.row_space import RowSpace
from altmin_dask.training.context import RunContext
from altmin_dask.training.grouping import RowGroup, all_rows
from altmin_dask.types import Array


def forms_of(context: RunContext) -> Forms:
    """How a run keeps its factors, by its network and its rows alone, so that whoever resumes finds the same.

    A first layer that takes what an encoder makes of the samples has other rows than the store.
    """
    forms = Forms.of(context.network, context.rows)
    return forms if context.problem.task_context.encoder is None else replace(forms, rows=0)


def row_space(context: RunContext, group: RowGroup | None = None) -> RowSpace:
    """The rows of the store for training, or of a group, in this process."""
    train = context.problem.train
    group = group or all_rows(train.store)
    view = train.view(group.chunks, group.part)
    chunks = [train.read(block) for block in view.pieces]
    return RowSpace(chunks, context.problem.task_context.dtype)


def row_numbers(context: RunContext, group: RowGroup) -> Array:
    """Which rows of the store a group has."""
    view = context.problem.train.view(group.chunks, group.part)
    return np.concatenate([block.numbers() for block in view.pieces])
