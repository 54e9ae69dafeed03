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
from safetensors import safe_open

from altmin_dask.errors import ConfigError, DataError, ExistsError, MissingError
from altmin_dask.networks.chain import Weights
from altmin_dask.solvers.statistics import Statistics
from altmin_dask.storage.atomic import write_json, write_tensors
from altmin_dask.storage.model import layer_names, layer_tensors


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
        """Weights of the model."""
        return self.model / "weights.safetensors"

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
        file = self.path / "pipeline.json"
        if file.exists():
            different = _differences(read_json(file).get("identity"), json.loads(json.dumps(identity)))
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
        self, pipeline: Mapping[str, Any], identity: Mapping[str, Any], stores: Mapping[str, str | None]
    ) -> None:
        """Write down all settings (JSON-ready) and the sample stores the run uses."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(
            self.path / "pipeline.json", {"identity": identity, "pipeline": pipeline, "stores": stores}
        )

    def settings(self) -> dict[str, Any]:
        """The pipeline the run was made with.

        Raises
        ------
        MissingError
            If this is not a run folder.
        """
        file = self.path / "pipeline.json"
        if not file.exists():
            raise MissingError(f"{self.path} is not a run folder (it has no pipeline.json)")
        settings: dict[str, Any] = read_json(file)["pipeline"]
        return settings

    def append(self, record: Mapping[str, Any]) -> int:
        """Add a record to the history; returns its new length in bytes."""
        with self.history.open("ab") as file:
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
            return file.tell()

    def records(self) -> list[dict[str, Any]]:
        """All records so far."""
        if not self.history.exists():
            return []
        return [json.loads(line) for line in self.history.read_text(encoding="utf-8").splitlines()]

    def state_file(self, cursor: int) -> Path:
        """Where the state after `cursor` actions is committed."""
        return self.path / "state" / f"{cursor:08d}.safetensors"

    def commit(self, state: State) -> Path:
        """Make `state` the one a resumption starts from; the one before is kept for tasks still reading it."""
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
        """The last committed state, with the history cut back to it; None where nothing was committed."""
        states = self._states()
        if not states:
            return None
        weights = read_weights(states[-1])
        with safe_open(states[-1], framework="numpy") as file:
            statistics = Statistics(
                [w.shape for w in weights], with_inputs=True, vector=file.get_tensor("statistics")
            )
            state = State(weights, statistics, file.get_tensor("generations"))
            for name, value in json.loads(file.metadata()["scalars"]).items():
                setattr(state, name, value)
        if self.history.exists():
            os.truncate(self.history, state.history_bytes)
        return state

    def _states(self) -> list[Path]:
        return sorted((self.path / "state").glob("[0-9]*.safetensors"))


@lru_cache(maxsize=2)
def read_weights(file: Path) -> Weights:
    """Weights of a committed state; each process reads them once an update."""
    with safe_open(file, framework="numpy") as tensors:
        layers = sum(name.startswith("layer_") for name in tensors.keys())  # noqa: SIM118 - not a dict
        return tuple(tensors.get_tensor(name) for name in layer_names(layers))


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    DataError
        If the file is not JSON.
    """
    try:
        value: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{file} is damaged: {error}") from None
    return value


def _differences(theirs: Any, ours: Any, place: str = "") -> list[str]:
    """Settings that differ, as "place: theirs there, ours here"."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        found: list[str] = []
        for key in sorted({*theirs, *ours}):
            found += _differences(theirs.get(key), ours.get(key), f"{place}.{key}" if place else key)
        return found
    return [] if theirs == ours else [f"{place}: {theirs} there, {ours} here"]
