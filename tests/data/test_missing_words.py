"""Words such as NA in a column of text are missing values, which is told with counts, or values, if that is said."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from pandas._libs.parsers import STR_NA_VALUES

from altmin_dask.config import load_pipeline
from altmin_dask.data.formats import csv as csv_files
from altmin_dask.data.open import open_source
from altmin_dask.data.tables.words import WORDS
from altmin_dask.errors import AltMinWarning, ConfigError, DataError

COUNTRIES = ["NA", "DE", "FR", "NA", "", "None", "DE"]


def written(path, columns):
    rows = ["a,x,y", *(f"{each},{row % 3}.5,{row % 2}" for row, each in enumerate(columns))]
    path.write_text("\n".join(rows) + "\n")
    return path


def told(path, **options):
    """What is warned of, and the source."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AltMinWarning)
        source = open_source(path, **options)
    return [str(each.message) for each in caught], source


def test_what_pandas_reads_as_missing_is_listed():
    assert {*WORDS, ""} == STR_NA_VALUES
    assert len(set(WORDS)) == len(WORDS)


def test_words_in_a_column_of_text_are_told_with_counts(tmp_path):
    found, source = told(written(tmp_path / "t.csv", COUNTRIES * 3), missing="median")
    (message,) = [each for each in found if "taken for missing" in each]
    assert "'NA', 'None' in 9 rows of the column 'a'; if these are values" in message
    assert "--csv literal=a (data.csv.literal of a pipeline)" in message
    assert source.columns[0].missing == 12  # with those that are empty


def test_words_are_told_before_missing_values_are_refused(tmp_path):
    written(tmp_path / "t.csv", COUNTRIES)
    with pytest.warns(AltMinWarning, match="literal=a"), pytest.raises(DataError, match="missing values"):
        open_source(tmp_path / "t.csv")


def test_literal_columns_have_them_as_values(tmp_path):
    path = written(tmp_path / "t.csv", COUNTRIES * 3)
    found, source = told(path, missing="constant", csv={"literal": "a"})
    assert not found
    assert source.preparation.columns[0].values == ("DE", "FR", "NA", "None", "missing_value")
    assert source.columns[0].missing == 3
    found, again = told(path, like=source.preparation)
    assert not found
    np.testing.assert_array_equal(next(again.blocks(99))[0], next(source.blocks(99))[0])


@pytest.mark.parametrize(
    "column",
    [
        ["1"] * 500 + ["NA"] * 3 + ["x"] * 4 + ["None"] * 2,
        [""] * 500 + ["NA"] * 3 + ["x"] * 4 + ["None"] * 2,
        ["x"] * 300 + ["NA"] * 3 + ["7"] * 400 + ["8", "None"] * 2,
        ["2020-01-02"] * 500 + ["NA", "None"] * 2 + ["x"] + ["NA"],
    ],
)
def test_blocks_agree(tmp_path, monkeypatch, column):
    path = written(tmp_path / "t.csv", column)
    whole = told(path, missing="median")
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 500)
    monkeypatch.setattr(csv_files, "_LEAST", 10)
    parts = told(path, missing="median")
    count = sum(each in WORDS for each in column)
    assert any(f"'NA', 'None' in {count} rows" in each for each in whole[0])
    assert parts[0] == whole[0]
    assert parts[1].preparation == whole[1].preparation
    np.testing.assert_array_equal(next(parts[1].blocks(2000))[0], next(whole[1].blocks(2000))[0])


@pytest.mark.parametrize(
    "column", [["1.5", "NA", "2"], ["2020-01-02", "None", "2020-01-03"], ["DE", "", "FR"]]
)
def test_numbers_dates_and_empty_fields_are_missing_without_words(tmp_path, column):
    found, source = told(written(tmp_path / "t.csv", column * 4), missing="median")
    assert not found
    assert source.columns[0].missing == 4


def test_words_of_a_target_are_told(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("x,y\n" + "1,None\n2,mild\n3,severe\n" * 5)
    with (
        pytest.warns(AltMinWarning, match="'None' in 5 rows of the column 'y'.*literal=y"),
        pytest.raises(DataError, match="no value in the target 'y'"),
    ):
        open_source(path)
    assert open_source(path, csv={"literal": ["y"]}).preparation.classes == ("None", "mild", "severe")


def test_words_that_come_later_are_told(tmp_path):
    how = open_source(written(tmp_path / "t.csv", ["DE", "FR", "DE"] * 4)).preparation
    later = written(tmp_path / "later.csv", ["DE", "NA", "FR"])
    with (
        pytest.warns(AltMinWarning, match="'NA' in 1 row of the column 'a'"),
        pytest.raises(DataError, match="missing values in the column 'a'"),
    ):
        open_source(later, like=how)
    found, _ = told(later, like=how, csv={"literal": "a"})
    assert len(found) == 1
    assert "'NA' in the column 'a' of 1 row, which the data for training had not" in found[0]


def test_literal_names_columns(tmp_path):
    written(tmp_path / "t.csv", ["DE", "FR", "DE"])
    with pytest.raises(DataError, match="no column 'aa' for csv's literal; it has a, x, y"):
        open_source(tmp_path / "t.csv", csv={"literal": "aa"})
    with pytest.raises(ConfigError, match="literal"):
        open_source(tmp_path / "t.csv", csv={"literl": "a"})


def test_the_command_that_is_named_works(altmin):
    written(Path("t.csv"), COUNTRIES * 10)
    done = altmin("init", "classifier", "--data", "t.csv", "--y", "y")
    assert "--csv literal=a " in done.err
    done = altmin("init", "classifier", "--data", "t.csv", "--y", "y", "--csv", "literal=a", "--overwrite")
    assert (done.code, done.err) == (0, "")
    assert load_pipeline("classifier.toml").data.csv == {"literal": ["a"]}
