"""A trained model over a store of any size: its quality, and its predictions written chunk by chunk."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import zarr

from altmin_dask.config import KINDS
from altmin_dask.data.checks import check_finite, check_whole
from altmin_dask.data.find import find_like
from altmin_dask.data.formats.base import NamesError
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import ExistsError, MissingError, RunError, warn
from altmin_dask.execution.blas import single_threaded_blas
from altmin_dask.execution.executor import Executor
from altmin_dask.execution.pieces import total
from altmin_dask.execution.samples import Samples
from altmin_dask.execution.sharing import check_seen
from altmin_dask.execution.task_graphs import Step, evaluate
from altmin_dask.execution.tasks import TaskContext
from altmin_dask.networks.network import Network
from altmin_dask.preparation import Scaling
from altmin_dask.solvers.evaluation import Evaluation
from altmin_dask.solvers.metrics import number
from altmin_dask.storage.alike import check_alike
from altmin_dask.storage.atomic import folder_beside, new_folder
from altmin_dask.storage.checksums import storage_options
from altmin_dask.storage.destination import check_destination
from altmin_dask.storage.locations import for_zarr, is_url, locate
from altmin_dask.storage.model import Model
from altmin_dask.storage.ownership import KEY, Layout, own_attributes, store_files
from altmin_dask.storage.remote import explained_errors
from altmin_dask.storage.run import RunFolder
from altmin_dask.storage.sample_arrays import ROW
from altmin_dask.storage.weights import read_weights
from altmin_dask.storage.what import is_run, not_a_run
from altmin_dask.storage.zarr_chunks import ChunkView, RowBlock
from altmin_dask.training.build_network import fitted
from altmin_dask.training.checks import check_digits, check_targets, computed_with, without_targets
from altmin_dask.training.labels import warn_of_absent
from altmin_dask.training.measuring import Measuring
from altmin_dask.training.ranges import ranges_of
from altmin_dask.training.scales import some_rows
from altmin_dask.types import Array

SAMPLES_SHARED = (
    "keep samples where all workers see them; what is made of a source on the way goes to Dask's temporary-directory "
    "(DASK_TEMPORARY_DIRECTORY=FOLDER)"
)
_HOLDS = {"version": 1, "holds": "predictions"}
PREDICTIONS = Layout(
    "a store that `altmin predict` wrote",
    "zarr.json",
    lambda content: own_attributes(content).get("holds") == _HOLDS["holds"],
    store_files("prediction", "label", ROW),
)
"""What `predict_store` writes, and may replace."""


@contextmanager
def opened(
    run: RunFolder,
    source: str,
    x: str | None = None,
    y: str | None = None,
    *,
    targets: bool = True,
    csv: Mapping[str, Any] | None = None,
) -> Iterator[SampleStore]:
    """Samples as a store, prepared as those that a run's model was trained on; one that is made of a source goes again.

    Parameters
    ----------
    run : RunFolder
        With a model.
    source : str
        Whatever a user names.
    x, y : str, optional
        Names of arrays or columns; if there are none those that the run has chosen its own samples by, where they are
        in the source, too.
    targets : bool
        Whether targets are read, if the model has any.
    csv : mapping, optional
        How csv files are read, where otherwise than those for training.

    Raises
    ------
    MissingError
        If there is no model, or nothing of such names.
    DataError
        If the samples cannot be read, or were prepared otherwise.
    """
    model = model_of(run)
    targets = targets and KINDS[model.kind].target != "inputs"
    location = dask.config.get("temporary-directory", None)
    with tempfile.TemporaryDirectory(prefix="altmin-", dir=location) as temporary:
        dtype = str(model.weights[0].dtype)
        find = partial(
            find_like,
            source,
            Path(temporary),
            model.scale,
            model.preparation,
            dtype,
            targets=targets,
            csv=csv,
            chunk_rows=run.manifest.shapes().get("chunk_rows") if run.claimed else None,
        )
        store = None
        for names in [] if x or y else _own_names(run, source, targets=targets):
            with suppress(MissingError, NamesError):
                store = store or find(x=names[0], y=names[1])
        yield store or find(x=x, y=y)


def model_of(run: RunFolder) -> Model:
    """The model of a run; if that is still to be trained on, this is told.

    Raises
    ------
    MissingError
        If it is no run folder, or has no model yet.
    """
    if not (is_run(run.path) or run.model.is_dir()):
        raise MissingError(not_a_run(run.path))
    model = Model.load(run.model)
    if run.claimed and run.result() is None:
        warn(
            f"training of {run.path} has not come to its end: its model is the best one so far, and --resume of altmin "
            "train goes on"
        )
    return model


def _own_names(run: RunFolder, source: str, *, targets: bool) -> list[tuple[str | None, str | None]]:
    """Names of arrays that the samples for training were chosen by, which others may have, too."""
    settings = run.manifest.pipeline()["data"] if run.claimed else {}
    x, y = settings.get("x"), settings.get("y")
    if (x, y) == (None, None) or source.endswith(".npy"):  # whose targets are another file
        return []
    return [(x, y), *([] if targets else [(x, None)])]


def evaluate_store(run: RunFolder, store: SampleStore, executor: Executor) -> Evaluation:
    """Loss of a run's model on a store with targets, and sums of which `described` makes metrics.

    Samples count by their weights, where the store has some.

    Raises
    ------
    DataError
        If the store does not fit the model or has no targets.
    RunError
        If the run goes on and replaces its model meanwhile, in a folder that may only be read here.
    """
    model = Model.load(run.model)
    if store.y is None and KINDS[model.kind].target != "inputs":
        raise without_targets(store, KINDS[model.kind].target)
    check_alike(store.title, store.scale, store.preparation, model, targets=True)
    model.check_lengths(store.title, store.sequence_arrays)
    model.check_shape(store.title, store.sample_shape)
    _check_units(model, store)
    target, network = KINDS[model.kind].target, fitted(model.network, store)
    check_seen(executor, store.path, SAMPLES_SHARED)
    ranges = ranges_of(store, executor)
    check_targets(network, target, store, ranges, model.labels)
    check_digits(store, str(model.weights[0].dtype), computed_with(store, target), ranges)
    measure = measuring_of(model, store).measure
    with _held_weights(run) as weights:
        step = _step(model, network, store, target, weights)
        return Evaluation(total([executor.compute(evaluate(step, measure))]), measure)


def _check_units(model: Model, store: SampleStore) -> None:
    """Tell of columns that are in other units than in training."""
    if model.units is not None and store.features % len(model.units.mean) == 0:
        model.check_units(store.title, some_rows(store, "x", len(model.units.mean)))


def measuring_of(model: Model, store: SampleStore) -> Measuring:
    """What is measured of a model on a store with targets."""
    return Measuring.of(model.kind, fitted(model.network, store), store, model.scale, model.preparation)


def described(run: str, source: str, model: Model, store: SampleStore, quality: Evaluation) -> dict[str, Any]:
    """What `evaluate_store` found of a run on a source, as one JSON object; classes that are not there are told."""
    measuring = measuring_of(model, store)
    metrics = measuring.metrics(quality)
    warn_of_absent([each["class"] for each in metrics.get("per_class", ()) if not each["support"]], source)
    return {
        "run": run,
        "source": source,
        "samples": int(quality.samples),
        "loss": number(quality.mean_loss),
        "accuracy": metrics.get("accuracy"),
        "classes": classes_of(model),
        "loss_unit": measuring.loss_unit,
        "metrics": metrics,
    }


def predict_store(
    run: RunFolder,
    store: SampleStore,
    dest: str | os.PathLike[str],
    executor: Executor,
    *,
    overwrite: bool = False,
) -> Path | str:
    """Write a model's outputs for every sample of a store.

    The destination is a zarr group with ``prediction`` (rows, outputs), for classifiers the class probabilities
    with their ``label`` (rows,) beside them; of networks with an output at every step (rows, steps, outputs) and
    (rows, steps). Of labels that were whole numbers ``label`` has these; of text, truth values and whole numbers that
    were written otherwise (``01``) the places of the classes in the attribute ``classes``. Predictions have the dtype
    of the model, but what was divided or standardized gets its own units again, which need float64; names of classes
    or columns are attributes. Where samples were shuffled, ``row`` says which row of the source each one was. It
    appears when it is complete; at a URL, where nothing can be moved, its attribute ``complete`` is false until then.

    Raises
    ------
    DataError
        If the samples do not fit the model, or are not finite.
    ExistsError
        If the destination exists, unless it is a store of predictions and nothing else, and `overwrite` is given.
    RunError
        As of `evaluate_store`.
    """
    final, replace = check_store(locate(dest), store.path, overwrite=overwrite)
    if isinstance(final, Path):
        with new_folder(final, PREDICTIONS, replace=replace) as partial:
            write_arrays(run, store, str(partial), executor)
        return final
    if replace:
        with _explained(final):
            PREDICTIONS.remove(final)
    write_arrays(run, store, final, executor)
    return final


def _explained(place: str) -> AbstractContextManager[None]:
    """What goes wrong while something is written at a URL, in a sentence."""
    return explained_errors(place, "written") if is_url(place) else nullcontext()


def check_store(location: str, samples: str, *, overwrite: bool) -> tuple[Path | str, bool]:
    """Tell where predictions for some samples may be written, and whether there is a store to be replaced.

    Raises
    ------
    ExistsError
        As of `predict_store`.
    """
    if is_url(location):
        if location.rstrip("/") == locate(samples).rstrip("/"):
            raise ExistsError(f"{location} holds the samples themselves; give another destination")
        return location, check_destination(location, overwrite, PREDICTIONS)
    final = Path(os.path.realpath(location))
    if final == Path(os.path.realpath(locate(samples))):
        raise ExistsError(f"{location} holds the samples themselves; give another destination")
    return final, check_destination(location, overwrite, PREDICTIONS)


def write_arrays(run: RunFolder, store: SampleStore, place: str, executor: Executor) -> Model:
    """Write what `predict_store` does to a folder, or at a URL, where nothing is; gives the model."""
    model = Model.load(run.model)
    check_alike(store.title, store.scale, store.preparation, model)
    model.check_lengths(store.title, store.sequence_arrays)
    model.check_shape(store.title, store.sample_shape)
    _check_units(model, store)
    network = fitted(model.network, store)
    check_seen(executor, store.path, SAMPLES_SHARED)
    if not is_url(place):
        check_seen(executor, Path(place).parent, "write to a folder that all workers share, or to a URL")
    check_digits(store, str(model.weights[0].dtype), computed_with(store, "inputs"))
    named = model.preparation is not None and model.preparation.spelled  # as text is, by places
    with _held_weights(run) as weights:
        step = _step(model, network, store, "inputs", weights)
        done = step.rows(
            _predict,
            1,
            own=_made(place, model, network, store),
            title=store.path,
            scaling=model.output_scaling,
            labels=None if named else model.labels,
        )
        executor.compute(done)
    with _explained(place):
        _copy_row_numbers(store, place)
        if is_url(place):
            group = zarr.open_group(for_zarr(place), mode="r+")
            group.attrs.update(_attributes(place, model, complete=True))
    return model


def _attributes(place: str, model: Model, *, complete: bool) -> dict[str, Any]:
    """What a group holds; of one at a URL, which is seen from the first chunk on, whether all of it is there."""
    state = {"complete": complete} if is_url(place) else {}
    return {KEY: {**_HOLDS, **state}, **names_of(model)}


def _copy_row_numbers(store: SampleStore, place: str) -> None:
    """Tell beside predictions for rows that were shuffled which row of the source each of them was."""
    numbers = store.row_numbers
    if numbers is None:
        return
    copy = zarr.open_group(for_zarr(place), mode="r+").create_array(
        ROW,
        shape=numbers.shape,
        chunks=numbers.chunks,
        **storage_options(numbers.dtype, compress=is_url(place)),
    )
    for start in range(0, store.rows, store.chunk_rows):
        copy[start : start + store.chunk_rows] = numbers[start : start + store.chunk_rows]


def _step(model: Model, network: Network, store: SampleStore, target: str, weights: str) -> Step:
    """A step over all chunks of a store, whose outputs are compared with a target."""
    context = TaskContext(network, target, str(model.weights[0].dtype), labels=model.labels)
    chunks = tuple(range(store.n_chunks))
    return Step(context, Samples(store, target), chunks, uuid.uuid4().hex[:8], weights)


def _made(place: str, model: Model, network: Network, store: SampleStore) -> dict[str, tuple[RowBlock, ...]]:
    """Empty arrays of predictions, by their names: where what is predicted for each chunk of the samples goes."""
    steps = network.loss.steps
    outer = (store.rows,) if steps is None else (store.rows, steps)
    dtype = model.weights[0].dtype if model.output_scaling is None else "float64"
    arrays = {"prediction": ((*outer, network.shapes[-1][0]), dtype)}
    if KINDS[model.kind].target == "labels":
        arrays["label"] = outer, "int64"
    with _explained(place):
        group = zarr.create_group(for_zarr(place), attributes=_attributes(place, model, complete=False))
        for name, (shape, kind) in arrays.items():
            options = storage_options(kind, compress=is_url(place))
            group.create_array(name, shape=shape, chunks=(store.chunk_rows, *shape[1:]), **options)
    every = tuple(range(store.n_chunks))
    return {
        name: ChunkView.select(f"{place}/{name}", (*shape,), store.chunk_rows, kind, every).pieces
        for name, (shape, kind) in arrays.items()
    }


@contextmanager
def _held_weights(run: RunFolder) -> Iterator[str]:
    """The file of the model's weights, the same ones for every task, though training may go on and replace them."""
    with ExitStack() as stack:
        held = run.weights
        with suppress(OSError):  # a folder that may only be read, or has no links
            beside = stack.enter_context(folder_beside(run.model.absolute()))
            os.link(run.weights, beside / held.name)
            held = beside / held.name
        before = _version(held)
        yield str(held)
        if _version(held) != before:
            raise RunError(
                f"the model in {run.model} was replaced while it was used, as the run goes on; do it again when it "
                "has ended, or where the run folder can be written"
            )


def _version(file: Path) -> tuple[int, int]:
    about = os.stat(file)  # a number is given anew, but not at the same time
    return about.st_ino, about.st_mtime_ns


def classes_of(model: Model) -> list[Any] | None:
    """What classes are called, numbers or text; None of a model that has none."""
    if KINDS[model.kind].target != "labels":
        return None
    named: list[Any] | None = names_of(model).get("classes")
    return list(range(model.network.shapes[-1][0])) if named is None else named


def names_of(model: Model) -> dict[str, Any]:
    """Names of the classes, or of the numbers of a prediction, where they have some."""
    how = model.preparation
    if how is None:
        return {}
    if KINDS[model.kind].target == "labels":
        return {} if how.called is None else {"classes": list(how.called)}
    names = how.names if model.kind == "autoencoder" else list(how.targets)
    return {"columns": names} if names else {}


def _predict(
    arrays: Mapping[str, Array],
    *,
    context: TaskContext,
    weights: str,
    title: str,
    scaling: Scaling | None,
    labels: tuple[int, ...] | None,
    prediction: RowBlock,
    label: RowBlock | None = None,
) -> Array:
    """Predictions for a chunk, written: a task as those of `altmin_dask.execution.tasks`."""
    for name, values in arrays.items():
        check_finite(values, None, prediction.starts[0], title, name)
    check_whole(arrays["x"], f"x of {title}")
    batch = context.arrange(arrays)
    with single_threaded_blas():
        output = context.network.predict(read_weights(weights), batch)
    with _explained(prediction.location):
        prediction.write(output if scaling is None else scaling.undo(output))
        if label is not None:
            classes = context.network.shapes[-1][0]
            places = output.reshape(len(batch), -1, classes).argmax(axis=2)
            label.write(places if labels is None else np.array(labels)[places])
    return np.zeros((1, 1))
