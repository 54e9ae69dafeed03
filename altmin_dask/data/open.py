"""From what a user writes to a `Source`: the list of all kinds of data that can be read."""

from __future__ import annotations

import os

from altmin_dask.data.formats.adding_problem import Adding
from altmin_dask.data.formats.base import SourceFormat, SourceOptions, SourceSpec
from altmin_dask.data.formats.csv import CsvFormat
from altmin_dask.data.formats.digits import DigitsFormat
from altmin_dask.data.formats.generated import GeneratedFormat
from altmin_dask.data.formats.idx import IdxFormat
from altmin_dask.data.formats.images import ImageFormat
from altmin_dask.data.formats.npy import NpyFormat
from altmin_dask.data.formats.npz import NpzFormat
from altmin_dask.data.formats.parquet import ParquetFormat
from altmin_dask.data.formats.synthetic import Synthetic
from altmin_dask.data.formats.zarr import ZarrFormat
from altmin_dask.data.source import Source
from altmin_dask.errors import DataError, MissingError
from altmin_dask.preparation import Preparation

FORMATS: tuple[SourceFormat, ...] = (
    DigitsFormat(),
    GeneratedFormat("synthetic", Synthetic.parse),
    GeneratedFormat("adding", Adding.parse),
    NpzFormat(),
    NpyFormat(),
    ZarrFormat(),
    IdxFormat(),
    CsvFormat(),
    ParquetFormat(),
    ImageFormat(),
)
"""The first that matches reads: of a folder with idx files, tables and images, it is the idx files."""


def open_source(
    spec: str | os.PathLike[str],
    *,
    x: str | None = None,
    y: str | None = None,
    like: Preparation | None = None,
) -> Source:
    """Open the samples that a user names; only headers are read, of tables also rows counted.

    Parameters
    ----------
    spec : str or path
        One of

        * ``digits``: scikit-learn's digits, x float32 ``(1797, 8, 8)`` with values 0 to 16, y int64 labels;
        * ``synthetic:rows=100000,features=784,classes=10,seed=0``: made on the way, by a seeded teacher that a
          network can learn (`altmin_dask.data.formats.synthetic`), with labels (``classes=K``), real targets
          (``outputs=M``) or neither; ``latent`` and ``noise`` may be given too;
        * ``adding:rows=20000,steps=30,seed=0``: sequences of the adding problem
          (`altmin_dask.data.formats.adding_problem`);
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
    wanted, options = SourceSpec.parse(spec), SourceOptions(x, y, like)
    for kind in FORMATS:
        if kind.matches(wanted):
            return kind.open(wanted, options)
    if wanted.path is not None and not wanted.path.exists():
        raise MissingError(f"there is no file or folder {wanted.path}; check the path")
    *others, last = (kind.known_as for kind in FORMATS)
    raise DataError(
        f"{wanted.path} is not a kind of data that can be read; give {', '.join(others)}, or {last}"
    )
