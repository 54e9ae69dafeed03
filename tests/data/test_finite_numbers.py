"""Numbers that are not finite, and those that float32 does not hold: where who reads the file finds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import LABELS, X, refused, write_pipeline

from altmin_dask import ingest, open_source
from altmin_dask.data.source import array_source
from altmin_dask.errors import DataError

FRAME = pd.DataFrame(X, columns=list("abcdef")).assign(y=LABELS)


def write(values: dict[int, float], ending: str = "csv") -> str:
    """A table with other numbers in some rows of the column b."""
    table = FRAME.copy()
    table.loc[list(values), "b"] = list(values.values())
    table.to_csv("t.csv", index=False) if ending == "csv" else table.to_parquet("t.parquet")
    return f"t.{ending}"


@pytest.mark.parametrize(
    ("values", "ending", "places"),
    [
        ({7: np.inf}, "csv", "line 9"),
        ({7: np.inf, 9: -np.inf}, "csv", "lines 9 and 11"),
        (dict.fromkeys([1, 5, 6, 7], np.inf), "csv", "lines 3, 7 and 8, and more"),
        ({7: np.inf}, "parquet", "row 7, counted from 0"),
    ],
)
def test_where_infinite_numbers_are(values, ending, places, altmin):
    source = write(values, ending)
    said = f"has NaN or infinity in x as float32, in the column 'b' ({places}); remove or repair them"
    refused(altmin("ingest", source, "t.zarr"), f"{source} {said}")
    write_pipeline(Path("p.toml"), source, "classifier", network={"dtype": "float32"})
    refused(altmin("train", "p.toml", "--run", "run"), f"{source} {said}")
    FRAME.to_csv("own.csv", index=False)
    assert altmin("train", "p.toml", "data.train=own.csv", "--run", "own").code == 0
    for command in (["evaluate", "own", source], ["predict", "own", source, "p.csv"]):
        refused(altmin(*command), f"{source} {said}")


@pytest.mark.parametrize("row", [0, 7, 30, 59])
def test_of_a_part_they_are_those_of_the_file(row, altmin):
    write({row: np.inf})
    for share in (0.2, 0.7):
        write_pipeline(Path("p.toml"), "t.csv", "classifier", data={"validation": share})
        refused(altmin("train", "p.toml"), f"in the column 'b' (line {row + 2}); remove or repair them")


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_numbers_that_float32_does_not_hold(value, altmin):
    write({7: value})
    refused(
        altmin("ingest", "t.csv", "t.zarr"),
        f"t.csv has numbers up to {abs(value):g} in x, in the column 'b' (line 9), which float32 does not hold; ",
    )
    assert altmin("ingest", "t.csv", "t.zarr", "--dtype", "float64").code == 0
    assert altmin("ingest", "t.csv", "u.zarr", "--scale", "1e300", "--dtype", "float64").code == 0
    write({7: value, 8: np.inf})
    refused(altmin("ingest", "t.csv", "v.zarr"), "t.csv has NaN or infinity in x as float32")


def test_arrays_count_rows(tmp_path):
    x = X.copy()
    x[7, 2] = 1e39
    with pytest.raises(
        DataError, match=r"row 7 of them has numbers up to 1e\+39 in x, which float32 does not hold"
    ):
        ingest(array_source(x, name="them"), tmp_path / "t.zarr")
    x[7, 2] = np.nan
    with pytest.raises(
        DataError,
        match=r"row 7 of them has NaN or infinity in x as float32, in column 2 counted from 0; remove or repair",
    ):
        ingest(array_source(x, name="them"), tmp_path / "t.zarr")
    assert open_source("digits").where is None


@pytest.mark.parametrize(("ending", "place"), [("csv", "line 9"), ("parquet", "row 7, counted from 0")])
def test_they_are_found_before_anything_is_standardized(ending, place, altmin):
    """Of an infinite column all rows became NaN, of which the first ones were named, after warnings of NumPy's."""
    said = f"has NaN or infinity in x as float64, in the column 'b' ({place}); remove or repair them"
    refused(altmin("ingest", write({7: np.inf, 8: 0.0}, ending), "t.zarr", "--standardize"), said)
    np.savez("y.npz", x=X, y=np.where(np.arange(len(X)) == 5, np.inf, X[:, 0]))
    refused(altmin("ingest", "y.npz", "t.zarr", "--standardize"), "row 5 of y.npz has NaN or infinity in y")
