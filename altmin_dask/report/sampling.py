"""A bounded number of a run's samples, with what its network makes of them: what pictures are drawn from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from altmin_dask.config import KINDS
from altmin_dask.data.labels import NONE, numbered
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import AltMinError
from altmin_dask.execution.blas import single_threaded_blas
from altmin_dask.preparation import Scaling
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.build_network import fitted
from altmin_dask.types import Array, Batch

MOST_ROWS = 2000
MOST_BYTES = 32 << 20
"""Of the inputs, targets and outputs that are held together."""
BLOCKS, MOST_BLOCKS = 8, 64
"""Rows are taken from so many chunks all over a store: one that nobody shuffled may have all of a class together."""


class NoSamplesError(Exception):
    """Samples cannot be shown; the message says why."""


@dataclass(frozen=True, eq=False)
class Shown:
    """Some samples and what the network makes of them, in the units of the raw data.

    Attributes
    ----------
    role : {"validation", "training"}
        Which store they are of.
    path : str
        Where it is.
    rows : int
        How many samples it has.
    sample_shape : tuple of int
        Of one.
    x : ndarray, (n, features)
        Inputs.
    outputs, targets : ndarray, (n, …, outputs)
        What comes out, and what should, with an axis of steps where sequences have a target at each; NaN after
        the end of a sequence. Of classifiers the places of classes, (n, …), −1 for none.
    chances : ndarray, (n, …), or None
        Of classifiers: the probability of the class that comes out.
    numbers : ndarray, (n,), or None
        Which rows of that store they are.
    """

    role: str
    path: str
    rows: int
    sample_shape: tuple[int, ...]
    x: Array
    outputs: Array
    targets: Array
    chances: Array | None = None
    numbers: Array | None = None

    @property
    def source(self) -> str:
        """The samples in words."""
        count = len(self.x)
        which = "All" if count == self.rows else f"{count:,} of the"
        return f"{which} {self.rows:,} {self.role} samples"


def sampled(run: RunFolder, model: Model) -> Shown:
    """Read some samples of the validation store, or else of the training store, and predict for them.

    Never more than `MOST_ROWS`, and no more than fit in `MOST_BYTES`, are in memory, whatever the store holds.

    Raises
    ------
    NoSamplesError
        If there are none any more, or they do not fit the model.
    """
    stores = run.manifest.stores()
    role = "validation" if "validation" in stores else "train"
    path = stores.get(role)
    if not path:
        raise NoSamplesError("The run folder does not say which samples were used.")
    try:
        store = SampleStore.open(path)
        if model.network.sequence_steps is None and store.features != model.network.sizes[0]:
            raise NoSamplesError(f"{path} no longer holds the samples that were used.")
        rows = chosen_rows(store, model)
        arrays = {name: taken(array, rows) for name, array in store.arrays.items() if name != "sample_weight"}
        batch = Batch(**arrays)
        outputs = _outputs(model, store, batch)
        numbers = np.concatenate([np.arange(part.start, part.stop) for part in rows])
    except (NoSamplesError, AltMinError) as error:
        raise NoSamplesError(str(error)) from error
    except Exception as error:  # storage anywhere may fail in any way, which must not cost the rest
        raise NoSamplesError(f"The samples cannot be read ({error}).") from error
    made, wanted = _compared(model, batch, outputs, path)
    x = batch.x.reshape(len(batch.x), -1)
    if model.kind == "autoencoder":
        x = wanted
    name = "validation" if role == "validation" else "training"
    chances = None
    if KINDS[model.kind].target == "labels":
        chances = outputs.reshape(*wanted.shape, -1).max(axis=-1)
    return Shown(name, path, store.rows, store.sample_shape, x, made, wanted, chances, numbers)


def chosen_rows(store: SampleStore, model: Model) -> list[slice]:
    """Which rows are read: the first ones of a few chunks, spread over the store."""
    own = store.x.dtype.itemsize * store.features + 8 * (model.network.widths[-1] + store.features)
    wanted = max(1, min(MOST_ROWS, store.rows, MOST_BYTES // own))
    if wanted == store.rows:
        return [slice(0, wanted)]
    blocks = min(wanted, max(BLOCKS, math.ceil(wanted / store.chunk_rows)), MOST_BLOCKS, store.n_chunks)
    chunks = np.linspace(0, store.n_chunks - 1, blocks).round().astype(int).tolist()
    found: list[slice] = []
    left = wanted
    for place, chunk in enumerate(chunks):
        share = math.ceil(left / (len(chunks) - place))
        start = chunk * store.chunk_rows
        stop = min(start + min(share, store.chunk_rows), store.rows)
        found.append(slice(start, stop))
        left -= stop - start
    return found


def taken(array: object, rows: list[slice]) -> Array:
    """Rows of a zarr array, one after the other."""
    parts = [np.asarray(array[part]) for part in rows]  # type: ignore[index]
    return np.concatenate(parts)


def _outputs(model: Model, store: SampleStore, batch: Batch) -> Array:
    """Network outputs for prepared samples, a block at a time."""
    network = fitted(model.network, store)
    with single_threaded_blas():
        parts = [network.predict(model.weights, block) for _, block in batch.blocks(network.block_rows)]
    return np.concatenate(parts)


def _compared(model: Model, batch: Batch, outputs: Array, path: str) -> tuple[Array, Array]:
    """What a network makes of samples, and what it should, in shapes and units that can be compared."""
    target, scaling = KINDS[model.kind].target, model.output_scaling
    if target == "inputs":
        return _undone(outputs, scaling), _undone(batch.x.reshape(len(outputs), -1), scaling)
    if batch.y is None:
        raise NoSamplesError(f"{path} has no targets to compare predictions with.")
    classes = model.network.shapes[-1][0]
    if target == "labels":
        places = outputs.reshape(len(outputs), -1, classes).argmax(axis=2)
        y = batch.y.reshape(len(outputs), -1)
        truth = y.astype(np.int64) if model.labels is None else numbered(y, model.labels)
        truth = np.where(_there(batch, truth.shape[1]), truth, NONE)
        return (places[:, 0], truth[:, 0]) if truth.shape[1] == 1 else (places, truth)
    made, wanted = (
        _undone(values, scaling).reshape(len(outputs), -1, classes)
        for values in (outputs, batch.y.reshape(len(outputs), -1))
    )
    if made.shape[1] > 1:
        wanted = np.where(_there(batch, made.shape[1])[:, :, None], wanted, np.nan)
        return made, wanted
    return made[:, 0], wanted[:, 0]


def _undone(values: Array, scaling: Scaling | None) -> Array:
    return values.astype(np.float64) if scaling is None else scaling.undo(values.astype(np.float64))


def _there(batch: Batch, steps: int) -> Array:
    """Which steps of every sequence are there, (n, steps)."""
    if batch.lengths is None or steps == 1:
        return np.ones((len(batch), steps), dtype=bool)
    return np.arange(steps) < batch.lengths.reshape(-1, 1)
