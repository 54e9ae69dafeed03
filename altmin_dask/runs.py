"""From a pipeline to a finished run: claims the folder, opens the data, checks them, trains."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from altmin_dask.config import Pipeline
from altmin_dask.engine.executors import open_executor
from altmin_dask.engine.problem import build_problem, find_store
from altmin_dask.engine.training import Observer, Trainer
from altmin_dask.storage.atomic import missing_folders, remove_empty
from altmin_dask.storage.run import RunFolder


def default_run(pipeline: Pipeline, file: Path, resume: bool) -> Path:
    """The run folder when none is named: the pipeline's own, or the next free one under runs/.

    Parameters
    ----------
    pipeline : Pipeline
        Its ``output.run`` goes first.
    file : path
        The pipeline's file, after which the folder is named.
    resume : bool
        Whether the newest folder is wanted rather than a new one.
    """
    if pipeline.output.run is not None:
        return Path(pipeline.output.run)
    candidates = (Path("runs") / (file.stem if i == 1 else f"{file.stem}-{i}") for i in count(1))
    newest = None
    for candidate in candidates:
        if not candidate.exists():
            return newest if resume and newest is not None else candidate
        newest = candidate
    raise AssertionError  # count() has no end


def train(
    pipeline: Pipeline,
    run: RunFolder,
    observer: Observer,
    *,
    resume: bool = False,
    scheduler: str | None = None,
    announce: Callable[[str], object] = print,
) -> list[dict[str, Any]]:
    """Train a pipeline in a run folder.

    What can be refused is refused before anything is left: if there was nothing in the folder and no state has
    been committed in it, it is as before.

    Parameters
    ----------
    pipeline : Pipeline
        What to train on what.
    run : RunFolder
        Where everything is kept.
    observer : Observer
        Told about progress and records.
    resume : bool
        Go on with the run in the folder.
    scheduler : str, optional
        Address of a running Dask scheduler.
    announce : callable
        Told a few lines at the start.

    Returns
    -------
    list of dict
        All records of the history.

    Raises
    ------
    AltMinError
        If a setting, the data, the run folder or the scheduler cannot be used, or training could not go on.
    """
    run.check(pipeline.identity(), resume)
    made = missing_folders(run.path)
    fresh = bool(made) or not any(run.path.iterdir())
    try:
        with open_executor(pipeline.cluster, scheduler) as executor:
            data = pipeline.data
            train_store = find_store(data.train, "train", run.data, data.scale, data.chunk_rows)
            validation_store = (
                None
                if data.validation is None
                else find_store(data.validation, "validation", run.data, data.scale, data.chunk_rows)
            )
            problem = build_problem(pipeline, train_store, validation_store, executor)
            stores = {
                "train": train_store.path,
                "validation": None if validation_store is None else validation_store.path,
            }
            network = problem.kernel.network
            shapes = {
                "rows": train_store.rows, "chunk_rows": train_store.chunk_rows, "network": network.sizes
            }  # fmt: skip
            run.claim(pipeline.model_dump(mode="json"), pipeline.identity(), stores, shapes)
            announce(
                f"run {run.path}: {'-'.join(map(str, network.sizes))} {pipeline.network.kind}, "
                f"{train_store.rows} samples in {train_store.n_chunks} chunks of {train_store.chunk_rows}, "
                f"{executor.description}"
            )
            return Trainer(pipeline, problem, run, executor, observer).train()
    finally:
        if fresh and not run.started:
            for path in run.path.glob("*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            remove_empty(made)
