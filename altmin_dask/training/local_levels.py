"""How chunks are gone through in several K-FAC steps each, with the damping that steps of so many rows want."""

from __future__ import annotations

from dataclasses import replace

from altmin_dask.solvers.kfac import KFACSettings
from altmin_dask.solvers.kfac_defaults import default_output_damping
from altmin_dask.solvers.local_steps import Level, LocalSteps
from altmin_dask.training.context import RunContext
from altmin_dask.training.step_sizes import halved, model_every


def local_steps(context: RunContext, settings: KFACSettings) -> LocalSteps:
    """Those of a run whose first steps have these settings; as many as are asked for stay as many.

    ρ falls as steps get more rows, and σ where it depends on them, unless they are given.
    """
    network, store, pipeline = context.network, context.problem.train.store, context.pipeline
    count, chunk_rows = context.settings.chunk_steps or 1, min(store.chunk_rows, store.rows)
    first = max(1, chunk_rows // count)

    def level(steps: int) -> Level:
        rows = max(1, chunk_rows // steps)
        rho = 1.0 if pipeline.solver.proximal is not None else first / rows
        sigma = default_output_damping(network, rows) / default_output_damping(network, first)
        own = replace(
            settings,
            input_damping=settings.input_damping * rho,
            output_damping=settings.output_damping * (1.0 if pipeline.solver.output_damping else sigma),
        )
        return Level(own, steps, model_every(rows, network))

    counts = [count] if pipeline.training.chunk_steps else halved(count)
    return LocalSteps(tuple(map(level, counts)), store.chunk_rows, context.settings.group_chunks)
