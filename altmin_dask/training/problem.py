"""From a pipeline and its stores to a checked problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from altmin_dask.config import Pipeline
from altmin_dask.config.solver import SolverTable
from altmin_dask.data.find import store_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import ConfigError, DataError, warn
from altmin_dask.execution.executor import Executor
from altmin_dask.execution.resources import Resources
from altmin_dask.execution.samples import AS_THEY_ARE, Samples
from altmin_dask.execution.tasks import TaskContext
from altmin_dask.networks.network import Network
from altmin_dask.preparation import Preparation
from altmin_dask.solvers.kfac import Stream
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.storage.units import Units
from altmin_dask.training.build_network import DatasetSpec, make_network
from altmin_dask.training.checks import (
    check_alike,
    check_digits,
    check_labels_kept,
    check_layout,
    check_no_dates,
    check_raw_labels,
    check_targets,
    computed_with,
    warn_of_constants,
    warn_of_others,
)
from altmin_dask.training.defaults import Settings, resolve
from altmin_dask.training.labels import absent_classes, find_classes, warn_of_absent
from altmin_dask.training.ranges import ranges_of
from altmin_dask.training.standardizing import Deciding
from altmin_dask.types import Weights

USUAL_WEIGHT, LOOKED_AT = 10.0, 16
"""Weights of samples that are less or more than so many times 1 on average, over so many chunks, are warned of."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What a run trains on what.

    Attributes
    ----------
    task_context : TaskContext
        The network and how its z is updated: what every task has to know.
    train, validation : Samples, Samples or None
        The stores; samples for training as they are trained on, which may be standardized.
    scale : float
        What raw samples were divided by before they came into the training store.
    preparation : Preparation or None
        What else was done to them, and which labels stand for which classes.
    settings : Settings
        What is run where the pipeline leaves it open.
    units : Units or None
        In what units inputs are, where they have been looked at.
    """

    task_context: TaskContext
    train: Samples
    validation: Samples | None
    scale: float
    preparation: Preparation | None
    settings: Settings
    units: Units | None = None

    @property
    def judging(self) -> Samples:
        """The samples that decide which model is kept, as they are: those that the model reads, too."""
        return self.validation or self.given

    @property
    def given(self) -> Samples:
        """The samples for training, as they are."""
        return replace(self.train, standard=AS_THEY_ARE)

    @property
    def standardized(self) -> bool:
        """Whether weights are trained for other samples than those that are given."""
        return self.train.standard.name != AS_THEY_ARE.name

    def fold(self, weights: Weights) -> Weights:
        """Weights of the network that reads samples as they are, from those that are trained."""
        return self.train.standard.fold(weights) if self.standardized else weights


def build_problem(
    pipeline: Pipeline,
    train: SampleStore,
    validation: SampleStore | None,
    executor: Executor,
    place: Resources | None = None,
    begun: Mapping[str, Any] | None = None,
    *,
    stream: Stream | None = None,
    log: Callable[[str], object] = print,
) -> Problem:
    """Check the data and make the network that fits them.

    Stores that `ingest` wrote carry their ranges; those of other programs are read through once, out of core. `place`
    and `begun` are those of `altmin_dask.training.defaults.resolve`; `stream` and `log` those of
    `altmin_dask.training.standardizing.Deciding`.

    Raises
    ------
    DataError
        If values are not finite, labels are no classes, targets lie outside the range of the output, or the
        validation store does not fit the training store.
    ConfigError
        If settings do not fit the network.
    """
    settings = pipeline.network
    target = settings.target
    _check_alone(train, target, stream)
    summary = ranges_of(train, executor)
    outline = DatasetSpec.of(train, summary)
    classes = find_classes(settings, store_source(train).y, outline.classes, summary)
    network = make_network(settings, outline.with_classes(classes).for_run(begun))
    labels = None if classes is None else classes.labels
    truth = train.y is not None and train.y.dtype.kind == "b"
    for store in (train, *([] if validation is None else [validation])):
        ranges = summary if store is train else ranges_of(store, executor)
        check_layout(network, store)
        check_labels_kept(store, target)
        check_targets(network, target, store, ranges, labels)
        check_digits(store, settings.dtype, computed_with(store, target), ranges)
    warn_of_constants(train, target, summary)
    known = train.preparation if classes is None else classes.named(train.preparation, truth=truth)
    if classes is not None and validation is not None and begun is None and pipeline.data.share is None:
        y = store_source(validation).y
        assert y is not None  # or it had been refused
        warn_of_absent(absent_classes(y, classes, None if known is None else known.called), validation.title)
    _check_fits(pipeline, network, train, validation)
    deciding = Deciding(pipeline, network, train, stream, log if begun is None else _silent)
    standard = deciding.standardization(begun)
    found = _resolved(pipeline, network, train, stream, place, begun)
    _warn_of_ridge(train, found.ridge)
    return Problem(
        TaskContext(network, target, settings.dtype, _newton_settings(pipeline.solver), labels=labels),
        Samples(train, target, standard),
        None if validation is None else Samples(validation, target),
        train.scale,
        known,
        replace(found, standardize=standard.name),
        deciding.units,
    )


def _check_alone(train: SampleStore, target: str, stream: Stream | None) -> None:
    """Refuse samples from which nothing can be learnt, whatever the network is."""
    if train.rows < 2 and stream is None:
        raise DataError(f"{train.title} has 1 sample; training needs at least 2")
    check_no_dates(train, target)
    check_raw_labels(train.title, train.preparation, target)


def samples_in_all(train: SampleStore, network: Network, stream: Stream | None) -> float:
    """Samples that the ridge is shared by: those there are, or have been in a stream, each as its weight says."""
    return (train.rows if stream is None else stream.samples(network)) * train.mean_weight


def _resolved(
    pipeline: Pipeline,
    network: Network,
    train: SampleStore,
    stream: Stream | None,
    place: Resources | None,
    begun: Mapping[str, Any] | None,
) -> Settings:
    """What the samples leave of settings that were left open."""
    return resolve(
        pipeline,
        network,
        train.rows,
        train.chunk_rows,
        samples=samples_in_all(train, network, stream),
        shuffled=train.shuffled,
        place=place,
        begun=begun,
    )


def _check_fits(
    pipeline: Pipeline, network: Network, train: SampleStore, validation: SampleStore | None
) -> None:
    """Refuse settings that do not fit samples and network, and samples for validation that do not fit the others."""
    for store in (train, *([] if validation is None else [validation])):
        warn_of_others(store)
    if train.weights is not None:
        _check_weighted(pipeline)
        _warn_of_weights(train)
    if validation is not None:
        check_alike(train, validation)
    if isinstance(pipeline.solver.mu, tuple) and len(pipeline.solver.mu) != len(network.widths):
        raise ConfigError(
            f"solver.mu has {len(pipeline.solver.mu)} values for {len(network.widths)} layers; give one for each"
        )


def _warn_of_weights(train: SampleStore) -> None:
    """Tell of weights that are not 1 on average, by some chunks, unless they were divided by what they are."""
    assert train.weights is not None
    some = np.linspace(0, train.n_chunks - 1, min(train.n_chunks, LOOKED_AT)).astype(int)
    parts = [
        np.asarray(train.weights[chunk * train.chunk_rows : (chunk + 1) * train.chunk_rows]) for chunk in some
    ]
    mean = float(np.concatenate(parts).mean(dtype=np.float64))
    if not 1 / USUAL_WEIGHT <= mean <= USUAL_WEIGHT:
        warn(
            f"weights of the samples in {train.title} are {mean:.3g} on average, and steps are damped as if they were "
            "about 1: divide them, and solver.ridge, by that"
        )


def _warn_of_ridge(train: SampleStore, ridge: float) -> None:
    """Tell of weights so small that the ridge beside their sum is most of it, as boosting's are."""
    mean = train.mean_weight
    if ridge and mean < 1 / USUAL_WEIGHT:
        warn(
            f"weights of samples are {mean:.3g} on average, beside which a ridge of {ridge:g} counts as one of "
            f"{ridge / mean:.3g} beside samples of weight 1: give ridge = {ridge * mean:.2g}, or multiply the weights "
            f"by {1 / mean:.3g}"
        )


def _silent(line: str) -> None:
    """Of what was told when the run began."""


def _newton_settings(solver: SolverTable) -> NewtonSettings:
    return NewtonSettings(
        newton_steps=solver.newton_steps,
        cg_iterations=solver.cg_iterations,
        cg_tolerance=solver.cg_tolerance,
        damping=solver.damping,
        curvature=solver.curvature,
    )


def _check_weighted(pipeline: Pipeline) -> None:
    """Refuse weights of samples where something other than the loss would have to be weighted, too.

    Raises
    ------
    ConfigError
        If it would.
    """
    if pipeline.network.target == "inputs":
        raise ConfigError(f"a {pipeline.network.kind} takes no weights of samples; leave them out")
    if pipeline.keeps_z or pipeline.solver.mu != "auto":
        raise ConfigError(
            "weights of samples are for the limit of exact constraints only: write penalty = 'l2', "
            "schedule = 'kfac' and mu = 'auto', or leave them out"
        )
