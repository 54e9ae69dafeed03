"""Arrays of a store whose numbers were scaled when it was made: who reads them by themselves, reads no raw ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from altmin_dask.errors import warn
from altmin_dask.estimators.order import notes_of_numbers
from altmin_dask.preparation import Preparation
from altmin_dask.storage.alike import check_alike, inputs_of
from altmin_dask.storage.model import Model


@dataclass(frozen=True)
class Numbers:
    """How numbers of a store were scaled.

    Attributes
    ----------
    scale : float
        What they were divided by.
    how : Preparation
        What else was done to inputs.
    """

    scale: float
    how: Preparation

    @classmethod
    def of(cls, X: Any) -> Self | None:
        """Those of lazy samples that are the numbers of a store; None of raw ones, and where nobody knows."""
        notes = notes_of_numbers(X)
        found = cls(
            float(notes.get("scale", 1.0)), inputs_of(Preparation.from_json(notes.get("preparation")))
        )
        return found if found.scale != 1 or found.how.x is not None else None

    @property
    def words(self) -> str:
        """What was done to them."""
        divided = f"divided by {self.scale:g}" if self.scale != 1 else ""
        return " and ".join(filter(None, (divided, "standardized" if self.how.x is not None else "")))


def trained_on(X: Any) -> Numbers | None:
    """How lazy samples were scaled that a model is trained on and that are not named as a store; that is told."""
    numbers = Numbers.of(X)
    if numbers is not None:
        warn(
            f"X has the numbers of a store that were {numbers.words} when it was made: the model reads such numbers, "
            "and does not do that to raw ones; give the path of the store in place of its array, and it does"
        )
    return numbers


def is_ready(X: Any, model: Model, trained: Numbers | None = None) -> bool:
    """Whether lazy samples are prepared as a model reads them, as they are the numbers of a store.

    Parameters
    ----------
    X : path, zarr.Array or dask array
        The samples.
    model : Model
        What reads them.
    trained : Numbers, optional
        What `trained_on` gave.

    Raises
    ------
    DataError
        If they were prepared otherwise than what the model prepares.
    """
    numbers = Numbers.of(X)
    if numbers is None:
        return False
    if model.prepares:
        check_alike("the store that X is of", numbers.scale, numbers.how, model)
        return True
    if numbers != trained:
        warn_of_others(numbers, "the model", "was trained on")
    return False


def warn_of_others(numbers: Numbers | None, who: str, reads: str, own: Numbers | None = None) -> None:
    """Tell of numbers that are scaled otherwise than those that somebody has learnt from; None are raw ones."""
    mine, theirs = (
        "raw numbers, as far as is known" if n is None else f"numbers of a store that were {n.words}"
        for n in (numbers, own)
    )
    warn(f"X has {mine}, and {who} {reads} {theirs}; unless that is meant, give samples that are alike")
