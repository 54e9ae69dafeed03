"""Make the picture of the page that the documentation shows: two classifiers on MNIST, one of which is still under way.

    python benchmarks/dashboard_picture.py mnist.npz [examples/dashboard.png]

They train on 10,000 digits on a cluster of two workers. The page is open in Debian's chromium, driven by playwright,
and the second run goes on once its picture is taken.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from threading import Thread

import numpy as np
from dashboard import watched
from distributed import Client, LocalCluster
from PIL import Image

from altmin_dask import runs
from altmin_dask.config import Pipeline
from altmin_dask.dashboard.plugin import install
from altmin_dask.data.ingest import ingest
from altmin_dask.data.source import array_source
from altmin_dask.storage.run import RunFolder

ROWS = {"train": 10_000, "test": 2_000}
SWEEPS = {"kfac": 6.0, "windows": 12.0}
SHOWN_AT = 8.5
"""Sweeps of the second run, when there is enough to see."""
COLOURS = 256


def main() -> None:
    """Train, and take the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mnist", type=Path)
    parser.add_argument("picture", type=Path, nargs="?", default=Path("examples/dashboard.png"))
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        folder, stores = Path(name), {}
        for part, rows in ROWS.items():
            with np.load(options.mnist) as digits:
                x, y = (digits[f"{array}_{part}"][:rows] for array in "xy")
            stores[part] = str(folder / f"{part}.zarr")
            ingest(
                array_source(x.reshape(rows, -1).astype("f4") / 255, y.astype(int)),
                stores[part],
                chunk_rows=2000,
            )
        url = install(client)
        done, under_way = (pipeline(stores, schedule) for schedule in SWEEPS)
        runs.train(done, RunFolder(folder / "done"), scheduler=client, log=print)
        run = RunFolder(folder / "under_way")
        with watched(True) as page:
            page.set_viewport_size({"width": 1300, "height": 1140})
            page.goto(url)
            training = Thread(
                target=runs.train, args=(under_way, run), kwargs={"scheduler": client, "log": print}
            )
            training.start()
            while training.is_alive() and not reached(run):
                page.wait_for_timeout(300)
            page.wait_for_timeout(1500)
            page.screenshot(path=str(options.picture))
        training.join()
    with Image.open(options.picture) as picture:
        picture.convert("RGB").quantize(COLOURS).save(options.picture, optimize=True)


def pipeline(stores: dict[str, str], schedule: str) -> Pipeline:
    """784-100-10 by a schedule."""
    return Pipeline.model_validate(
        {
            "data": {"train": stores["train"], "validation": stores["test"]},
            "network": {"kind": "classifier", "hidden_layer_sizes": (100,)},
            "training": {"schedule": schedule, "max_sweeps": SWEEPS[schedule], "n_iter_no_change": None},
            "output": {"title": f"MNIST 784-100-10, {schedule}"},
        }
    )


def reached(run: RunFolder) -> bool:
    """Whether there is enough to see."""
    records = run.records() if run.history.exists() else []
    return bool(records) and records[-1]["sweep"] >= SHOWN_AT


if __name__ == "__main__":
    main()
