"""Sequences of different lengths, from lists, arrays, stores and files: padding is neither learnt nor scored."""

from __future__ import annotations

import shutil
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pytest
import zarr
from command import refused, write_pipeline
from in_order import ingest

from altmin_dask import AltMinClassifier, AltMinRecurrentClassifier, AltMinRecurrentRegressor
from altmin_dask.data.readers import RowReader
from altmin_dask.data.source import array_source
from altmin_dask.errors import ConfigError, DataError
from altmin_dask.estimators.samples import of_location
from altmin_dask.storage.model import Model

RNG = np.random.default_rng(0)
ROWS, STEPS = 200, 6
X = RNG.normal(size=(ROWS, STEPS, 2))
LENGTHS = RNG.integers(1, STEPS + 1, ROWS)
THERE = np.arange(STEPS) < LENGTHS[:, None]
SUMS = (X[:, :, 0] * THERE).sum(axis=1)
LABELS = np.where(SUMS > 0, 1, 0)
EVERY = np.cumsum(X, axis=1)
NAN = np.where(THERE[:, :, None], X, np.nan)
LIST = [row[:length] for row, length in zip(X, LENGTHS, strict=True)]
QUICK: dict[str, Any] = {"hidden_layer_sizes": 6, "max_sweeps": 12, "random_state": 0}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("sequences")
    noise = np.where(THERE[:, :, None], X, 100.0)
    source = array_source(noise, LABELS, lengths=LENGTHS)
    ingest(source, home / "s.zarr", chunk_rows=70, dtype="float64")
    np.savez(home / "s.npz", x=noise, y=LABELS, lengths=LENGTHS)
    zarr.save_array(home / "x.zarr", noise)
    return home


@pytest.fixture(scope="module")
def fitted():
    return AltMinRecurrentClassifier(**QUICK).fit(X, LABELS, lengths=LENGTHS)


def unknown(array: np.ndarray) -> da.Array:
    lazy = da.from_array(array, chunks=(90, *array.shape[1:]))
    return lazy[da.from_array(np.ones(len(array), bool), chunks=90)]


def test_every_kind_of_sequences_is_trained_and_predicted_alike(home, fitted):
    wanted = fitted.predict_proba(X, lengths=LENGTHS)
    score = fitted.score(X, LABELS, lengths=LENGTHS)
    kinds: dict[str, tuple[Any, Any, Any]] = {
        "store": (home / "s.zarr", None, None),
        "npz": (home / "s.npz", None, None),
        "zarr.Array": (zarr.open_array(home / "x.zarr"), LABELS, LENGTHS),
        "path of an array": (home / "x.zarr", LABELS, LENGTHS),
        "unknown lengths": (unknown(np.where(THERE[:, :, None], X, 9.0)), LABELS, LENGTHS),
        "list": (LIST, LABELS, None),
        "NaN": (NAN, LABELS, LENGTHS),
        "lazy NaN": (da.from_array(NAN, chunks=(60, -1, -1)), LABELS, LENGTHS),
    }
    for name, (x, y, lengths) in kinds.items():
        np.testing.assert_allclose(
            np.asarray(fitted.predict_proba(x, lengths=lengths)), wanted, rtol=1e-9, err_msg=name
        )
        assert fitted.score(x, y, lengths=lengths) == pytest.approx(score), name
    for name in ("npz", "list", "lazy NaN", "zarr.Array"):
        x, y, lengths = kinds[name]
        again = AltMinRecurrentClassifier(**{**QUICK, "max_sweeps": 2}).fit(x, y, lengths=lengths)
        same = AltMinRecurrentClassifier(**{**QUICK, "max_sweeps": 2}).fit(X, LABELS, lengths=LENGTHS)
        np.testing.assert_allclose(again.model_.weights[0], same.model_.weights[0], rtol=1e-9, err_msg=name)


def test_lengths_are_named_and_not_forgotten(home, fitted, tmp_path):
    with pytest.raises(TypeError):
        fitted.score(X, LABELS, LENGTHS)
    with pytest.raises(TypeError):
        fitted.predict(X, LENGTHS)
    fitted.save(tmp_path / "saved")
    for each in (fitted, AltMinRecurrentClassifier.load(tmp_path / "saved")):
        for call in (
            lambda e: e.score(X, LABELS),
            lambda e: e.predict(X),
            lambda e: e.predict(home / "x.zarr"),
        ):
            with pytest.raises(DataError, match="was fitted with lengths; give lengths"):
                call(each)
    with pytest.raises(DataError, match="leave them out"):
        fitted.predict(LIST, lengths=LENGTHS)
    with pytest.raises(DataError, match="200 rows and lengths has 3"):
        fitted.predict(da.from_array(X), lengths=LENGTHS[:3])


def test_lengths_of_files_are_checked(fitted, tmp_path):
    """Where they are predicted for, as where they are learnt from."""
    for lengths, words in (
        (LENGTHS + 3, "sequences have 1 to 6 steps here"),
        (LENGTHS * 1.0, "dtype float64"),
    ):
        np.savez(tmp_path / "s.npz", x=X, y=LABELS, lengths=lengths)
        for call in (fitted.predict, fitted.score):
            with pytest.raises(DataError, match=words):
                call(tmp_path / "s.npz")


@pytest.mark.parametrize("y", [LABELS, EVERY])
def test_nan_behind_the_ends_in_a_file_is_padding(y, tmp_path):
    """Elsewhere it is refused."""
    kind = AltMinRecurrentClassifier if y is LABELS else AltMinRecurrentRegressor
    model = kind(**{**QUICK, "max_sweeps": 2})
    targets = y if y is LABELS else np.where(THERE[:, :, None], y, np.nan)
    np.savez(tmp_path / "s.npz", x=NAN, y=targets, lengths=LENGTHS)
    wanted = model.fit(X, y, lengths=LENGTHS).model_.weights[0]
    np.testing.assert_allclose(model.fit(tmp_path / "s.npz").model_.weights[0], wanted, rtol=1e-9)
    np.savez(tmp_path / "s.npz", x=np.where(THERE[:, :, None], np.nan, X), y=y, lengths=LENGTHS)
    with pytest.raises(DataError, match="have NaN or infinity in x"):
        model.fit(tmp_path / "s.npz")


def test_targets_in_a_list_are_as_long_as_their_sequences():
    """They are not filled up with zeros."""
    y = [np.arange(length) % 2 for length in LENGTHS]
    model = AltMinRecurrentClassifier(**{**QUICK, "max_sweeps": 2}).fit(LIST, y)
    row = int(np.flatnonzero(LENGTHS > 1)[0])
    y[row] = y[row][:-1]
    words = f"row {row} of X has {LENGTHS[row]} steps, and that of y {LENGTHS[row] - 1}"
    for call in (model.fit, model.score):
        with pytest.raises(DataError, match=words):
            call(LIST, y)


def test_a_run_asks_for_lengths_where_it_had_some(altmin, home, tmp_path):
    """Whether they are evaluated, predicted for, or taken to Python when the samples are no more."""
    np.savez(tmp_path / "s.npz", x=NAN, y=LABELS, lengths=LENGTHS)
    np.savez(tmp_path / "none.npz", x=X, y=LABELS)
    write_pipeline(tmp_path / "p.toml", "s.npz", "recurrent_classifier")
    assert altmin("train", "p.toml", "--run", "run").code == 0
    assert altmin("evaluate", "run", home / "s.npz").code == 0
    words = "trained on sequences with lengths, and none.npz has none; give lengths"
    refused(altmin("evaluate", "run", "none.npz"), words)
    refused(altmin("predict", "run", "none.npz", "p.zarr"), words)
    shutil.rmtree("run/data")
    with pytest.raises(DataError, match="was fitted with lengths"):
        AltMinRecurrentClassifier.load("run").predict(X)
    with pytest.raises(DataError, match="x has none; give lengths"):
        Model.load("run").predict(X)
    assert Model.load("run").predict(X, LENGTHS).shape == (ROWS, 2)


def test_runs_of_sequences_are_estimators(altmin, home, tmp_path):
    """Which know whether their samples had lengths."""
    words = f'[data]\ntrain = "{home / "s.zarr"}"\n[network]\nkind = "recurrent_classifier"\n'
    words += (
        'hidden_layer_sizes = [6]\ndtype = "float64"\n[training]\nmax_sweeps = 3\n[output]\nreport = false\n'
    )
    (tmp_path / "p.toml").write_text(words)
    assert altmin("train", "p.toml", "--run", "run").code == 0
    assert altmin("predict", "run", home / "s.npz", "p.zarr").code == 0
    loaded = AltMinRecurrentClassifier.load("run")
    wanted = np.asarray(zarr.open("p.zarr")["prediction"][:]).reshape(ROWS, 2)
    np.testing.assert_allclose(loaded.predict_proba(X, lengths=LENGTHS), wanted, rtol=1e-9)
    with pytest.raises(DataError, match="was fitted with lengths"):
        loaded.score(X, LABELS)


def test_states_of_a_store_are_used(tmp_path):
    states = RNG.normal(size=(ROWS, 6))
    store = ingest(array_source(X, EVERY, states=states), tmp_path / "s.zarr", dtype="float64", chunk_rows=90)
    model = AltMinRecurrentRegressor(**{**QUICK, "max_sweeps": 3}).fit(store.path)
    wanted = model.model_.predict(X, states=states).reshape(EVERY.shape)
    np.testing.assert_allclose(model.predict(store.path).compute(), wanted, rtol=1e-9)
    held = of_location(store.path, model.model_).beside["states"]  # a chunk at a time
    assert isinstance(held, da.Array)
    assert held.chunks[0][0] == 90
    np.savez(tmp_path / "s.npz", x=X, states=states)
    assert isinstance(of_location(str(tmp_path / "s.npz"), model.model_).beside["states"], RowReader)
    np.testing.assert_allclose(model.predict(tmp_path / "s.npz").compute(), wanted, rtol=1e-9)
    residual = ((EVERY - wanted) ** 2).sum(axis=(0, 1)) / ((EVERY - EVERY.mean(axis=(0, 1))) ** 2).sum(
        axis=(0, 1)
    )
    assert model.score(store.path) == pytest.approx(1 - residual.mean())


def test_targets_at_every_step_end_where_sequences_do():
    y = [EVERY[i, :length] for i, length in enumerate(LENGTHS)]
    model = AltMinRecurrentRegressor(**{**QUICK, "max_sweeps": 3})
    ragged = model.fit(LIST, y).predict(LIST)
    padded = model.fit(NAN, np.where(THERE[:, :, None], EVERY, np.nan), lengths=LENGTHS)
    np.testing.assert_allclose(ragged, padded.predict(X, lengths=LENGTHS), rtol=1e-9)
    assert padded.score(LIST, y) == pytest.approx(padded.score(X, EVERY, lengths=LENGTHS))
    marks = np.where(THERE, (EVERY[:, :, 0] > 0).astype(int), 7)  # 7 is no class
    classifier = AltMinRecurrentClassifier(**{**QUICK, "max_sweeps": 2}).fit(X, marks, lengths=LENGTHS)
    assert classifier.classes_.tolist() == [0, 1]


def test_streams_of_sequences():
    model = AltMinRecurrentClassifier(6, random_state=0)
    for start in range(0, ROWS, 40):
        rows = slice(start, start + 40)
        model.partial_fit(LIST[rows], LABELS[rows], classes=[0, 1])
    assert model.score(LIST, LABELS) > 0.75
    short = model.partial_fit(LIST[:1], LABELS[:1])  # of fewer steps than those before
    np.testing.assert_allclose(short.predict_proba(LIST)[:1], short.predict_proba(LIST[:1]), rtol=1e-9)
    with pytest.raises(DataError, match="give them in every call"):
        model.partial_fit(X, LABELS)
    with pytest.raises(DataError, match="a sequence has 9 steps"):
        model.partial_fit([np.ones((9, 2)), np.ones((2, 2))], [0, 1])
    numbers = AltMinRecurrentRegressor(6, random_state=0).partial_fit(X, SUMS)
    before = numbers.loss_curve_[0]
    assert numbers.partial_fit(X, SUMS).loss_curve_[-1] < before
    with pytest.raises(DataError, match="was of 1 outputs before"):
        numbers.partial_fit(X, EVERY)


def test_weights_of_sequences():
    """Their gradients are those of repetitions (tests/training/test_weights.py); here, that they come through."""
    y = np.where(np.arange(ROWS) < 100, SUMS, -SUMS)
    first = np.repeat([1.0, 0.0], 100)[:, None]
    model = AltMinRecurrentRegressor(**QUICK).fit(X, y, lengths=LENGTHS, sample_weight=first)
    assert model.score(X, y, lengths=LENGTHS, sample_weight=first) > 0.8
    assert model.score(X, y, lengths=LENGTHS, sample_weight=1 - first) < -0.5
    with pytest.raises(DataError, match="one weight for each sample"):
        model.fit(X, y, lengths=LENGTHS, sample_weight=np.ones((ROWS, 2)))


@pytest.mark.slow
def test_rare_classes_of_sequences_count_as_much():
    rare = np.where(SUMS > 2.5, "rare", "usual")
    plain = AltMinRecurrentClassifier(**QUICK, ridge=5.0).fit(X, rare)
    balanced = AltMinRecurrentClassifier(**QUICK, ridge=5.0, class_weight="balanced").fit(X, rare)
    assert (balanced.predict(X) == "rare").sum() > (plain.predict(X) == "rare").sum()
    with pytest.raises(ConfigError, match="class_weight is for sequences of one label"):
        balanced.fit(X, EVERY[:, :, 0] > 0)


def test_a_run_on_a_table_of_sequences_prepares_frames(altmin, tmp_path):
    """By the names of its columns, in whatever order they stand, as `altmin predict` does."""
    frame = pd.DataFrame({f"s{step}": X[:, step, 0] for step in range(STEPS)})
    table = frame.assign(label=np.where(LABELS, "up", "down"))
    table.to_csv("t.csv", index=False)
    data = {"y": "label", "standardize": True}
    write_pipeline(tmp_path / "p.toml", "t.csv", "recurrent_classifier", data=data, network={"steps": STEPS})
    assert altmin("train", "p.toml", "--run", "run").code == 0
    assert altmin("predict", "run", "t.csv", "p.npy", "--proba").code == 0
    wanted, loaded = np.load("p.npy"), AltMinRecurrentClassifier.load("run")
    swapped = table[table.columns[::-1]]
    for rows in (table, swapped, pl.from_pandas(swapped), dd.from_pandas(swapped, npartitions=3), "t.csv"):
        np.testing.assert_allclose(loaded.predict_proba(rows), wanted, rtol=1e-6)
    assert loaded.score(swapped, table["label"]) == loaded.score("t.csv")
    with pytest.raises(DataError, match="no column 's0'"):
        loaded.predict(frame[["s1", "s2"]])


def test_the_sequence_that_is_no_sequence_is_named():
    odd = [*LIST[:5], np.ones((2, 3))]
    with pytest.raises(
        DataError, match=r"sequence 5 of a list, counted from 0, has shape \(2, 3\), and the first"
    ):
        AltMinRecurrentClassifier(**QUICK).fit(odd, LABELS[:6])


@pytest.mark.parametrize("estimator", [AltMinClassifier, AltMinRecurrentClassifier])
def test_a_sequence_whose_steps_are_unlike_is_named(estimator):
    odd = [[[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0]]]
    with pytest.raises(DataError, match="row 1 of a list, counted from 0, holds lists of unlike length"):
        estimator().fit(odd, [0, 1])
