"""Chunks of z that were lost or altered, found all at once: where there is one, a disk or a machine has had a fault."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from altmin_dask.errors import ChunkError, RepairWarning, warn
from altmin_dask.execution import task_graphs
from altmin_dask.storage.latent import LatentStore
from altmin_dask.training.context import RunContext
from altmin_dask.training.grouping import RowGroup, together
from altmin_dask.types import Array


def lost_chunks(
    met: ChunkError, context: RunContext, latent: LatentStore, groups: Sequence[RowGroup], generations: Array
) -> dict[int, set[int]]:
    """Find all chunks of z that have to be made anew, and warn of them.

    Parameters
    ----------
    met : ChunkError
        What a step has met.
    context, latent : RunContext, LatentStore
        The run, and where its z is kept.
    groups : sequence of RowGroup
        Of whole chunks.
    generations : ndarray of int, (groups,)
        The generation of the z of each; −1 of those that have none.

    Returns
    -------
    dict of int to set of int
        By the number of a group, those of its chunks that were lost or altered; of no other groups.

    Raises
    ------
    ChunkError
        `met`, if that is a chunk of the samples.
    """
    first = next((number for number, group in enumerate(groups) if met.chunk in group.chunks), None)
    if first is None or latent.location(int(generations[first])) != met.location:
        raise met
    lost = {first: {met.chunk}}
    for generation in np.unique(generations[generations >= 0]).tolist():
        numbers = np.flatnonzero(generations == generation).tolist()
        every = together([groups[number] for number in numbers])
        with context.span():
            found = task_graphs.lost(context.step(context.problem.train, every, ""), latent, generation)
            flags = context.executor.compute(found)
        unread = {chunk for chunk, flag in zip(every.chunks, flags.ravel(), strict=True) if flag}
        for number in numbers:
            if own := unread.intersection(groups[number].chunks):
                lost[number] = lost.get(number, set()) | own
    more = sum(map(len, lost.values())) - 1
    warn(
        f"chunk {met.chunk} of z in {met.location} {met.reason}"
        f"{f', and {more} more are lost or altered; they are' if more else '; it is'} made anew by a forward pass, so "
        "the run may differ from one without the damage",
        RepairWarning,
    )
    return lost
