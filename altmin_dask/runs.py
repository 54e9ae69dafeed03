"""From a pipeline to a finished run: claims the folder, opens the data, checks them, trains."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from distributed import Client

from altmin_dask.config import Pipeline
from altmin_dask.config.catalogue import changed
from altmin_dask.dashboard.publisher import Publisher
from altmin_dask.errors import ChunkError
from altmin_dask.execution.allocator import return_freed_arrays
from altmin_dask.execution.connect import open_executor, planned_resources
from altmin_dask.execution.executor import Executor
from altmin_dask.execution.resources import Resources
from altmin_dask.execution.sharing import check_seen
from altmin_dask.execution.whereabouts import whereabouts
from altmin_dask.planning.plan import Plan, make_plan
from altmin_dask.planning.resolved import resolved
from altmin_dask.solvers.kfac import Stream
from altmin_dask.storage.atomic import missing_folders, remove_empty
from altmin_dask.storage.fingerprints import fingerprint
from altmin_dask.storage.locations import is_url, local_path, names_in
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.callbacks import Callback, Callbacks, Outcome
from altmin_dask.training.context import RunContext
from altmin_dask.training.ending import ended_by
from altmin_dask.training.problem import Problem, build_problem
from altmin_dask.training.record import Record
from altmin_dask.training.result import Result
from altmin_dask.training.step_sizes import MOST_PATHS
from altmin_dask.training.stores import open_stores
from altmin_dask.training.trainer import Trainer
from altmin_dask.types import Weights

SHARING = "give a --run folder that all workers share, or keep weights and z in an object store by output.z"


def default_run(pipeline: Pipeline, file: Path, resume: bool) -> Path:
    """The run folder when none is named: the pipeline's own, or the next one under runs/.

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
        return local_path(pipeline.output.run)
    name = re.compile(re.escape(file.stem) + r"(-[2-9]|-[1-9][0-9]+)?")
    there = [match for entry in names_in("runs") if (match := name.fullmatch(entry))]
    last = max((int((match[1] or "-1")[1:]) for match in there), default=0)
    # not one that is free again because an older run was removed: the newest has the highest
    number = last if resume and last else last + 1
    return Path("runs") / (file.stem if number == 1 else f"{file.stem}-{number}")


def train(
    pipeline: Pipeline,
    run: RunFolder,
    callbacks: Sequence[Callback] = (),
    *,
    resume: bool = False,
    scheduler: str | Client | None = None,
    initial: Weights | None = None,
    stream: Stream | None = None,
    first_loss: float = math.nan,
    log: Callable[[str], object] = print,
    sharing: str = SHARING,
    measured: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> list[Record]:
    """Train a pipeline in a run folder.

    Parameters
    ----------
    pipeline, run, callbacks : Pipeline, RunFolder, and sequence of Callback
        What to train on what, where everything is kept, and who is told of the start, progress, records and the end.
    resume, measured : bool
        Go on with the run in the folder; measure the model at the end, unless of a stream, for ``result.json``.
    scheduler : str or Client, optional
        Address of a running Dask scheduler, or a client of it.
    initial, stream, first_loss : tuple of ndarray, (d_i, d_{i−1} + 1), Stream, and float, optional
        Weights that a new run begins with, what is known of other samples that its own are the next of, and what the
        loss was before such weights were trained.
    log, sharing, settings : callable, str, and mapping, optional
        Told a few lines at the start and the end; what is to be done where workers do not see the run folder; and what
        the page of the dashboard tells it from other runs by, in place of the settings of the pipeline.

    Returns
    -------
    list of Record
        All records of the history.

    Raises
    ------
    AltMinError
        If something cannot be used, or training could not go on; the folder is as before until a state is committed.

    Examples
    --------
    >>> from pathlib import Path
    >>> from altmin_dask import RunFolder, train, training_pipeline
    >>> settings = {"data": {"train": "digits:train", "scale": 16.0}, "network": {"kind": "autoencoder"}}
    >>> pipeline = training_pipeline({**settings, "training": {"max_sweeps": 3.0}})
    >>> records = train(pipeline, RunFolder(Path("run")), log=lambda line: None)
    >>> records[-1].nested_loss < records[0].nested_loss
    True
    """
    run.check(pipeline.identity(), resume)
    plan = None if scheduler is not None else _checked_plan(pipeline, run)
    with _claimed(pipeline, run, resume), _opened(pipeline, run, scheduler, sharing) as executor:
        plan = plan or _checked_plan(pipeline, run, executor)
        publisher = Publisher(executor, plan, log, settings)
        problem = _open_problem(pipeline, run, executor, plan, log, stream)
        context = RunContext(pipeline, problem, run, executor, stream, publisher.usage, first_loss)
        return _told(context, Callbacks([publisher, *callbacks]), initial, log, measured=measured)


@contextmanager
def _remade(run: RunFolder) -> Iterator[None]:
    """Say of samples that the run has made for itself how they are made again."""
    try:
        yield
    except ChunkError as error:
        if Path(error.location).is_relative_to(run.data.absolute()):
            error.remedy = f"remove {run.data}: --resume makes its samples again, the same ones, and goes on"
        raise


@contextmanager
def _opened(
    pipeline: Pipeline, run: RunFolder, scheduler: str | Client | None, sharing: str
) -> Iterator[Executor]:
    """Where tasks run, and see the run folder if there is something for them in it."""
    with open_executor(pipeline.cluster, scheduler) as executor:
        if not is_url(run.steps):
            check_seen(executor, run.manifest.file, sharing)
        yield executor


@contextmanager
def _claimed(pipeline: Pipeline, run: RunFolder, resume: bool) -> Iterator[None]:
    """Hold the run folder, with its manifest in it; a run that never began leaves nothing."""
    identity, made = pipeline.identity(), missing_folders(run.path)
    with _removing(made), run.locked(), _remade(run):
        run.check(identity, resume)  # again, now that nobody else can claim it
        begun = run.claimed
        if not begun:
            said = pipeline.model_dump(mode="json")
            run.manifest.write(said, identity, z=pipeline.output.z, changed=changed(said))
        try:
            yield
        finally:
            if not begun and not run.started:
                run.clear()


def _describe(
    pipeline: Pipeline,
    run: RunFolder,
    problem: Problem,
    executor: Executor,
    place: Resources,
    log: Callable[[str], object],
) -> None:
    """Write down what followed from the data, and say it in a line."""
    store, network = problem.train.store, problem.task_context.network
    stores = {"train": store, "validation": problem.validation.store if problem.validation else None}
    said = pipeline.model_dump(mode="json")
    run.manifest.write(
        said,
        pipeline.identity(),
        started=run.started,
        changed=changed(said),
        resolved=problem.settings.to_dict(),
        settings=resolved(pipeline, problem.settings, network, place),
        stores={role: each.path if each else None for role, each in stores.items()},
        fingerprints={role: fingerprint(each.arrays) for role, each in stores.items() if each},
        shapes={
            "rows": store.rows,
            "chunk_rows": store.chunk_rows,
            "network": network.sizes,
            "labels": problem.task_context.labels,
        },
        whereabouts=whereabouts(executor, place),
    )
    log(
        f"run {run.path}: {network.called(pipeline.network.kind)}, "
        f"{store.rows} samples in {store.n_chunks} chunk{'s' if store.n_chunks > 1 else ''} of "
        f"{store.chunk_rows}, {executor.description}"
    )


def _told(
    context: RunContext,
    callbacks: Callbacks,
    initial: Weights | None,
    log: Callable[[str], object],
    *,
    measured: bool,
) -> list[Record]:
    """Train, with all callbacks told of the start and of the end, whatever it is."""
    page = context.run.report / "performance.html"
    trainer: Trainer | None = None
    try:
        trainer = Trainer(context, callbacks, initial)
        trainer.take_up()
        callbacks.on_start(context)
        with context.executor.profile(page) if context.pipeline.output.performance else nullcontext():
            records = trainer.train()
        ending = trainer.ended
        assert ending is not None  # the actions of schedules have no end
        result = trainer.result(ending) if measured else None
    except BaseException as error:
        result = _result_of(trainer, error, log) if measured and trainer is not None else None
        callbacks.on_end(Outcome(str(error) or "interrupted", error=error, result=result))
        raise
    sentence = trainer.sentence(ending, records)
    log(sentence)
    log(trainer.time_taken)
    callbacks.on_end(Outcome(sentence, tuple(records), result=result, ending=ending))
    return records


def _result_of(trainer: Trainer, error: BaseException, log: Callable[[str], object]) -> Result | None:
    """Measure the model that a run leaves which an error has ended, as far as that is possible."""
    if trainer.ended is not None:  # it was done with training
        return None
    ending = ended_by(error)
    if (
        ending.reason == "failed" and not trainer.knows_quality
    ):  # what would compute it may be what has failed
        return None
    if ending.reason == "interrupted" and trainer.has_to_measure:
        log(f"the model is measured on all {trainer.judging} samples; interrupt once more to leave that out")
    with suppress(Exception, KeyboardInterrupt):  # the error itself is what there is to tell
        return trainer.result(ending)
    return None


def _checked_plan(pipeline: Pipeline, run: RunFolder, executor: Executor | None = None) -> Plan:
    """Plan the run, and refuse what has not the memory for it."""
    place = planned_resources(pipeline.cluster) if executor is None else executor.resources()
    plan = make_plan(pipeline, run.data, place, run.manifest.resolved() if run.started else None)
    plan.check()
    return_freed_arrays()
    return plan


def _open_problem(
    pipeline: Pipeline,
    run: RunFolder,
    executor: Executor,
    plan: Plan,
    log: Callable[[str], object],
    stream: Stream | None,
) -> Problem:
    """Open the stores, or make them, check that everything fits together, and write down what follows from it."""
    data = pipeline.data
    chunk_rows = plan.work.chunk_rows if data.chunk_rows == "auto" else data.chunk_rows
    train, validation = open_stores(pipeline, run.data, chunk_rows, plan.source)
    begun = run.manifest.resolved() if run.started else None
    problem = build_problem(pipeline, train, validation, executor, plan.place, begun, stream=stream, log=log)
    _describe(pipeline, run, problem, executor, plan.place, log)
    _tell_of_idle_workers(pipeline, problem, plan.place, log)
    return problem


def _tell_of_idle_workers(
    pipeline: Pipeline, problem: Problem, place: Resources, log: Callable[[str], object]
) -> None:
    """Say how many threads of a cluster have something to do, if that is not all of them, and what would change it."""
    settings, store = problem.settings, problem.train.store
    places = place.workers * place.threads
    several = (settings.chunk_steps or 1) > 1
    tasks = min(settings.group_chunks, store.n_chunks) * (1 if several else settings.pieces or 1)
    if tasks >= places or place.in_process:
        return
    if not several:
        why = "a step has too few rows for more (training.group_chunks)"
    elif pipeline.training.group_chunks:
        why = "training.group_chunks says so"
    elif tasks < min(places, MOST_PATHS):
        why = (
            f"there are {store.n_chunks} chunks, of which a quarter at most are gone through at a time; smaller ones "
            "(data.chunk_rows) make more of them"
        )
    else:
        why = f"more than {MOST_PATHS} chunks at a time bring little"
    log(f"{tasks} of {places} threads of the workers are used: {why}")


@contextmanager
def _removing(folders: Sequence[Path]) -> Iterator[None]:
    """Remove folders at the end if nothing is in them."""
    try:
        yield
    finally:
        remove_empty(folders)
