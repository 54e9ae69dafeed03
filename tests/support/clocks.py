"""What a process that trains takes by its own clock: beside what it commits, and without what it evaluates."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from altmin_dask.storage.run import RunFolder
from altmin_dask.training.trainer import Trainer

STATED = ("cpu_seconds", "wall_seconds", "records")
Patch = Callable[[Any, str, Any], None]


class Commit(NamedTuple):
    """The process that committed, its own CPU and wall seconds since it began to train, and what the state says."""

    process: int
    own: float
    own_wall: float
    cpu: float
    wall: float
    records: int


class OwnClock:
    """Watches a training of this process; `seconds` reads the CPU time of all processes that take part."""

    def __init__(self, patch: Patch, seconds: Callable[[], float] = time.process_time) -> None:
        self.seconds = seconds
        self.commits: list[Commit] = []
        self.ends: list[tuple[float, float]] = []
        self.begun = self.off = self.paused = (0.0, 0.0)
        self.evaluating = False
        patch(Trainer, "begin", self._beginning(Trainer.begin))
        patch(Trainer, "_evaluate", self._evaluating(Trainer._evaluate))
        patch(Trainer, "train", self._ending(Trainer.train))
        patch(RunFolder, "commit", self._committing(RunFolder.commit))

    def now(self) -> tuple[float, float]:
        return self.seconds(), time.perf_counter()

    @property
    def own(self) -> tuple[float, float]:
        """CPU and wall seconds since training began, without evaluation and what follows till the commit."""
        now = self.paused if self.evaluating else self.now()
        cpu, wall = (now[i] - self.begun[i] - self.off[i] for i in range(2))
        return cpu, wall

    def about_to(self, commit: Commit) -> None:
        """What is done before a commit."""

    def _beginning(self, original: Any) -> Any:
        def begin(*arguments: Any) -> None:
            self.begun, self.off, self.evaluating = self.now(), (0.0, 0.0), False
            original(*arguments)

        return begin

    def _evaluating(self, original: Any) -> Any:
        def evaluate(*arguments: Any) -> Any:
            if not self.evaluating:
                self.evaluating, self.paused = True, self.now()
            return original(*arguments)

        return evaluate

    def _committing(self, original: Any) -> Any:
        def committing(run: RunFolder, tensors: Any, scalars: dict[str, Any]) -> Path:
            if self.evaluating:
                now = self.now()
                cpu, wall = (self.off[i] + now[i] - self.paused[i] for i in range(2))
                self.off, self.evaluating = (cpu, wall), False
            own = self.own
            commit = Commit(os.getpid(), *own, *(scalars[name] for name in STATED))
            self.about_to(commit)
            file = original(run, tensors, scalars)
            self.commits.append(commit)
            return file

        return committing

    def _ending(self, original: Any) -> Any:
        def train(trainer: Trainer) -> Any:
            records = original(trainer)
            self.ends.append(self.own)
            return records

        return train


class Logged(OwnClock):
    """Writes to a file what it is about to commit: the process may be killed at any time, also when it just has."""

    def __init__(self, file: Path) -> None:
        self.file = file
        super().__init__(setattr)

    def about_to(self, commit: Commit) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(commit) + "\n")


def logged(file: Path) -> list[Commit]:
    """What was to be committed, without a line that is being written."""
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [Commit(*json.loads(line)) for line in lines if line.endswith("\n")]


def keep(file: Path, commits: list[Commit]) -> None:
    """Leave those that were made."""
    file.write_text("".join(json.dumps(commit) + "\n" for commit in commits))
