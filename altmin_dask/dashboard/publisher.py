"""Tells the page of a run; whatever goes wrong with that, training goes on."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
from distributed import Client

from altmin_dask.dashboard.board import TOPIC
from altmin_dask.engine.executors import Cluster
from altmin_dask.engine.progress import Observer, Progress
from altmin_dask.engine.session import Session
from altmin_dask.engine.survey import Plan
from altmin_dask.errors import AltMinError
from altmin_dask.networks.activations import Array
from altmin_dask.storage.model import Model

INTERVAL = 0.5
PICTURES_INTERVAL = 5.0
"""Seconds between two messages of progress, and of pictures, at least."""
PICTURES = 10
_log = logging.getLogger("altmin_dask")


class Publisher:
    """An observer that passes on what it hears, and tells the page, too.

    Parameters
    ----------
    session : Session
        The run.
    observer : Observer
        Who is told first.
    send : callable or None
        Takes a message; None where there is no page.
    """

    def __init__(
        self, session: Session, observer: Observer, send: Callable[[dict[str, Any]], Any] | None
    ) -> None:
        self.session, self.observer, self.send = session, observer, send
        self.sent = self.drawn = 0.0
        self.samples: Array | None = None

    def progressed(self, progress: Progress) -> None:
        """A group was done."""
        self.observer.progressed(progress)
        if time.monotonic() - self.sent >= INTERVAL:
            self.sent = time.monotonic()
            numbers = asdict(progress)
            seconds = {name: numbers["seconds"].get(name, 0.0) for name in ("solve", "wait", "commit")}
            del numbers["seconds"]
            self._tell("progress", progress=_plain(numbers), client_seconds=_plain(seconds))

    def recorded(self, record: dict[str, Any]) -> None:
        """A record was added to the history."""
        self.observer.recorded(record)
        self._tell("record", record=_plain(record))
        if self.send is not None and time.monotonic() - self.drawn >= PICTURES_INTERVAL:
            self._draw()

    def begun(self, plan: Plan) -> None:
        """Tell what there is to know before anything is computed, and the history of a run that goes on."""
        session = self.session
        pipeline, network = session.pipeline, session.problem.kernel.network
        self._tell(
            "begin",
            title=pipeline.output.title or session.run.path.resolve().name,
            description=f"{session.run.path.resolve()}: {'-'.join(map(str, network.sizes))} {pipeline.network.kind}, "
            f"{session.rows:,} samples",
            plan={"worker_memory": plan.worker_memory},
            span=session.root_span,
            rows=session.rows,
            records=self._history(),
        )

    def _history(self) -> list[dict[str, Any]]:
        """What was written before, but for what a kill left of a record: it is cut off as soon as training goes on."""
        if self.send is None:
            return []
        try:
            records: list[dict[str, Any]] = _plain(self.session.run.records(whole=True))
        except (AltMinError, OSError):  # which training says itself, and better
            return []
        return records

    def ended(self, status: str) -> None:
        """The run came to its end, or to a sentence."""
        self._draw()
        self._tell("end", status=status)

    def _tell(self, kind: str, **content: Any) -> None:
        if self.send is None:
            return
        run = f"{socket.gethostname()}:{self.session.run.path.resolve()}"
        try:
            self.send({"run": run, "kind": kind, **content})
        except Exception:
            self.send = None
            _log.debug("the dashboard is told no more", exc_info=True)

    def _draw(self) -> None:
        """Some samples of an auto-encoder, and what the best model so far makes of them."""
        problem = self.session.problem
        if self.send is None or problem.kernel.target != "inputs":
            return
        try:
            if self.samples is None:
                store = (problem.validation or problem.train).store
                self.samples = np.asarray(store.x[: min(PICTURES, store.rows)])
            model = Model.load(self.session.run.model)
            rows = pictures(self.samples, model.predict(self.samples))
        except Exception:  # no model yet, or samples that are no pictures
            _log.debug("no pictures for the dashboard", exc_info=True)
            return
        self.drawn = time.monotonic()
        if rows:
            self._tell("pictures", pictures=rows)


def pictures(samples: Array, made: Array) -> list[list[tuple[int, int, bytes]]]:
    """Samples above what was made of them as grey pictures; none where they are no pictures.

    Samples of one dimension are if their number of values is a square.
    """
    shape = samples.shape[1:]
    if len(shape) == 1:
        side = round(shape[0] ** 0.5)
        shape = (side, side)
    if len(shape) != 2 or shape[0] * shape[1] != made.shape[1] or min(shape) < 4:
        return []
    low, high = float(samples.min()), float(samples.max())
    rows = []
    for values in (samples, made):
        grey = np.clip((values.reshape(len(values), *shape) - low) / ((high - low) or 1.0), 0, 1)
        rows.append([(shape[0], shape[1], image.tobytes()) for image in (255 * grey).astype(np.uint8)])
    return rows


@contextmanager
def published(
    session: Session, observer: Observer, plan: Plan, announce: Callable[[str], object]
) -> Iterator[Publisher]:
    """Tell the page of the cluster's dashboard, if there is one, of a run for as long as a block lasts."""
    publisher = Publisher(session, observer, None)
    if isinstance(session.executor, Cluster):
        client = session.executor.client
        publisher.send = lambda message: client.log_event(TOPIC, message)
        if (url := _installed(client)) is not None:
            announce(f"dashboard: {url}")
    publisher.begun(plan)
    try:
        yield publisher
    except BaseException as error:
        publisher.ended(str(error) or "interrupted")
        raise


def _installed(client: Client) -> str | None:
    """The page's URL; None where there is no page, for whatever reason."""
    try:
        from altmin_dask.dashboard.plugin import install

        return install(client)
    except Exception:  # no bokeh, a scheduler that takes no plugins, …
        _log.debug("no page in the dashboard", exc_info=True)
        return None


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, which is all that messages carry."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value
