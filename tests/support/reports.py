"""Run folders to report on, and what a report says."""

from __future__ import annotations

import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from altmin_dask.config import Pipeline
from altmin_dask.data.ingest import ingest
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.networks.builders import dense_network
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.record import Record

OUTPUTS = {"autoencoder": None, "classifier": 10, "regressor": 1}


def record(sweep: float, **extra: Any) -> dict[str, Any]:
    started = sweep > 0
    return {
        "sweep": sweep,
        "cpu_seconds": 1.25 * sweep,
        "wall_seconds": 1.5 * sweep,
        "relaxed_objective": 4.0 * 0.5**sweep if started else None,
        "nested_loss": 5.0 * 0.6**sweep,
        "validation_loss": 5.0 * 0.6**sweep + 0.01 * sweep**2,
        "nested_accuracy": None,
        "validation_accuracy": None,
        "residuals": [2.0 * 0.8**sweep, 0.7**sweep] if started else None,
        "mu": [0.1, 0.1],
        "shortened": 0.02 * sweep if started else None,
        **extra,
    }


def typed(records: list[dict[str, Any]]) -> list[Record]:
    return [Record.from_dict(each) for each in records]


RECORDS = [record(float(sweep)) for sweep in range(6)]


def make_run(
    path: Path,
    kind: str = "autoencoder",
    store: SampleStore | None = None,
    *,
    records: list[dict[str, Any]] = RECORDS,
    stores: dict[str, Any] | None = None,
    model: bool = True,
    output: dict[str, Any] | None = None,
) -> RunFolder:
    """A run folder as training leaves it, with a random network."""
    shape = (8, 8) if store is None else store.sample_shape
    features = int(np.prod(shape))
    if stores is None:
        stores = {"train": None if store is None else store.path, "validation": None}
    pipeline = Pipeline.model_validate(
        {
            "data": {"train": "digits:train", "scale": 16.0},
            "network": {"kind": kind, "hidden_layer_sizes": [7]},
            "output": output or {},
        }
    )
    run = RunFolder(path)
    run.manifest.write(pipeline.model_dump(mode="json"), pipeline.identity(), stores=stores)
    for each in records:
        run.append(each)
    if model:
        loss = "cross_entropy" if kind == "classifier" else "squared"
        network = dense_network([features, 7, OUTPUTS[kind] or features], "sigmoid", loss)
        Model(kind, network, network.initial_weights(1), shape).save(run.model)
    return run


def result_of(**kept: Any) -> dict[str, Any]:
    """What `altmin_dask.training.result` writes."""
    own = {"sweep": 3.0, "on": "validation", "samples": 360, "loss": 0.25, "unit": "½ pigs", "metrics": {}}
    stopped = {"reason": "max_sweeps", "text": "5 sweeps are done", "next": "Do something else."}
    return {"kept": {**own, **kept}, "stopped": stopped, "resolved": {"solver.ridge": 0.5}}


def vectors(path: Path, features: int, rows: int = 12) -> SampleStore:
    x = np.random.default_rng(0).random((rows, features))
    return ingest(array_source(x, np.arange(rows) % 10), path)


def text_of(page: Path) -> str:
    """What a reader sees, with single spaces."""

    class Text(HTMLParser):
        parts: tuple[str, ...] = ()

        def handle_data(self, data: str) -> None:
            self.parts += (data,)

    parser = Text()
    parser.feed(re.sub(r"(?s)<style>.*?</style>|<wbr>", "", page.read_text(encoding="utf-8")))
    return " ".join(" ".join(parser.parts).split())


def pictures(report: Path) -> list[str]:
    folder = report if report.is_dir() else report.parent
    return sorted(file.name for file in folder.glob("*.png"))


def check_png(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG whose every chunk has the right checksum."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, names = 8, []
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunk = data[place + 4 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length : place + 12 + length]) == (zlib.crc32(chunk),)
        names.append(chunk[:4])
        place += 12 + length
    assert (names[0], names[-1]) == (b"IHDR", b"IEND")
    width, height = struct.unpack(">II", data[16:24])
    return width, height
