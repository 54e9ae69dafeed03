"""A run folder: the settings it belongs to, committed states, the history, z, and the trained model.

    RUN/pipeline.json             what was asked for, every default filled in
    RUN/history.jsonl             one JSON object per record
    RUN/state/00000042.safetensors    the last commits: weights, statistics, generations, clocks
    RUN/z/generation_{0,1}.zarr   pre-activations of every sample
    RUN/data/*.zarr               sample stores that the run made itself, from sources that are not stores
    RUN/model/                    the model of the last record
    RUN/report/                   figures and page of `altmin report`

A state is committed by renaming its file into place, so there is always a last complete one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from altmin_dask.errors import ConfigError, DataError, ExistsError, MissingError
from altmin_dask.networks.chain import Weights
from altmin_dask.solvers.statistics import Statistics
from altmin_dask.storage.atomic import write_json, write_tensors
from altmin_dask.storage.model import layer_names, layer_tensors
from altmin_dask.storage.readers import is_url


@dataclass
class State:
    """Everything that training is at one moment, besides z.

    Attributes
    ----------
    weights : tuple of ndarray
        W̃_1 … W̃_L.
    statistics : Statistics
        The sums over all chunks that have entered.
    generations : ndarray of int64
        How often the z of each group was written; its parity says which array holds it.
    cursor : int
        How many actions of the schedule are done.
    passes : int
        Number of the current pass over what is in the sums.
    visits : int
        How many samples were visited by a z-update, repetitions counted.
    cpu_seconds, wall_seconds : float
        Spent on training, evaluation excluded.
    history_bytes : int
        Length of the history that belongs to this state.
    """

    weights: Weights
    statistics: Statistics
    generations: np.ndarray[Any, np.dtype[np.int64]]
    cursor: int = 0
    passes: int = 0
    visits: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    history_bytes: int = 0

    def scalars(self) -> dict[str, int | float]:
        """All that is not an array."""
        return {field.name: getattr(self, field.name) for field in fields(self)[3:]}


@dataclass(frozen=True)
class RunFolder:
    """Paths and files of one run."""

    path: Path

    @property
    def history(self) -> Path:
        """The history, one JSON object a line."""
        return self.path / "history.jsonl"

    @property
    def model(self) -> Path:
        """Folder of the model."""
        return self.path / "model"

    @property
    def weights(self) -> Path:
        """Weights of the model, by an absolute path: worker processes may run in another folder."""
        return self.model.absolute() / "weights.safetensors"

    @property
    def latent(self) -> Path:
        """Folder of z."""
        return self.path / "z"

    @property
    def data(self) -> Path:
        """Folder of stores the run ingested itself."""
        return self.path / "data"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.path / "report"

    @property
    def started(self) -> bool:
        """Whether a state has been committed."""
        return bool(self._states())

    def check(self, identity: Mapping[str, Any], resume: bool) -> None:
        """Check that a pipeline may use the folder; nothing is written.

        Parameters
        ----------
        identity : mapping
            The settings that must not change between a start and its resumption.
        resume : bool
            Whether to go on with a run that is there.

        Raises
        ------
        ExistsError
            If the folder holds something and `resume` is not given.
        ConfigError
            If the run in it belongs to another pipeline.
        MissingError
            If there is nothing to resume.
        """
        if self._claim_file.exists():
            different = _differences(self._claims().get("identity"), json.loads(json.dumps(identity)))
            if different:
                raise ConfigError(
                    f"run folder {self.path} belongs to another pipeline ({'; '.join(different)}); "
                    "give another --run"
                )
            if not resume:
                raise ExistsError(
                    f"run folder {self.path} exists already; go on with it by --resume, or give another --run"
                )
        elif resume:
            raise MissingError(f"there is no run to resume in {self.path}")
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ExistsError(f"{self.path} exists and is not a run folder; give another --run")

    def claim(
        self,
        pipeline: Mapping[str, Any],
        identity: Mapping[str, Any],
        stores: Mapping[str, str | None],
        shapes: Mapping[str, Any] | None = None,
    ) -> None:
        """Write down what the run is.

        Parameters
        ----------
        pipeline, identity : mapping
            All settings, and those that must not change, JSON-ready.
        stores : mapping
            Paths of the sample stores by role; those inside the folder move with it.
        shapes : mapping, optional
            What follows from the samples and must not change either.

        Raises
        ------
        DataError
            If there are committed states of other shapes.
        """
        if shapes is not None:
            shapes = json.loads(json.dumps(shapes))
            old = self._claims().get("shapes") if self.started else None
            if old is not None and (different := _differences(old, shapes)):
                raise DataError(
                    f"the samples are not those that run folder {self.path} was begun with "
                    f"({'; '.join(different)}); give another --run"
                )
        home = self.path.absolute()
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(
            self._claim_file,
            {
                "identity": identity,
                "pipeline": pipeline,
                "stores": {
                    role: str(Path(path).relative_to(home))
                    if path and Path(path).is_relative_to(home)
                    else path
                    for role, path in stores.items()
                },
                "shapes": shapes,
            },
        )

    def settings(self) -> dict[str, Any]:
        """Give the pipeline the run was made with.

        Raises
        ------
        MissingError
            If this is not a run folder.
        DataError
            If its file is damaged.
        """
        settings = self._claims().get("pipeline")
        if not isinstance(settings, dict):
            raise DataError(f"{self._claim_file} is damaged: it has no pipeline")
        return settings

    def stores(self) -> dict[str, str]:
        """Paths or URLs of the sample stores the run uses, by role: "train", "validation".

        Raises
        ------
        MissingError
            If this is not a run folder.
        """
        stores = self._claims().get("stores") or {}
        home = self.path.absolute()
        return {role: path if is_url(path) else str(home / path) for role, path in stores.items() if path}

    def append(self, record: Mapping[str, Any]) -> int:
        """Add a record to the history; returns its new length in bytes."""
        with self.history.open("ab") as file:
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
            return file.tell()

    def records(self) -> list[dict[str, Any]]:
        """All records so far.

        Raises
        ------
        DataError
            If a line is not a JSON object, such as the last one of a run that was killed while writing it.
        """
        if not self.history.exists():
            return []
        records = []
        for number, line in enumerate(self.history.read_bytes().splitlines(), 1):
            try:
                records.append(_object(line))
            except ValueError as error:
                raise DataError(
                    f"line {number} of {self.history} is damaged: {error}; `altmin train --resume` cuts off "
                    "what was written after the last committed state"
                ) from None
        return records

    def state_file(self, cursor: int) -> Path:
        """Where the state after `cursor` actions is committed."""
        return self.path.absolute() / "state" / f"{cursor:08d}.safetensors"

    def commit(self, state: State) -> Path:
        """Make `state` the one to resume from; the one before is kept for tasks that still read it."""
        file = self.state_file(state.cursor)
        file.parent.mkdir(exist_ok=True)
        write_tensors(
            file,
            {
                **layer_tensors(state.weights),
                "statistics": state.statistics.vector,
                "generations": state.generations,
            },
            {"scalars": json.dumps(state.scalars())},
        )
        for old in self._states()[:-2]:
            old.unlink()
        return file

    def restore(self) -> State | None:
        """Read the last committed state and cut the history back to it; None where nothing was committed.

        Raises
        ------
        DataError
            If the state is damaged, or the history is shorter than it was at the commit.
        """
        states = self._states()
        if not states:
            return None
        try:
            weights = read_weights(states[-1])
            with safe_open(states[-1], framework="numpy") as file:
                statistics = Statistics(
                    [w.shape for w in weights], with_inputs=True, vector=file.get_tensor("statistics")
                )
                scalars = _object(file.metadata()["scalars"].encode())
                state = State(weights, statistics, file.get_tensor("generations"), **scalars)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"the state {states[-1]} is damaged: {error}; start again in another --run"
            ) from None
        if (self.history.stat().st_size if self.history.exists() else 0) < state.history_bytes:
            raise DataError(
                f"{self.history} has lost records of the run; put it back, or start again in another --run"
            )
        if self.history.exists():
            os.truncate(self.history, state.history_bytes)
        return state

    @property
    def _claim_file(self) -> Path:
        return self.path / "pipeline.json"

    def _claims(self) -> dict[str, Any]:
        """All that `claim` wrote."""
        if not self._claim_file.exists():
            raise MissingError(f"{self.path} is not a run folder (it has no {self._claim_file.name})")
        return read_json(self._claim_file)

    def _states(self) -> list[Path]:
        return sorted((self.path.absolute() / "state").glob("[0-9]*.safetensors"))


def read_weights(file: Path) -> Weights:
    """Weights of a committed state or a model; each process reads them once an update."""
    about = file.stat()  # a file of the same name may be of a later run, and a worker outlives many of them
    return _read_weights(file, (about.st_mtime_ns, about.st_ino, about.st_size))


@lru_cache(maxsize=2)
def _read_weights(file: Path, version: tuple[int, ...]) -> Weights:
    with safe_open(file, framework="numpy") as tensors:
        layers = sum(name.startswith("layer_") for name in tensors.keys())  # noqa: SIM118 - not a dict
        return tuple(tensors.get_tensor(name) for name in layer_names(layers))


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    DataError
        If the file does not hold one.
    """
    try:
        return _object(file.read_bytes())
    except ValueError as error:
        raise DataError(f"{file} is damaged: {error}") from None


def _object(data: bytes) -> dict[str, Any]:
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    return value


def _differences(theirs: Any, ours: Any, place: str = "") -> list[str]:
    """List settings that differ, as "place: theirs there, ours here"."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        found: list[str] = []
        for key in sorted({*theirs, *ours}):
            found += _differences(theirs.get(key), ours.get(key), f"{place}.{key}" if place else key)
        return found
    return [] if theirs == ours else [f"{place}: {theirs} there, {ours} here"]
