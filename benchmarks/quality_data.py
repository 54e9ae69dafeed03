"""What the contestants of `time_to_quality.py` train on, and the weights that they start from.

A search trains on 50,000 of MNIST's training digits and is judged by the 10,000 others; finals train on all 60,000 and
are judged by the test digits, which nothing else sees.
"""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from quality_tasks import TASKS, Setting

from altmin_dask.config import Pipeline, make_pipeline
from altmin_dask.data.ingest import ingest
from altmin_dask.data.source import array_source
from altmin_dask.runs import train
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.record import Record
from altmin_dask.types import Weights

Array = np.ndarray[Any, Any]
Spec = dict[str, Any]
"""A run: task, optimizer, cosine, start, setting, averages (decays), seconds, seed, part."""

SEARCH, FINAL = "search", "final"
HELD_BACK = 6
"""One of so many training samples is kept back for validation."""
SHUFFLE_SEED = 14


@lru_cache(maxsize=2)
def samples(mnist: Path, part: str) -> tuple[Array, Array, Array, Array]:
    """8-bit samples and labels to train on, and those to be judged by."""
    with np.load(mnist, allow_pickle=False) as file:
        x, y = file["x_train"], file["y_train"]
        if part == FINAL:
            return x, y, file["x_test"], file["y_test"]
    order = np.random.default_rng(SHUFFLE_SEED).permutation(len(x))
    kept = order[: len(x) - len(x) // HELD_BACK]
    held_back = order[len(kept) :]
    return x[kept], y[kept], x[held_back], y[held_back]


@lru_cache(maxsize=2)
def flat_samples(mnist: Path, part: str) -> tuple[Array, Array, Array, Array]:
    """The same as rows of float32 in [0, 1], and int64."""
    x, y, held_out, held_out_y = samples(mnist, part)

    def flat(images: Array) -> Array:
        return images.reshape(len(images), -1).astype(np.float32) / 255

    return flat(x), y.astype(np.int64), flat(held_out), held_out_y.astype(np.int64)


def store_path(stores: Path, part: str, split: str, chunk_rows: int | None) -> Path:
    """Where a store is."""
    return stores / f"{part}-{split}-{chunk_rows or 'default'}.zarr"


def make_stores(mnist: Path, stores: Path, part: str, chunk_rows: int | None) -> None:
    """Ingest what altmin trains on, and what it is judged by, unless it is there."""
    x, y, held_out, held_out_y = samples(mnist, part)
    for split, images, labels in (("train", x, y), ("held-out", held_out, held_out_y)):
        store = store_path(stores, part, split, chunk_rows)
        if not store.exists():
            ingest(array_source(images, labels), store, scale=255.0, chunk_rows=chunk_rows)


def pipeline_of(spec: Spec, stores: Path) -> Pipeline:
    """Of one of our runs, or of the start of another's.

    The held-out samples are the pipeline's validation samples so that a curve is recorded. They decide nothing but
    which model is kept and when to stop; the model is not looked at, and nothing is stopped but by the budget.
    """
    setting: Setting = spec["setting"] if spec["optimizer"] == "altmin" else {}
    rows = setting.get("chunk_rows")
    training = {"averaging": setting["averaging"]} if "averaging" in setting else {}
    return make_pipeline(
        {
            "data": {
                "train": str(store_path(stores, spec["part"], "train", rows)),
                "validation": str(store_path(stores, spec["part"], "held-out", rows)),
            },
            "network": {
                **TASKS[spec["task"]].network,
                "initialization": spec["start"],
                "standardize": "none",  # all read the same numbers
            },
            "solver": {"ridge": setting["ridge"]} if "ridge" in setting else {},
            "training": {
                **training,
                **({"group_chunks": 1} if rows else {}),
                "max_sweeps": 1e6,
                "max_cpu_seconds": float(spec["seconds"]),
                "n_iter_no_change": None,
                # the loss of training samples is looked at in finals only, and evaluation is on nobody's clock
                "evaluation_rows": 1 if spec["part"] == SEARCH else 10_000,
                "evaluation_share": 1.0,
                "seed": spec["seed"],
            },
            "cluster": {"kind": "threads", "workers": 1},
        }
    )


def starting_weights(spec: Spec, stores: Path) -> tuple[Weights, float]:
    """The very weights that a run of altmin's with this start and seed begins with; CPU seconds of making them.

    They are the model of a run that ends before its first step. The seconds are what its clock shows then, and go on
    the clock of whoever starts from the weights.
    """
    pipeline = pipeline_of({**spec, "optimizer": "altmin", "setting": {}}, stores)
    weights, first = beginning(pipeline.model_dump(exclude_unset=True))
    return weights, first.cpu_seconds


def beginning(settings: dict[str, Any]) -> tuple[Weights, Record]:
    """Weights with which a pipeline's training begins, and the record of them."""
    settings["data"].pop("validation", None)
    settings["training"] |= {"max_cpu_seconds": 1e-9, "evaluation_rows": 1}
    with tempfile.TemporaryDirectory(prefix="start-") as scratch:
        run = RunFolder(Path(scratch) / "run")
        first = train(make_pipeline(settings), run, log=lambda line: None)[0]
        assert first.sweep == 0
        return Model.load(run.model).weights, first
