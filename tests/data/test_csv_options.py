"""csv as people have it: other separators, decimals, letters, headers and markers, packed, quoted, and very wide."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from choices import slow_but
from command import refused

from altmin_dask.data.formats import csv
from altmin_dask.data.open import open_source, read_columns
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import DataError


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
        ("a,b\n1,2\n3,4,5\n", {}, "cannot be read as a table"),
    ],
)
def test_what_options_would_help_is_said(content, given, words, tmp_path):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DataError, match=words):
        open_source(tmp_path / "t.csv", csv=given)


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
