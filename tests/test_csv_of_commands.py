"""`evaluate`, `predict` and `init` read csv as it is written, whatever that for training was like: `--csv`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import LABELS, X, foreign, refused, write_pipeline

from altmin_dask.config import load_pipeline

TABLE = pd.DataFrame(X, columns=list("abcdef")).assign(y=np.array(["u", "v", "w"])[LABELS])
GERMAN = {"sep": ";", "decimal": ","}
SETTINGS = ("data.csv.sep=;", "data.csv.decimal=,")
WORDS = ("--csv", "sep=;", "--csv", "decimal=,")


@pytest.fixture
def files(altmin):
    """The same table with commas, and as it is written where commas are in numbers."""
    TABLE.to_csv("t.csv", index=False)
    TABLE.to_csv("g.csv", index=False, **GERMAN)
    return "t.csv", "g.csv"


@pytest.mark.parametrize("trained_on", [0, 1])
def test_other_files_than_for_training(trained_on, files, altmin):
    own, other = files[trained_on], files[1 - trained_on]
    write_pipeline(Path("p.toml"), own, "classifier")
    assert altmin("train", "p.toml", "--run", "run", *(SETTINGS if trained_on else ())).code == 0
    words = ("--csv", "sep=,") if trained_on else WORDS
    has = "commas" if trained_on else "semicolons"
    for command in (["evaluate", "run", other], ["predict", "run", other, "p.csv", "--keep", "y"]):
        refused(altmin(*command), f"{other} has {has} between its columns")
        done = altmin(*command, *words)
        assert (done.code, done.err) == (0, "")
    assert altmin("predict", "run", own, "q.csv", "--keep", "y").code == 0
    assert Path("p.csv").read_text() == Path("q.csv").read_text()
    told = [
        json.loads(altmin("evaluate", "run", *each, "--json").out)["loss"]
        for each in ([own], [other, *words])
    ]
    assert told[0] == told[1]


def test_what_is_between_columns_is_named(files, altmin):
    write_pipeline(Path("p.toml"), "g.csv", "classifier")
    assert altmin("train", "p.toml", "--run", "run", *SETTINGS).code == 0
    refused(
        altmin("predict", "run", "t.csv", "p.csv"),
        "t.csv has commas between its columns, and is read with semicolons, as --csv says or the samples for training "
        "were; say so by --csv sep=, (data.csv.sep of a pipeline)",
    )
    # what is said is said on top of what was for training
    assert altmin("predict", "run", "g.csv", "p.csv", "--keep", "y", "--csv", "na_values=?").code == 0
    for sign, option in (("\t", "sep=tab"), ("|", "'sep=|'"), (";", "'sep=;'")):
        TABLE.to_csv("o.csv", index=False, sep=sign)
        refused(
            altmin("ingest", "o.csv", "o.zarr"), f"write it with commas, or say so by --csv {option} (data."
        )


def test_init(files, altmin):
    assert altmin("init", "classifier", "p.toml", "--data", "g.csv", "--y", "y", *WORDS).code == 0
    assert load_pipeline("p.toml").data.csv == GERMAN
    assert altmin("train", "p.toml", "--run", "run", "training.max_sweeps=1", "output.report=false").code == 0
    refused(
        altmin("init", "classifier", "q.toml", *WORDS),
        "--csv, --drop and --steps are for --data SOURCE; give that, too",
    )
    refused(
        altmin("init", "classifier", "q.toml", "--data", "g.csv", "--csv", "sep"), "--csv sep says nothing"
    )
    assert not Path("q.toml").exists()


def test_stores_and_arrays_are_no_csv(files, altmin):
    write_pipeline(Path("p.toml"), "t.csv", "classifier")
    assert altmin("train", "p.toml", "--run", "run").code == 0
    foreign(Path("t.zarr"), X, LABELS)
    np.savez("t.npz", x=X, y=LABELS)
    for source, told in (
        ("t.zarr", "t.zarr is a store, and --csv is for csv files"),
        ("t.npz", "t.npz is no table"),
    ):
        refused(altmin("predict", "run", source, "p.npy", *WORDS), told)
        refused(altmin("evaluate", "run", source, *WORDS), told)
