"""The same page on a server of its own, from a run folder: after the fact, or while the run goes on elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.resources import Resources
from bokeh.server.server import Server
from bokeh.server.views.static_handler import StaticHandler

from altmin_dask.dashboard.board import SILENT_SECONDS, Board
from altmin_dask.dashboard.page import document
from altmin_dask.dashboard.pictures import PICTURES, pictures
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import AltMinError, ConfigError
from altmin_dask.format import duration
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.record import lightened, read_records

PAGE = "/altmin"
LOOPBACK = "127.0.0.1", "localhost", "::1"
"""Addresses that only this machine reaches."""


class Follower:
    """A board that follows a run folder.

    Parameters
    ----------
    run : RunFolder
        Which.

    Raises
    ------
    MissingError
        If it holds no run.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run, self.board, self.noted_at = run, Board(), 0.0
        self.result: dict[str, Any] | None = None
        self.result_written = 0
        settings, shapes, self.stores = run.manifest.pipeline(), run.manifest.shapes(), run.manifest.stores()
        self.name = str(run.path.resolve())
        sizes = "-".join(map(str, shapes.get("network", ())))
        self._tell(
            "begin",
            title=settings["output"]["title"] or run.path.resolve().name,
            description=f"{self.name}: {sizes} {settings['network']['kind']}",
            folder=self.name,
            plan={},
            span="",
            rows=shapes.get("rows", 0),
            records=[],
        )
        self._nobody_knows()

    def follow(self) -> None:
        """Take in what has been written since the last time."""
        state = self.board.runs[self.name]
        try:
            records = read_records(self.run, whole=True)
        except (AltMinError, OSError) as error:  # of a folder that is damaged, or gone
            self._tell("end", status=str(error), state="failed")
            return
        # of a run that went back to its last commit
        if lightened(records[: len(state.records)]) != state.records:
            state.records.clear()
        fresh = records[len(state.records) :]
        for record in fresh:
            self._tell("record", record=record.to_dict())
        self._follow_note()
        if fresh:
            self._draw()

    def _follow_note(self) -> None:
        """Take in what the process that trains has noted besides."""
        state, result = self.board.runs[self.name], self._result()
        try:
            note = self.run.noted()
        except (AltMinError, OSError):
            note = {}
        if not note:
            self._nobody_knows()
            state.result = result
            return
        if note["time"] != self.noted_at:
            self.noted_at, state.plan = note["time"], note["plan"]
            state.began = note.get("began")  # which earlier versions did not note
            state.status = state.state = "running"
            if note["progress"] is not None:
                seconds = {"client_seconds": {}, "thread_seconds": note.get("thread_seconds", 0.0)}
                self._tell("progress", progress=note["progress"], **seconds)
        status, silent = note["status"], time.time() - note["time"]
        plain = status in ("running", "interrupted")  # which earlier versions tell by the sentence alone
        how = status if plain else note.get("state", "ended")
        # a step may be long, but who trains holds the lock
        if how == "running" and silent > SILENT_SECONDS and not self.run.is_locked:
            status, how = f"nothing was heard of it for {duration(silent)}", "lost"
        if (status, how, result) != (state.status, state.state, state.result) and how != "running":
            self._tell("end", status=status, state=how, time=note["time"], result=result)

    def _result(self) -> dict[str, Any] | None:
        """What came of training, where the folder says so: it is compared with the model, and so read once."""
        try:
            written = (self.run.path / "result.json").stat().st_mtime_ns
            if written != self.result_written:
                self.result, self.result_written = self.run.result(), written
        except (AltMinError, OSError):
            self.result, self.result_written = None, 0
        return self.result

    def _nobody_knows(self) -> None:
        """Nothing tells whether anybody trains it."""
        state = self.board.runs[self.name]
        state.status = state.state = ""

    def _tell(self, kind: str, **content: Any) -> None:
        self.board.apply({"run": self.name, "kind": kind, **content})

    def _draw(self) -> None:
        try:
            model = Model.load(self.run.model)
            if model.kind != "autoencoder":
                return
            store = SampleStore.open(self.stores.get("validation") or self.stores["train"])
            samples = np.asarray(store.x[: min(PICTURES, store.rows)])
            rows = pictures(samples, model.outputs(samples))
        except (AltMinError, OSError, KeyError, ValueError):  # there may be no model yet, or samples no more
            return
        self._tell("pictures", pictures=rows)


def serve(
    run: RunFolder,
    address: str,
    port: int,
    log: Callable[[str], object],
    *,
    prefix: str = "",
    origins: Sequence[str] = (),
) -> None:
    """Serve the page of a run folder until interrupted.

    Parameters
    ----------
    run, address, port, prefix, origins
        As of `make_server`.
    log : callable
        Told the URL.

    Raises
    ------
    MissingError
        If the folder holds no run.
    ConfigError
        If the address or the port cannot be had.
    """
    server = make_server(run, address, port, prefix=prefix, origins=origins)
    local = address in LOOPBACK
    reach = "this machine only" if local else f"whoever reaches {address}"
    log(
        f"dashboard: http://{_host(address)}:{server.port}{server.prefix}{PAGE}  (for {reach}; Ctrl-C ends it)"
    )
    server.start()
    try:
        server.io_loop.start()
    except KeyboardInterrupt:
        server.stop()


def make_server(
    run: RunFolder, address: str, port: int, *, prefix: str = "", origins: Sequence[str] = ()
) -> Server:
    """A server of the page that has not begun.

    Its page names all that it loads from where it is itself, so that a proxy may have it at any path.

    Parameters
    ----------
    run : RunFolder
        Whose.
    address : str
        Where to listen: "127.0.0.1" is this machine only.
    port : int
        0 for any that is free.
    prefix : str
        Path in front of that of the page, where a proxy passes it on.
    origins : sequence of str
        HOST or HOST:PORT in the browser's address, where a proxy has another than the server.

    Raises
    ------
    MissingError
        If the folder holds no run.
    ConfigError
        If the address or the port cannot be had.
    """
    follower = Follower(run)
    follower.follow()
    application = Application(FunctionHandler(partial(_page, follower)))
    try:
        server = Server({PAGE: application}, address=address, port=port, prefix=prefix)
    except OSError as error:
        raise ConfigError(
            f"{address}:{port} cannot be listened at ({error.strerror}); give another --port"
        ) from None
    pages = server._tornado
    names = (_host(address), "localhost", address) if address in LOOPBACK else ("*",)
    pages.websocket_origins.update(f"{name}:{server.port}" for name in names if name != "*")
    pages.websocket_origins.update({"*"} & set(names), *({each, f"{each}:*"} for each in origins))
    # relative, and so right whatever a proxy has put in front
    pages.resources = lambda absolute_url=None: Resources(
        mode="server", root_url="./", path_versioner=StaticHandler.append_version
    )
    return server


def _host(address: str) -> str:
    """The address as URLs have it."""
    if address == "127.0.0.1":
        return "localhost"
    return f"[{address}]" if ":" in address else address


def _page(follower: Follower, doc: Any) -> None:
    document(doc, follower.board, None)
    doc.add_periodic_callback(follower.follow, 1000)
