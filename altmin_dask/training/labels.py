"""Which classes the labels of samples stand for: 0 … K − 1 as they are, any other whole numbers in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from altmin_dask.config import NetworkTable
from altmin_dask.data.labels import NONE, listed, whole_labels
from altmin_dask.data.readers import RowReader
from altmin_dask.data.summaries import Summary
from altmin_dask.errors import ConfigError, DataError, warn
from altmin_dask.preparation import TRUTH, Preparation

_FEW = 20
"""Rows up to which nearly as many labels may well be classes (as scikit-learn has it)."""


@dataclass(frozen=True)
class Classes:
    """The classes of some samples.

    Attributes
    ----------
    count : int
        How many.
    labels : tuple of int, or None
        The numbers that stand for them, in order; None for 0 … K − 1.
    """

    count: int
    labels: tuple[int, ...] | None = None

    def named(self, preparation: Preparation | None, *, truth: bool = False) -> Preparation | None:
        """The preparation of samples with what their labels are called; `truth` if they are no numbers in the store."""
        how = preparation or Preparation()
        if truth:
            how = replace(how, spelled=TRUTH)
        if self.labels is None and not how.spelled:
            return preparation
        labels = tuple(range(self.count)) if self.labels is None else self.labels
        spelled = dict(how.spelled)
        return replace(how, classes=tuple(spelled.get(each, str(each)) for each in labels), labels=labels)


def find_classes(
    settings: NetworkTable,
    y: RowReader | None,
    names: tuple[str, ...] | None,
    ranges: Summary | None,
) -> Classes | None:
    """Find the classes of samples for training; labels are read through, unless it is known that they are 0 and 1.

    Parameters
    ----------
    settings : NetworkTable
        Of the network; None is found unless it is a classifier.
    y : RowReader or None
        Targets; None is found where they are of a shape that labels have not, which is refused elsewhere.
    names : tuple of str, or None
        The classes that integers number already, where labels were text.
    ranges : Summary or None
        Of the samples, if they are known.

    Raises
    ------
    DataError
        If there is one class only, or numbers are no labels.
    ConfigError
        If there are others than `network.classes` has place for, or as many names of them as it does not say.

    Warns
    -----
    AltMinWarning
        If there are nearly as many classes as samples.
    """
    steps = y is not None and settings.recurrent and len(y.shape) == 2
    if settings.target != "labels" or y is None or not (steps or len(y.shape) == 1):
        return None
    wish = settings.classes
    _check_named(wish, names, y)
    if (known := _in_ranges(y, ranges)) is not None:
        low, high = known
        if wish is not None and low >= (NONE if steps else 0) and high < wish:
            return Classes(wish)
        if names is not None and 0 <= low < high:
            return Classes(len(names))
        if wish is None and low == 0 and high == 1:  # both of which are there
            return Classes(2)
    labels = whole_labels(y)
    if steps:
        labels = tuple(label for label in labels if label != NONE)
    if wish is not None and labels and labels[0] >= 0 and labels[-1] < wish:
        return Classes(wish)
    if not labels:
        raise DataError(
            f"{y.label} has no labels but {NONE}, which is none; a classifier needs two classes at least"
        )
    if len(labels) == 1:
        called = labels[0] if names is None else repr(names[labels[0]])
        raise DataError(f"{y.label} has only one class, {called}; a classifier needs at least two")
    if names is not None:
        return Classes(len(names))
    return _counted(labels, wish, y)


def _check_named(wish: int | None, names: tuple[str, ...] | None, y: RowReader) -> None:
    if names is not None and wish not in (None, len(names)):
        raise ConfigError(
            f"network.classes = {wish}, and {y.label} has {len(names)} classes by their names: {listed(names)}; leave "
            "it out"
        )


def warn_of_absent(absent: Sequence[Any], name: str) -> None:
    """Tell of classes that samples have none of: how good a model is at them is not measured there.

    Parameters
    ----------
    absent : sequence
        What they are called; of none nothing is told.
    name : str
        What messages call the samples.
    """
    if absent:
        classes = f"the class{'es' * (len(absent) > 1)} {listed(absent)}"
        warn(
            f"{name} has no samples of {classes}: what is measured there says nothing of them, and balanced accuracy "
            "is of the others"
        )


def absent_classes(y: RowReader, classes: Classes, called: Sequence[Any] | None) -> list[Any]:
    """What those classes are called that some labels, which are read through, have none of."""
    labels = tuple(range(classes.count)) if classes.labels is None else classes.labels
    there = set(whole_labels(y))
    return [name for label, name in zip(labels, called or labels, strict=True) if label not in there]


def _counted(labels: tuple[int, ...], wish: int | None, y: RowReader) -> Classes:
    count = len(labels)
    if wish is not None and count != wish:
        raise ConfigError(
            f"network.classes = {wish}, and {y.label} has {count} other labels: {listed(labels)}; leave it out, or "
            f"number the classes 0 … {wish - 1}"
        )
    if y.shape[0] > _FEW and len(y.shape) == 1 and 2 * count > y.shape[0]:
        warn(
            f"{y.label} has {count} different labels in {y.shape[0]} rows; if these are numbers rather than classes, "
            "train a regressor"
        )
    return Classes(count, None if labels == tuple(range(count)) else labels)


def _in_ranges(y: RowReader, ranges: Summary | None) -> tuple[float, float] | None:
    """The least and the largest label, of integers whose range is known."""
    if ranges is None or y.dtype.kind not in "iu" or ranges.y_min is None or ranges.y_max is None:
        return None
    return ranges.y_min, ranges.y_max
