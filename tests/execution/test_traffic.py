"""Bytes at the store: what a sweep reads and writes of x, y and z, counted where zarr gets and sets its keys."""

from __future__ import annotations

import re
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from choices import slow_but, taking_turns
from distributed import LocalCluster
from zarr.storage import LocalStore

from altmin_dask import runs
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.storage.run import RunFolder

ROWS, FEATURES, HIDDEN, OUTPUTS = 960, 40, 12, 8
# whole chunks: zarr pads the last one on disk
SIZES = {"x": ROWS * FEATURES * 8, "y": ROWS * OUTPUTS * 8, "z": ROWS * (HIDDEN + OUTPUTS) * 8}
NETWORK = {"kind": "regressor", "hidden_layer_sizes": (HIDDEN,), "standardize": "none"}
"""Whose samples nobody looks at before the first sweep."""


class Traffic:
    """Bytes of chunks by (verb, array), metadata left out; arrays are told apart by what their path ends in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes: Counter[tuple[str, str]] = Counter()
        self.lock, self.inside = threading.Lock(), threading.local()
        for verb, names in {"read": ("get", "get_sync"), "written": ("set", "set_sync")}.items():
            for name in names:
                if hasattr(LocalStore, name):
                    monkeypatch.setattr(LocalStore, name, self.counted(verb, getattr(LocalStore, name)))

    def counted(self, verb: str, method: Any) -> Any:
        """A method of the store that counts what goes through it."""

        def note(store: LocalStore, key: str, value: Any) -> None:
            path = str(Path(store.root) / key)
            if value is not None and not path.endswith("zarr.json"):
                with self.lock:
                    self.bytes[verb, array_of(path)] += len(value)

        if method.__name__.endswith("_sync"):

            def through(store: LocalStore, key: str, *args: Any, **options: Any) -> Any:
                result = method(store, key, *args, **options)
                note(store, key, result if verb == "read" else args[0])
                return result

            return through

        async def through_async(store: LocalStore, key: str, *args: Any, **options: Any) -> Any:
            result = await method(store, key, *args, **options)
            note(store, key, result if verb == "read" else args[0])
            return result

        return through_async


def array_of(path: str) -> str:
    """x, y or z by the path of a chunk."""
    if "/run/z/" in path:
        return "z"
    match = re.search(r"/samples\.zarr/([xy])/c[./]", path)
    assert match, path
    return match[1]


@pytest.fixture(scope="module")
def store(make_store: Any) -> SampleStore:
    rng = np.random.default_rng(3)
    return make_store(rng.random((ROWS, FEATURES)), rng.random((ROWS, OUTPUTS)), chunk_rows=64)


SCHEDULES = (
    {"schedule": "batch"},
    {"schedule": "incremental"},
    {"schedule": "incremental", "group_chunks": 4},
)


@pytest.mark.parametrize(("training", "penalty"), taking_turns(SCHEDULES, ("l2", "l1", "multipliers")))
def test_a_sweep_reads_x_y_and_z_once_and_writes_z_once(
    training, penalty, store, pipeline, monkeypatch, tmp_path
):
    """Sweeps after the first by the difference of two runs; each record evaluates one chunk.

    L1 and multipliers keep as many numbers again as z has, and no more.
    """
    sizes = {**SIZES, "z": SIZES["z"] * (1 if penalty == "l2" else 2)}
    traffic = Traffic(monkeypatch)

    def moved(folder: Path, sweeps: float) -> Counter[tuple[str, str]]:
        folder.mkdir()
        settings = pipeline(
            store.path,
            network=NETWORK,
            training={**training, "max_sweeps": sweeps, "evaluation_rows": 1},
            solver={"penalty": penalty, "mu": 0.1},
        )
        traffic.bytes.clear()
        runs.train(settings, RunFolder(folder / "run"), log=lambda line: None)
        return Counter(traffic.bytes)

    once, thrice = moved(tmp_path / "once", 1), moved(tmp_path / "thrice", 3)
    evaluated = {("read", "x"): 64 * FEATURES * 8, ("read", "y"): 64 * OUTPUTS * 8}
    # the run of one sweep: z is written when samples enter, and by the sweep; x and y are read by both; and of
    # multipliers the gradient is taken over one chunk before the first visit; at the end the model that is kept is
    # measured on all samples, targets about the first of them
    looks = 3 if penalty == "multipliers" else 2
    for key, times in {("read", "x"): 3, ("read", "y"): 3, ("read", "z"): 1, ("written", "z"): 2}.items():
        bytes_ = once[key] - (looks + (key == ("read", "y"))) * evaluated.get(key, 0)
        assert bytes_ == pytest.approx(times * sizes[key[1]], rel=0.05), (key, bytes_)
    for key in [("read", "x"), ("read", "y"), ("read", "z"), ("written", "z")]:
        sweep = (thrice[key] - once[key]) / 2 - evaluated.get(key, 0)
        assert sweep == pytest.approx(sizes[key[1]], rel=0.05), (key, sweep)
    assert set(thrice) == {("read", "x"), ("read", "y"), ("read", "z"), ("written", "z")}


@pytest.mark.parametrize("group_chunks", slow_but([4], [1, 4]))
@pytest.mark.parametrize("place", slow_but(["threads"], ["threads", "cluster"]))
def test_increments_read_x_and_y_once(place, group_chunks, store, pipeline, monkeypatch, tmp_path):
    """Although a step has two parts, and the second asks for samples again."""
    traffic = Traffic(monkeypatch)

    def moved(folder: Path, sweeps: float) -> tuple[Counter[tuple[str, str]], int]:
        settings = pipeline(
            store.path,
            network=NETWORK,
            training={
                "schedule": "kfac",
                "group_chunks": group_chunks,
                "max_sweeps": sweeps,
                "n_iter_no_change": None,
                "evaluation_rows": 1,
            },
            solver={"mu": "auto"},
        )
        traffic.bytes.clear()
        records = runs.train(settings, RunFolder(folder), scheduler=scheduler, log=lambda line: None)
        return Counter(traffic.bytes), len(records)

    with ExitStack() as stack:
        scheduler = None
        if place == "cluster":  # workers in this process, where bytes are counted
            cluster = LocalCluster(n_workers=2, processes=False, protocol="tcp", dashboard_address=":0")
            scheduler = stack.enter_context(cluster).scheduler_address
        (once, few), (thrice, more) = moved(tmp_path / "once", 1), moved(tmp_path / "thrice", 3)
    assert set(thrice) == {("read", "x"), ("read", "y")}
    for key, columns in {("read", "x"): FEATURES, ("read", "y"): OUTPUTS}.items():
        evaluated = (more - few) * 64 * columns * 8
        assert thrice[key] - once[key] - evaluated == pytest.approx(2 * SIZES[key[1]], rel=0.05), key
