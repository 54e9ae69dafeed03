"""Whether a store suits a network: its shape, targets that the output can reach, labels, and digits that count."""

from __future__ import annotations

import math
from collections.abc import Collection
from math import prod
from typing import Any

import numpy as np
import zarr

from altmin_dask.data.checks import WHOLE, check_lengths, warn_of_unread, whole_refused
from altmin_dask.data.conversion import blurred
from altmin_dask.data.labels import NONE, listed, whole_labels
from altmin_dask.data.open import how_to_name_targets
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.summaries import Summary
from altmin_dask.data.zarr_reader import read_zarr
from altmin_dask.errors import DataError, warn
from altmin_dask.networks.activations import Activation, get_activation
from altmin_dask.networks.network import Network
from altmin_dask.preparation import Preparation
from altmin_dask.storage.locations import is_url
from altmin_dask.storage.sample_arrays import SEQUENCE_ARRAYS, WEIGHTS
from altmin_dask.storage.zarr_groups import array_names, open_zarr

ROUNDING = 4
"""Targets may lie so many ε of the largest of them outside the range of an output: scaling rounds."""


def check_layout(network: Network, store: SampleStore) -> None:
    """Refuse samples of another size than the network reads, and what belongs to other sequences.

    Raises
    ------
    DataError
        If they do not fit.
    """
    if store.features != network.sizes[0]:
        raise DataError(
            f"{store.title} has samples of {store.features} values; the network reads {network.sizes[0]}"
        )
    if network.sequence_steps is None:
        if store.sequence_arrays:
            names = " and ".join(store.sequence_arrays)
            raise DataError(f"{store.title} has {names} of sequences, which only a recurrent network reads")
        return
    lengths, states = store.sequence_arrays.get("lengths"), store.sequence_arrays.get("states")
    if states is not None and states.shape[1] != sum(network.state_sizes):
        raise DataError(
            f"states of {store.title} have {states.shape[1]} values; the recurrent layers have "
            f"{sum(network.state_sizes)} together"
        )
    if lengths is not None and store.summary is None:
        for start in range(0, store.rows, store.chunk_rows):
            values = np.asarray(lengths[start : start + store.chunk_rows])
            check_lengths(values, network.sequence_steps, start, store.title)


def check_alike(train: SampleStore, validation: SampleStore) -> None:
    """Refuse samples for validation that have other arrays than those for training, or were prepared otherwise.

    Raises
    ------
    DataError
        If they have, or were.
    """
    if (train.weights is None) != (validation.weights is None):
        raise DataError(
            f"of {train.title} and {validation.title}, only one has an array sample_weight; give both or none"
        )
    for name in SEQUENCE_ARRAYS:
        wanted = name in train.sequence_arrays
        if wanted != (name in validation.sequence_arrays):
            has, others = ("no", "have") if wanted else ("an", "have not")
            raise DataError(
                f"{validation.title} has {has} array {name}, which the samples for training {others}"
            )
    if train.scale != validation.scale:
        raise DataError(
            f"{train.title} has x divided by {train.scale:g}, and {validation.title} by {validation.scale:g}; name the "
            "raw data as data.validation, or ingest it alike"
        )
    if (train.preparation or Preparation()) != (validation.preparation or Preparation()):
        raise DataError(
            f"{validation.title} was prepared otherwise than {train.title}; name the raw data as data.validation"
        )


def warn_of_constants(store: SampleStore, target: str, ranges: Summary) -> None:
    """Tell of samples that are all the same, or have the same target, so that there is nothing to learn.

    Warns
    -----
    AltMinWarning
        If all values of x, or of real targets, are one number.
    """
    found = []
    if ranges.x_min == ranges.x_max:
        found.append(f"x of {store.title} is {ranges.x_min:g} everywhere")
    if target == "real" and ranges.y_min is not None and ranges.y_min == ranges.y_max:
        found.append(f"y of {store.title} is {ranges.y_min:g} everywhere")
    if found:
        warn(f"{' and '.join(found)}; there is nothing to learn from that, look at how the samples were made")


def warn_of_others(store: SampleStore) -> None:
    """Tell of arrays in a store of another program that were likely meant to be read, as `warn_of_unread` does."""
    if store.attributes or is_url(store.path):  # where they may not be listed
        return
    group = open_zarr(store.path)
    assert isinstance(group, zarr.Group)
    names = [name for name in array_names(group) if name not in store.arrays]
    arrays = {name: array for name in names if isinstance(array := group.get(name), zarr.Array)}
    known = [name for name in (*SEQUENCE_ARRAYS, WEIGHTS) if name not in store.arrays]
    warn_of_unread(store.title, arrays, store.sample_shape, store.rows, known)


def check_no_dates(store: SampleStore, target: str) -> None:
    """Refuse dates as labels: each day would be a class, called by a number of days.

    Raises
    ------
    DataError
        If they are.
    """
    how = store.preparation
    if target == "labels" and how is not None and how.target == "dates":
        raise DataError(
            f"the targets of {store.title} are dates, which are no classes; write what is meant as text, such as the "
            "month, or train a regressor, which predicts days since 1970-01-01"
        )


def check_raw_labels(name: str, how: Preparation | None, target: str) -> None:
    """Refuse labels of samples that are called so, if it was they that were standardized.

    Raises
    ------
    DataError
        If they were, before they came into the store.
    """
    if target == "labels" and how is not None and how.y is not None:
        raise DataError(
            f"y of {name} was standardized, and a classifier needs labels as they were; `altmin ingest` the raw "
            "data again, with labels as integers or text"
        )


def check_labels_kept(store: SampleStore, target: str) -> None:
    """Refuse labels of which some may have become the same.

    Raises
    ------
    DataError
        If they lost digits when they came into the store.
    """
    if target == "labels" and store.y is not None and "y" in store.rounded:
        raise DataError(
            f"y of {store.title} has labels with more digits than {store.y.dtype} keeps; give them as integers or "
            "text, or keep them by --dtype float64 (network.dtype of a pipeline)"
        )


def without_targets(store: SampleStore, target: str) -> DataError:
    """What is said of samples that are to have targets."""
    known = () if store.preparation is None else store.preparation.targets
    if known:  # of samples for training, which these were prepared like
        return DataError(
            f"{store.title} has no values of {listed(known)}, the target of the samples for training; give it that "
            "column, and a value in each row"
        )
    return DataError(
        f"{store.title} has no targets y; {how_to_name_targets(store.title, labels=target == 'labels')}"
    )


def check_targets(
    network: Network,
    target: str,
    store: SampleStore,
    ranges: Summary,
    labels: tuple[int, ...] | None = None,
) -> None:
    """Refuse targets that the network cannot have been made for; `labels` stand for its classes, if not 0 … K − 1.

    Raises
    ------
    DataError
        If there are none, there are others than the network has outputs, labels are no classes, or numbers lie
        outside the range of the output's activation.
    """
    if target == "inputs":
        _check_reach(network, "x", store, ranges.x_min, ranges.x_max)
        return
    if store.y is None or ranges.y_min is None or ranges.y_max is None:
        raise without_targets(store, target)
    columns = prod(store.y.shape[1:])
    if target == "labels":
        steps = network.loss.steps or 1
        if columns != steps:
            raise DataError(f"y of {store.title} has {columns} labels a sample; the network gives {steps}")
        _check_labels(store, ranges, network.shapes[-1][0], network.every, labels)
        return
    if columns != network.widths[-1]:
        raise DataError(
            f"y of {store.title} has {columns} columns; the network has {network.widths[-1]} outputs"
        )
    _check_reach(network, "y", store, ranges.y_min, ranges.y_max)


def _check_labels(
    store: SampleStore, ranges: Summary, classes: int, every: bool, known: tuple[int, ...] | None
) -> None:
    assert ranges.y_min is not None
    assert ranges.y_max is not None
    assert store.y is not None
    if known is not None or store.y.dtype.kind not in "iu":
        expected = range(classes) if known is None else known
        found = whole_labels(read_zarr(store.y, f"y of {store.title}"))
        new = [label for label in found if label not in expected and not (every and label == NONE)]
        if new:
            label = f"the label {new[0]}" if len(new) == 1 else f"the labels {listed(new)}"
            raise DataError(
                f"y of {store.title} has {label}, and the classes are {listed(expected)}; leave such samples out"
            )
        return
    if ranges.y_min < (NONE if every else 0):  # −1 is no target of a step
        raise DataError(f"y of {store.title} has the label {ranges.y_min:g}; classes are numbered from 0")
    if ranges.y_max >= classes:
        raise DataError(
            f"y of {store.title} has the label {ranges.y_max:g}; the network has {classes} classes"
        )


def _check_reach(network: Network, name: str, store: SampleStore, low: float, high: float) -> None:
    """Refuse targets outside the range of φ_L; its ends are allowed, even where φ_L only approaches them."""
    output = get_activation(network.loss.output_activation)
    array = store.x if name == "x" else store.y
    assert array is not None
    eps = float(np.finfo(array.dtype).eps) if array.dtype.kind == "f" else 0.0
    slack = ROUNDING * eps * max(abs(low), abs(high))
    least, most = output.low - slack, output.high + slack
    if low >= least and high <= most:
        return
    place = _first_outside(network, name, store, least, most)
    if place is None:  # all that lies outside is padding
        return
    scaling = None if (how := store.preparation) is None else how.x if name == "x" else how.y
    if scaling is not None:
        advice = "leave out standardize"
    elif name == "x" and math.isfinite(output.high):
        advice = "scale it (data.scale, ingest --scale)"
    else:
        advice = "bring it into that range"
    raise DataError(
        f"{name} of {store.title} runs from {low:.9g} to {high:.9g} ({place}), but {_article(output)} output only "
        f"reaches {_interval(output)}; {advice} or choose another output_activation"
    )


def _first_outside(network: Network, name: str, store: SampleStore, least: float, most: float) -> str | None:
    """Where the first target outside a range is; None if there is none but in the padding of sequences."""
    array = store.x if name == "x" else store.y
    assert array is not None
    steps = network.loss.steps
    lengths = None if steps is None else store.sequence_arrays.get("lengths")
    start = 0
    for block in read_zarr(array, f"{name} of {store.title}").blocks(store.chunk_rows):
        outside = ((block < least) | (block > most)).reshape(len(block), -1)
        if lengths is not None and steps is not None:
            there = np.arange(steps) < np.asarray(lengths[start : start + store.chunk_rows])[:, None]
            outside &= np.repeat(there, outside.shape[1] // steps, axis=1)
        if outside.any():
            row, column = np.argwhere(outside)[0]
            which = _column(name, store, int(column), outside.shape[1])
            return f"row {start + row}{which}: {block.reshape(len(block), -1)[row, column]:.9g}"
        start += len(block)
    return None


def _column(name: str, store: SampleStore, column: int, columns: int) -> str:
    """What a column is called, if there are several, or it has a name."""
    how = store.preparation
    names: list[str] = [] if how is None else how.names if name == "x" else list(how.targets)
    if len(names) == columns:
        return f", column {names[column]!r}"
    return f", column {column}" if columns > 1 else ""


def _article(output: Activation) -> str:
    return f"an {output.name}" if output.name[0] in "aeiou" else f"a {output.name}"


def _interval(output: Activation) -> str:
    low = "(−∞" if math.isinf(output.low) else f"[{output.low:g}"
    high = "∞)" if math.isinf(output.high) else f"{output.high:g}]"
    return f"{low}, {high}"


def computed_with(store: SampleStore, target: str) -> tuple[str, ...]:
    """Names of the arrays whose numbers are computed with: not lengths and labels, which are counted."""
    y = () if target != "real" or store.y is None else ("y",)
    weights = () if target == "inputs" or store.weights is None else (WEIGHTS,)
    return ("x", *(name for name in store.sequence_arrays if name != "lengths"), *y, *weights)


def check_digits(
    store: SampleStore, dtype: str, names: Collection[str], ranges: Summary | None = None
) -> None:
    """Tell of digits that a network is not given: those a store has lost, or those that its dtype loses.

    Parameters
    ----------
    store : SampleStore
        The samples.
    dtype : {"float32", "float64"}
        In which the network computes.
    names : collection of str
        The arrays it computes with.
    ranges : Summary, optional
        Of the samples, if they are known.

    Warns
    -----
    AltMinWarning
        If the network computes in float64, and the store was rounded to float32 when it was ingested; or if it
        computes in float32, by whose steps values lie too close together.

    Raises
    ------
    DataError
        If there are whole numbers that float64 does not hold.
    """
    known: dict[str, tuple[Any, float, float]] = {}
    if ranges is not None:
        known["x"] = store.x, ranges.x_min, ranges.x_max
        if store.y is not None and ranges.y_min is not None and ranges.y_max is not None:
            known["y"] = store.y, ranges.y_min, ranges.y_max
    for name, (array, low, high) in known.items():
        if name in names and array.dtype.kind in "iu" and max(-low, high) >= WHOLE:
            raise whole_refused(f"{name} of {store.title}", int(high if high >= WHOLE else low))
    if dtype == "float64":
        rounded = [name for name in store.attributes.get("rounded", ()) if name in names]
        if rounded:
            warn(
                f"{' and '.join(rounded)} of {store.title} had more digits before it was ingested as float32, and the "
                "network computes in float64; ingest it again with --dtype float64"
            )
        return
    for name in names:
        what = f"{name} of {store.title} has values" if name in store.attributes.get("fine", ()) else None
        if store.summary is None and name in known and not np.can_cast(known[name][0].dtype, np.float32):
            _, low, high = known[name]
            what = blurred(np.array(low), np.array(high), f"{name} of {store.title}")
        if what is not None:
            warn(
                f"{what} that lie closer together than float32 tells apart, in which the network computes; set "
                "network.dtype (dtype of estimators) to float64, or standardize"
            )
