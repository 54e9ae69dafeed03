"""How raw samples become those that a network reads: learnt by the first fit, and done to all others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import Source
from altmin_dask.data.streams import mapped
from altmin_dask.preparation import Column, Preparation
from altmin_dask.storage.alike import check_alike
from altmin_dask.storage.model import Model


def like_the_model(
    source: Source, store: SampleStore | None, known: Model, *, own_targets: bool, ready: bool = False
) -> Source:
    """Samples prepared as those of a model that is gone on with.

    Parameters
    ----------
    source : Source
        The samples.
    store : SampleStore or None
        What they are of, if it is one.
    known : Model
        The model.
    own_targets : bool
        Whether targets are those of the store, too, and not raw ones.
    ready : bool
        Whether samples are those of a store that was prepared so, though they do not name it.

    Raises
    ------
    DataError
        If a store was prepared otherwise.
    """
    how = known.preparation
    if store is not None and store.attributes:
        check_alike(source.name, store.scale, source.preparation, known)
    elif known.prepares and not ready:
        source = replace(source, x=mapped(source.x, known.prepare, known.weights[0].dtype))
    theirs = None if store is None or not own_targets or store.preparation is None else store.preparation.y
    if how is not None and how.y is not None and source.y is not None and theirs != how.y:
        raw = source.y if theirs is None else mapped(source.y, theirs.undo, np.float64)
        source = replace(source, y=mapped(raw, how.y.apply, np.float64))
    return source


def prepared_as(estimator: Any) -> Preparation | None:
    """How raw samples become those that the model of an estimator reads, with the names of columns and classes."""
    how = estimator._how or Preparation()
    names = getattr(estimator, "feature_names_in_", None)
    if not how.columns and names is not None:
        how = replace(how, columns=tuple(Column(str(name)) for name in names))
    classes = getattr(estimator, "classes_", None)
    if classes is not None:
        plain = classes.dtype.kind in "iu" and np.array_equal(classes, np.arange(len(classes)))
        numbers = tuple(classes.tolist()) if classes.dtype.kind in "iu" and not plain else None
        how = replace(how, classes=None if plain else tuple(map(str, classes.tolist())), labels=numbers)
    return None if how == Preparation() else how
