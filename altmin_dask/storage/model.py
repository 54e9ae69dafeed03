"""A trained model on disk: weights as safetensors, everything else as JSON; nothing is ever unpickled."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from altmin_dask.errors import DataError, MissingError
from altmin_dask.networks.network import Network, build_network
from altmin_dask.preparation import Preparation, Scaling
from altmin_dask.storage.atomic import flush, write_json, write_tensors
from altmin_dask.storage.locations import names_in
from altmin_dask.storage.units import Units
from altmin_dask.types import Array, Batch, Weights

VERSION = 1
KINDS = ("autoencoder", "classifier", "regressor", "recurrent_classifier", "recurrent_regressor")
_WEIGHTS, _SETTINGS = "weights.safetensors", "model.json"
STAGED = re.compile(r"\.model-\d{8,}\.safetensors")
"""Weights and settings of a model that is not yet the run's."""
_READINGS, _READING_SECONDS = 5, 0.02
"""How often the two files are read while they are not of one model, because they are just being replaced."""


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its weights, and what is needed to feed it.

    Attributes
    ----------
    kind : {"autoencoder", "classifier", "regressor", "recurrent_classifier", "recurrent_regressor"}
        What its output is compared with: the samples, labels, or real targets.
    network : Network
        The architecture and loss.
    weights : tuple of ndarray
        W̃_1 … W̃_L.
    sample_shape : tuple of int
        Shape of one sample, e.g. (28, 28).
    scale : float
        What raw samples were divided by before training.
    preparation : Preparation or None
        What else was done to them afterwards.
    lengths : bool
        Whether the sequences it was trained on had lengths, which others need then, too.
    units : Units or None
        In what units its inputs were, as they were prepared; None where that is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from altmin_dask import AltMinAutoencoder, Model
    >>> x = np.random.default_rng(0).normal(size=(100, 6))
    >>> AltMinAutoencoder(3, max_sweeps=3, random_state=0).fit(x).save("saved")
    >>> model = Model.load("saved")
    >>> [weights.shape for weights in model.weights]  # biases in the last column
    [(3, 7), (6, 4)]
    >>> model.predict(x).shape
    (100, 6)
    """

    kind: str
    network: Network
    weights: Weights
    sample_shape: tuple[int, ...]
    scale: float = 1.0
    preparation: Preparation | None = None
    lengths: bool = False
    units: Units | None = None

    @property
    def labels(self) -> tuple[int, ...] | None:
        """The numbers that stand for the classes in y, in order; None for 0 … K − 1."""
        return None if self.preparation is None else self.preparation.labels

    @property
    def output_scaling(self) -> Scaling | None:
        """What gives outputs the units of the raw data; None where they have these, and of classifiers."""
        if self.kind.endswith("classifier"):
            return None
        how = self.preparation or Preparation()
        if self.kind != "autoencoder":
            return how.y
        if self.scale == 1:
            return how.x
        size = self.network.sizes[0]
        divided = Scaling((0.0,) * size, (self.scale,) * size)
        return divided if how.x is None else divided.then(how.x)

    @property
    def prepares(self) -> bool:
        """Whether anything is to be done to the numbers of raw samples."""
        return self.scale != 1 or (self.preparation is not None and self.preparation.x is not None)

    def prepare(self, x: Array) -> Array:
        """Raw numbers (n, …) as the network reads them: divided and scaled in float64, and rounded once.

        Of a table with text, the numbers are those that stand for the values of a column.
        """
        if not self.prepares:
            return x
        rows = np.divide(x, self.scale, dtype=np.float64)
        how = self.preparation
        if how is not None and how.x is not None:
            rows = how.x.apply(rows)
        return rows.astype(self.weights[0].dtype)

    def outputs(self, x: Array, lengths: Array | None = None, states: Array | None = None) -> Array:
        """Network outputs φ_L for prepared samples, as a store has them, (n, d_L); arguments as of `predict`."""
        return self.network.predict(self.weights, Batch(x, lengths=lengths, states=states))

    def predict(self, x: Array, lengths: Array | None = None, states: Array | None = None) -> Array:
        """Predictions for raw samples, as `altmin predict` writes them: in the units of the raw data.

        Parameters
        ----------
        x : ndarray or frame, (n, …)
            Samples that nothing was done to; of a frame the columns are found by their names. For text, load the
            model as an estimator.
        lengths, states : ndarray, optional
            Of sequences, as in `altmin_dask.types.Batch`.

        Returns
        -------
        ndarray, (n, d_L), or with an output at every step (n, T d_L)

        Raises
        ------
        DataError
            If samples have other columns or another size, or lengths are missing.
        """
        if lengths is None:
            self.check_lengths("x", ())
        numbers = self._numbers(x)
        # behind the ends of sequences there may be anything
        if lengths is None and not np.isfinite(numbers).all():
            odd = ~np.isfinite(numbers.reshape(len(numbers), -1)).all(axis=1)
            raise DataError(
                f"row {odd.argmax()} of x, counted from 0, has NaN or infinity; repair it, or leave it out"
            )
        outputs = self.outputs(self.prepare(numbers), lengths, states)
        return outputs if self.output_scaling is None else self.output_scaling.undo(outputs)

    def check_lengths(self, name: str, arrays: Container[str]) -> None:
        """Refuse sequences whose padding would be read as steps: those for training had lengths, these have none.

        Parameters
        ----------
        name : str
            What the samples are called.
        arrays : container of str
            Names of what they have beside them.

        Raises
        ------
        DataError
            If there are no ``lengths`` among them.
        """
        if self.lengths and "lengths" not in arrays:
            raise DataError(
                f"the model was trained on sequences with lengths, and {name} has none; give lengths, how many steps "
                "there are of every sequence, here too"
            )

    def check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Refuse samples of another shape than those for training, though they may have as many numbers.

        Parameters
        ----------
        name : str
            What the samples are called.
        shape : tuple of int
            Of one; flat ones are taken for any shape.

        Raises
        ------
        DataError
            If it is another one.
        """
        mine, theirs = (tuple(n for n in each if n != 1) for each in (self.sample_shape, shape))
        if self.network.sequence_steps is None and min(len(mine), len(theirs)) > 1 and mine != theirs:
            advice = "give samples of that shape"
            if theirs[:-1] == mine and theirs[-1] == 3:
                advice = "if these are images, they have colours, and those had none: save them in grey"
            raise DataError(
                f"{name} has samples of shape {shape}, and those for training had {self.sample_shape}; {advice}"
            )

    def check_units(self, name: str, rows: Array) -> None:
        """Tell of columns of some prepared rows (n, columns) that are in other units than in training."""
        if self.units is not None and len(rows):
            self.units.warn_of_others(rows, name, self.scale, self.preparation)

    def _numbers(self, x: Any) -> Array:
        how = self.preparation
        if hasattr(x, "columns") and how is not None and how.columns:
            names = [str(name) for name in x.columns]
            if missing := [name for name in how.names if name not in names]:
                raise DataError(
                    f"x has no column {missing[0]!r}; it has {', '.join(names[:10])}: load the model as an estimator, "
                    "which prepares raw columns"
                )
            x = np.asarray(x)[:, [names.index(name) for name in how.names]]
        values: Array = np.asarray(x)
        if values.dtype.kind not in "biuf":
            raise DataError(f"x has dtype {values.dtype}; give numbers, or load the model as an estimator")
        if values.ndim < 2 or math.prod(values.shape[1:]) != self.network.sizes[0]:
            recurrent = self.network.sequence_steps is not None
            if not recurrent or values.ndim < 2:
                raise DataError(
                    f"x has shape {values.shape}; the network reads {self.network.sizes[0]} values"
                )
        self.check_shape("x", values.shape[1:])
        return values

    def save(self, folder: Path) -> None:
        """Write ``weights.safetensors`` and ``model.json``; each file appears complete or not at all."""
        staged = self.stage(folder, 0)
        try:
            publish(folder, 0)
        finally:
            staged.unlink(missing_ok=True)

    def stage(self, folder: Path, number: int) -> Path:
        """Write all of the model to one file, which nobody reads until `publish` is told the same number."""
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "version": VERSION,
            "kind": self.kind,
            "network": self.network.describe(),
            "sample_shape": list(self.sample_shape),
            "scale": self.scale,
            "preparation": None if self.preparation is None else self.preparation.to_json(),
        }
        if self.lengths:
            settings["lengths"] = True
        file = _staged(folder, number)
        # the settings are in both files: those of one model are not taken for those of another
        units = {} if self.units is None else self.units.tensors()
        write_tensors(file, layer_tensors(self.weights) | units, {"settings": json.dumps(settings)})
        return file

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Model:
        """Read what `save` wrote, of an estimator or a run, too.

        Raises
        ------
        MissingError
            If there is no model in the folder.
        DataError
            If its files are damaged or do not fit together.
        """
        folder = Path(folder)
        if not (folder / _SETTINGS).exists() and (folder / "model").is_dir():
            folder = folder / "model"  # a run's
        try:
            settings, tensors, belongs = _read(folder)
        except FileNotFoundError as error:
            missing = error.filename or "its file of weights"
            raise MissingError(f"{folder} holds no trained model: {missing} is missing") from None
        except NotADirectoryError:
            raise MissingError(f"{folder} holds no trained model: it is no folder") from None
        except (OSError, ValueError, SafetensorError) as error:
            raise DataError(f"the model in {folder} is damaged: {error}") from None
        try:
            if settings["version"] > VERSION:
                raise DataError(
                    f"the model in {folder} is of a later version of altmin-dask; install that one"
                )
            if settings["kind"] not in KINDS:
                raise ValueError(f"its kind is {settings['kind']!r}")
            network = build_network(settings["network"])
            weights = tuple(tensors[name] for name in layer_names(len(network.widths)))
            if tuple(w.shape for w in weights) != network.shapes:
                raise ValueError("the weights' shapes are not the network's")
            if not all(w.dtype.kind == "f" and np.isfinite(w).all() for w in weights):
                raise ValueError("the weights are not finite numbers")
            sample_shape, scale = tuple(settings["sample_shape"]), float(settings["scale"])
            if math.prod(sample_shape) != network.sizes[0]:
                raise ValueError(f"samples of shape {sample_shape} do not fit {network.sizes[0]} inputs")
            if not 0 < scale < math.inf:
                raise ValueError(f"samples cannot be divided by {scale}")
            preparation = Preparation.from_json(settings.get("preparation"))
            labels = None if preparation is None else preparation.labels
            if labels is not None and len(labels) != network.shapes[-1][0]:
                raise ValueError(f"it has {len(labels)} labels for {network.shapes[-1][0]} outputs")
            if not belongs:
                raise ValueError(f"{_SETTINGS} is not the one that {_WEIGHTS} was written with")
            lengths = bool(settings.get("lengths", False))
            units = Units.from_tensors(tensors, network.sizes[0])
            return cls(settings["kind"], network, weights, sample_shape, scale, preparation, lengths, units)
        except DataError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the model in {folder} is damaged: {error}") from None


def publish(folder: Path, number: int) -> None:
    """Let the model that was staged with a number take its place, unless it has done so already.

    Whatever else was staged goes. The weights come last: a kill before leaves the staged file, to do it again with.
    """
    wanted = _staged(folder, number)
    for name in names_in(str(folder)):
        file = folder / name
        if STAGED.fullmatch(name) is None:
            continue
        if file != wanted:
            file.unlink()
            continue
        with safe_open(file, framework="numpy") as staged:
            settings = json.loads(staged.metadata()["settings"])
        if _settings_of(folder) != settings:
            write_json(folder / _SETTINGS, settings)
        os.replace(file, folder / _WEIGHTS)
        flush(folder)


def _staged(folder: Path, number: int) -> Path:
    return folder / f".model-{number:08d}.safetensors"


def _settings_of(folder: Path) -> Any:
    """The settings that are there; None where there are none that can be read."""
    try:
        return json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _read(folder: Path) -> tuple[Any, dict[str, Array], bool]:
    """Settings and weights, and whether they were written together, as far as the weights say so."""
    for reading in range(_READINGS):
        if reading:
            time.sleep(_READING_SECONDS)
        settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        with safe_open(folder / _WEIGHTS, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            theirs = (file.metadata() or {}).get("settings")
        belongs = theirs is None or json.loads(theirs) == settings
        if belongs:
            break
    return settings, tensors, belongs


def layer_names(layers: int) -> list[str]:
    """Names of the tensors W̃_1 … W̃_L in a file."""
    return [f"layer_{i}" for i in range(1, layers + 1)]


def layer_tensors(weights: Weights) -> dict[str, Any]:
    """Weights by the names they have in a file, in the order of memory that safetensors takes for granted."""
    return dict(zip(layer_names(len(weights)), map(np.ascontiguousarray, weights), strict=True))


def layers_of(tensors: Mapping[str, Array]) -> Weights:
    """Undo `layer_tensors`; other tensors may be there, too."""
    return tuple(tensors[name] for name in layer_names(sum(name.startswith("layer_") for name in tensors)))
