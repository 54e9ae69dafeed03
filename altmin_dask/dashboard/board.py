"""What is known of runs, from the messages of those that train: all of it, however late somebody looks."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from altmin_dask.training.progress import Progress
from altmin_dask.training.record import Record, lightened

ACTIVITIES = ("read", "newton", "statistics", "model", "evaluate", "write", "solve", "wait", "commit")
"""What time is spent with; what else Dask counts is "other"."""
TRAINER = ("solve", "wait", "commit")
"""What is done by the process that trains, wherever tasks run."""
KEPT_RUNS = 50
RATE_SECONDS = 10.0
"""Over which rows per second are measured."""
SILENT_SECONDS = 60.0
"""After so long a run that noted nothing in its folder may be none any more, where nothing else tells; notes are never
so far apart."""


@dataclass
class RunState:
    """One run.

    Attributes
    ----------
    run : str
        What tells it apart: host and folder.
    title, description : str
        For people.
    settings : dict of str to str
        By their names, as they are shown; empty where that is not known.
    records : list of Record
        The whole history.
    progress : Progress or None
        Of the last group.
    client_seconds : dict of str to float
        What the process that trains spent its time with; ``progress.usage.seconds`` is of all processes.
    thread_seconds : float
        Seconds that the workers' threads had in that time, all together; 0 where it is not known.
    plan : dict
        ``worker_memory`` in bytes, where known.
    pictures : list
        Rows of images, each ``(height, width, colours, bytes)`` with values 0 … 255 and one colour or three; the first
        row is what is to be had.
    span : str
        Name of the span that the tasks of the run have on the scheduler.
    status : str
        "running", or how it ended, as a sentence.
    state : str
        The same in a word: "running", "finished", "interrupted", "failed", "lost"; "ended" where nothing tells how, and
        nothing where nobody knows.
    result : dict or None
        What ``result.json`` of its folder says of the model that is kept, and of why training stopped.
    folder : str
        Where it is.
    began, ended : float or None
        When the process that trains, or trained last, began and ended; seconds since 1970.
    rows : int
        Samples of the training store.
    client : str
        The client that trains.
    version, records_version, pictures_version : int
        Change whenever anything has, the records, the pictures.
    """

    run: str
    title: str = ""
    description: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    progress: Progress | None = None
    client_seconds: dict[str, float] = field(default_factory=dict)
    thread_seconds: float = 0.0
    plan: dict[str, Any] = field(default_factory=dict)
    pictures: list[list[tuple[int, int, int, bytes]]] = field(default_factory=list)
    span: str = ""
    status: str = "running"
    state: str = "running"
    result: dict[str, Any] | None = None
    folder: str = ""
    began: float | None = None
    ended: float | None = None
    rows: int = 0
    client: str = ""
    version: int = 0
    records_version: int = 0
    pictures_version: int = 0
    marks: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=200))

    def apply(self, message: dict[str, Any]) -> None:
        """Take in what a message says."""
        kind = message["kind"]
        if kind in ("begin", "progress", "record"):  # a client that was lost may come back
            self.status = self.state = "running"
            self.ended = self.result = None
        if kind == "begin":
            for name in ("title", "description", "plan", "span", "rows"):
                setattr(self, name, message[name])
            # which clients of earlier versions do not tell
            self.client, self.folder = message.get("client") or "", message.get("folder", "")
            self.began, self.settings = message.get("began"), message.get("settings") or {}
            # of a run that is resumed, what had been written before
            self.records = [Record.from_dict(each) for each in message["records"]]
            self.progress, self.client_seconds, self.thread_seconds = None, {}, 0.0
            self.marks.clear()
            self.records_version += 1
        elif kind == "record":
            record = Record.from_dict(message["record"])
            # a run that was killed goes on from its last commit
            while self.records and self.records[-1].sweep >= record.sweep:
                self.records.pop()
            self.records = lightened([*self.records, record])
            self.records_version += 1
        elif kind == "progress":
            self.progress = Progress.from_dict(message["progress"])
            self.client_seconds = message["client_seconds"]
            self.thread_seconds = message.get("thread_seconds", 0.0)
            self.marks.append((time.time(), self.progress.sweep))
        elif kind == "pictures":
            self.pictures = message["pictures"]
            self.pictures_version += 1
        elif kind == "end":
            self._end(message["status"], message.get("state", "ended"), message.get("time"))
            self.result = message.get("result")
        self.version += 1

    def _end(self, status: str, state: str, when: float | None = None) -> None:
        self.status, self.state = status, state
        self.ended = time.time() if when is None else when
        self.records_version += 1  # the kept model is marked in the curves

    def lose(self) -> None:
        """The process that trains went without a word."""
        self._end("the process that trains is gone; go on by --resume", "lost")
        self.version += 1

    @property
    def elapsed(self) -> float | None:
        """Seconds since the process that trains began, or that it took."""
        if self.began is None:
            return None
        return max(0.0, (time.time() if self.ended is None else self.ended) - self.began)

    @property
    def kept(self) -> dict[str, Any]:
        """The model that one gets, as `result` has it; empty where that is not known."""
        return (self.result or {}).get("kept") or {}

    @property
    def sweep(self) -> float | None:
        """Where it is; messages of progress come now and then, those of records always."""
        known = [self.progress, *self.records[-1:]]
        return max((each.sweep for each in known if each is not None), default=None)

    @property
    def rows_per_second(self) -> float | None:
        """Samples visited in a second, lately; None if nothing is known of it.

        It becomes less where no more messages come, for longer than they are apart and are measured over.
        """
        if len(self.marks) < 2:
            return None
        (before, _), (last, sweep), now = self.marks[-2], self.marks[-1], time.time()
        first, since = next(mark for mark in self.marks if last - mark[0] <= RATE_SECONDS)
        if now - last > max(RATE_SECONDS, 2 * (last - before)):
            last = now
        return None if last <= first else (sweep - since) * self.rows / (last - first)


class Board:
    """All runs by name, in the order in which they began."""

    def __init__(self) -> None:
        self.runs: dict[str, RunState] = {}

    def apply(self, message: dict[str, Any]) -> None:
        """Take in a message; one of a run that is not known is left alone unless it begins it."""
        run = message["run"]
        if message["kind"] == "begin":
            known = self.runs.pop(run, None)
            self.runs[run] = known or RunState(run)
            for old in list(self.runs)[:-KEPT_RUNS]:
                del self.runs[old]
        if run in self.runs:
            self.runs[run].apply(message)

    def lost(self, client: str) -> None:
        """Say of the runs of a client that went without a word that nobody trains them any more."""
        for state in self.runs.values():
            if state.client == client and state.status == "running":
                state.lose()

    @property
    def version(self) -> int:
        """Changes whenever something has."""
        return sum(state.version + 1 for state in self.runs.values())


def by_activity(*parts: dict[str, float]) -> dict[str, float]:
    """Add up seconds by activity, in the order of `ACTIVITIES`; all that is none of them is "other"."""
    total = dict.fromkeys((*ACTIVITIES, "other"), 0.0)
    for part in parts:
        for name, seconds in part.items():
            total[name if name in total else "other"] += seconds
    return {name: seconds for name, seconds in total.items() if seconds > 0}
