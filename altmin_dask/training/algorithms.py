"""The algorithms by schedule: a new one is a file of its own and an entry here."""

from __future__ import annotations

from typing import Any

from altmin_dask.storage.run import RunFolder
from altmin_dask.training.algorithm import Algorithm
from altmin_dask.training.alternating import AlternatingMinimization
from altmin_dask.training.checkpoint import AlgorithmState, Checkpoint
from altmin_dask.training.kfac_training import KFACTraining

ALGORITHMS: dict[str, type[Algorithm[Any]]] = {
    "kfac": KFACTraining,
    "windows": AlternatingMinimization,
    "incremental": AlternatingMinimization,
    "batch": AlternatingMinimization,
}
STATES: dict[str, type[AlgorithmState]] = {
    algorithm.state_type.name: algorithm.state_type for algorithm in ALGORITHMS.values()
}


def restore(run: RunFolder) -> Checkpoint | None:
    """The last commit of a run, its history and model brought back to where they were; None before the first.

    Raises
    ------
    DataError
        If the commit is damaged, or the history is shorter than it was then.
    """
    found = run.committed()
    if found is None:
        return None
    try:
        checkpoint = Checkpoint.restore(*found, STATES)
    except (KeyError, TypeError, ValueError) as error:
        raise run.damaged(error) from None
    run.roll_back(checkpoint.history_bytes, checkpoint.model)
    return checkpoint
