"""Columns that number rows say nothing of new ones: they are told, and any column can be left out by its name."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import LABELS, X, foreign, refused, write_pipeline

from altmin_dask import open_source
from altmin_dask.config import Pipeline, load_pipeline
from altmin_dask.data.formats import csv
from altmin_dask.errors import AltMinWarning, ConfigError, DataError

ROWS = len(X)
FRAME = pd.DataFrame(X, columns=list("abcdef")).assign(y=LABELS)
MIXED = np.random.default_rng(0).permutation(ROWS)


def told(path: Path, **columns) -> list[str]:
    """The columns that are told of a table with some more."""
    table = FRAME.assign(**columns)
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_source(path)
    messages = [str(each.message) for each in caught]
    assert all("has another number in each row" in message for message in messages)
    return [message.split("'")[1] for message in messages]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("name", "values", "is_one"),
    [
        ("n", np.arange(ROWS), True),
        ("n", np.arange(ROWS) - 7, True),
        ("n", np.arange(ROWS) * 2, False),
        ("n", np.arange(ROWS)[::-1], False),
        ("n", MIXED, False),
        ("n", np.where(np.arange(ROWS) < ROWS - 1, np.arange(ROWS), 0), False),
        ("n", np.arange(ROWS) + 0.5, False),
        ("id", MIXED * 17, True),
        ("Customer ID", MIXED * 17, True),
        ("row_number", MIXED * 17, True),
        ("id", MIXED // 2, False),
        ("grid", MIXED * 17, False),
    ],
)
def test_what_numbers_rows_is_told(ending, name, values, is_one, tmp_path):
    assert told(tmp_path / f"t.{ending}", **{name: values}) == [name] * is_one


def test_over_several_blocks_and_files(tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "BLOCK_BYTES", 512)
    monkeypatch.setattr(csv, "_LEAST", 1)
    assert told(tmp_path / "t.csv", n=np.arange(ROWS), id=MIXED) == ["n", "id"]
    broken = np.arange(ROWS) + (np.arange(ROWS) >= 40)
    assert told(tmp_path / "t.csv", n=broken, id=np.where(np.arange(ROWS) == 59, MIXED[0], MIXED)) == []


def test_few_rows_may_count_something_else(tmp_path):
    path = tmp_path / "t.csv"
    FRAME.assign(n=np.arange(ROWS), id=MIXED).iloc[:50].to_csv(path, index=False)
    open_source(path)  # where a warning would be an error


def test_the_advice_is_a_command(altmin):
    FRAME.assign(**{"customer id": MIXED}).to_csv("t.csv", index=False)
    with pytest.warns(
        AltMinWarning, match=r"by --drop 'customer id' \(data.drop of a pipeline\), which predictions can"
    ):
        open_source("t.csv")
    assert altmin("ingest", "t.csv", "t.zarr", "--drop", "customer id").code == 0
    names = open_source("t.csv", drop="customer id").preparation.names
    assert names == list("abcdef")


def test_columns_are_left_out_of_training_and_predictions(altmin):
    FRAME.assign(id=MIXED, note="a", y=LABELS).to_csv("t.csv", index=False)
    FRAME.to_csv("plain.csv", index=False)
    write_pipeline(Path("p.toml"), "t.csv", "classifier", data={"drop": "id, note", "validation": 0.2})
    write_pipeline(Path("q.toml"), "plain.csv", "classifier", data={"validation": 0.2})
    for name in ("p", "q"):
        done = altmin("train", f"{name}.toml", "--run", name)
        assert (done.code, done.err) == (0, "")
    # with and without them, as if they had never been there
    for run, source, out in (("p", "t.csv", "1"), ("p", "plain.csv", "2"), ("q", "plain.csv", "3")):
        done = altmin("predict", run, source, f"{out}.csv", "--proba")
        assert (done.code, done.err) == (0, "")
    assert Path("1.csv").read_text() == Path("2.csv").read_text() == Path("3.csv").read_text()
    assert altmin("predict", "p", "t.csv", "k.csv", "--keep", "id").code == 0
    np.testing.assert_array_equal(pd.read_csv("k.csv")["id"], MIXED)


def test_init_tells_once(altmin):
    FRAME.assign(id=MIXED).to_csv("t.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("always", AltMinWarning)
        done = altmin("init", "classifier", "p.toml", "--data", "t.csv")
    assert done.code == 0
    assert done.err.count("altmin: warning: ") == done.err.count("has another number in each row") == 1


def test_init_writes_it(altmin):
    FRAME.assign(id=MIXED).to_csv("t.csv", index=False)
    assert altmin("init", "classifier", "p.toml", "--data", "t.csv", "--drop", "id", "--drop", "a").code == 0
    assert load_pipeline("p.toml").data.drop == "id,a"
    refused(
        altmin("init", "classifier", "q.toml", "--drop", "id"),
        "--csv, --drop and --steps are for --data SOURCE",
    )


def test_what_cannot_be_left_out(altmin, tmp_path):
    FRAME.assign(t=LABELS).to_csv("t.csv", index=False)
    for error, given, message in (
        (DataError, {"drop": "z"}, "has no column 'z' to drop; it has a, b, c, d, e, f, y, t"),
        (ConfigError, {"drop": "t,a", "y": "t"}, "the column 't' of t.csv is named as a target, and dropped"),
        (ConfigError, {"drop": "t", "x": "a"}, "x names the inputs of t.csv"),
    ):
        with pytest.raises(error, match=message):
            open_source("t.csv", **given)
    assert open_source("t.csv", drop="y").y is None  # which is a target only where nothing is said
    assert open_source("t.csv", drop="").preparation == open_source("t.csv").preparation
    assert altmin("ingest", "t.csv", "t.zarr").code == 0
    refused(
        altmin("ingest", "t.csv", "u.zarr", "--like", "t.zarr", "--drop", "a"),
        "--drop does not go with --like",
    )
    foreign(tmp_path / "f.zarr", X, LABELS)
    write_pipeline(tmp_path / "p.toml", "f.zarr", "classifier", data={"drop": "a"})
    refused(altmin("train", "p.toml"), "data.drop is for raw tables, and ")


def test_runs_from_before_can_be_gone_on_with():
    """They know of no such setting."""
    settings = {"data": {"train": "t.csv"}, "network": {"kind": "classifier"}}
    assert "drop" not in Pipeline.model_validate(settings).identity()["data"]
    settings["data"]["drop"] = "id"
    assert Pipeline.model_validate(settings).identity()["data"]["drop"] == "id"
