"""csv as people have it: other separators, decimals, letters, headers and markers, packed, quoted, and very wide."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from choices import slow_but
from command import refused, write_pipeline

from altmin_dask.data.formats import csv
from altmin_dask.data.open import open_source, read_columns
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import ConfigError, DataError
from altmin_dask.storage.model import Model
from altmin_dask.table_options import TableOptions


def rows_of(source):
    x, y = zip(*source.blocks(100), strict=True)
    return np.concatenate(x).tolist(), np.concatenate(y).tolist()


@pytest.mark.parametrize("block", slow_but([10], [1 << 20, 10]))
@pytest.mark.parametrize(
    ("content", "words", "x"),
    [
        (b"a;b;y\n1,5;2;0\n-3,25;4;1\n", ["sep=;", "decimal=,"], [[1.5, 2], [-3.25, 4]]),
        (b"a;b;y\n1.000,5;2;0\n", ["separator=;", "decimal=,", "thousands=."], [[1000.5, 2]]),
        (b"a\tb\ty\n1\t2\t0\n", ["sep=\\t"], [[1, 2]]),
        (b"1,2,0\n3,4,1\n", ["header=false", "y=2"], [[1, 2], [3, 4]]),
        (b"1,2,0\n3,4,1\n", ["header=false", "names=a,b,y"], [[1, 2], [3, 4]]),
        (b"p,q,r\n1,2,0\n", ["names=a,b,y"], [[1, 2]]),
        (b",a,b,y\n7,1,2,0\n8,3,4,1\n", ["index_col=0"], [[1, 2], [3, 4]]),
        (b"a,id,b,y\n1,u,2,0\n3,v,4,1\n", ["index_col=id"], [[1, 2], [3, 4]]),
        (b"# by hand\na,b,y\n1,2,0\n", ["comment=#"], [[1, 2]]),
        (b"made in 2024\n\na,b,y\n1,2,0\n", ["skiprows=1"], [[1, 2]]),
        (b"a,b,y\n1,?,0\n3,4,1\n-,4,1\n", ["na_values=?,-"], [[1, 0, 4, 1], [3, 0, 4, 0], [2, 1, 4, 0]]),
        ("a,b,y\nñ,2,0\n".encode("latin-1"), ["encoding=latin-1"], [[1, 2]]),
        ("a,b,y\n1,2,0\n".encode("utf-16"), ["encoding=utf-16"], [[1, 2]]),
        (b"a,b,y\n'u,v',2,0\nw,3,1\n", ["quotechar='"], [[1, 0, 2], [0, 1, 3]]),
    ],
)
def test_options_by_name(content, words, x, block, altmin, tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "BLOCK_BYTES", block)
    (tmp_path / "t.csv").write_bytes(content)
    y = [word for word in words if word.startswith("y=")]
    names = ["--y", y[0][2:]] if y else []
    options = [each for word in words if word not in y for each in ("--csv", word)]
    done = altmin(
        "ingest",
        "--no-shuffle",
        "t.csv",
        "t.zarr",
        *names,
        *options,
        "--missing",
        "mean",
        "--dtype",
        "float64",
    )
    assert (done.code, done.err) == (0, "")
    store = SampleStore.open("t.zarr")
    np.testing.assert_array_equal(store.x[:], x)
    assert store.y[:].tolist() == ([0, 1] if len(x) == 2 else [0] if len(x) == 1 else [0, 1, 1])
    given = dict(word.split("=", 1) for word in words if word not in y)
    source = open_source(tmp_path / "t.csv", csv=given, missing="mean", y=y[0][2:] if y else None)
    assert rows_of(source)[0] == x
    # other samples are written like these, unless it is said that they are not
    assert rows_of(open_source(tmp_path / "t.csv", like=store.preparation))[0] == x
    assert altmin("ingest", "--no-shuffle", "t.csv", "u.zarr", "--like", "t.zarr").code == 0


def _zip(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("t.csv", content)
    return packed.getvalue()


PACKED = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zip": _zip,
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("ending", [".csv", ".CSV", ".tsv", ".Tsv"])
def test_packed_files_and_endings(ending, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "BLOCK_BYTES", 10)
    sign = "\t" if ending.lower() == ".tsv" else ","
    lines = ["a,y", *(f"{row},{row % 2}" for row in range(9))]
    place = tmp_path / "d"
    place.mkdir()
    (place / f"t{ending}{packed}").write_bytes(PACKED[packed]("\n".join(lines).replace(",", sign).encode()))
    expected = [[row] for row in range(9)]
    assert rows_of(open_source(place))[0] == expected
    assert rows_of(open_source(place / f"t{ending}{packed}"))[0] == expected
    names, parts = read_columns(str(place), ["a"])
    assert names == ["a"]
    assert pd.concat(parts)["a"].tolist() == list(map(str, range(9)))


def test_quoted_text_has_lines_of_its_own_wherever_a_block_ends(tmp_path, monkeypatch):
    text = ['"two\nlines, and ""more"""', "plain", '"\n"', '"a\r\n\r\nb"']
    (tmp_path / "t.csv").write_text(
        "a,y\n" + "".join(f"{text[row % 4]},{row}\n" for row in range(40)), newline=""
    )
    for size in (1, 7, 30, 200, 1 << 20):
        monkeypatch.setattr(csv, "BLOCK_BYTES", size)
        x, y = rows_of(open_source(tmp_path / "t.csv"))
        assert y == list(range(40))
        assert [row.index(1) for row in x[:4]] == [
            x[4 * k + i].index(1) for k in range(3, 4) for i in range(4)
        ]
        assert len(x[0]) == 4


@pytest.mark.parametrize(
    ("content", "given", "words"),
    [
        (
            "a;b;y\n1;2;0\n",
            {},
            "has semicolons between its columns; write it with commas, or say so by --csv 'sep=;'",
        ),
        ("a~b~y\n1~2~0\n", {}, "with '~' in every line.* or say by --csv 'sep=~' "),
        ("a,b\n1,2\n", {"sep": ";"}, "has commas between its columns"),
        (
            "1,2\n3,4\n",
            {},
            "are no names of columns; add a first line of names, or say by --csv header=false",
        ),
        (",a\n0,1\n", {}, "has no name for column 1.*leave it out by --csv index_col=0"),
        ("a,b\n1,2\n", {"names": "x,y,z"}, "has 2 fields in a line, but 3 names are given"),
        ("a,b\n1,2\n", {"index_col": "c"}, "has no column 'c' for index_col; it has a, b"),
        ("a,b\n1,2,3\n", {}, "has 3 fields in a line, but names for 2"),
        ("a,b\n1,2,\n3,4,\n", {}, "its lines end in a separator, which the first does not: leave it out"),
        ("# of 2024, by me\na,b,c\n1,2,0\n", {}, r"begins with '# of 2024, by me', .* by --csv 'comment=#'"),
        ("# by me\na,b\n1,2\n", {}, r"begins with '# by me', .* by --csv 'comment=#'"),
        ("a,b\n1,2\n3,4,5\n", {}, "cannot be read as a table"),
    ],
)
def test_what_options_would_help_is_said(content, given, words, tmp_path):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DataError, match=words):
        open_source(tmp_path / "t.csv", csv=given)


@pytest.mark.parametrize(
    ("content", "given"),
    [
        ("1,2,0\n3,4,1\n", {}),
        ("5,red,0\n3,blue,1\n", {}),
        ("red,2.5,u\nblue,3,v\n", {}),
        ("red;2,5;u\nblue;3;v\n", {"sep": ";", "decimal": ","}),
        ("2024-01-01,red,u\n2024-01-02,blue,v\n", {}),
    ],
)
def test_names_do_not_replace_what_may_be_a_row(content, given, tmp_path):
    """It was passed over, as the names of columns that others were given for."""
    (tmp_path / "t.csv").write_text(content)
    given = {**given, "names": "a,b,y"}
    with pytest.raises(
        DataError, match="which names=a,b,y would stand in place of; say by --csv header=false"
    ):
        open_source(tmp_path / "t.csv", csv=given)
    for header, rows in (("false", 2), ("true", 1)):
        assert open_source(tmp_path / "t.csv", csv={**given, "header": header}).rows == rows


def test_numbers_are_known_by_their_decimal_sign(tmp_path):
    (tmp_path / "t.csv").write_text("2,5;red\n3,5;blue\n4;red\n")
    with pytest.raises(DataError, match="begins with 2,5, red, which are no names of columns"):
        open_source(tmp_path / "t.csv", csv={"sep": ";", "decimal": ","})


@pytest.mark.parametrize(
    ("content", "trained", "given", "x"),
    [
        (
            "a,b,y\n?,2.5,0\n1,3,1\n",
            {"na_values": "?", "sep": ";", "decimal": ","},
            {"sep": ","},
            [[2, 2.5], [1, 3]],
        ),
        ("a,b,y\n1.5,2,0\n", {"decimal": ",", "thousands": ".", "sep": ";"}, {"sep": ","}, [[1.5, 2]]),
        ("a;b;y\n1.5;2;0\n", {"decimal": ",", "thousands": ".", "sep": ";"}, {"decimal": "."}, [[1.5, 2]]),
        ("a;b;y\n1,500.5;2;0\n", {"decimal": ",", "sep": ";"}, {"thousands": ","}, [[1500.5, 2]]),
        ("b,a,y\n2,1,0\n", {"header": False, "names": "a,b,y"}, {"header": True}, [[1, 2]]),
        ("1,2,0\n", {"names": "a,b,y"}, {"header": False}, [[1, 2]]),
        ("p,q,r\n1,2,0\n", {"names": "a,b,y", "sep": ";"}, {"sep": ","}, [[1, 2]]),
        (
            "a,b,y\n1,2,0\n",
            {"index_col": "0", "na_values": "1"},
            {"index_col": "", "na_values": ""},
            [[1, 2]],
        ),
        ("a#b#y\n1#2#0\n", {"comment": "#"}, {"sep": "#"}, [[1, 2]]),
    ],
)
def test_what_is_said_of_other_files_is_said_on_top(content, trained, given, x, tmp_path):
    """Of how those for training are read; one option more made all of them be forgotten."""
    (tmp_path / "plain.csv").write_text("a,b,y\n2,7,0\n2,9,1\n,9,1\n")
    how = replace(
        open_source(tmp_path / "plain.csv", missing="median").preparation,
        csv=TableOptions.of(csv=trained).csv,
    )
    (tmp_path / "n.csv").write_text(content)
    found, _ = rows_of(open_source(tmp_path / "n.csv", like=how, csv=given))
    assert [[row[0], row[2]] for row in found] == x


def test_a_single_marker_may_be_a_number(altmin, tmp_path):
    """From a pipeline, or by --set, it is one."""
    assert TableOptions.of(csv={"na_values": -999, "names": 5}).csv == {"na_values": ["-999"], "names": ["5"]}
    with pytest.raises(
        ConfigError, match=r"na_values is \{.*; write a list of values, which is for all columns"
    ):
        TableOptions.of(csv={"na_values": {"a": -999}})
    (tmp_path / "t.csv").write_text("a,y\n" + "1,0.5\n-999,2.5\n3,1.5\n" * 5)
    write_pipeline(tmp_path / "p.toml", "t.csv", "regressor", data={"y": "y", "missing": "mean"})
    assert altmin("train", "p.toml", "--run", "run", "--set", "data.csv.na_values=-999").code == 0
    assert Model.load("run").preparation.names == ["a", "a is missing"]


def test_one_sign_is_not_both_of_thousands_and_decimals(tmp_path):
    """1.5 was 15."""
    (tmp_path / "t.csv").write_text("a,y\n1.5,0\n")
    with pytest.raises(ConfigError, match=r"csv has '.' for thousands and for decimals; say which sign"):
        open_source(tmp_path / "t.csv", csv={"thousands": "."})


def test_letters_of_another_encoding_are_refused(altmin, tmp_path):
    (tmp_path / "t.csv").write_bytes("a,y\nñ,0\n".encode("latin-1"))
    refused(altmin("ingest", "--no-shuffle", "t.csv", "t.zarr"), "cannot be read as a table")


@pytest.mark.slow
def test_thirty_thousand_columns(tmp_path):
    """40 rows; the file has 7 MB."""
    values = np.random.default_rng(0).random((40, 30_000)).round(4)
    pd.DataFrame(values).to_csv(tmp_path / "t.csv", index=False)
    found = np.concatenate([x for x, _ in open_source(tmp_path / "t.csv").blocks(16)])
    np.testing.assert_array_equal(found, values)
