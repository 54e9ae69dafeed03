"""From what a user writes to a `Source`: the list of all kinds of data that can be read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from altmin_dask.data.formats.adding_problem import Adding
from altmin_dask.data.formats.base import SourceFormat, SourceOptions, SourceSpec
from altmin_dask.data.formats.csv import CsvFormat
from altmin_dask.data.formats.digits import DigitsFormat
from altmin_dask.data.formats.generated import GeneratedFormat
from altmin_dask.data.formats.idx import IdxFormat
from altmin_dask.data.formats.images import FILE, ImageFormat
from altmin_dask.data.formats.npy import NpyFormat
from altmin_dask.data.formats.npz import NpzFormat
from altmin_dask.data.formats.parquet import ParquetFormat
from altmin_dask.data.formats.synthetic import Synthetic
from altmin_dask.data.formats.tables import TableFormat
from altmin_dask.data.formats.zarr import ZarrFormat
from altmin_dask.data.source import Source
from altmin_dask.errors import AltMinError, DataError, MissingError, did_you_mean, warn
from altmin_dask.preparation import Preparation
from altmin_dask.storage.endings import OF_SAMPLES, is_called_a_file
from altmin_dask.storage.what import is_run, meant, what_is
from altmin_dask.storage.zarr_groups import is_zarr_folder
from altmin_dask.table_options import TableOptions

if TYPE_CHECKING:
    import pandas as pd

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
"""The first that matches reads; a folder that several match is refused."""


def open_source(
    spec: str | os.PathLike[str],
    *,
    x: str | None = None,
    y: str | None = None,
    like: Preparation | None = None,
    **tables: Any,
) -> Source:
    """Open the samples that a user names; headers are read, and tables gone through to count rows.

    Parameters
    ----------
    spec : str or path
        One of

        * ``digits`` (a file of that name: ``./digits``): scikit-learn's, float32 ``(1797, 8, 8)``, 0 to 16, and labels;
        * ``synthetic:rows=100000,features=784,classes=10,seed=0``, with ``outputs=M`` instead of classes or neither,
          ``latent`` and ``noise``: made on the way by a seeded teacher (`altmin_dask.data.formats.synthetic`);
        * ``adding:rows=20000,steps=30,seed=0``: sequences (`altmin_dask.data.formats.adding_problem`);
        * a ``.npz`` file, or a path or URL of a zarr group: its arrays ``x`` and ``y``, or those that `x` and `y` name,
          with ``lengths`` and ``states`` of sequences and ``sample_weight``; or the only array as x; y may be text;
        * a ``.npy`` file: x, with y in another ``.npy`` file named by `y`;
        * a folder of idx files like ``train-images-idx3-ubyte.gz`` and ``train-labels-idx1-ubyte.gz``;
        * a ``.csv``, ``.tsv`` (or ``.csv.gz``, bz2, xz, zip, zst) or ``.parquet`` file, or a folder of such: its column
          ``y``, or those named by `y` with commas in between, are the targets, all others, or those named by `x`, the
          inputs; columns of text become a number for each of their values, dates days since 1970, missing values are
          refused if nothing is said of them, and text that `like` had not becomes zeros, with a warning;
        * a folder of images of equal size, or of folders of them, which are the classes.

        ``:train`` or ``:test`` at the end takes one part: the first 1437 or last 360 ``digits``, different samples of
        a teacher, ``x_train`` or ``x_test`` of a ``.npz`` file, ``train`` or ``t10k`` of idx files.
    x, y : str, optional
        Names of arrays or columns; without `y`, one called ``y`` is taken where there is one.
    like : Preparation, optional
        Of the samples that these are to go with: the same columns, values and classes.
    **tables
        Of tables ``missing``, ``handle_unknown``, ``max_categories``, ``min_frequency``, ``dates``, ``csv`` and
        ``drop``, as `altmin_dask.table_options.TableOptions` has them; one word for ``missing`` is for all columns.

    Raises
    ------
    MissingError, DataError
        If the file, or an array in it, is not there; is damaged, of an unknown kind, or cannot be samples.

    Examples
    --------
    >>> import pandas as pd
    >>> from altmin_dask import open_source
    >>> pd.DataFrame({"size": [30.0, 80.0], "town": ["Ulm", "Bonn"], "y": [300.0, 900.0]}).to_csv("t.csv", index=False)
    >>> next(open_source("t.csv").blocks(2))  # size, town=Bonn, town=Ulm
    (array([[30.,  0.,  1.],
           [80.,  1.,  0.]]), array([300., 900.]))
    """
    return _open(SourceSpec.parse(spec), SourceOptions(x, y, like, TableOptions.of(**tables)))


def is_table(spec: str | os.PathLike[str]) -> bool:
    """Tell a table, of which columns can be prepared, from arrays and what is made."""
    return isinstance(_matching(spec)[1], TableFormat)


def _open(wanted: SourceSpec, options: SourceOptions) -> Source:
    if wanted.folder is not None and is_run(wanted.folder):  # the pictures of its report are no samples
        raise _without_samples(wanted.folder)
    matching = (kind for kind in FORMATS if kind.matches(wanted))
    if found := next(matching, None):
        if wanted.folder is not None and not is_zarr_folder(wanted.folder):  # which may have very many files
            _check_only(found, list(matching), wanted)
        url_of_a_file = wanted.path is None and is_called_a_file(wanted.base)  # which `open` says better
        if not isinstance(found, TableFormat) and options.tables.ask_for_something and not url_of_a_file:
            raise DataError(
                f"{wanted.name} is no table; missing values, categories, dates and csv are of tables: leave missing, "
                "handle_unknown, max_categories, min_frequency, dates, csv and drop out (columns of a store were "
                "prepared when it was ingested)"
            )
        return found.open(wanted, options)
    if wanted.path is not None and not wanted.path.exists():
        words = [str(kind.known_as).strip("`") for kind in FORMATS if str(kind.known_as).startswith("`")]
        base, _, part = wanted.name.rpartition(":")
        if base in words:
            raise MissingError(f"{base} has no part {part!r}; write {base}:train or {base}:test")
        near = meant(wanted.path, words) or _word_meant(wanted.name, words)
        raise MissingError(f"there is no file or folder {wanted.path}{near or '; check the path'}")
    *others, last = (kind.known_as for kind in FORMATS)
    here = wanted.name if wanted.path is None else what_is(wanted.path)
    if wanted.folder is not None and not any(wanted.folder.iterdir()):
        raise _without_samples(wanted.folder)
    raise DataError(f"{here}, not a kind of data that can be read; give {', '.join(others)}, or {last}")


def _without_samples(folder: Path) -> DataError:
    return DataError(
        f"{what_is(folder)} and holds no samples; name a file of samples, a zarr store, or a folder of them"
    )


def _word_meant(name: str, words: Sequence[str]) -> str:
    """The word with settings behind it, as in ``synthetic:rows=100``, that may have been meant; often nothing."""
    begin, colon, _ = name.partition(":")
    known = [word.partition(":")[0] for word in words]
    near = did_you_mean(begin, known) if colon else ""
    return near.replace("?", f"{name[len(begin) :]}?") if near else ""


def read_columns(
    spec: str, chosen: Sequence[str], csv: Mapping[str, Any] | None = None
) -> tuple[list[str], Iterator[pd.DataFrame]]:
    """Columns of a table as they are written, a part after the other, in the order of the samples of `open_source`.

    Their names, also with commas in between, are given back one by one. A folder of images has one column, of the
    files' names.

    Raises
    ------
    DataError
        If it is no table, or has no such column.
    """
    wanted, found = _matching(spec)
    if not isinstance(found, TableFormat | ImageFormat):
        raise DataError(f"{spec} is no table; columns are kept of csv and parquet files")
    return found.columns(wanted, chosen, csv)


def how_to_name_targets(spec: str, *, labels: bool) -> str:
    """What to do where samples have no targets, labels or numbers, by what kind of data they are."""
    found = None
    with suppress(AltMinError):  # of what is no name of a source, but of a part of one
        _, found = _matching(spec)
    if isinstance(found, ImageFormat):
        return (
            "put the images of each class into a folder of its own, which is called as the class"
            if labels
            else "numbers to fit go with images in arrays only: give x and y in a .npz file"
        )
    if isinstance(found, TableFormat):
        return "name them by data.y, or ingest it with --y NAME"
    return "name them by --y NAME (data.y of a pipeline), and ingest a store again"


def own_columns(spec: str) -> list[str]:
    """Columns for `read_columns` that go along unasked: the names of images, without which nobody knows the rows."""
    return [FILE] if isinstance(_matching(spec)[1], ImageFormat) else []


def _matching(spec: str | os.PathLike[str]) -> tuple[SourceSpec, SourceFormat | None]:
    """What is named, and the format that reads it; None where there is none."""
    wanted = SourceSpec.parse(spec)
    return wanted, next((kind for kind in FORMATS if kind.matches(wanted)), None)


def _check_only(found: SourceFormat, others: list[SourceFormat], wanted: SourceSpec) -> None:
    """Refuse a folder of several kinds of data, of which all but one would be passed over; tell of files that are."""
    if others:
        raise DataError(
            f"{wanted.path} could be {' or '.join(kind.known_as for kind in (found, *others))}; move what does not "
            "belong to the samples elsewhere"
        )
    assert wanted.folder is not None
    if passed := sorted(file.name for file in wanted.folder.iterdir() if file.suffix.lower() in OF_SAMPLES):
        several = f" and {len(passed) - 1} more" if len(passed) > 1 else ""
        warn(
            f"{passed[0]}{several} in {wanted.path} may hold samples, too, and is not read: only {found.known_as} is"
        )
