"""Tables are prepared as scikit-learn prepares them in memory: SimpleImputer, OneHotEncoder and StandardScaler."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_order import ingest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from altmin_dask import AltMinRegressor
from altmin_dask.data.find import open_like
from altmin_dask.data.formats import csv
from altmin_dask.data.formats.base import SourceOptions
from altmin_dask.data.formats.tables import table_source
from altmin_dask.data.open import open_source
from altmin_dask.errors import AltMinWarning
from altmin_dask.table_options import TableOptions

WORDS = ["red", "blue", "1", "2", "a b", 'q"', "x,y", "ñ", "line\nbreak", "007"]


@st.composite
def tables(draw: Any) -> tuple[pd.DataFrame, dict[str, Any], int]:
    """Rows for training and others behind them, how they are to be prepared, and how many are for training."""
    rows, others = draw(st.integers(2, 25)), draw(st.integers(1, 6))
    columns: dict[str, list[Any]] = {}
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["decimal", "whole", "boolean", "text"]))
        values = {
            "decimal": st.floats(-1e3, 1e3, width=32).map(lambda value: round(value, 3)),
            "whole": st.integers(-50, 50),
            "boolean": st.booleans(),
            "text": st.sampled_from(WORDS[: draw(st.integers(2, len(WORDS)))]),
        }[kind]
        missing = draw(st.booleans()) and kind != "boolean"
        values = st.one_of(st.none(), values, values) if missing else values
        found = draw(st.lists(values, min_size=rows + others, max_size=rows + others))
        if not missing or any(value is not None for value in found[:rows]):
            if kind == "text" and not any(value not in (None, "1", "2", "007") for value in found[:rows]):
                found[0] = "red"  # or a csv file would hold numbers
            columns[f"{kind} {number}"] = found
    if not columns or [*map(str.split, columns)] == [["text", "0"]]:
        # a column alone whose lines are two words is asked about, in `test_table_looks.py`
        columns["whole 9"] = list(range(rows + others))
    order = draw(st.permutations(list(columns)))
    frame = pd.DataFrame(
        {name: pd.Series(columns[name], dtype=_dtype(name, columns[name])) for name in order}
    )
    options: dict[str, Any] = {"missing": draw(st.sampled_from(["mean", "median", "constant"]))}
    options["max_categories"] = draw(st.sampled_from([1, 2, 3, 256]))
    if (least := draw(st.sampled_from([None, 1, 2, 3, 0.2]))) is not None:
        options["min_frequency"] = least
    options["handle_unknown"] = draw(st.sampled_from(["ignore", "infrequent_if_exist"]))
    return frame, options, rows


def _dtype(name: str, values: list[Any]) -> str:
    kind = name.split()[0]
    if kind == "whole":
        return "Int64" if None in values else "int64"
    return {"decimal": "float64", "boolean": "bool", "text": "str"}[kind]


def _in_memory(frame: pd.DataFrame, options: dict[str, Any], rows: int) -> np.ndarray:
    """As scikit-learn does it, a column after the other, with the indicator last, which is not scaled."""
    parts = []
    word = options["missing"]
    for name in frame:
        text = name.startswith("text")
        values = frame[[name]].astype(object).where(frame[[name]].notna(), np.nan)
        values = values if text else values.astype(float)
        strategy = "constant" if word == "constant" else "most_frequent" if text else word
        imputer = SimpleImputer(strategy=strategy, add_indicator=True)
        imputer.fit(values[:rows].to_numpy())
        filled = imputer.transform(values.to_numpy())
        own, indicator = filled[:, :1], filled[:, 1:].astype(float)
        if text:
            encoder = OneHotEncoder(
                handle_unknown=options["handle_unknown"],
                max_categories=options["max_categories"],
                min_frequency=options.get("min_frequency"),
                sparse_output=False,
            )
            encoder.fit(own[:rows])
            own = encoder.transform(own)
        else:
            own = StandardScaler().fit(own[:rows].astype(float)).transform(own.astype(float))
        parts += [own, indicator]
    return np.concatenate(parts, axis=1).astype(float)


def _stores(folder: Path, name: str, train: Any, other: Any, options: dict[str, Any]) -> np.ndarray:
    """What comes of a source by way of a store, and of other samples that are prepared like it."""
    first = ingest(train(**options), folder / f"{name}.zarr", standardize=True, dtype="float64")
    second, scale = other(first)
    second = ingest(second, folder / f"{name}-other.zarr", scale=scale, dtype="float64")
    assert first.preparation == second.preparation
    return np.concatenate([first.x[:], second.x[:]])


def _check(table: tuple[pd.DataFrame, dict[str, Any], int], parts: int) -> None:
    frame, options, rows = table
    expected = _in_memory(frame, options, rows)
    train, other = frame[:rows], frame[rows:]
    reversed_columns = list(reversed(frame.columns))
    with TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(csv, "BLOCK_BYTES", 60)
        warnings.simplefilter("ignore", AltMinWarning)
        warnings.filterwarnings("ignore", "The inplace keyword")
        folder = Path(home)
        for ending in ("csv", "parquet"):
            place = folder / ending
            place.mkdir()
            for number, piece in enumerate(np.array_split(np.arange(rows), parts)):
                part = train.iloc[piece][frame.columns if number % 2 == 0 else reversed_columns]
                file = place / f"{number}.{ending}"
                _ = part.to_csv(file, index=False) if ending == "csv" else part.to_parquet(file, index=False)
            file = folder / f"other.{ending}"
            chosen = other[reversed_columns]
            _ = chosen.to_csv(file, index=False) if ending == "csv" else chosen.to_parquet(file, index=False)

            found = _stores(
                folder,
                ending,
                lambda place=place, **options: open_source(place, **options),
                lambda store, file=file: open_like(
                    str(file), store.path, {}, {}, scale=1.0, standardize=False
                ),
                options,
            )
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6, err_msg=f"{ending}, {options}")
        _check_predictions(folder, other[reversed_columns], expected, rows)
        lazy = dd.from_pandas(train.reset_index(drop=True), npartitions=parts)
        source = table_source("X", lazy, SourceOptions(tables=TableOptions.of(**options)))
        store = ingest(source, folder / "dask.zarr", standardize=True, dtype="float64")
        np.testing.assert_allclose(store.x[:], expected[:rows], rtol=1e-6, atol=1e-6, err_msg="dask")
        lazy = dd.from_pandas(other[reversed_columns].reset_index(drop=True), npartitions=1)
        source = table_source("X", lazy, SourceOptions(like=store.preparation))
        found = store.preparation.x.apply(np.concatenate([x for x, _ in source.blocks(100)]))
        np.testing.assert_allclose(found, expected[rows:], rtol=1e-6, atol=1e-6, err_msg="dask")


def _check_predictions(folder: Path, other: pd.DataFrame, expected: np.ndarray, rows: int) -> None:
    """A model of the store of the csv files gives the same for other rows, whatever they are kept in."""
    fitted = AltMinRegressor(2, max_sweeps=1, random_state=0, workers=1)
    fitted.fit(folder / "csv.zarr", np.arange(rows) % 3.0)
    other = other.reset_index(drop=True)
    kinds = {
        "csv": folder / "other.csv",
        "parquet": folder / "other.parquet",
        "store": folder / "csv-other.zarr",
        "store of parquet": folder / "parquet-other.zarr",
        "pandas": other,
        "polars": pl.from_pandas(other),
        "dask": dd.from_pandas(other, npartitions=2),
    }
    # of samples that are prepared by scikit-learn, as `Model.outputs` takes them
    wanted = fitted.model_.outputs(expected[rows:])[:, 0]
    for kind, samples in kinds.items():
        found = np.asarray(fitted.predict(samples))
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9, err_msg=kind)


@pytest.mark.slow
@settings(max_examples=8)
@given(tables(), st.integers(1, 3))
def test_tables_are_prepared_as_in_memory(table, parts):
    _check(table, parts)


@pytest.mark.slow
@settings(max_examples=200)
@given(tables(), st.integers(1, 3))
def test_two_hundred_tables_are_prepared_as_in_memory(table, parts):
    _check(table, parts)
