"""What columns hold is found over all rows of a table, and kept for others: never what a first block looks like."""

from __future__ import annotations

import datetime
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import refused, write_pipeline

from altmin_dask.data.formats import csv, parquet
from altmin_dask.data.formats.base import SourceOptions
from altmin_dask.data.formats.tables import table_source
from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import AltMinWarning, DataError
from altmin_dask.preparation import Column, Preparation

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")


def whole(source):
    x, y = zip(*source.blocks(7), strict=True)
    return np.concatenate(x), None if y[0] is None else np.concatenate(y)


def test_an_integer_column_that_turns_decimal_late(altmin, tmp_path):
    """Beyond the first 256 kB, and then empty; from the command line."""
    rows = 60_000
    lines = [f"{row % 7},{row % 2}" for row in range(rows)]
    lines[50_000], lines[55_000] = "2.5,0", ",1"
    (tmp_path / "t.csv").write_text("a,y\n" + "\n".join(lines) + "\n")
    refused(
        altmin("ingest", "--no-shuffle", "t.csv", "t.zarr"),
        "missing values in the column 'a', in 1 row (line 55002); fill them in",
    )
    done = altmin(
        "ingest", "--no-shuffle", "t.csv", "t.zarr", "--missing", "constant:-1", "--dtype", "float64"
    )
    assert (done.code, done.err) == (0, "")
    store = SampleStore.open("t.zarr")
    expected = np.arange(rows) % 7 * 1.0
    expected[50_000], expected[55_000] = 2.5, -1
    np.testing.assert_array_equal(store.x[:, 0], expected)
    np.testing.assert_array_equal(store.x[:, 1], np.arange(rows) == 55_000)
    assert store.y.dtype == np.int64


@pytest.mark.parametrize("block", [1 << 20, 8])
@pytest.mark.parametrize(
    ("files", "names", "x"),
    [
        (["1\n2\n", "2.5\n"], ["a"], [[1], [2], [2.5]]),
        (["1\n2\n", "A\n1\n"], ["a=1", "a=2", "a=A"], np.eye(3)[[0, 1, 2, 0]]),
        (["007\n", "1\n", "B\n"], ["a=007", "a=1", "a=B"], np.eye(3)),
        (["True\nFalse\n"], ["a"], [[1], [0]]),
        (["True\n", "1.5\n"], ["a=1.5", "a=True"], [[0, 1], [1, 0]]),
        (["1\n", "", "3\n"], ["a"], [[1], [3]]),
        (["2024-03-01\n", "1969-12-31\n"], ["a"], [[19783], [-1]]),
        (["2024-03-01\n", "soon\n"], ["a=2024-03-01", "a=soon"], np.eye(2)),
        pytest.param(
            ["2024-03-01 12:00\n", "2024-03-01T06:00:00Z\n"],
            ["a"],
            [[19783.5], [19783.25]],
            marks=pytest.mark.filterwarnings("ignore:.* has times of several zones"),
        ),
        (["2024-13-01\n", "2024-03-01\n"], ["a=2024-03-01", "a=2024-13-01"], [[0, 1], [1, 0]]),
    ],
)
@pytest.mark.filterwarnings("ignore:.* has dates or times in the column 'a', but '2024-13-01' in 1 row")
def test_kinds_over_all_files(files, names, x, block, tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "BLOCK_BYTES", block)
    for number, lines in enumerate(files):
        (tmp_path / f"{number}.csv").write_text("a\n" + lines)
    source = open_source(tmp_path)
    assert source.preparation.names == names
    np.testing.assert_array_equal(whole(source)[0], x)


def test_types_at_prediction_follow_the_training_data(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,d,y\n1,1,2024-01-01,u\n2,2,2024-01-02,v\nA,3,2024-01-03,1\n")
    how = open_source(tmp_path / "t.csv").preparation
    assert how == Preparation.from_json(how.to_json())
    (tmp_path / "n.csv").write_text("d,a,b,y\n2024-01-03,2,1.5,1\n")
    x, y = whole(open_source(tmp_path / "n.csv", like=how))
    np.testing.assert_array_equal(x, [[0, 1, 0, 1.5, 19725]])
    assert y.tolist() == [0]
    frame = pd.DataFrame({"a": [2.0], "b": ["1.5"], "d": [datetime.date(2024, 1, 3)], "y": [1]})
    frame.astype({"b": float}).to_parquet(tmp_path / "n.parquet")
    np.testing.assert_array_equal(whole(open_source(tmp_path / "n.parquet", like=how))[0], x)

    (tmp_path / "n.csv").write_text("d,a,b,y\n2024-01-03,2,1.5,\n")  # no target at all
    assert whole(open_source(tmp_path / "n.csv", like=how))[1] is None
    for line, words in (
        ("soon,2,1,u", r"has text \('soon' in line 2\) in the column 'd', which has dates"),
        (
            "2024-01-03,2,7,u\n2024-01-03,2,n.a,u",
            r"has text \('n\.a' in line 3\) in the column 'b', which has numbers",
        ),
        ("2024-01-03,2,many,u", r"has text \('many' in line 2\) in the column 'b', which has numbers"),
        (
            "2024-01-03,2,,u",
            r"missing values in the column 'b', in 1 row \(line 2\); the samples for training had none",
        ),
        ("2024-01-03,,1,u", r"missing values in the column 'a', in 1 row \(line 2\)"),
        ("2024-01-03,2,1,w", "has 'w' in the column 'y'"),
        ("2024-01-03,2,1,u\n2024-01-03,2,1,", r"no value in the target 'y' in 1 row of 2 \(line 3\)"),
    ):
        (tmp_path / "n.csv").write_text("d,a,b,y\n" + line + "\n")
        with pytest.raises(DataError, match=words):
            whole(open_source(tmp_path / "n.csv", like=how))


@pytest.mark.parametrize(("train", "other", "y"), [("0.5", "2", [2.0]), ("3", "2.0", [2])])
def test_targets_at_prediction_follow_the_training_data(train, other, y, tmp_path):
    (tmp_path / "t.csv").write_text(f"a,y\n1,{train}\n2,4\n")
    first = open_source(tmp_path / "t.csv")
    (tmp_path / "n.csv").write_text(f"a,y\n1,{other}\n")
    found = open_source(tmp_path / "n.csv", like=first.preparation)
    assert whole(found)[1].tolist() == y
    assert found.y_dtype == first.y_dtype
    if first.y_dtype.kind == "i":
        (tmp_path / "n.csv").write_text("a,y\n1,2.5\n")
        with pytest.raises(DataError, match="has decimals in the column 'y'"):
            whole(open_source(tmp_path / "n.csv", like=first.preparation))


@pytest.mark.parametrize(
    "lines", ["9007199254740993,1\n,0\n", "1.5,0\n-9007199254740993,1\n", "12345678901234567890123,0\n"]
)
def test_whole_numbers_keep_their_digits_beside_missing_ones(lines, tmp_path):
    (tmp_path / "t.csv").write_text("a,y\n" + lines)
    with pytest.raises(
        DataError, match=r"the column 'a' of .* has the whole number -?(9007199254740993|1234567890)"
    ):
        open_source(tmp_path / "t.csv", missing="constant")
    (tmp_path / "t.csv").write_text("a,y\n1e17,0\n,1\n9007199254740993.0,1\n")
    assert whole(open_source(tmp_path / "t.csv", missing="constant"))[0][0, 0] == 1e17


def test_missing_targets_are_counted(altmin, tmp_path):
    (tmp_path / "t.csv").write_text("a,y\n1,0\n2,\n3,1\n4,\n")
    refused(
        altmin("ingest", "--no-shuffle", "t.csv", "t.zarr", "--missing", "mean"),
        "no value in the target 'y' in 2 rows of 4",
    )


def test_columns_of_every_dtype(tmp_path):
    """As pandas has them in memory: nullable, Arrow's, decimal, categories, dates, booleans; empty partitions, too."""
    frame = pd.DataFrame(
        {
            "int64": pd.array([1, 2, 3], "Int64"),
            "arrow": pd.array([1, 2, 3], "int8[pyarrow]"),
            "float": pd.array([1.5, 2, 3], "Float32"),
            "flag": pd.array([True, False, True], "boolean"),
            "kind": pd.Categorical(["u", "v", "u"], categories=["w", "v", "u"]),
            "text": pd.array(["p", "q", "p"], "string[pyarrow]"),
            "object": pd.Series(["p", "q", "p"], dtype=object),
            "mixed": pd.Series([True, 2, 0.5], dtype=object),
            "when": pd.to_datetime(["1970-01-02 00:00", "1970-01-01 06:00", "1969-12-31 00:00"]),
            "zone": pd.to_datetime(["1970-01-02", "1970-01-01", "1970-01-03"]).tz_localize("Etc/GMT-1"),
        }
    )
    expected = np.array(
        [
            [1, 1, 1.5, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1 - 1 / 24],
            [2, 2, 2, 0, 0, 1, 0, 1, 0, 1, 2, 0.25, -1 / 24],
            [3, 3, 3, 1, 1, 0, 1, 0, 1, 0, 0.5, -1, 2 - 1 / 24],
        ]
    )
    for parts in (1, 3):
        with dask.config.set({"dataframe.convert-string": False}):
            lazy = dd.from_pandas(frame, npartitions=parts)
            lazy = dd.concat([lazy[lazy.int64 > 5], lazy, lazy[lazy.int64 > 5]])
        found = table_source("X", lazy, SourceOptions())
        np.testing.assert_allclose(whole(found)[0], expected, atol=1e-12)
    frame.drop(columns="mixed").to_parquet(tmp_path / "t.parquet", row_group_size=2)
    found = whole(open_source(tmp_path / "t.parquet"))[0]
    np.testing.assert_allclose(found, np.delete(expected, 10, axis=1), atol=1e-12)


def test_parquet_whose_types_differ_and_none(tmp_path):
    for number, (a, b) in enumerate(
        [([1, 2], [True, False]), ([1.5, None], [0.5, 2]), ([None, None], [1, 1])]
    ):
        pq.write_table(pa.table({"a": a, "b": b}), tmp_path / f"{number}.parquet")
    pq.write_table(
        pa.table({"a": pa.array([], pa.string()), "b": pa.array([], pa.string())}), tmp_path / "3.parquet"
    )
    x = whole(open_source(tmp_path, missing="mean"))[0]
    expected = [[1, 0, 1], [2, 0, 0], [1.5, 0, 0.5], [1.5, 1, 2], [1.5, 1, 1], [1.5, 1, 1]]
    np.testing.assert_array_equal(x, expected)


def test_a_column_that_is_all_empty(tmp_path):
    """Of which scikit-learn's imputer leaves the indicator alone."""
    (tmp_path / "t.csv").write_text("a,b\n1,\n2,\n")
    with pytest.raises(DataError, match="missing values in the column 'b', in 2 rows"):
        open_source(tmp_path / "t.csv")
    with pytest.warns(AltMinWarning, match="no value at all in the column 'b'"):
        source = open_source(tmp_path / "t.csv", missing="mean")
    assert source.preparation.names == ["a", "b is missing"]
    assert whole(source)[0].tolist() == [[1, 1], [2, 1]]


def test_folders_whose_names_are_columns(tmp_path):
    frame = pd.DataFrame(
        {"a": [1.0, 2, 3, 4], "year": [2023, 2024, 2023, 2024], "place": ["x y", "z", "z", "x y"]}
    )
    frame.to_parquet(tmp_path / "h", partition_cols=["year", "place"])
    x = whole(open_source(tmp_path / "h", x="year,place,a"))[0]
    assert sorted(x.tolist()) == [[2023, 0, 1, 3], [2023, 1, 0, 1], [2024, 0, 1, 2], [2024, 1, 0, 4]]


@pytest.mark.parametrize(
    ("values", "kind"),
    [(["1.5", "2"], float), (["-0.25", "1e3"], float), (["7", "-8"], int), (["1.5", "007"], str)],
)
def test_decimals_in_names_of_folders_are_numbers(values, kind, tmp_path):
    for value in values:
        (tmp_path / f"k={value}").mkdir()
        pq.write_table(pa.table({"a": [1]}), tmp_path / f"k={value}" / "1.parquet")
    source = open_source(tmp_path)
    assert source.preparation.names == (
        ["a", *(f"k={value}" for value in sorted(values))] if kind is str else ["a", "k"]
    )
    if kind is not str:
        assert sorted(whole(source)[0][:, 1]) == sorted(map(float, values))
        assert whole(open_source(tmp_path, y="k"))[1].dtype.kind == ("i" if kind is int else "f")


def test_lists_of_one_length_are_numbers_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "BLOCK_BYTES", 1)
    pd.DataFrame({"v": [[1, 2, 3], [4, 5, 6]], "y": [0, 1]}).to_parquet(tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet")
    assert source.preparation.names == ["v[0]", "v[1]", "v[2]"]
    assert whole(source)[0].tolist() == [[1, 2, 3], [4, 5, 6]]
    decimals = pa.array([[Decimal("1.25"), Decimal("97.4")], [Decimal("-3"), Decimal("0.5")]])
    pq.write_table(pa.table({"v": decimals}), tmp_path / "d.parquet")
    assert whole(open_source(tmp_path / "d.parquet"))[0].tolist() == [[1.25, 97.4], [-3, 0.5]]
    for values, words in (
        ([[1, 2], [3]], "lists of 1 and 2 values in the column 'v'"),
        ([["a"], ["b"]], "lists in the column 'v' that are not of numbers"),
        ([[1], None], "missing"),
    ):
        pd.DataFrame({"v": values}).to_parquet(tmp_path / "bad.parquet")
        with pytest.raises(DataError, match=words):
            whole(open_source(tmp_path / "bad.parquet"))


def test_mixed_columns_are_refused_by_name():
    for values in ([1, "A"], [[1], 2], [b"x", "y"], [datetime.date(2020, 1, 1), 5]):
        with dask.config.set({"dataframe.convert-string": False}):  # which makes text of all objects
            frame = dd.from_pandas(pd.DataFrame({"v": pd.Series(values, dtype=object)}), npartitions=1)
        with pytest.raises(DataError, match="in the column 'v'"):
            table_source("X", frame, SourceOptions())


def test_records_of_before_are_read():
    """Columns had names and values, and nothing else."""
    old = {"columns": [{"name": "a", "values": None}, {"name": "c", "values": ["u", "v"]}], "targets": ["y"]}
    how = Preparation.from_json({**old, "classes": None, "x": None, "y": None})
    assert how.columns == (Column("a"), Column("c", ("u", "v")))
    assert how.names == ["a", "c=u", "c=v"]


def test_a_recorded_table_without_the_kind_of_its_target(tmp_path):
    (tmp_path / "t.csv").write_text("a,y\n1,0\n2,1\n")
    assert open_source(tmp_path / "t.csv", like=Preparation((Column("a"),), ("y",))).y_dtype == np.int64


def test_a_regressor_is_evaluated_on_whole_targets(altmin, tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.random((40, 3)), columns=list("abc")).assign(y=rng.random(40))
    frame.to_csv("t.csv", index=False)
    frame.assign(y=1).to_csv("n.csv", index=False)
    file = write_pipeline(tmp_path / "p.toml", "t.csv", "regressor")
    assert altmin("train", file, "--run", "r").code == 0
    assert altmin("evaluate", "r", "n.csv").code == 0


def test_threads_that_read_x_and_y_at_their_own_pace(tmp_path, monkeypatch):
    """Both go through the same parts; who is overtaken by a new reading goes on alone."""
    monkeypatch.setattr("altmin_dask.data.formats.csv.BLOCK_BYTES", 100)
    pd.DataFrame({"a": np.arange(300.0), "y": np.arange(300.0) / 2}).to_csv(tmp_path / "t.csv", index=False)
    source = open_source(tmp_path / "t.csv")
    first, second, third = source.x.blocks(7), source.y.blocks(7), source.x.blocks(50)
    found = [next(first), next(second), next(first), next(third)]
    np.testing.assert_array_equal(np.concatenate([found[0], found[2], *first])[:, 0], np.arange(300.0))
    np.testing.assert_array_equal(np.concatenate([found[1], *second]), np.arange(300.0) / 2)
    np.testing.assert_array_equal(np.concatenate([found[3], *third])[:, 0], np.arange(300.0))
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda reader: np.concatenate(list(reader.blocks(3))), [source.x, source.y] * 4))
    for x, y in zip(read[::2], read[1::2], strict=True):
        np.testing.assert_array_equal(x[:, 0] / 2, y)
