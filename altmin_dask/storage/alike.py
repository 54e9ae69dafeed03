"""Whether samples were prepared as those that a model was trained on: what was done to others is never guessed."""

from __future__ import annotations

import numpy as np

from altmin_dask.errors import DataError
from altmin_dask.preparation import Preparation
from altmin_dask.storage.model import Model


def inputs_of(how: Preparation | None) -> Preparation:
    """The part of a preparation that is about inputs."""
    return (how or Preparation()).inputs


def check_alike(
    name: str, scale: float, how: Preparation | None, model: Model, *, targets: bool = False
) -> None:
    """Refuse samples that were prepared otherwise than those for training.

    Parameters
    ----------
    name : str
        What the samples are called.
    scale : float
        What they have been divided by.
    how : Preparation or None
        What else was done to them.
    model : Model
        Trained on others.
    targets : bool
        Whether their targets are used, too.

    Raises
    ------
    DataError
        Saying what is not alike.
    """
    what = difference(scale, inputs_of(how), model.scale, inputs_of(model.preparation))
    if what is None and targets:
        mine, theirs = how or Preparation(), model.preparation or Preparation()
        if mine.y != theirs.y:
            what = "targets of another standardization"
        elif mine.classes != theirs.classes and theirs.labels is None:
            what = f"the classes {_listed(mine.classes)} and not {_listed(theirs.classes)}"
    if what is not None:
        raise DataError(
            f"{name} was prepared otherwise than the samples for training: it has {what}; name the raw data, or a "
            "store that was made in the same way"
        )


def difference(scale: float, how: Preparation, known_scale: float, known: Preparation) -> str | None:
    """What inputs, divided by a number and prepared somehow, have that others have not; None if both are alike."""
    if not np.isclose(scale, known_scale, rtol=1e-12):
        return f"numbers that were divided by {scale:g} and not by {known_scale:g}"
    if (how.x is None) != (known.x is None):
        return "numbers that were standardized" if known.x is None else "numbers that were not standardized"
    if how.x != known.x:
        return "another mean or deviation that was taken out"
    if not known.columns and how.columns and how.names == [column.name for column in how.columns]:
        return None  # of numbers that had no names
    if how.columns and known.columns and (missing := [n for n in known.names if n not in how.names]):
        return f"no column {missing[0]!r}"
    if how.names != known.names:
        return f"the columns {_listed(how.names)} and not {_listed(known.names)}"
    return None if how.columns == known.columns or not known.columns else "columns that were read otherwise"


def _listed(names: object) -> str:
    """The first few names."""
    some = list(names or ()) if isinstance(names, list | tuple) else []
    return (", ".join(map(str, some[:4])) + (", …" if len(some) > 4 else "")) or "(none)"
