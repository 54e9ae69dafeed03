"""Where raw samples come from: ``digits``, a teacher, npz, npy, idx folders and zarr, all read in blocks of rows.

`open_source` understands what a user writes on the command line; `array_source` takes arrays in memory. Both
give a `Source`, which knows shapes and dtypes from the start and streams the values when asked.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import ArrayLike

from altmin_dask.data.adding_problem import Adding
from altmin_dask.data.preprocessing import Preparation
from altmin_dask.data.readers import (
    RowReader,
    is_zarr_folder,
    npz_names,
    open_zarr,
    read_idx,
    read_memory,
    read_npy,
    read_npz,
    read_zarr,
)
from altmin_dask.data.synthetic import Synthetic
from altmin_dask.errors import ConfigError, DataError, MissingError
from altmin_dask.storage.locations import as_name, is_url, local_path, locate
from altmin_dask.types import Array

SEQUENCE_ARRAYS = ("lengths", "states")
"""Arrays that sequences may have beside x and y."""
WEIGHTS = "sample_weight"
"""The array that says how much every sample counts."""
_DIGITS_TRAIN_ROWS = 1437
_SPLIT = re.compile(r"(?P<base>.+):(?P<split>train|test)", re.DOTALL)
_IDX_NAME = re.compile(r"(?P<part>.*?)[-_.]?(?P<role>images|labels)[-.]idx\d+-[a-z]+(\.gz)?")
_IDX_SPLITS = {"train": {"train"}, "test": {"t10k", "test"}}


@dataclass(frozen=True)
class Source:
    """Samples to read: inputs and, where there are any, targets, with the same number of rows.

    Attributes
    ----------
    name : str
        What the user called it, for messages.
    x : RowReader
        The inputs, of rank 2 or more: one row per sample.
    y : RowReader or None
        The targets, of rank 1 or more.
    sequence_arrays : mapping of str to RowReader
        Of sequences: ``lengths`` (rows,), integers from 1 to the number of steps, where they are padded; ``states``
        (rows, Σ d_i), where they begin with given states.
    weights : RowReader or None
        How much every sample counts, (rows,), if not all the same.
    preparation : Preparation or None
        What the columns and classes are, and how their numbers are to be scaled.

    Raises
    ------
    DataError
        If ``x`` has rank 1, its samples are empty, or the arrays differ in length.
    """

    name: str
    x: RowReader
    y: RowReader | None = None
    sequence_arrays: Mapping[str, RowReader] = field(default_factory=dict)
    weights: RowReader | None = None
    preparation: Preparation | None = None

    def __post_init__(self) -> None:
        if len(self.x.shape) < 2:
            raise DataError(
                f"{self.x.label} has rank 1; x needs rank 2 or more, one row per sample: "
                "reshape it to (rows, features)"
            )
        if math.prod(self.x_shape) == 0:
            raise DataError(f"{self.x.label} has shape {self.x.shape}; a sample needs at least one value")
        if self.y is not None and self.y.shape[0] != self.rows:
            raise DataError(
                f"{self.x.label} has {self.rows} rows and {self.y.label} has {self.y.shape[0]}; "
                "give x and y that belong together"
            )
        for array in (*self.sequence_arrays.values(), *([] if self.weights is None else [self.weights])):
            if array.shape[0] != self.rows:
                raise DataError(
                    f"{self.x.label} has {self.rows} rows and {array.label} has {array.shape[0]}; "
                    "give arrays that belong together"
                )

    @property
    def rows(self) -> int:
        """How many samples there are."""
        return self.x.shape[0]

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.x.shape[1:]

    @property
    def x_dtype(self) -> np.dtype[Any]:
        """Dtype of the inputs."""
        return self.x.dtype

    @property
    def y_shape(self) -> tuple[int, ...] | None:
        """Shape of one target: ``()`` for labels, None without targets."""
        return None if self.y is None else self.y.shape[1:]

    @property
    def y_dtype(self) -> np.dtype[Any] | None:
        """Dtype of the targets, None without targets."""
        return None if self.y is None else self.y.dtype

    def blocks(self, rows: int) -> Iterator[tuple[Array, Array | None]]:
        """Stream the samples, holding about one block.

        Parameters
        ----------
        rows : int
            Rows in each block, at least 1; the last block may be shorter.

        Yields
        ------
        x : numpy.ndarray
            ``(rows, *x_shape)`` of dtype `x_dtype`. May be a view of shared memory: do not write to it.
        y : numpy.ndarray or None
            ``(rows, *y_shape)`` of dtype `y_dtype`.

        Raises
        ------
        ConfigError
            If `rows` is less than 1.
        DataError
            If the file turns out to be damaged on the way.
        """
        if rows < 1:
            raise ConfigError(f"blocks of {rows} rows cannot be read; ask for at least 1")
        x_blocks = self.x.blocks(rows)
        y_blocks: Iterator[Array | None] = repeat(None) if self.y is None else self.y.blocks(rows)
        # zip() would keep the last block alive while the next one is read
        for _ in range(0, self.rows, rows):
            yield next(x_blocks), next(y_blocks)


def array_source(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    name: str = "the given arrays",
    **sequence_arrays: ArrayLike | None,
) -> Source:
    """Make a source of arrays in memory.

    Parameters
    ----------
    x : array_like
        Inputs ``(rows, …)`` of rank 2 or more, boolean, integer or float.
    y : array_like, optional
        Targets ``(rows,)`` or ``(rows, …)``.
    name : str
        What messages call it.
    **sequence_arrays : array_like
        ``lengths`` and ``states`` of sequences, as in `Source`.

    Raises
    ------
    DataError
        If the arrays cannot be samples.

    Examples
    --------
    >>> import numpy as np
    >>> from altmin_dask import array_source
    >>> source = array_source(np.zeros((10, 28, 28), np.uint8), np.arange(10))
    >>> source.rows, source.x_shape, source.y_dtype
    (10, (28, 28), dtype('int64'))
    """
    targets = None if y is None else read_memory(np.asarray(y), f"y of {name}")
    others = {
        key: read_memory(np.asarray(values), f"{key} of {name}")
        for key, values in sequence_arrays.items()
        if values is not None
    }
    return Source(name, read_memory(np.asarray(x), f"x of {name}"), targets, others)


def open_source(
    spec: str | os.PathLike[str],
    *,
    x: str | None = None,
    y: str | None = None,
    like: Preparation | None = None,
) -> Source:
    """Open the samples that a user names; only headers are read.

    Parameters
    ----------
    spec : str or path
        One of

        * ``digits``: scikit-learn's digits, x float32 ``(1797, 8, 8)`` with values 0 to 16, y int64 labels;
        * ``synthetic:rows=100000,features=784,classes=10,seed=0``: made on the way, by a seeded teacher that a
          network can learn (`altmin_dask.data.synthetic`), with labels (``classes=K``), real targets
          (``outputs=M``) or neither; ``latent`` and ``noise`` may be given too;
        * ``adding:rows=20000,steps=30,seed=0``: sequences of the adding problem (`altmin_dask.data.adding_problem`);
        * a ``.npz`` file: its arrays ``x`` and ``y``, those named by `x` and `y`, or its only array as x;
        * a ``.npy`` file: x, with y in another ``.npy`` file named by `y`;
        * a folder of idx files like ``train-images-idx3-ubyte.gz`` and ``train-labels-idx1-ubyte.gz``;
        * a ``.csv`` (or ``.csv.gz``) or ``.parquet`` file, or a folder of such: its column ``y``, or those named by `y`
          with commas in between, are the targets, all others, or those named by `x`, the inputs; columns of text
          become a number for each of their values;
        * a folder of images of equal size, or of folders of them, which are the classes;
        * a path or URL of a zarr group with arrays ``x`` and ``y``, or those named by `x` and `y`, or of a
          zarr array, which is x.

        ``:train`` or ``:test`` at the end takes one part: of ``digits`` the first 1437 or the last 360 rows,
        of ``synthetic:`` different samples of the same teacher, of a ``.npz`` file ``x_train`` and
        ``y_train`` or ``x_test`` and ``y_test``, of an idx folder the files of ``train`` or of ``t10k`` or
        ``test``. A local file called ``digits`` is ``./digits``.

        Arrays ``lengths`` and ``states`` beside x in a ``.npz`` file or a zarr group belong to its sequences, and
        ``sample_weight`` says how much every sample counts.
    x, y : str, optional
        Names of arrays in the file (`y` of a ``.npy`` file: a path). Without `y`, an array called ``y`` is
        taken where there is one.
    like : Preparation, optional
        Of the samples that these are to go with: the same columns, values and classes.

    Raises
    ------
    MissingError
        If the file, or an array in it, does not exist.
    DataError
        If the file is damaged, is of an unknown kind, has no such part, or its arrays cannot be samples.

    Examples
    --------
    >>> import pandas as pd
    >>> from altmin_dask import open_source
    >>> pd.DataFrame({"size": [30.0, 80.0], "town": ["Ulm", "Bonn"], "y": [300.0, 900.0]}).to_csv("t.csv", index=False)
    >>> source = open_source("t.csv")
    >>> source.preparation.names
    ['size', 'town=Bonn', 'town=Ulm']
    >>> next(source.blocks(2))
    (array([[30.,  0.,  1.],
           [80.,  1.,  0.]]), array([300., 900.]))
    """
    name = as_name(spec)
    base, split = name, None
    if match := _SPLIT.fullmatch(name):
        base, split = match["base"], match["split"]

    if base == "digits":
        _refuse_names("digits", x, y)
        return _digits(name, split)
    if base == "synthetic" or base.startswith("synthetic:"):
        _refuse_names(base, x, y)
        return Source(
            name, *Synthetic.parse(base.removeprefix("synthetic").removeprefix(":"), split).readers(name)
        )
    if base == "adding" or base.startswith("adding:"):
        _refuse_names(base, x, y)
        return Source(name, *Adding.parse(base.removeprefix("adding").removeprefix(":"), split).readers(name))
    if is_url(locate(base)):
        _refuse_split(base, split)
        return _zarr(name, base, x, y)

    path = local_path(base)
    if not path.exists():
        raise MissingError(f"there is no file or folder {path}; check the path")
    if path.is_file() and path.suffix == ".npz":
        return _npz(name, path, split, x, y)
    if path.is_file() and path.suffix == ".npy":
        _refuse_split(base, split)
        return _npy(name, path, x, y)
    if is_zarr_folder(path):
        _refuse_split(base, split)
        return _zarr(name, str(path), x, y)
    if path.is_dir() and (sets := _idx_sets(path)):
        _refuse_names(base, x, y)
        return _idx(name, path, sets, split)
    from altmin_dask.data import (
        images,
        tables,  # which give sources themselves, and bring dask along
    )

    if tables.is_table(path):
        _refuse_split(base, split)
        return tables.read_table(name, path, x, y, like)
    if path.is_dir() and images.images_of(path):
        _refuse_split(base, split)
        _refuse_names(base, x, y)
        return images.read_images(name, path, like)
    raise DataError(
        f"{path} is not a kind of data that can be read; give `digits`, `synthetic:…`, a .npz, .npy, .csv "
        "or .parquet file, a folder of idx files (…-images-idx3-ubyte), of tables or of images, or a zarr store"
    )


def _digits(name: str, split: str | None) -> Source:
    from sklearn.datasets import load_digits  # slow to import, and few sources need it

    digits = load_digits()
    rows = {None: slice(None), "train": slice(_DIGITS_TRAIN_ROWS), "test": slice(_DIGITS_TRAIN_ROWS, None)}[
        split
    ]
    return array_source(
        digits.images[rows].astype(np.float32), digits.target[rows].astype(np.int64), name=name
    )


def _npz(name: str, path: Path, split: str | None, x: str | None, y: str | None) -> Source:
    names = npz_names(path)
    if not names:
        raise DataError(f"{path} has no arrays; write it with numpy.savez")
    if split is not None:
        _refuse_names(name, x, y)
        x_name, y_default = f"x_{split}", f"y_{split}"
    else:
        x_name, y_default = x or _npz_inputs(path, names, y), "y"
    y_name = y or (y_default if y_default in names and y_default != x_name else None)
    for wanted in (x_name, y_name):
        if wanted is not None and wanted not in names:
            raise _no_array(str(path), wanted, names)
    found = [key for key in SEQUENCE_ARRAYS if key in names and key not in (x_name, y_name)]
    sequence_arrays = {key: read_npz(path, key) for key in found}
    weights = read_npz(path, WEIGHTS) if WEIGHTS in names and WEIGHTS not in (x_name, y_name) else None
    targets = None if y_name is None else read_npz(path, y_name)
    return Source(name, read_npz(path, x_name), targets, sequence_arrays, weights)


def _npz_inputs(path: Path, names: list[str], y: str | None) -> str:
    """Choose the array that is x where the user named none."""
    others = [name for name in names if name != y and name not in (*SEQUENCE_ARRAYS, WEIGHTS)]
    if "x" in others:
        return "x"
    if len(others) == 1:
        return others[0]
    parts = "add :train or :test to the path or " if "x_train" in others else ""
    raise DataError(
        f"{path} has the arrays {', '.join(names)} and none is called x; "
        f"{parts}name two with --x NAME --y NAME"
    )


def _npy(name: str, path: Path, x: str | None, y: str | None) -> Source:
    if x is not None:
        raise DataError(f"{path} holds one array, which is x; leave out the name {x}")
    if y is None:
        return Source(name, read_npy(path))
    targets = local_path(y)
    if targets.suffix != ".npy":
        raise DataError(f"{y} cannot be the y of {path}; give the path of another .npy file")
    if not targets.is_file():
        raise MissingError(f"there is no file {targets}; check the path given for y")
    return Source(name, read_npy(path), read_npy(targets))


def _idx_sets(folder: Path) -> dict[str, dict[str, Path]]:
    """Find the idx files of a folder: ``{"train": {"images": path, "labels": path}, …}``."""
    sets: dict[str, dict[str, Path]] = {}
    # backwards, because a file that is there both plain and as .gz is quicker to read plain
    for path in sorted(folder.iterdir(), reverse=True):
        if match := _IDX_NAME.fullmatch(path.name):
            sets.setdefault(match["part"], {})[match["role"]] = path
    return sets


def _idx(name: str, folder: Path, sets: dict[str, dict[str, Path]], split: str | None) -> Source:
    chosen = [
        files
        for part, files in sets.items()
        if "images" in files and (split is None or _IDX_SPLITS[split] & set(re.split("[-_.]", part)))
    ]
    if len(chosen) != 1:
        found = ", ".join(sorted(path.name for files in sets.values() for path in files.values()))
        what = f"{len(chosen) or 'no'} image files" + (f" for :{split}" if split else "")
        advice = (
            "add :train or :test to the path"
            if chosen and not split
            else "keep one pair of files for each part"
        )
        raise DataError(f"{folder} has {what} (it has {found}); {advice}")
    files = chosen[0]
    return Source(name, read_idx(files["images"]), read_idx(files["labels"]) if "labels" in files else None)


def _zarr(name: str, location: str, x: str | None, y: str | None) -> Source:
    node = open_zarr(location)
    if isinstance(node, zarr.Array):
        _refuse_names(location, x, y)
        return Source(name, read_zarr(node, f"the array at {location}"))
    y_name = y or ("y" if "y" in node and x != "y" else None)
    inputs = _zarr_array(node, x or "x", location)
    found = [key for key in SEQUENCE_ARRAYS if key in node and key not in (x, y)]
    sequence_arrays = {key: _zarr_array(node, key, location) for key in found}
    weights = _zarr_array(node, WEIGHTS, location) if WEIGHTS in node and WEIGHTS not in (x, y) else None
    targets = None if y_name is None else _zarr_array(node, y_name, location)
    return Source(name, inputs, targets, sequence_arrays, weights)


def _zarr_array(group: zarr.Group, name: str, location: str) -> RowReader:
    array = group.get(name)
    if not isinstance(array, zarr.Array):
        raise _no_array(location, name, sorted(group.array_keys()))
    return read_zarr(array, f"array {name!r} of {location}")


def _no_array(where: str, name: str, names: Collection[str]) -> MissingError:
    return MissingError(
        f"{where} has no array {name!r}; it has {', '.join(names) or 'none'}: name two with --x NAME --y NAME"
    )


def _refuse_names(where: str, x: str | None, y: str | None) -> None:
    if x is not None or y is not None:
        raise DataError(f"{where} leaves no arrays to choose from; leave out the names given for x and y")


def _refuse_split(where: str, split: str | None) -> None:
    if split is not None:
        raise DataError(f"{where} has no parts to choose from; leave out :{split}")
