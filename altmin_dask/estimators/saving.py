"""A fitted estimator as a folder: the model's two files, and ``estimator.json`` for all the rest.

The model is that of a run, so that `altmin predict` and `altmin evaluate` take the folder; and a run's folder is loaded
as an estimator, without the rest.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import AltMinError, DataError, ExistsError, MissingError, warn
from altmin_dask.preparation import Preparation
from altmin_dask.storage.atomic import new_folder, write_json
from altmin_dask.storage.json_files import read_json
from altmin_dask.storage.locations import local_path
from altmin_dask.storage.model import Model
from altmin_dask.storage.ownership import Layout
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.record import read_records

VERSION = 1
_FILE = "estimator.json"
ESTIMATOR = Layout(
    "an estimator that was saved",
    _FILE,
    lambda content: {"version", "estimator", "learnt"} <= content.keys(),
    re.compile(r"estimator\.json|model\.json|weights\.safetensors|\..+\.[0-9a-f]+\.partial"),
)
"""What `save` writes, and may replace."""
_PLAIN = ("history_", "loss_curve_", "best_loss_", "best_validation_score_", "n_iter_", "n_features_in_")
_NAMES = "feature_names_in_"  # which there are where X was a frame
_PAIRS = "pairs"  # the key of a mapping that JSON has no keys for


class Saveable(Protocol):
    """What is asked of an estimator."""

    _kind: ClassVar[str]
    model_: Model
    _how: Preparation | None
    _scale: float

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Its parameters, as scikit-learn gives them."""

    def _saved(self) -> dict[str, Any]:
        """What it has learnt that others do not, as JSON values."""

    def _from_model(self) -> dict[str, Any]:
        """What `_saved` would have given, as far as a model tells."""

    def _restore(self, saved: Mapping[str, Any]) -> None:
        """Undo `_saved`."""


E_ = TypeVar("E_", bound=Saveable)


def save(estimator: Saveable, path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Write a fitted estimator.

    Raises
    ------
    ExistsError
        If there is something that may not be replaced.
    """
    final = Path(os.path.realpath(local_path(path)))
    replace = os.path.lexists(final)
    if replace and not overwrite and ESTIMATOR.marked(str(final)):
        raise ExistsError(f"{final} exists already; give overwrite=True to replace it")
    if replace:
        ESTIMATOR.check(str(final))
    names = getattr(estimator, _NAMES, None)
    content = {
        "version": VERSION,
        "estimator": type(estimator).__name__,
        "parameters": _kept(estimator.get_params(deep=False)),
        "learnt": {name: _finite(getattr(estimator, name)) for name in _PLAIN},
        "feature_names": None if names is None else names.tolist(),
        "more": estimator._saved(),
    }
    with new_folder(final, ESTIMATOR, replace=replace) as partial:
        estimator.model_.save(partial)
        write_json(partial / _FILE, content)


def load(kind: type[E_], path: str | os.PathLike[str]) -> E_:
    """Read a fitted estimator.

    Raises
    ------
    MissingError
        If there is none.
    DataError
        If it is damaged, of a later version, or of another kind.
    """
    folder = local_path(path)
    if not (folder / _FILE).is_file():
        return _of_run(kind, folder)
    content = read_json(folder / _FILE)
    model = Model.load(folder)
    try:
        if content["version"] > VERSION:
            raise DataError(f"{folder} was saved by a later version of altmin-dask; install that version")
        if content["estimator"] != kind.__name__ or model.kind != kind._kind:
            raise DataError(f"{folder} holds an {content['estimator']}; load it as one")
        estimator = kind(**{name: _given(value) for name, value in content["parameters"].items()})
        _take(estimator, model, content["learnt"])
        if content["feature_names"] is not None:
            setattr(estimator, _NAMES, np.array(content["feature_names"], dtype=object))
        estimator._restore(content["more"])
    except DataError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / _FILE} is damaged: {error}") from None
    return estimator


def _of_run(kind: type[E_], folder: Path) -> E_:
    """The model of a run as an estimator, whose parameters are the defaults but for the layers."""
    run = RunFolder(folder)
    try:
        model, records = Model.load(run.model), read_records(run)
    except MissingError:
        raise MissingError(
            f"{folder} holds no saved estimator, and no model of a run: {_FILE} is missing"
        ) from None
    if model.kind != kind._kind:
        raise DataError(f"{folder} holds a run of kind {model.kind}; load it as the estimator of that kind")
    network, losses = model.network, [record.nested_loss for record in records]
    held_out = [record.validation_loss for record in records if record.validation_loss is not None]
    estimator = kind()
    learnt = {
        "history_": [record.to_dict() for record in records],
        "loss_curve_": losses,
        "best_loss_": min(held_out or losses, default=None),
        "best_validation_score_": None,
        "n_iter_": max(1, math.ceil(records[-1].sweep)) if records else 1,
        "n_features_in_": network.sizes[0],
    }
    _take(estimator, model, learnt)
    more = estimator._from_model()
    more["lengths"] = model.lengths
    # of a run from before models said so; samples may be no more
    with suppress(AltMinError, OSError, KeyError):
        more["lengths"] |= "lengths" in SampleStore.open(run.manifest.stores()["train"]).sequence_arrays
    estimator._restore(more)
    return estimator


def _take(estimator: Saveable, model: Model, learnt: Mapping[str, Any]) -> None:
    """Give an estimator a model, and what all of them have learnt besides."""
    estimator.model_ = model
    estimator._how, estimator._scale = model.preparation, model.scale
    for name in _PLAIN:
        setattr(estimator, name, learnt[name])


def _kept(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON has them; those that it cannot hold, such as a generator of random numbers, are told of."""
    found = {}
    for name, value in parameters.items():
        try:
            found[name] = _plain(value)
        except (TypeError, ValueError):
            warn(
                f"what is saved does not say {name} = {value!r}, which JSON cannot hold: loaded, {name} is the default;"
                " set it again there (set_params)"
            )
    return found


def _plain(value: Any) -> Any:
    """A value as JSON has it: mappings by anything but text as pairs.

    Raises
    ------
    TypeError, ValueError
        If JSON cannot hold it.
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        pairs = [[_plain(key), _plain(each)] for key, each in value.items()]
        by_text = value.keys() != {_PAIRS} and all(isinstance(key, str) for key, _ in pairs)
        return dict(pairs) if by_text else {_PAIRS: pairs}
    json.dumps(value, allow_nan=False)
    return value


def _finite(value: Any) -> Any:
    """As `_plain`, but None for a number that is none: R² of a single sample."""
    return None if isinstance(value, float) and not math.isfinite(value) else _plain(value)


def _given(value: Any) -> Any:
    """Undo `_plain`; lists are tuples."""
    if isinstance(value, list):
        return tuple(map(_given, value))
    if not isinstance(value, dict):
        return value
    pairs = value[_PAIRS] if value.keys() == {_PAIRS} else value.items()
    return {_given(key): _given(each) for key, each in pairs}
