"""Samples and labels of kinds that are seldom seen: as in memory, or refused with a sentence."""

from __future__ import annotations

from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from choices import taking_turns

from altmin_dask import (
    AltMinClassifier,
    AltMinRecurrentClassifier,
    AltMinRecurrentRegressor,
    AltMinRegressor,
    array_source,
)
from altmin_dask.errors import DataError

# of dask with the newest pandas
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")

X = np.random.default_rng(5).normal(size=(400, 6))
LABELS = (X[:, 0] * X[:, 1] > 0).astype(int) + (X[:, 2] > 1)
FEW: dict[str, Any] = {"hidden_layer_sizes": 2, "max_sweeps": 1, "random_state": 0, "workers": 1}


def frame(x: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(x, columns=[f"f{i}" for i in range(x.shape[1])])


@pytest.mark.parametrize("lazy", [False, True])
def test_text_of_variable_width_is_text(lazy):
    """`StringDType`, which scikit-learn does not take."""
    names = np.array(["no", "yes"])[LABELS % 2]
    x = da.from_array(X, chunks=(100, 6)) if lazy else X
    wanted = AltMinClassifier(**FEW).fit(x, names)
    fitted = AltMinClassifier(**FEW).fit(x, names.astype(np.dtypes.StringDType()))
    assert fitted.classes_.tolist() == ["no", "yes"]
    np.testing.assert_array_equal(fitted.predict(X), wanted.predict(X))
    assert fitted.score(x, names.astype(np.dtypes.StringDType())) == wanted.score(x, names)


@pytest.mark.parametrize("lazy", [False, True])
def test_labels_of_several_types_are_refused(lazy):
    x = da.from_array(X, chunks=(100, 6)) if lazy else X
    with pytest.raises(DataError, match="y has labels of several types, int, str; give all of one"):
        AltMinClassifier(**FEW).fit(x, np.array([1, "a"] * 200, dtype=object))
    if lazy:
        with pytest.raises(ValueError, match="Input y contains NaN"):  # and no warning of a cast beside it
            AltMinClassifier(**FEW).fit(x, np.where(np.arange(400) == 3, np.nan, LABELS))


def test_nullable_columns_of_dask_are_numbers():
    """As those of pandas in memory are; what is missing is told as there."""
    numbers = frame(X).assign(
        whole=pd.array(LABELS, dtype="Int64"), truth=pd.array(LABELS > 0, dtype="boolean")
    )
    numbers["arrow"] = pd.array(X[:, 0], dtype=pd.ArrowDtype(pa.float64()))
    ddf = dd.from_pandas(numbers, npartitions=3)
    wanted = AltMinClassifier(**FEW).fit(numbers, LABELS)
    fitted = AltMinClassifier(**FEW).fit(ddf, dd.from_pandas(pd.Series(LABELS, dtype="Int64"), npartitions=3))
    assert fitted.classes_.tolist() == wanted.classes_.tolist()
    np.testing.assert_allclose(fitted.predict_proba(ddf), wanted.predict_proba(numbers), atol=1e-12)
    numbers.loc[7, "whole"] = None
    with pytest.raises(DataError, match="row 7 of the dask collection X has NaN"):
        AltMinClassifier(**FEW).fit(dd.from_pandas(numbers, npartitions=3), LABELS)


@pytest.mark.parametrize(
    ("truth", "numbers"),
    taking_turns(["bool", "boolean"], ["int64", "Int64", "float32", "double[pyarrow]"]),
)
def test_truth_values_beside_numbers_are_numbers(truth, numbers):
    mixed = pd.DataFrame({"a": pd.array(np.arange(400.0) % 5, numbers), "b": pd.array(LABELS > 0, truth)})
    fitted = AltMinClassifier(**FEW).fit(dd.from_pandas(mixed, npartitions=3), LABELS)
    wanted = AltMinClassifier(**FEW).fit(mixed, LABELS)
    np.testing.assert_allclose(fitted.predict_proba(mixed), wanted.predict_proba(mixed), atol=1e-6)


@pytest.mark.parametrize("dtype", ["int64", "Int64", "uint64", "UInt64"])
@pytest.mark.parametrize("lazy", [False, True])
def test_whole_numbers_that_would_be_rounded_are_refused(lazy, dtype):
    """Beside others they become float64, in memory and lazily."""
    mixed = pd.DataFrame({"a": pd.array([*range(399), 2**60 + 1], dtype), "b": X[:, 0]})
    with pytest.raises(DataError, match="X has the whole number 1152921504606846977"):
        AltMinClassifier(**FEW).fit(dd.from_pandas(mixed, npartitions=3) if lazy else mixed, LABELS)


def test_frames_that_are_no_numbers_are_refused_by_column():
    days = pd.date_range("2024-01-01", periods=400)
    for values, words in (
        (days, "dates in the column 'day'"),
        (days.tz_localize("UTC"), "dates in the column 'day'"),
        (days - days[0], "durations in the column 'day'"),
    ):
        with pytest.raises(DataError, match=f"X has {words}; make numbers of them"):
            AltMinClassifier(**FEW).fit(frame(X).assign(day=values), LABELS)
    with pytest.raises(DataError, match=r"X is a LazyFrame of polars; collect\(\) it"):
        AltMinClassifier(**FEW).fit(pl.from_pandas(frame(X)).lazy(), LABELS)


def test_parts_of_a_dask_frame_of_text_are_not_taken_for_one_another(tmp_path):
    """Slices of one Arrow array, of as many rows each, have the same token in dask, whatever is in them."""
    colours = ["red"] * 20 + ["blue", "blue", *["red"] * 5]
    rows = pd.DataFrame({"n": 0.0, "colour": pd.Series(colours, dtype="str")})
    rows.assign(y=np.arange(27) % 3.0).to_csv(tmp_path / "t.csv", index=False)
    fitted = AltMinRegressor(**FEW).fit(tmp_path / "t.csv")
    others = rows[21:].reset_index(drop=True)
    wanted = fitted.predict(others)
    assert len(set(wanted.tolist())) == 2
    lazy = dd.from_pandas(others, npartitions=2)
    for _ in range(5):
        np.testing.assert_array_equal(np.asarray(fitted.predict(lazy)), wanted)


WHERE = np.arange(400) == 3


@pytest.mark.parametrize("lazy", [False, True])
def test_masked_values_are_not_taken_for_what_is_below_the_mask(lazy):
    def given(values):
        masked = np.ma.masked_array(
            values, mask=np.broadcast_to(WHERE.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
        )
        return da.from_array(masked, chunks=100, asarray=False) if lazy else masked

    fitted = AltMinClassifier(**FEW).fit(X, LABELS)
    for name, call in {
        "X": lambda: AltMinClassifier(**FEW).fit(given(X), LABELS),
        "y": lambda: AltMinClassifier(**FEW).fit(X, given(LABELS)),
        "sample_weight": lambda: AltMinClassifier(**FEW).fit(X, LABELS, given(np.ones(400))),
        "X ": lambda: np.asarray(fitted.predict(given(X))),
    }.items():
        if lazy and name in ("y", "sample_weight"):
            continue  # scikit-learn makes an array of dask's beside samples in memory
        with pytest.raises(DataError, match=rf"{name.strip()} has \d+ masked value"):
            call()
    nothing = np.ma.masked_array(X, mask=False)  # is as good as none
    np.testing.assert_array_equal(AltMinClassifier(**FEW).fit(nothing, LABELS).predict(X), fitted.predict(X))
    with pytest.raises(DataError, match="y of the given arrays has 1 masked value"):
        array_source(X, np.ma.masked_array(LABELS, mask=WHERE))


def test_dates_and_columns_of_one_name_are_refused():
    days = np.datetime64("2024-01-01") + np.arange(400)
    fitted = AltMinClassifier(**FEW).fit(X, LABELS)
    for values, words in ((days, "X has dates"), (days - days[0], "X has durations")):
        many = np.stack([values] * 6, axis=1)
        for call in (lambda x: AltMinClassifier(**FEW).fit(x, LABELS), fitted.predict):
            with pytest.raises(DataError, match=words):
                call(many)
    frame = pd.DataFrame({"a": X[:, 0], "born": days})
    for lent in (frame, pl.from_pandas(frame), frame.assign(born=frame["born"].dt.tz_localize("UTC"))):
        with pytest.raises(
            DataError, match="X has dates in the column 'born'; make numbers of them, or name"
        ):
            AltMinClassifier(**FEW).fit(lent, LABELS)
    with pytest.raises(DataError, match="X has durations in the column 'age'"):
        AltMinClassifier(**FEW).fit(pl.DataFrame({"age": (days - days[0]).astype("m8[ms]")}), LABELS)
    with pytest.raises(DataError, match="X has more than one column 'a'"):
        AltMinClassifier(**FEW).fit(pd.DataFrame(X[:, :2], columns=["a", "a"]), LABELS)


@pytest.mark.parametrize("names", [[5, 7, 9], [0.5, 1.5, 2.5], ["a", "b", "c"]])
@pytest.mark.parametrize("known", [False, True])
def test_categories_of_dask_are_labels_as_those_of_pandas(names, known):
    y = pd.Series(pd.Categorical.from_codes(LABELS % 2, names[:2]))
    lazy = dd.from_pandas(y, npartitions=3)
    x = da.from_array(X, chunks=(100, 6))
    if isinstance(names[0], float):
        names = [2.0, 3.0]
        lazy = dd.from_pandas(y.cat.rename_categories(names), npartitions=3)
    fitted = AltMinClassifier(**FEW).fit(x, lazy if known else lazy.cat.as_unknown())
    assert fitted.classes_.tolist() == names[:2]
    with pytest.raises(DataError, match="Input y contains NaN"):
        AltMinClassifier(**FEW).fit(x, dd.from_pandas(y.where(~WHERE), npartitions=3))


@pytest.mark.parametrize("dtype", ["string", "category"])
def test_text_that_is_missing_is_told_by_its_row(dtype):
    names = pd.Series(np.array(["no", "yes"])[LABELS % 2], dtype=dtype)
    with pytest.raises(DataError, match="Input y contains NaN: row 3, counted from 0; leave such rows out"):
        AltMinClassifier(**FEW).fit(X, names.where(~WHERE))


@pytest.mark.parametrize("kind", [AltMinClassifier, AltMinRegressor])
def test_weights_of_a_score_may_be_a_column(kind):
    """As those of a fit; of another shape they are refused."""
    weights = np.random.default_rng(0).random(400)
    fitted = kind(**FEW).fit(X, LABELS)
    wanted = fitted.score(X, LABELS, weights)
    assert fitted.score(X, LABELS, weights[:, None]) == wanted
    assert fitted.score(X, LABELS, da.from_array(weights[:, None], chunks=100)) == wanted
    with pytest.raises(DataError, match="give one weight for each sample"):
        fitted.score(X, LABELS, np.stack([weights, weights], axis=1))
    with pytest.raises(DataError, match="sample_weight has dtype complex128; give numbers"):
        fitted.fit(da.from_array(X, chunks=100), LABELS, weights * 1j)


@pytest.mark.parametrize("lazy", [False, True])
def test_pictures_of_another_shape_are_refused_and_flat_ones_are_not(lazy):
    """They have as many numbers, in other places."""
    x = np.random.default_rng(0).random((30, 4, 6))
    fitted = AltMinRegressor((3,), max_sweeps=2, random_state=0).fit(x, x.sum((1, 2)))
    for same in (x, x.reshape(30, 24), x[..., None]):
        given = da.from_array(same, chunks=(10, *same.shape[1:])) if lazy else same
        np.testing.assert_array_equal(np.asarray(fitted.predict(given)), fitted.predict(x))
    turned = x.transpose(0, 2, 1)
    with pytest.raises(DataError, match=r"samples of shape \(6, 4\), and those for training had \(4, 6\)"):
        fitted.predict(da.from_array(turned, chunks=(10, 6, 4)) if lazy else turned)


def test_a_lazy_score_takes_targets_as_a_column():
    """They were compared with every prediction: the mean of so many pairs is no accuracy."""
    x = da.from_array(X, chunks=(100, 6))
    classifier = AltMinClassifier(**FEW).fit(x, LABELS)
    regressor = AltMinRegressor(**FEW).fit(x, X[:, 0])
    assert classifier.score(x, LABELS[:, None]) == classifier.score(x, LABELS)
    assert regressor.score(x, X[:, :1]) == regressor.score(x, X[:, 0])
    with pytest.raises(DataError, match=r"y has shape \(400, 2\) and the predictions have \(400,\)"):
        classifier.score(x, np.stack([LABELS, LABELS], axis=1))
    with pytest.raises(DataError, match="y has 1 masked value"):
        classifier.score(x, np.ma.array(LABELS, mask=np.arange(400) == 3))


def test_a_score_of_sequences_takes_targets_as_a_column():
    x = X[:, :, None]
    classifier = AltMinRecurrentClassifier(**FEW).fit(x, LABELS)
    assert classifier.score(x, LABELS[:, None]) == classifier.score(x, LABELS)
    with pytest.raises(DataError, match=r"y has shape \(400, 2\) and the predictions have \(400,\)"):
        classifier.score(x, np.stack([LABELS, LABELS], axis=1))
    with pytest.raises(DataError, match="y has 1 masked value"):
        classifier.score(x, np.ma.array(LABELS, mask=np.arange(400) == 3))
    regressor = AltMinRecurrentRegressor(**FEW).fit(x, X[:, 0])
    assert regressor.score(x, X[:, :1]) == regressor.score(x, X[:, 0])


@pytest.mark.parametrize("kind", ["lazy", "sequences"])
def test_a_score_looks_at_labels(kind):
    """Text in an array of objects, and missing labels, were counted as wrong."""
    if kind == "lazy":
        x: Any = da.from_array(X, chunks=(100, 6))
        make: Any = AltMinClassifier
    else:
        x, make = X[:, :, None], AltMinRecurrentClassifier
    names = np.array(["no", "yes", "maybe"])[LABELS]
    numbers, words = make(**FEW).fit(x, LABELS), make(**FEW).fit(x, names)
    for same in (names.astype(object), names.tolist()):
        assert words.score(x, same) == words.score(x, names)
    assert numbers.score(x, LABELS.astype(object)) == numbers.score(x, LABELS)
    for fitted, labels, sentence in (
        (numbers, names.astype(object), "y has text, and the classes are numbers"),
        (numbers, names, "y has text, and the classes are numbers"),
        (words, LABELS.astype(object), "y has numbers, and the classes are text"),
        (words, np.where(LABELS == 2, 2, names.astype(object)), "y has numbers, and the classes are text"),
        (numbers, np.where(np.arange(400) == 399, np.nan, LABELS), "labels that are missing"),
        (words, np.where(np.arange(400) == 399, None, names), "labels that are missing"),
        (words, np.where(np.arange(400) == 399, pd.NA, names.astype(object)), "labels that are missing"),
    ):
        with pytest.raises(DataError, match=sentence):
            fitted.score(x, labels)
