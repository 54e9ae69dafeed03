"""From an estimator's parameters to the settings of a run, and where it takes place."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from distributed import Client, get_worker

from altmin_dask.config import Pipeline, make_pipeline
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import Source
from altmin_dask.errors import ConfigError
from altmin_dask.estimators.parameters import Parameters
from altmin_dask.networks.defaults import DEFAULTS

SMALL = 1 << 20
"""Samples of no more numbers than these get chunks of a whole group: more tasks would take longer."""

_SOLVER = ("penalty", "mu", "ridge", "proximal")
_TRAINING = ("schedule", "max_sweeps", "n_iter_no_change", "tol", "group_chunks", "max_staleness")


def pipeline_of(
    parameters: Parameters,
    network: Mapping[str, Any],
    train: SampleStore,
    validation: SampleStore | None,
    *,
    seed: int,
    partial: bool,
) -> Pipeline:
    """The settings of a run.

    Parameters
    ----------
    parameters : Parameters
        Those of the estimator.
    network : dict
        The table `[network]`, but for hidden layers.
    train, validation : SampleStore, SampleStore or None
        The samples.
    seed : int
        Of the run.
    partial : bool
        Whether it is one pass over the samples.

    Raises
    ------
    ConfigError
        If a parameter cannot be used, which is named.
    """
    tables: dict[str, dict[str, Any]] = {
        "data": {"train": train.path, "validation": None if validation is None else validation.path},
        "network": {
            "hidden_layer_sizes": widths(parameters.hidden_layer_sizes),
            "activation": parameters.activation,
            **network,
        },
        "solver": {name: getattr(parameters, name) for name in _SOLVER},
        "training": {**{name: getattr(parameters, name) for name in _TRAINING}, "seed": seed},
        "cluster": {"workers": parameters.workers or (1 if train.n_chunks == 1 else None)},
    }
    for name, value in (parameters.settings or {}).items():
        table, dot, key = name.partition(".")
        if not dot or table in ("data", "output"):
            raise ConfigError(
                f"settings has {name!r}; write 'network.…', 'solver.…', 'training.…' or 'cluster.…'"
            )
        tables.setdefault(table, {})[key] = value
    if tables["network"].get("layers") is not None:  # in place of the widths, which have a default
        del tables["network"]["hidden_layer_sizes"]
    if partial:
        tables["training"] |= {"max_sweeps": 1.0, "n_iter_no_change": None, "max_cpu_seconds": None}
    pipeline = make_pipeline(_plain(tables))
    if partial and not pipeline.uses_kfac:
        raise ConfigError(
            f"partial_fit takes K-FAC steps, which penalty = {pipeline.solver.penalty!r} with "
            f"schedule = {pipeline.schedule!r} does not; use fit, or penalty='l2', schedule='kfac'"
        )
    return pipeline


def widths(sizes: int | tuple[int, ...]) -> tuple[int, ...]:
    """Widths of layers, of which one may be written as a number."""
    given: Any = sizes
    return (given,) if np.ndim(given) == 0 else tuple(given)


def chunk_rows_of(parameters: Parameters, source: Source) -> int | None:
    """Rows in a chunk of a temporary store; None is for `ingest` to choose."""
    if parameters.chunk_rows is not None or source.rows * prod(source.x_shape) > SMALL:
        return parameters.chunk_rows
    return min(source.rows, DEFAULTS.group_rows)


def share_held_out(parameters: Parameters) -> float:
    """The validation fraction.

    Raises
    ------
    ConfigError
        If it is none.
    """
    fraction: Any = parameters.validation_fraction
    if not (isinstance(fraction, float | np.floating) and 0 < fraction < 1):
        raise ConfigError(f"validation_fraction = {fraction!r}: give a number between 0 and 1")
    return float(fraction)


def place_of(scheduler: str | None) -> str | Client | None:
    """The client that is active, an address, or None for threads."""
    if scheduler is not None:
        return None if scheduler == "threads" else scheduler
    try:
        get_worker()
    except ValueError:
        try:
            return Client.current()
        except ValueError:
            return None
    return None  # within a task: one that waited for tasks of its own could wait forever


def _plain(value: Any) -> Any:
    """Settings without NumPy scalars, which a grid search makes."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_plain(each) for each in value)
    if isinstance(value, np.ndarray):
        return tuple(value.tolist())
    return value.item() if isinstance(value, np.generic) else value
