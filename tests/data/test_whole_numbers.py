"""Whole numbers that float64 does not hold are refused, wherever they are, and computed with nowhere."""

from __future__ import annotations

from decimal import Decimal

import dask.array as da
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import foreign, refused, write_pipeline
from in_order import ingest
from written_files import every_file

from altmin_dask.config import make_pipeline
from altmin_dask.data.open import open_source
from altmin_dask.data.source import array_source
from altmin_dask.data.tables.checking import prepared_rows
from altmin_dask.errors import DataError
from altmin_dask.estimators import (
    AltMinAutoencoder,
    AltMinClassifier,
    AltMinRecurrentRegressor,
    AltMinRegressor,
)
from altmin_dask.execution.threads import Threads
from altmin_dask.preparation import Column, Preparation
from altmin_dask.training.problem import build_problem

# of dask with the newest pandas
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")

RNG = np.random.default_rng(11)
TOO_LARGE = 2**53 + 1
LARGE_X = np.stack([np.arange(60)] * 3, axis=1) + (np.arange(60) == 41)[:, None] * TOO_LARGE


@every_file
def test_whole_numbers_that_float64_rounds_are_refused(write, altmin, tmp_path):
    source, words = write(tmp_path, LARGE_X, np.arange(60) / 2)
    refused(altmin("ingest", source, "s.zarr", *words, "--dtype", "float64"), f"{TOO_LARGE + 41}")
    refused(altmin("ingest", source, "s.zarr", *words, "--standardize"), f"{TOO_LARGE + 41}")
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize("value", [TOO_LARGE, 2**53, 2**63 - 1])
def test_whole_targets_to_fit_are_refused_where_float64_rounds_them(value, dtype, altmin, tmp_path):
    y = np.arange(60).astype(dtype)
    y[17] = value
    foreign(tmp_path / "s.zarr", RNG.random((60, 3)), y)
    write_pipeline(tmp_path / "p.toml", "s.zarr", "regressor")
    refused(altmin("train", "p.toml", "--run", "run"), "2^53")
    np.savez(tmp_path / "a.npz", x=RNG.random((60, 3)), y=y)
    refused(altmin("train", "p.toml", "--run", "run", "--set", "data.train=a.npz"), f"{value}")
    y[17] = 2**53 - 1
    store = ingest(array_source(RNG.random((60, 3)), y), tmp_path / "t.zarr", dtype="float64")
    network = {"kind": "regressor", "dtype": "float64"}
    build_problem(make_pipeline({"data": {"train": store.path}, "network": network}), store, None, Threads(1))


def test_foreign_samples_that_float64_rounds_are_refused(altmin, trained, tmp_path):
    x = RNG.integers(0, 2, (60, 6))
    x[50, 2] = TOO_LARGE
    foreign(tmp_path / "s.zarr", x, np.arange(60) % 3)
    write_pipeline(tmp_path / "p.toml", "s.zarr", "classifier")
    refused(altmin("train", "p.toml", "--run", "run"), "2^53")
    refused(altmin("predict", trained / "classifier", "s.zarr", "p.zarr"), f"{TOO_LARGE}")


def test_labels_from_2_63_on_do_not_wrap_round(tmp_path):
    table = pd.DataFrame({"a": np.arange(5.0), "y": np.array([0, 1, 2, 3, 2**63 + 5], np.uint64)})
    table.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"2\^63"):
        ingest(open_source(tmp_path / "a.parquet"), tmp_path / "s.zarr")


@pytest.mark.parametrize(
    "x",
    [
        LARGE_X,
        LARGE_X.astype(np.uint64),
        LARGE_X.tolist(),
        LARGE_X.astype(object),
        pd.DataFrame({"a": RNG.random(60), "b": LARGE_X[:, 0]}),
        da.from_array(LARGE_X, chunks=(25, 3)),
    ],
    ids=["int64", "uint64", "list", "objects", "frame", "dask"],
)
def test_estimators_refuse_whole_numbers_that_float64_rounds(x):
    features = 2 if isinstance(x, pd.DataFrame) else 3
    with pytest.raises(DataError, match=rf"{TOO_LARGE + 41}.*2\^53"):
        AltMinClassifier(2).fit(x, np.arange(60) % 3)
    small = pd.DataFrame(RNG.random((60, 2)), columns=["a", "b"]) if features == 2 else RNG.random((60, 3))
    fitted = AltMinAutoencoder(2, max_sweeps=1).fit(small)
    with pytest.raises(DataError, match=rf"{TOO_LARGE + 41}.*2\^53"):
        np.asarray(fitted.transform(x))


@pytest.mark.parametrize("lazy", [False, True])
def test_estimators_refuse_whole_targets_that_float64_rounds(lazy):
    x, y = RNG.random((60, 3)), np.arange(60) + (np.arange(60) == 3) * 2**60
    with pytest.raises(DataError, match=r"2\^53"):
        AltMinRegressor(2).fit(da.from_array(x) if lazy else x, da.from_array(y) if lazy else y)
    with pytest.raises(DataError, match=r"2\^53"):
        AltMinRecurrentRegressor(2).fit(x[:, :, None], y)
    AltMinClassifier(2, max_sweeps=1).fit(
        x, 2**60 * (np.arange(60) % 2)
    )  # names of classes are not computed with


@pytest.mark.parametrize("scale", [0, 2])
@pytest.mark.parametrize("column", ["a", "y", "lists"])
def test_whole_decimals_that_float64_rounds_are_refused(column, scale, tmp_path):
    """As identifiers come from databases; a decimal that is rounded to 16 digits is none of them."""
    kept = ["1", None, str(2**60), "-2"]
    for value, refuse in ((str(TOO_LARGE), True), (str(-TOO_LARGE), True), ("9007199254740993.25", False)):
        if scale == 0 and not refuse:
            continue
        kind = pa.decimal128(38, scale)
        values = [Decimal(each or 0) if each or column != "a" else None for each in [*kept, value]]
        table = {"a": [1.0, 2, 3, 4, 5], "y": [0.5, 1, 2, 3, 4]}
        if column == "lists":
            table["a"] = pa.array([[each, each] for each in values], pa.list_(kind))
        else:
            table[column] = pa.array(values, kind)
        pq.write_table(pa.table(table), tmp_path / "t.parquet")
        if refuse:
            with pytest.raises(DataError, match=f"the whole number {value}, and float64 tells"):
                list(open_source(tmp_path / "t.parquet", missing="constant").blocks(5))
        else:
            list(open_source(tmp_path / "t.parquet", missing="constant").blocks(5))
    (tmp_path / "t.csv").write_text("a,y\n9007199254740993.0,0\n")
    assert open_source(tmp_path / "t.csv").rows == 1


def test_whole_numbers_beside_decimals_in_objects_are_refused():
    frame = pd.DataFrame({"a": pd.Series([0.5, TOO_LARGE], dtype=object)})
    how = Preparation((Column("a"),))
    with pytest.raises(DataError, match=f"{TOO_LARGE}"):
        prepared_rows(frame, how)
    assert prepared_rows(frame.assign(a=pd.Series([0.5, 2**60], dtype=object)), how).tolist() == [
        [0.5],
        [2**60],
    ]
