"""What every setting came to that a pipeline leaves open: for the plan, the run and its report.

Nothing is resolved here: what training goes by is asked for (`altmin_dask.training.defaults.Settings`, the place that
was planned for), and named after the settings.
"""

from __future__ import annotations

from typing import Any

from dask.utils import format_bytes

from altmin_dask.config import Pipeline
from altmin_dask.config.catalogue import catalogue
from altmin_dask.execution.resources import Resources
from altmin_dask.networks.network import Network
from altmin_dask.solvers.penalties import PENALTIES
from altmin_dask.training.defaults import Settings, left_open


def resolved(
    pipeline: Pipeline, settings: Settings, network: Network | None = None, place: Resources | None = None
) -> dict[str, Any]:
    """What a run goes by where its pipeline says "auto", or nothing.

    Parameters
    ----------
    pipeline : Pipeline
        What was asked for.
    settings : Settings
        What training goes by (`Problem.settings`).
    network : Network, optional
        What is trained; of recurrent ones it says how many steps there are, and how V begin.
    place : Resources, optional
        Where it is trained.

    Returns
    -------
    dict
        By ``table.key``, JSON-ready: settings that apply to the run, all of which `altmin settings` knows.
    """
    said = pipeline.model_dump(mode="json")
    open_ones = {f"{table}.{key}": value for table, key, value in left_open(said, settings.to_dict())}
    found = {key: value for key, value in open_ones.items() if key in catalogue()}
    more: dict[str, Any] = {}
    if pipeline.network.target == "labels":
        more["network.classes"] = settings.outputs
    if PENALTIES[pipeline.solver.penalty].augmented:
        more["solver.augmentation"] = None if settings.rho is None else list(settings.rho)
    if network is not None and network.sequence_steps is not None:
        more["network.steps"] = network.sequence_steps
        begins = {getattr(layer, "recurrent_init", None) for layer in network.layers} - {None}
        if pipeline.network.layers is None:
            more["network.recurrent_initialization"] = begins.pop()
    if place is not None:
        more["cluster.workers"] = place.threads if place.in_process else place.workers
        limit = place.memory_limit
        more["cluster.memory_limit"] = "none" if limit is None else format_bytes(limit)
    if settings.standardize is None:
        more["network.standardize"] = "by the samples, when a run begins"
    for key, value in more.items():
        table, name = key.split(".")
        if said[table][name] in (None, "auto"):
            found[key] = value
    return found
