"""From an estimator's parameters to the settings of a run, and where it takes place."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from math import prod
from typing import Any

import numpy as np
from distributed import Client, get_client, get_worker

from altmin_dask.config import NetworkTable, Pipeline, make_pipeline
from altmin_dask.config.messages import nearest
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import Source
from altmin_dask.errors import ConfigError
from altmin_dask.estimators.parameters import Parameters
from altmin_dask.networks.defaults import DEFAULTS

SMALL = 1 << 20
"""Samples of no more numbers than these get chunks of a whole group, and stay on threads if nobody says otherwise: more
tasks would take longer."""

SHARING = (
    "give a temporary_folder that all workers share, or a Dask configuration with such a temporary-directory"
)
"""What to do where workers do not see the folder that a fit takes place in."""
_log = logging.getLogger("altmin_dask")

_SOLVER = ("penalty", "mu", "ridge", "proximal", "weight_decay")
_PLACE = ("scheduler", "temporary_folder", "verbose")
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
        "cluster": {"workers": _workers(parameters, train)},
        "output": {"title": type(parameters).__name__},
    }
    _set_more(tables, parameters.settings)
    if partial:
        tables["training"] |= {"max_sweeps": 1.0, "n_iter_no_change": None, "max_cpu_seconds": None}
    pipeline = make_pipeline(_plain(tables))
    if hasattr(parameters, "model_") and (partial or parameters.warm_start):
        _check_goes_on(parameters, pipeline.network, "partial_fit" if partial else "warm_start")
    if partial and not pipeline.uses_kfac:
        raise ConfigError(
            f"partial_fit takes K-FAC steps, which penalty = {pipeline.solver.penalty!r} with "
            f"schedule = {pipeline.schedule!r} does not; use fit, or penalty='l2', schedule='kfac'"
        )
    return pipeline


def _set_more(tables: dict[str, dict[str, Any]], settings: Any) -> None:
    """Set what `settings` say in the tables."""
    for name, value in _more(settings):
        table, dot, key = name.partition(".")
        if not dot or table in ("data", "output"):
            raise ConfigError(
                f"settings has {name!r}; write 'network.…', 'solver.…', 'training.…' or 'cluster.…'"
                f"{'' if dot else nearest(name, Pipeline)}"
            )
        tables.setdefault(table, {})[key] = value
    own = tables["network"]
    if own.get("layers") is not None:  # in place of the widths, and of how V_i begin, which have defaults
        del own["hidden_layer_sizes"]
        if own.get("recurrent_initialization") == "auto":
            del own["recurrent_initialization"]


def _more(settings: Any) -> list[tuple[str, Any]]:
    """Settings by their whole names, of a dict or None."""
    if settings is None or isinstance(settings, Mapping):
        return list((settings or {}).items())
    raise ConfigError(f"settings = {settings!r}: give a dict of settings by their names, or None")


def told_settings(estimator: Any) -> dict[str, Any]:
    """The parameters that decide what is learnt, by which one tells fits apart: as a search for them sets them."""
    given = {name: value for name, value in estimator.get_params(deep=False).items() if name not in _PLACE}
    more = given.pop("settings")
    return {**given, **dict(_more(more))}


def _workers(parameters: Parameters, train: SampleStore) -> int | None:
    """Threads of this process: one will do for one chunk."""
    return 1 if parameters.workers is None and train.n_chunks == 1 else parameters.workers


def widths(sizes: int | tuple[int, ...]) -> tuple[int, ...]:
    """Widths of layers, of which one may be written as a number."""
    given: Any = sizes
    return (given,) if np.ndim(given) == 0 else tuple(given)


def _check_goes_on(estimator: Any, network: NetworkTable, how: str) -> None:
    """Refuse other hidden layers than those of the model whose weights are gone on with."""
    there = tuple(len(w) for w in estimator.model_.weights[:-1])
    instead = "warm_start=False" if how == "warm_start" else "another estimator"
    if network.layers is None and (*network.hidden_layer_sizes, *network.head_layer_sizes) != there:
        raise ConfigError(
            f"{how} goes on with hidden layers of {there} units, and hidden_layer_sizes is "
            f"{estimator.hidden_layer_sizes!r}; give those, or begin anew, with {instead}"
        )


def chunk_rows_of(parameters: Parameters, source: Source) -> int | None:
    """Rows in a chunk of a temporary store; None is for `ingest` to choose.

    Raises
    ------
    ConfigError
        If they are no number of rows.
    """
    rows = parameters.chunk_rows
    if rows is not None and not is_count(rows):
        raise ConfigError(
            f"chunk_rows = {rows!r}: give a whole number from 1 on, or None ('auto' is for pipelines)"
        )
    if rows is not None or source.rows * prod(source.x_shape) > SMALL:
        return rows
    return min(source.rows, DEFAULTS.group_rows)


def is_count(value: Any) -> bool:
    """Whether a parameter is a whole number from 1 on."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


def dtype_of(estimator: Any, given: np.dtype[Any], *, begun: bool) -> str:
    """In which is computed: that of the model that is gone on with, or else of the samples."""
    if estimator.dtype != "auto":
        return str(estimator.dtype)
    if begun:
        return str(estimator.model_.weights[0].dtype)
    return "float32" if given == np.float32 else "float64"


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


def place_of(scheduler: str | None, train: SampleStore) -> str | Client | None:
    """The client that is active, an address, or None for threads.

    Without a word of the user, samples of no more numbers than `SMALL` stay on the threads of this process although a
    client is active: their chunks are whole groups, so that a step is the task of one worker, and to hand it over takes
    longer than to do it.

    Raises
    ------
    ConfigError
        If the active client is asked for, and there is none.
    """
    if scheduler not in (None, "cluster"):
        return None if scheduler == "threads" else scheduler
    try:
        get_worker()
        within = (
            True  # a task: one that waited for tasks of its own could wait forever, if nobody thought of it
        )
    except ValueError:
        within = False
    try:
        client = None if within and scheduler is None else get_client() if within else Client.current()
    except ValueError:
        if scheduler is None:
            return None
        raise ConfigError(
            "scheduler = 'cluster', but no Dask client is active; make one, or give an address"
        ) from None
    if scheduler is None and client is not None and train.rows * train.features <= SMALL:
        _say_small()
        return None
    return client


@cache
def _say_small() -> None:
    """Once in a process."""
    _log.warning(
        "a Dask client is active, but samples of at most %s numbers are fitted faster on threads of this process; "
        "scheduler='cluster' takes its workers",
        f"{SMALL:,}",
    )


def _plain(value: Any) -> Any:
    """Settings without NumPy scalars, which a grid search makes."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_plain(each) for each in value)
    if isinstance(value, np.ndarray):
        return tuple(value.tolist())
    return value.item() if isinstance(value, np.generic) else value
