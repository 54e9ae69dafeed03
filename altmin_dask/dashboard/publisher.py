"""Tells the page of a run, and the run folder; whatever goes wrong with that, training goes on."""

from __future__ import annotations

import logging
import math
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from distributed import Client

from altmin_dask.dashboard.board import SILENT_SECONDS, TRAINER, by_activity
from altmin_dask.dashboard.differences import of_pipeline, texts
from altmin_dask.dashboard.pictures import PICTURES, pictures
from altmin_dask.errors import AltMinError
from altmin_dask.execution.executor import Executor
from altmin_dask.planning.plan import Plan
from altmin_dask.planning.projection import PROGRAM
from altmin_dask.storage.model import Model
from altmin_dask.training.callbacks import Callback, Outcome
from altmin_dask.training.context import RunContext
from altmin_dask.training.progress import Progress, Usage
from altmin_dask.training.record import Record, lightened, read_records
from altmin_dask.types import Array

TELL_SECONDS, NOTE_SECONDS, DRAW_SECONDS = 0.5, 2.0, 5.0
"""Between two messages of progress, two notes in the run folder, and two rows of pictures, at least."""
RETURN_SECONDS = 10.0
"""A scheduler that could not be told is tried again so often."""
SHARE = 0.005
"""All of these are further apart where they would take more than this share of the time."""
_log = logging.getLogger("altmin_dask")


class Rhythm:
    """When something is done that is done now and then.

    Parameters
    ----------
    seconds, most : float
        Between two times, at least, and at most, however long they take.
    """

    def __init__(self, seconds: float, most: float = math.inf) -> None:
        self.seconds, self.most, self.next = seconds, most, 0.0

    @property
    def due(self) -> bool:
        """Whether it is time."""
        return time.monotonic() >= self.next

    @contextmanager
    def beat(self) -> Iterator[None]:
        """Do it in this block."""
        start = time.monotonic()
        try:
            yield
        finally:
            end = time.monotonic()
            self.next = end + min(max(self.seconds, (end - start) / SHARE), self.most)


class Publisher(Callback):
    """Tells the page of the cluster's dashboard, if there is one, and the run folder; knows what workers spend.

    Parameters
    ----------
    executor : Executor
        Where tasks run.
    plan : Plan
        What was expected.
    log : callable
        Told the page's URL.
    settings : mapping, optional
        By which the page tells it from other runs; by default those of the pipeline.
    """

    context: RunContext

    def __init__(
        self,
        executor: Executor,
        plan: Plan,
        log: Callable[[str], object],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.executor, self.plan, self.log, self.settings = executor, plan, log, settings
        self.client: Client | None = executor.client
        self.telling, self.drawing, self.returning = map(Rhythm, (TELL_SECONDS, DRAW_SECONDS, RETURN_SECONDS))
        self.noting = Rhythm(NOTE_SECONDS, SILENT_SECONDS / 2)
        self.process = psutil.Process()
        had = self._in_use() - PROGRAM if plan.place.in_process else 0  # a notebook may hold much else
        self.planned_memory = float(plan.worker_memory + max(had, 0))
        self.samples: Array | None = None
        self.workers: dict[str, Any] = {}
        self.last: Progress | None = None
        self.began, self.counted = time.time(), time.monotonic()
        self.had, self.thread_seconds = 0.0, 0.0
        self.before: dict[str, float] = {}  # what a run that goes on had workers do before

    def usage(self, seconds: dict[str, float]) -> Usage:
        """What all processes spend; `seconds` is of this one, by activity."""
        planned = self.planned_memory
        if self.executor.client is not None:  # the last answer of the scheduler
            self.thread_seconds = self.had
            everywhere = by_activity(_own(seconds), self._since_it_began())
            return Usage(
                everywhere, tuple(tuple(worker) for worker in self.workers.get("memory", ())), planned
            )
        place = self.plan.place
        self.thread_seconds = place.workers * place.threads * (time.time() - self.began)
        limit = float(self.plan.place.memory_limit or 0)
        return Usage(by_activity(seconds), (("this process", float(self._in_use()), limit),), planned)

    def _in_use(self) -> int:
        """Resident bytes of this process."""
        return int(self.process.memory_info().rss)

    def _since_it_began(self) -> dict[str, float]:
        """What the workers spent their time with for this process."""
        seconds = self.workers.get("seconds", {})
        return {name: max(0.0, value - self.before.get(name, 0.0)) for name, value in seconds.items()}

    def on_start(self, context: RunContext) -> None:
        """Tell what there is to know before anything is computed, and the history of a run that goes on."""
        self.context = context
        if self.client is not None and (url := _installed(self.client)) is not None:
            self.log(f"dashboard: {url}")
        self._begin()

    def _begin(self) -> None:
        pipeline, network, folder = (
            self.context.pipeline,
            self.context.network,
            self.context.run.path.resolve(),
        )
        about = f"{network.called(pipeline.network.kind)}, {self.context.rows:,} samples"
        place = "" if _is_temporary(folder) else _text(str(folder))
        self._tell(
            "begin",
            title=_text(pipeline.output.title or folder.name),
            description=f"{place}: {about}" if place else about,
            settings=texts(self.settings or of_pipeline(pipeline.model_dump(mode="json"))),
            folder=place,
            began=self.began,
            plan={"worker_memory": self.planned_memory},
            rows=self.context.rows,
            client=None if self.client is None else self.client.id,
            records=self._history(),
        )
        self.before = self.workers.get("seconds", {})
        self.had, self.counted = 0.0, time.monotonic()

    def on_progress(self, progress: Progress) -> None:
        """Tell now and then."""
        self.last = progress
        if self.client is None and self.executor.client is not None and self.returning.due:
            with self.returning.beat():
                self._return(self.executor.client)
        if self.telling.due:
            with self.telling.beat():
                self._progress(progress)
        if self.noting.due:
            with self.noting.beat():
                self._note("running", "running")

    def _return(self, client: Client) -> None:
        """Begin once more, with the whole history, on a scheduler that could not be told any more."""
        if client.status == "running":
            _installed(client)
            self.client = client
            self._begin()

    def on_record(self, record: Record) -> None:
        """Tell, and show pictures now and then."""
        self._tell("record", record=_plain(record.to_dict()))
        if self.client is not None and self.drawing.due:
            with self.drawing.beat():
                self._draw()

    def on_end(self, outcome: Outcome) -> None:
        """The run came to its end, or to a sentence."""
        if self.last is not None:
            self._progress(self.last)
        self._draw()
        status, state = _text(outcome.reason), _state(outcome)
        self._tell("end", status=status, state=state, result=_result(outcome))
        self._note(status, state)

    def _progress(self, progress: Progress) -> None:
        seconds = _own(progress.usage.seconds)
        self._tell(
            "progress",
            progress=_plain(asdict(progress)),
            client_seconds=_plain(seconds),
            thread_seconds=self.thread_seconds,
        )

    def _tell(self, kind: str, **content: Any) -> None:
        """Send a message; the answer says what the workers are at."""
        if self.client is None:
            return
        run = f"{socket.gethostname()}:{self.context.run.path.resolve()}"
        message = {"run": _text(run), "kind": kind, "span": self.context.root_span, **content}
        scheduler: Any = self.client.scheduler
        try:
            self.workers = self.client.sync(scheduler.altmin_tell, message=message) or {}
            now = time.monotonic()
            # of as many as there are now, since the last answer: workers come and go
            self.had += self.workers.get("threads", 0) * (now - self.counted)
            self.counted = now
        except Exception:
            self.client = None
            _log.debug("the dashboard is told no more", exc_info=True)

    def _history(self) -> list[dict[str, Any]]:
        """What was recorded before."""
        if self.client is None:
            return []
        try:
            return [_plain(record.to_dict()) for record in lightened(read_records(self.context.run))]
        except (AltMinError, OSError):  # which training says itself, and better
            return []

    def _note(self, status: str, state: str) -> None:
        """Leave in the run folder what `altmin dashboard` shows besides the history."""
        try:
            self.context.run.write_progress(
                {
                    "status": status,
                    "state": state,
                    "began": self.began,
                    "time": time.time(),
                    "thread_seconds": self.thread_seconds,
                    "plan": {"worker_memory": self.planned_memory},
                    "progress": None if self.last is None else _plain(asdict(self.last)),
                }
            )
        except (OSError, ValueError):
            _log.debug("no note of the progress", exc_info=True)

    def _draw(self) -> None:
        """Some samples of an auto-encoder, and what the best model so far makes of them."""
        problem = self.context.problem
        if self.client is None or problem.task_context.target != "inputs":
            return
        try:
            if self.samples is None:
                store = (problem.validation or problem.train).store
                self.samples = np.asarray(store.x[: min(PICTURES, store.rows)])
            model = Model.load(self.context.run.model)
            rows = pictures(self.samples, model.outputs(self.samples))
        except Exception:  # no model yet, or samples that are no more to be had
            _log.debug("no pictures for the dashboard", exc_info=True)
            return
        self._tell("pictures", pictures=rows)


def _is_temporary(folder: Path) -> bool:
    """Whether it is that of an estimator, gone when it is fitted."""
    return folder.name == "run" and folder.parent.name.startswith("altmin-")


def _state(outcome: Outcome) -> str:
    """How a run ended, in a word."""
    if outcome.error is None:
        return "finished"
    return "interrupted" if isinstance(outcome.error, KeyboardInterrupt) else "failed"


def _result(outcome: Outcome) -> dict[str, Any] | None:
    """What came of it, as messages can carry it: no table of every class, or of thousands of features."""
    if outcome.result is None:
        return None
    found: dict[str, Any] = _plain(outcome.result.to_json())
    metrics = found["kept"]["metrics"].items()
    single = {name: value for name, value in metrics if not isinstance(value, dict | list)}
    return {**found, "kept": {**found["kept"], "metrics": single}}


def _own(seconds: dict[str, float]) -> dict[str, float]:
    """What the process that trains spent: workers may be threads of it."""
    return {name: seconds[name] for name in TRAINER if name in seconds}


def _installed(client: Client) -> str | None:
    """The page's URL; None where there is no page, for whatever reason."""
    try:
        from altmin_dask.dashboard.plugin import install

        return install(client)
    except Exception:  # no bokeh, a scheduler that takes no plugins, …
        _log.debug("no page in the dashboard", exc_info=True)
        return None


def _text(text: str) -> str:
    """Text that messages can carry: a folder's name may hold bytes that are none."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, and text, which is all that messages carry; what is not finite as None."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
