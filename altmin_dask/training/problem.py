"""From a pipeline and its data to a checked problem: stores, network, and sentences about what does not fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from altmin_dask.config import NetworkTable, Pipeline
from altmin_dask.data.checks import check_lengths, is_labels
from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source
from altmin_dask.data.preprocessing import prepared
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.summaries import Summary
from altmin_dask.errors import ConfigError, DataError
from altmin_dask.execution.executor import Executor
from altmin_dask.execution.samples import Samples
from altmin_dask.execution.tasks import TaskContext
from altmin_dask.networks.builders import dense_network, recurrent_network
from altmin_dask.networks.network import Network
from altmin_dask.preparation import Preparation
from altmin_dask.solvers.gauss_newton import NewtonSettings
from altmin_dask.storage.locations import is_url, locate
from altmin_dask.storage.sample_arrays import SEQUENCE_ARRAYS
from altmin_dask.storage.zarr_groups import is_zarr_folder
from altmin_dask.training.defaults import Settings, resolve
from altmin_dask.training.ranges import check_digits, check_targets, computed_with, ranges_of

TARGETS = {
    "autoencoder": "inputs",
    "classifier": "labels",
    "regressor": "real",
    "recurrent_classifier": "labels",
    "recurrent_regressor": "real",
}
DEFAULT_LOSS = {"inputs": "squared", "labels": "cross_entropy", "real": "squared"}


@dataclass(frozen=True, eq=False)
class Problem:
    """What a run trains on what.

    Attributes
    ----------
    kernel : Kernel
        The network and how its z is updated.
    train, validation : Samples, Samples or None
        The stores.
    scale : float
        What raw samples were divided by before they came into the training store.
    preparation : Preparation or None
        What else was done to them.
    settings : Settings
        What is run where the pipeline leaves it open.
    """

    kernel: TaskContext
    train: Samples
    validation: Samples | None
    scale: float
    preparation: Preparation | None
    settings: Settings


@dataclass(frozen=True)
class DatasetSpec:
    """What a network follows from: known of a source by its header, but for the largest label.

    Attributes
    ----------
    name : str
        What messages call the samples.
    rows : int
        How many samples.
    sample_shape : tuple of int
        Shape of one.
    y_shape : tuple of int or None
        Shape of one target, None without targets.
    y_integer : bool
        Whether targets are integer labels.
    y_max : float or None
        The largest target.
    sequence_arrays : tuple of str
        What sequences have beside x and y: lengths, states.
    """

    name: str
    rows: int
    sample_shape: tuple[int, ...]
    y_shape: tuple[int, ...] | None
    y_integer: bool
    y_max: float | None
    sequence_arrays: tuple[str, ...] = ()


def outline_of(store: SampleStore, ranges: Summary | None) -> DatasetSpec:
    """Outline a store, whose ranges may not be known."""
    shape = None if store.y is None else store.y.shape[1:]
    integer = store.y is not None and is_labels(store.y.dtype)
    y_max = None if ranges is None else ranges.y_max
    return DatasetSpec(
        store.path, store.rows, store.sample_shape, shape, integer, y_max, tuple(store.sequence_arrays)
    )


def is_store(spec: str) -> bool:
    """Tell a sample store from a source that is ingested first."""
    location = locate(spec)
    return is_url(location) or (spec != "digits" and is_zarr_folder(Path(location)))


def find_store(
    spec: str,
    name: str,
    data: Path,
    scale: float,
    chunk_rows: int | None,
    *,
    standardize: bool = False,
    like: Preparation | None = None,
    dtype: str = "float32",
) -> SampleStore:
    """Open a sample store; any other source is first ingested as ``<data>/<name>.zarr`` (once).

    In `dtype`, that of the network, with `standardize`, or prepared `like` other samples.

    Raises
    ------
    AltMinError
        As `SampleStore.open`, `open_source` and `ingest` do.
    """
    if is_store(spec):
        return SampleStore.open(locate(spec))
    made = data / f"{name}.zarr"
    if made.exists():
        return SampleStore.open(made)
    source = open_source(spec, like=like)
    if like is not None:
        source, standardize = prepared(replace(source, preparation=like)), False
    return ingest(source, made, scale=scale, chunk_rows=chunk_rows, standardize=standardize, dtype=dtype)


def build_problem(
    pipeline: Pipeline, train: SampleStore, validation: SampleStore | None, executor: Executor
) -> Problem:
    """Check the data and make the network that fits them.

    Stores that `ingest` wrote carry their ranges; those of other programs are read through once, out of core.

    Raises
    ------
    DataError
        If values are not finite, labels are no classes, targets lie outside the range of the output, or the
        validation store does not fit the training store.
    ConfigError
        If settings do not fit the network.
    """
    settings = pipeline.network
    target = TARGETS[settings.kind]
    summary = ranges_of(train, executor)
    network = make_network(settings, outline_of(train, summary))
    for store in (train, validation):
        if store is not None:
            ranges = summary if store is train else ranges_of(store, executor)
            check_layout(network, store)
            check_targets(network, target, store, ranges)
            check_digits(store, settings.dtype, computed_with(store, target), ranges)
    if train.weights is not None:
        _check_weighted(pipeline)
    if validation is not None:
        _check_alike(train, validation)
    if isinstance(pipeline.solver.mu, tuple) and len(pipeline.solver.mu) != len(network.widths):
        raise ConfigError(
            f"solver.mu has {len(pipeline.solver.mu)} values for {len(network.widths)} layers; give one for each"
        )
    solver = pipeline.solver
    newton = NewtonSettings(
        newton_steps=solver.newton_steps,
        cg_iterations=solver.cg_iterations,
        cg_tolerance=solver.cg_tolerance,
        damping=solver.damping,
        curvature=solver.curvature,
    )
    return Problem(
        TaskContext(network, target, settings.dtype, newton),
        Samples(train, target),
        None if validation is None else Samples(validation, target),
        float(train.attributes.get("scale", 1.0)),
        train.preparation,
        resolve(pipeline, network, train.rows, train.chunk_rows),
    )


def _check_alike(train: SampleStore, validation: SampleStore) -> None:
    """Refuse samples for validation that have other arrays than those for training, or were prepared otherwise.

    Raises
    ------
    DataError
        If they have, or were.
    """
    if (train.weights is None) != (validation.weights is None):
        raise DataError(
            f"of {train.path} and {validation.path}, only one has an array sample_weight; give both or none"
        )
    for name in SEQUENCE_ARRAYS:
        wanted = name in train.sequence_arrays
        if wanted != (name in validation.sequence_arrays):
            has, others = ("no", "have") if wanted else ("an", "have not")
            raise DataError(
                f"{validation.path} has {has} array {name}, which the samples for training {others}"
            )
    if train.preparation != validation.preparation:
        raise DataError(
            f"{validation.path} was prepared otherwise than {train.path}; name the raw data as data.validation"
        )


def _check_weighted(pipeline: Pipeline) -> None:
    """Refuse weights of samples where something other than the loss would have to be weighted, too.

    Raises
    ------
    ConfigError
        If it would.
    """
    if pipeline.network.recurrent or TARGETS[pipeline.network.kind] == "inputs":
        raise ConfigError(f"a {pipeline.network.kind} takes no weights of samples; leave them out")
    if not pipeline.uses_kfac or pipeline.solver.mu != "auto":
        raise ConfigError(
            "weights of samples are for the limit of exact constraints only: write penalty = 'l2', "
            "schedule = 'kfac' and mu = 'auto', or leave them out"
        )


def fitted(network: Network, store: SampleStore) -> Network:
    """The network as it reads a store: of the same weights, but for sequences as long as those there.

    Raises
    ------
    DataError
        If the samples do not fit.
    """
    if network.sequence_steps is not None and len(store.sample_shape) > 1:
        steps = store.features * network.sequence_steps // network.sizes[0]
        if steps != network.sequence_steps and store.sample_shape[0] == steps:
            network = network.with_steps(steps)
    check_layout(network, store)
    return network


def check_layout(network: Network, store: SampleStore) -> None:
    """Refuse samples of another size than the network reads, and what belongs to other sequences.

    Raises
    ------
    DataError
        If they do not fit.
    """
    if store.features != network.sizes[0]:
        raise DataError(
            f"{store.path} has samples of {store.features} values; the network reads {network.sizes[0]}"
        )
    if network.sequence_steps is None:
        if store.sequence_arrays:
            names = " and ".join(store.sequence_arrays)
            raise DataError(f"{store.path} has {names} of sequences, which only a recurrent network reads")
        return
    lengths, states = store.sequence_arrays.get("lengths"), store.sequence_arrays.get("states")
    if states is not None and states.shape[1] != sum(network.state_sizes):
        raise DataError(
            f"states of {store.path} have {states.shape[1]} values; the recurrent layers have "
            f"{sum(network.state_sizes)} together"
        )
    if lengths is not None and store.summary is None:
        for start in range(0, store.rows, store.chunk_rows):
            values = np.asarray(lengths[start : start + store.chunk_rows])
            check_lengths(values, network.sequence_steps, start, store.path)


def make_network(settings: NetworkTable, samples: DatasetSpec) -> Network:
    """Make the network that fits samples.

    Raises
    ------
    DataError
        If there are no targets where there must be, or labels that are no classes.
    ConfigError
        If settings do not fit the kind of network, or each other.
    """
    target = TARGETS[settings.kind]
    loss = settings.loss or DEFAULT_LOSS[target]
    output_activation = settings.output_activation
    features = prod(samples.sample_shape)
    if target == "inputs":
        outputs = features
        if output_activation is None and loss == "squared":
            output_activation = "sigmoid"
    elif samples.y_shape is None:
        raise DataError(
            f"{samples.name} has no targets y, which a {settings.kind} needs; ingest it with --y NAME"
        )
    elif target == "labels":
        if loss != "cross_entropy":
            raise ConfigError(f"network.loss = '{loss}' does not fit a classifier; use 'cross_entropy'")
        if samples.y_integer and samples.y_shape and not settings.recurrent:
            raise DataError(
                f"y of {samples.name} has labels of shape {samples.y_shape} for every sample; a classifier needs one"
            )
        outputs = settings.classes or max(2, int(samples.y_max or 0) + 1)
        if settings.classes is None and samples.y_integer and outputs > max(2, samples.rows):
            raise DataError(
                f"y of {samples.name} has labels up to {outputs - 1} in {samples.rows} rows: these are not classes"
            )
    else:
        if loss == "cross_entropy":
            raise ConfigError("network.loss = 'cross_entropy' needs labels; a regressor uses 'squared'")
        outputs = prod(samples.y_shape)
    activation = settings.hidden_activation
    if settings.recurrent:
        return _make_recurrent(settings, samples, activation, outputs, loss, output_activation)
    return dense_network(
        [features, *settings.hidden_layer_sizes, outputs], activation, loss, output_activation
    )


def _make_recurrent(
    settings: NetworkTable,
    samples: DatasetSpec,
    activation: str | list[str],
    outputs: int,
    loss: str,
    output_activation: str | None,
) -> Network:
    """Make the recurrent network that fits sequences."""
    features = prod(samples.sample_shape)
    if settings.steps is None and len(samples.sample_shape) < 2:
        raise DataError(
            f"{samples.name} has samples of shape {samples.sample_shape}, which are no sequences; give "
            "x of shape (samples, steps, features), or set network.steps"
        )
    steps = settings.steps or samples.sample_shape[0]
    if features % steps or (samples.sequence_arrays and steps != samples.sample_shape[0]):
        raise ConfigError(
            f"network.steps = {steps} does not fit samples of shape {samples.sample_shape} in {samples.name}"
        )
    y_shape = samples.y_shape or ()
    labels = TARGETS[settings.kind] == "labels"
    every = settings.loss_at == "every"
    if settings.loss_at in (None, "auto"):
        every = len(y_shape) == (1 if labels else 2) and y_shape[0] == steps
    if every and (not y_shape or y_shape[0] != steps):
        raise DataError(
            f"y of {samples.name} has shape {y_shape} for every sample, not one target for each of {steps} steps; "
            'give such targets, or set network.loss_at = "last"'
        )
    if labels and not every and y_shape:
        raise DataError(
            f"y of {samples.name} has shape {y_shape} for every sample; the last step needs one label"
        )
    return recurrent_network(
        features // steps,
        steps,
        settings.hidden_layer_sizes,
        outputs // steps if every and not labels else outputs,
        settings.head_layer_sizes,
        activation,
        loss,
        output_activation,
        every=every,
        recurrent_init=settings.recurrent_initialization or "auto",
    )
