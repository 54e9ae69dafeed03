"""What to do about a network that is too wide for the memory there is, whatever its chunks are."""

from __future__ import annotations

from dataclasses import replace

from altmin_dask.planning.memory import Workload
from altmin_dask.planning.projection import project
from altmin_dask.solvers.kronecker import ROWS_SHARE, WIDE

REDUCE = "leave columns out, or reduce them first (scikit-learn's SelectKBest, PCA, TruncatedSVD)"


def narrower(work: Workload, memory: float) -> str:
    """What would make a run fit, by what is largest in it."""
    k, others = work.shapes[0][1], [*(k for _, k in work.shapes[1:]), *(d for d, _ in work.shapes)]
    if not work.kfac and k >= WIDE:
        instead = replace(work, kfac=True, exact=False, has_dual=False, chunk_rows=1, validation_chunk_rows=0)
        if project(instead).worker_peak <= memory:
            return (
                f"this schedule keeps matrices of {k:,} × {k:,} for the inputs; write training.schedule = 'kfac', "
                "which needs none here"
            )
    if work.kfac and work.forms.rows:
        return f"give smaller network.hidden_layer_sizes, {REDUCE}"
    if k < max(others):
        return "give smaller network.hidden_layer_sizes"
    advice = f"its matrices of the inputs are {k:,} × {k:,}: {REDUCE}"
    rows = int(ROWS_SHARE * k)
    if work.kfac and work.network.layers[0].takes_whole and k >= WIDE and rows < work.rows:
        advice += f", or train on {rows:,} rows at most, which need no such matrix"
    return advice
