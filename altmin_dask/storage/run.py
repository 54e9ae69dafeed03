"""A run folder: the settings it belongs to, committed states, the history, z, and the trained model.

    RUN/pipeline.json             what was asked for, every default filled in, and the run's mark
    RUN/history.jsonl             one JSON object per record
    RUN/training.log              what was said while it went on, with times
    RUN/progress.json             where it is between two records, for those who watch the folder
    RUN/state/00000042.safetensors    the last commits: weights, statistics, generations, clocks
    RUN/z/00000n.zarr             pre-activations of every sample, an array for each generation
    RUN/steps/                    weights on their way to the tasks of a step
    RUN/data/*.zarr               sample stores that the run made itself, from sources that are not stores
    RUN/model/                    the model of the best record
    RUN/result.json               what that model is worth, why training ended, and the checksum of its weights
    RUN/report/                   figures and page of `altmin report`
    RUN/.lock                     held by the process that trains

A state is committed by renaming its file into place, so there is always a last complete one. Everything else follows
from it: a record is appended, and the model of a best one written beside its place, before the commit that makes them
valid; then the model takes its place. What is missing of that after a kill is made good when the run is resumed, and
what belongs to no commit is removed; the arrays of z and the files in steps/
carry the run's mark, and whatever else is in the folder is left alone. The result goes when training goes on; where a
kill has left an old one beside a newer model, the checksum in it tells.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import join
from typing import Any

from safetensors import SafetensorError, safe_open

from altmin_dask.errors import ConfigError, DataError, ExistsError, MissingError
from altmin_dask.storage.atomic import json_text, remove_killed, remove_partials, write_json, write_tensors
from altmin_dask.storage.json_files import differences, differing, parse_object, read_json
from altmin_dask.storage.locations import (
    names_in,
    remove_empty_folder,
)
from altmin_dask.storage.lock import RunLock
from altmin_dask.storage.manifest import Manifest
from altmin_dask.storage.model import STAGED, publish
from altmin_dask.storage.ownership import remove_ours
from altmin_dask.storage.sample_arrays import SAMPLES
from altmin_dask.storage.weights import WeightStore
from altmin_dask.storage.what import MANIFEST
from altmin_dask.storage.writable import making
from altmin_dask.types import Array

_STATE = re.compile(r"\d{8,}\.safetensors")
_WRITTEN = {
    "": re.compile(r"(pipeline|progress|result)\.json|history\.jsonl|training\.log"),
    "state/": _STATE,
    "model/": re.compile(rf"model\.json|weights\.safetensors|{STAGED.pattern}"),
    "report/": re.compile(r"(report|performance)\.html"),
}
"""Files of a run by folder; all else in its folder is not its to remove."""
_ANY_WRITTEN = re.compile("|".join(f"{folder}({files.pattern})" for folder, files in _WRITTEN.items()))
_STORES = "train.zarr", "validation.zarr"
MOST_REPEATED = 3
"""A pipeline that differs in more settings is another one, and not one of which some were forgotten."""


@dataclass(frozen=True)
class RunFolder:
    """Paths and files of one run.

    Attributes
    ----------
    path : Path
        The folder.

    Examples
    --------
    >>> from pathlib import Path
    >>> from altmin_dask import RunFolder
    >>> run = RunFolder(Path("runs/digits"))
    >>> run.started, run.records()
    (False, [])
    """

    path: Path

    @property
    def history(self) -> Path:
        """The history, one JSON object a line."""
        return self.path / "history.jsonl"

    @property
    def log(self) -> Path:
        """What was said of it, and when."""
        return self.path / "training.log"

    @property
    def model(self) -> Path:
        """Folder of the model; of an estimator that was saved, the folder itself."""
        return self.path if (self.path / "model.json").is_file() else self.path / "model"

    @property
    def weights(self) -> Path:
        """Weights of the model, by an absolute path: worker processes may run in another folder."""
        return self.model.absolute() / "weights.safetensors"

    @property
    def manifest(self) -> Manifest:
        """What the run is."""
        return Manifest(self.path)

    @property
    def id(self) -> str:
        """What no other run is called; marks what the run makes for itself. Of a claimed run."""
        return str(self.manifest.read()["id"])

    @property
    def latent(self) -> str:
        """Folder or URL of z, which no other run shares; of a claimed run."""
        return str(self.manifest.read().get("z") or self.path.absolute() / "z")

    @property
    def steps(self) -> str:
        """Folder or URL of weights on their way to tasks, which no other run shares; of a claimed run."""
        z = self.manifest.read().get("z")
        return f"{z}/weights" if z else str(self.path.absolute() / "steps")

    @property
    def data(self) -> Path:
        """Folder of stores the run ingested itself."""
        return self.path / "data"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.path / "report"

    @property
    def empty(self) -> bool:
        """Whether there is a folder with nothing in it (but its lock)."""
        lock = self._lock
        return self.path.is_dir() and all(path == lock.file and lock.usable for path in self.path.iterdir())

    @property
    def claimed(self) -> bool:
        """Whether it is the folder of a run."""
        return self.manifest.exists

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
        if self.claimed:
            theirs, ours = self.manifest.read().get("identity"), json.loads(json.dumps(identity))
            if different := differences(theirs, ours):
                again = _as_it_began(theirs, ours) if resume else ""
                raise ConfigError(
                    f"run folder {self.path} belongs to another pipeline ({'; '.join(different)}); "
                    f"{again}give another --run"
                )
            if not resume:
                raise ExistsError(
                    f"run folder {self.path} exists already; go on with it by --resume, or give another --run"
                )
        elif resume:
            raise MissingError(
                f"there is no run to resume in {self.path}; name its folder by --run DIR, or leave --resume "
                "out to begin one"
            )
        elif self.path.exists() and not self.empty:
            raise ExistsError(f"{self.path} exists and is not a run folder; give another --run")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and keep other processes from training in it as long as this one lives.

        Raises
        ------
        ExistsError
            If another process trains in it, or there is something else by the name of its lock.
        StorageError
            If it cannot be written.
        """
        with making(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with self._lock.held():
            try:
                yield
            finally:
                if not self.claimed:  # by a run that was refused
                    self._lock.file.unlink(missing_ok=True)

    @property
    def is_locked(self) -> bool | None:
        """Whether a process that lives trains in the folder; None where the file system does not tell."""
        return self._lock.is_held

    def append(self, record: Mapping[str, Any]) -> int:
        """Add a record to the history; returns its new length in bytes."""
        with self.history.open("ab") as file:
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())  # a commit names the length of the history
            return file.tell()

    def records(self, *, whole: bool = False) -> list[dict[str, Any]]:
        """All records so far.

        Parameters
        ----------
        whole : bool
            Leave out a last line that is not whole: somebody may be writing it, or was killed doing so.

        Raises
        ------
        DataError
            If a line is not a JSON object, such as the last one of a run that was killed while writing it.
        """
        if not self.history.exists():
            return []
        records, text = [], self.history.read_bytes()
        if whole:
            text = text[: text.rfind(b"\n") + 1]
        for number, line in enumerate(text.splitlines(), 1):
            try:
                records.append(parse_object(line))
            except ValueError as error:
                raise DataError(
                    f"line {number} of {self.history} is damaged: {error}; `altmin train --resume` cuts off "
                    "what was written after the last committed state"
                ) from None
        return records

    def write_progress(self, progress: Mapping[str, Any]) -> None:
        """Leave word of the progress for those who watch the folder; training never reads it."""
        write_json(self._note_file, progress)

    def noted(self) -> dict[str, Any]:
        """Read what was noted of the progress; empty where nothing was.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        return read_json(self._note_file) if self._note_file.exists() else {}

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write down what came of training, for the model that is there; a file that says the same stays."""
        content = {**result, "weights": self._checksum()}
        if self._result_file.exists() and self._result_file.read_text(encoding="utf-8") == json_text(content):
            return
        write_json(self._result_file, content)

    def result(self) -> dict[str, Any] | None:
        """What `write_result` was given; None where there is none, or it is of another model than the one here.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        try:
            result = read_json(self._result_file)
            return result if result.pop("weights", None) == self._checksum() else None
        except FileNotFoundError:
            return None

    def remove_result(self) -> None:
        """Training goes on: what came of it is not known yet."""
        self._result_file.unlink(missing_ok=True)

    def state_file(self, cursor: int) -> Path:
        """Where the state after `cursor` actions is committed."""
        return self.path.absolute() / "state" / f"{cursor:08d}.safetensors"

    def commit(self, tensors: Mapping[str, Array], scalars: Mapping[str, Any]) -> Path:
        """Make a state the one to resume from, and its model that of the run; gives its file.

        The state before is kept for tasks that still read it.

        Parameters
        ----------
        tensors : mapping of str to ndarray
            All arrays.
        scalars : mapping
            All the rest, JSON-ready. ``cursor`` tells states apart, ``model`` is the record of its model (−1 for none).
        """
        file = self.state_file(scalars["cursor"])
        file.parent.mkdir(exist_ok=True)
        write_tensors(file, tensors, {"scalars": json.dumps(scalars)})
        publish(self.model, scalars["model"])
        for old in self._states()[:-2]:
            old.unlink()
        return file

    def clear(self) -> None:
        """Remove what a run that never began has written; what somebody else has put in the folder stays."""
        if not self.claimed:
            return
        WeightStore(self.steps, self.id).clear()
        if z := self.manifest.read().get("z"):
            remove_empty_folder(z)
        for name in _STORES:
            SAMPLES.remove(str(self.data / name))
        remove_empty_folder(str(self.data))
        self.remove_orphans()
        remove_ours(os.path.realpath(self.path), _ANY_WRITTEN, last=MANIFEST)

    def remove_orphans(self) -> None:
        """Remove what a process that was killed has left half-written; of a locked folder."""
        for folder, files in _WRITTEN.items():
            remove_partials(self.path / folder, files)
        remove_killed(self.model, _WRITTEN["model/"])

    def committed(self) -> tuple[dict[str, Array], dict[str, Any]] | None:
        """What the last `commit` was given; None where there was none.

        Raises
        ------
        DataError
            If its file is damaged.
        """
        states = self._states()
        if not states:
            return None
        try:
            with safe_open(states[-1], framework="numpy") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
                return tensors, parse_object(file.metadata()["scalars"].encode())
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise self.damaged(error) from None

    def damaged(self, error: Exception) -> DataError:
        """What to say of the last commit if it cannot be read."""
        *before, last = self._states()
        other = "start again in another --run"
        if before and not self.manifest.read().get("z"):  # which would be of the last one
            other = f"remove it, and --resume goes on from the one before, {before[-1].name}; or {other}"
        return DataError(f"the state {last} is damaged: {error}; {other}")

    def roll_back(self, history_bytes: int, model: int) -> None:
        """Bring history and model back to where they were at a commit.

        Raises
        ------
        DataError
            If the history is shorter than it was then.
        """
        if (self.history.stat().st_size if self.history.exists() else 0) < history_bytes:
            raise DataError(
                f"{self.history} has lost records of the run; put it back, or start again in another --run"
            )
        if self.history.exists():
            os.truncate(self.history, history_bytes)
        publish(self.model, model)

    @property
    def _note_file(self) -> Path:
        return self.path / "progress.json"

    @property
    def _result_file(self) -> Path:
        return self.path / "result.json"

    def _checksum(self) -> str:
        """By which weights of a model are told from any others."""
        with self.weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def _lock(self) -> RunLock:
        return RunLock(self.path / ".lock")

    def _states(self) -> list[Path]:
        folder = self.path.absolute() / "state"
        return [folder / name for name in sorted(names_in(str(folder))) if _STATE.fullmatch(name)]


def _as_it_began(theirs: Any, ours: Any) -> str:
    """How to go on with a run whose pipeline differs in a few settings, as a message has it; often nothing."""
    different = {place: there for place, there, _ in differing(theirs, ours)}
    if len(different) > MOST_REPEATED or any(place.count(".") != 1 for place in different):
        return ""
    values = {
        place: "default" if there is None else json.dumps(there, separators=(",", ":"))
        for place, there in different.items()
    }
    if any("{" in value for value in values.values()):  # which TOML writes otherwise
        return ""
    words = join(word for place, value in values.items() for word in ("--set", f"{place}={value}"))
    return f"repeat `{words}` to go on with it, or "
