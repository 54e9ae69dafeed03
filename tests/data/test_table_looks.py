"""Text that looks like something else is taken for categories, as scikit-learn does, and that is told with counts."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import pytest

from altmin_dask.data.open import open_source
from altmin_dask.errors import AltMinWarning, DataError


def opened(path, content, **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_source(path, **options)


def column(values, labels=(0, 1)):
    rows = [f'"{value}",{labels[row % 2]}' for row, value in enumerate(values)]
    return "\n".join(["a,y", *rows]) + "\n"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            ["1,234", "2,345", "12"],
            "looks like numbers in the column 'a', as '1,234', '2,345' in 2 rows.*thousands=…",
        ),
        (
            ["12%", "13.5%", "100 %"],
            "looks like numbers in the column 'a', as '100 %', '12%', '13.5%' in 3 rows.*plain numbers in the table$",
        ),
        (["$1.50", "$2.50", "-$3"], "looks like numbers in the column 'a'"),
        (["1,5", "2,5", "3"], "looks like numbers in the column 'a'.*decimal=…"),
        (["−1.5", "−2.5", "3"], "looks like numbers in the column 'a', as '−1.5', '−2.5' in 2 rows"),
        (["'1.5'", "'2'", "'3'"], "looks like numbers in the column 'a'"),
        (
            [f"{number / 2} kg" for number in range(12)],
            "numbers with 'kg' behind them in the column 'a', as .* in 12 rows: .*; write plain numbers",
        ),
        ([*map(str, range(20)), "١٢"], "numbers in the column 'a', but '١٢' in 1 row"),
        (
            ["01/13/2024", "02/14/2024"],
            "dates or times in the column 'a', but '01/13/2024', '02/14/2024' in 2 rows",
        ),
        (
            ["2024-01-02", "02.03.2024", "2024-01-05"],
            "dates or times in the column 'a', but '02.03.2024' in 1 row,",
        ),
        (["2024-02-30", "2024-02-01"], "dates or times in the column 'a', but '2024-02-30' in 1 row,"),
        (["2024-02-28", "2024-02-01", "soon"], "but 'soon' in 1 row, not written as 2024-12-31.*na_values=…"),
        (["5 Jan 2024", "January 6, 2024"], "dates or times in the column 'a'"),
        (["12:30", "1:45 pm"], "dates or times in the column 'a'"),
        (["True", "False", "1", "0"], "'0', '1', 'False', 'True' in the column 'a': a category each"),
        (["red", " red", "Red", "blue"], "differ only in spaces or capitals, ' red', 'Red', 'red' in 3 rows"),
        (["{x}", "{X}", "y"], r"differ only in spaces or capitals, '\{X\}', '\{x\}' in 2 rows"),
    ],
)
def test_what_text_looks_like_is_told(values, words, tmp_path):
    with pytest.warns(AltMinWarning, match=re.compile(words, re.DOTALL)) as told:
        source = opened(tmp_path / "t.csv", column(values))
    assert len(told) == 1
    # each value is a category: what scikit-learn's OneHotEncoder makes of pandas' column
    frame = pd.read_csv(tmp_path / "t.csv")
    names = sorted({str(value) for value in frame["a"]})
    expected = np.array([[float(str(value) == name) for name in names] for value in frame["a"]])
    np.testing.assert_array_equal(np.concatenate([x for x, _ in source.blocks(9)]), expected)


@pytest.mark.parametrize(
    "values",
    [
        ["red", "blue", "a b", "1"],
        ["1-2", "3-4", "5-9"],
        ["1.2.3", "1.2.10", "10.0.0"],
        ["192.168.0.1", "10.0.0.1"],
        ["10%", "none", "some", "10%", "many"],
        ["True", "False", "maybe"],
        ["Q1/24", "Q2/24"],
        ["0x10", "0x11"],
        ["1_000", "2_000"],
        ["7a", "7b", "8a", "12c"],
    ],
)
def test_other_text_is_not(values, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(tmp_path / "t.csv", column(values))


def test_targets_and_other_kinds_of_tables(tmp_path):
    with pytest.warns(
        AltMinWarning, match="in the column 'y' that differ only in spaces or capitals, 'yes', 'yes '"
    ):
        source = opened(tmp_path / "t.csv", "a,y\n1,yes\n2,yes \n3,no\n")
    assert source.preparation.classes == ("no", "yes", "yes ")
    pd.DataFrame({"a": ["5%", "6%"]}).to_parquet(tmp_path / "t.parquet")
    with pytest.warns(AltMinWarning, match="looks like numbers in the column 'a'"):
        open_source(tmp_path / "t.parquet")


def test_what_tells_rows_apart_is_told(tmp_path):
    lines = [f"u{row},{'ab'[row % 2]},v{row % 40},{row}" for row in range(80)]
    with pytest.warns(AltMinWarning) as told:
        opened(tmp_path / "t.csv", "\n".join(["id,kind,street,y", *lines]))
    (only,) = told
    assert "has 80 different values in 80 rows of the column 'id', which tell rows apart" in str(only.message)


def test_remedies_that_are_told_do_help(tmp_path):
    source = opened(tmp_path / "t.csv", column(["1,234", "2,345", "12"]), csv={"thousands": ","})
    assert [x.tolist() for x, _ in source.blocks(9)] == [[[1234.0], [2345.0], [12.0]]]
    for encoding in ("latin-1", "utf-16"):
        content = "a,ß,y\n1,ü,0\n3,ö,1\n".encode(encoding)
        with pytest.raises(DataError, match="if it is not UTF-8, say what it is by --csv encoding="):
            opened(tmp_path / "t.csv", content)
        source = opened(tmp_path / "t.csv", content, csv={"encoding": encoding})
        assert source.preparation.names == ["a", "ß=ö", "ß=ü"]
    with pytest.raises(DataError, match=r"a single column, 'a b y', whose lines have 3 words each"):
        opened(tmp_path / "t.csv", "a b y\n1 2 0\n3 4 1\n")
    assert opened(tmp_path / "t.csv", "a b y\n1 2 0\n3 4 1\n", csv={"sep": " "}).preparation.names == [
        "a",
        "b",
    ]
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "0.csv").write_text("a b\n1\n2\n")
    (tmp_path / "d" / "1.csv").write_text("a b\n")  # no rows: nothing to be told by
    assert open_source(tmp_path / "d").rows == 2
    words = opened(tmp_path / "t.csv", "a b\nred car\nblue car\n", csv={"sep": ","})
    assert words.preparation.names == ["a b=blue car", "a b=red car"]


@pytest.mark.parametrize("count", [3, 30])
def test_numbers_with_another_decimal_sign_are_told_of(count, tmp_path):
    """Few of them were a category each in silence, and many an error of ours."""
    values = [f"{number}.5" for number in range(count)]
    with pytest.warns(
        AltMinWarning,
        match=rf"numbers with a point in the column 'a', as '0\.5', .* in {count} rows, which is not the",
    ) as told:
        opened(tmp_path / "t.csv", column(values).replace(",", ";"), csv={"sep": ";", "decimal": ","})
    assert len(told) == 1


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("{}", "--csv 'na_values={}'"),
        ("{n/a}", "--csv 'na_values={n/a}'"),
        ("not there", "--csv 'na_values=not there'"),
        ("n.d.", "--csv na_values=n.d."),
        ("1,5", "--csv na_values=…"),  # which would be 1 and 5
    ],
)
def test_the_word_for_missing_values_is_told_as_it_is(word, advice, tmp_path):
    with pytest.warns(AltMinWarning, match=re.escape(f"{word!r} in 1 row")) as told:
        opened(tmp_path / "t.csv", column([*map(str, range(20)), word]))
    assert f"say so by {advice} (data.csv" in str(told[0].message)


@pytest.mark.parametrize("word", ["inf", "-inf", "Infinity", "1e400"])
def test_infinity_as_text_is_refused_with_its_row(word, tmp_path, altmin):
    (tmp_path / "t.csv").write_text(f"a,y\n1,0\n{word},1\n-inf,1\n")
    done = altmin("ingest", tmp_path / "t.csv", tmp_path / "t.zarr", "--no-shuffle")
    assert (
        done.code,
        "has NaN or infinity in x as float32, in the column 'a' (lines 3 and 4)" in done.err,
    ) == (2, True), done.err


def test_the_line_of_a_word_among_numbers_is_told(tmp_path):
    values = [*map(str, range(30))]
    values[4], values[17] = "n.a.", "{x}"
    with pytest.warns(
        AltMinWarning, match=r"but 'n\.a\.', '\{x\}' in 2 rows \(lines 6 and 19\): all its values"
    ):
        opened(tmp_path / "t.csv", column(values))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["20200131", "20211201", "19991231", "20200229", "", "20200131"], True),
        (["20200131", "20211301", "19991231", "20200229", "20200131"], False),  # no such month
        (["20200131", "20211201", "19991231", "20200229"], False),  # few
        (["20200131", "20211201", "19991231", "20200229", "20200131.5"], False),
        (["2020013", "2021120", "1999123", "2020022", "2020013"], False),
    ],
)
def test_dates_of_eight_digits_are_told_of(values, told, tmp_path):
    """They were numbers without a word, in which January and February are 100 apart."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        source = opened(tmp_path / "t.csv", column(values), missing="median")
    words = "dates of eight digits in the column 'a' (19991231, …), which are taken for numbers, in"
    assert any(words in str(each.message) for each in found) == told, [str(e.message) for e in found]
    assert source.preparation.names[0] == "a"


def test_thousands_among_plain_numbers_are_told_of(tmp_path):
    """They were said to be missing values."""
    values = [*map(str, range(100, 130)), "1,043", "-2,500", "1,234,567"]
    with pytest.warns(
        AltMinWarning, match=r"which look like thousands with commas: .* say so by --csv thousands=,"
    ):
        opened(tmp_path / "t.csv", column(values))
    assert opened(tmp_path / "t.csv", column(values), csv={"thousands": ","}).preparation.names == ["a"]
