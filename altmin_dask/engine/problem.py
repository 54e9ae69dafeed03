"""From a pipeline and its data to a checked problem: stores, network, and sentences about what does not fit."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from altmin_dask.config import MuSchedule, NetworkTable, Pipeline
from altmin_dask.engine.executors import Executor
from altmin_dask.engine.sweep import Kernel, Samples, per_chunk
from altmin_dask.errors import ConfigError, DataError
from altmin_dask.networks.activations import Array
from altmin_dask.networks.chain import Chain
from altmin_dask.solvers.newton import NewtonSettings
from altmin_dask.solvers.schedules import Geometric
from altmin_dask.storage.readers import is_url, is_zarr_folder, locate
from altmin_dask.storage.samples import SampleStore, Summary, check_finite, ingest
from altmin_dask.storage.sources import open_source
from altmin_dask.storage.summaries import is_labels

TARGETS = {"autoencoder": "inputs", "classifier": "labels", "regressor": "real"}
AUTO_MU = 0.03
"""μ where z persists, unless told otherwise."""
AUTO_MU_L1 = 0.1
DEFAULT_LOSS = {"autoencoder": "squared", "classifier": "cross_entropy", "regressor": "squared"}


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
    """

    kernel: Kernel
    train: Samples
    validation: Samples | None
    scale: float


@dataclass(frozen=True)
class Outline:
    """What a network follows from: known of a source by its header, but for the largest label.

    Attributes
    ----------
    name : str
        What messages call the samples.
    rows, features : int
        Samples, and values in one.
    y_shape : tuple of int or None
        Shape of one target, None without targets.
    y_integer : bool
        Whether targets are integer labels.
    y_max : float or None
        The largest target.
    """

    name: str
    rows: int
    features: int
    y_shape: tuple[int, ...] | None
    y_integer: bool
    y_max: float | None


def outline_of(store: SampleStore, ranges: Summary | None) -> Outline:
    """Outline a store, whose ranges may not be known."""
    shape = None if store.y is None else store.y.shape[1:]
    integer = store.y is not None and is_labels(store.y.dtype)
    return Outline(
        store.path, store.rows, store.features, shape, integer, None if ranges is None else ranges.y_max
    )


def is_store(spec: str) -> bool:
    """Tell a sample store from a source that is ingested first."""
    location = locate(spec)
    return is_url(location) or (spec != "digits" and is_zarr_folder(Path(location)))


def find_store(spec: str, name: str, data: Path, scale: float, chunk_rows: int | None) -> SampleStore:
    """Open a sample store; any other source is first ingested as ``<data>/<name>.zarr`` (once).

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
    return ingest(open_source(spec), made, scale=scale, chunk_rows=chunk_rows)


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
            check_targets(network, target, store, ranges)
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
        Kernel(network, target, settings.dtype, newton),
        Samples(train, target),
        None if validation is None else Samples(validation, target),
        float(train.attributes.get("scale", 1.0)),
    )


def check_targets(network: Chain, target: str, store: SampleStore, ranges: Summary) -> None:
    """Refuse samples and targets that the network cannot have been made for."""
    if store.features != network.sizes[0]:
        raise DataError(
            f"{store.path} has samples of {store.features} values; the network reads {network.sizes[0]}"
        )
    outputs = network.widths[-1]
    if target == "inputs":
        name, low, high = "x", ranges.x_min, ranges.x_max
    else:
        if store.y is None or ranges.y_min is None or ranges.y_max is None:
            raise DataError(f"{store.path} has no targets y; ingest it again with --y NAME")
        name, low, high = "y", ranges.y_min, ranges.y_max
        columns = 1 if store.y.ndim == 1 else store.y.shape[1]
        if target == "labels":
            _check_labels(store, ranges, outputs)
            return
        if columns != outputs:
            raise DataError(f"y of {store.path} has {columns} columns; the network has {outputs} outputs")
    if network.loss.target == "unit" and (low < 0 or high > 1):
        raise DataError(
            f"{name} of {store.path} runs from {low:g} to {high:g}, but a sigmoid output only reaches [0, 1]; "
            "scale it (ingest --scale) or choose another network.output_activation"
        )


def _check_labels(store: SampleStore, ranges: Summary, classes: int) -> None:
    if not ranges.y_integer:
        raise DataError(
            f"y of {store.path} has dtype {store.y.dtype if store.y is not None else None}; "
            "a classifier needs integer labels 0 … K − 1"
        )
    if store.y is not None and store.y.dtype == bool:
        raise DataError(f"y of {store.path} is boolean; `altmin ingest` it, which makes it labels 0 and 1")
    assert ranges.y_min is not None
    assert ranges.y_max is not None
    if ranges.y_min < 0:
        raise DataError(f"y of {store.path} has the label {ranges.y_min:g}; classes are numbered from 0")
    if ranges.y_max >= classes:
        raise DataError(
            f"y of {store.path} has the label {ranges.y_max:g}; the network has {classes} classes"
        )


def make_network(settings: NetworkTable, samples: Outline) -> Chain:
    """Make the network that fits samples.

    Raises
    ------
    DataError
        If there are no targets where there must be, or labels that are no classes.
    ConfigError
        If settings do not fit the kind of network, or each other.
    """
    loss = settings.loss or DEFAULT_LOSS[settings.kind]
    output_activation = settings.output_activation
    if settings.kind == "autoencoder":
        outputs = samples.features
        if output_activation is None and loss == "squared":
            output_activation = "sigmoid"
    elif samples.y_shape is None:
        raise DataError(
            f"{samples.name} has no targets y, which a {settings.kind} needs; ingest it with --y NAME"
        )
    elif settings.kind == "classifier":
        if loss != "cross_entropy":
            raise ConfigError(f"network.loss = '{loss}' does not fit a classifier; use 'cross_entropy'")
        outputs = max(2, int(samples.y_max or 0) + 1)
        if samples.y_integer and outputs > max(2, samples.rows):
            raise DataError(
                f"y of {samples.name} has labels up to {outputs - 1} in {samples.rows} rows: these are not classes"
            )
    else:
        if loss == "cross_entropy":
            raise ConfigError("network.loss = 'cross_entropy' needs labels; a regressor uses 'squared'")
        outputs = samples.y_shape[0] if samples.y_shape else 1
    activation = settings.activation if isinstance(settings.activation, str) else list(settings.activation)
    return Chain.build(
        [samples.features, *settings.hidden_layer_sizes, outputs], activation, loss, output_activation
    )


def ranges_of(store: SampleStore, executor: Executor) -> Summary:
    """Give the ranges recorded in a store, or else find them by reading it through.

    Raises
    ------
    DataError
        If values are not finite, naming the first rows.
    """
    if store.summary is not None:
        return store.summary
    target = "inputs" if store.y is None else "real"
    token = uuid.uuid4().hex[:8]
    x, y = Samples(store, target).arrays(tuple(range(store.n_chunks)), token)
    found = executor.compute(per_chunk(_ranges_block, x, y, name=f"altmin_check-{token}", columns=4))
    unusable = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if unusable.size:
        start = int(unusable[0]) * store.chunk_rows
        rows = slice(start, start + store.chunk_rows)
        check_finite(
            np.asarray(store.x[rows]),
            None if store.y is None else np.asarray(store.y[rows]),
            start,
            store.path,
        )
    low, high = found[:, ::2].min(axis=0), found[:, 1::2].max(axis=0)
    if store.y is None:
        return Summary(low[0], high[0], None, None, False)
    return Summary(low[0], high[0], low[1], high[1], is_labels(store.y.dtype))


def _ranges_block(x: Array, y: Array | None) -> Array:
    ranges = [function(values) for values in (x, x if y is None else y) for function in (np.min, np.max)]
    return np.array([ranges], dtype=np.float64)


def mu_of(pipeline: Pipeline) -> Any:
    """The pipeline's μ as `altmin_dask.solvers.schedules.penalties` takes it, where it is finite."""
    mu = pipeline.solver.mu
    if mu == "auto":
        return AUTO_MU_L1 if pipeline.solver.penalty == "l1" else AUTO_MU
    return Geometric(mu.start, mu.factor, mu.stop) if isinstance(mu, MuSchedule) else mu
