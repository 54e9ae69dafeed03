"""The same page on a server of its own, from a run folder: after the fact, or while the run goes on elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.server.server import Server

from altmin_dask.dashboard.board import Board
from altmin_dask.dashboard.page import document
from altmin_dask.dashboard.pictures import PICTURES, pictures
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import AltMinError, ConfigError
from altmin_dask.format import duration
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.record import read_records

PAGE = "/altmin"
SILENT_SECONDS = 60.0
"""After so long a run that said nothing may be none any more."""


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
        settings, shapes, self.stores = run.manifest.pipeline(), run.manifest.shapes(), run.manifest.stores()
        self.name = str(run.path.resolve())
        sizes = "-".join(map(str, shapes.get("network", ())))
        self._tell(
            "begin",
            title=settings["output"]["title"] or run.path.resolve().name,
            description=f"{self.name}: {sizes} {settings['network']['kind']}",
            plan={},
            span="",
            rows=shapes.get("rows", 0),
            records=[],
        )
        self.board.runs[self.name].status = ""

    def follow(self) -> None:
        """Take in what has been written since the last time."""
        state = self.board.runs[self.name]
        try:
            records = read_records(self.run, whole=True)
        except (AltMinError, OSError) as error:  # of a folder that is damaged, or gone
            self._tell("end", status=str(error))
            return
        if records[: len(state.records)] != state.records:  # of a run that went back to its last commit
            state.records.clear()
        fresh = records[len(state.records) :]
        for record in fresh:
            self._tell("record", record=record.to_dict())
        self._follow_note()
        if fresh:
            self._draw()

    def _follow_note(self) -> None:
        """Take in what the process that trains has noted besides."""
        state = self.board.runs[self.name]
        try:
            note = self.run.noted()
        except (AltMinError, OSError):
            note = {}
        if not note:
            state.status = ""  # nobody knows
            return
        if note["time"] != self.noted_at:
            self.noted_at, state.plan = note["time"], note["plan"]
            if note["progress"] is not None:
                self._tell("progress", progress=note["progress"], client_seconds={})
        status, silent = note["status"], time.time() - note["time"]
        if status == "running" and silent > SILENT_SECONDS:
            status = f"nothing was heard of it for {duration(silent)}"
        if status != state.status:
            self._tell("end", status=status)

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


def serve(run: RunFolder, address: str, port: int, log: Callable[[str], object]) -> None:
    """Serve the page of a run folder until interrupted.

    Parameters
    ----------
    run : RunFolder
        Which.
    address : str
        Where to listen: "127.0.0.1" is this machine only.
    port : int
        0 for any that is free.
    log : callable
        Told the URL.

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
    host = "localhost" if address in ("127.0.0.1", "::1") else address
    try:
        server = Server(
            {PAGE: application},
            address=address,
            port=port,
            allow_websocket_origin=["*"] if (address == "0.0.0.0") else None,
        )
    except OSError as error:
        raise ConfigError(
            f"{address}:{port} cannot be listened at ({error.strerror}); give another --port"
        ) from None
    reach = "this machine only" if host == "localhost" else f"whoever reaches {address}"
    log(f"dashboard: http://{host}:{server.port}{PAGE}  (for {reach}; Ctrl-C ends it)")
    server.start()
    try:
        server.io_loop.start()
    except KeyboardInterrupt:
        server.stop()


def _page(follower: Follower, doc: Any) -> None:
    document(doc, follower.board, None)
    doc.add_periodic_callback(follower.follow, 1000)
