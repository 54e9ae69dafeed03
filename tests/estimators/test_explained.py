"""What newcomers give to estimators by mistake, and the sentence that helps."""

from __future__ import annotations

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone

from altmin_dask import (
    AltMinAutoencoder,
    AltMinClassifier,
    AltMinRecurrentClassifier,
    AltMinRecurrentRegressor,
    AltMinRegressor,
    array_source,
    ingest,
)
from altmin_dask.errors import AltMinWarning, ConfigError, DataError, MissingError, StorageError

RNG = np.random.default_rng(5)
X = RNG.random((30, 4))
LABELS = np.arange(30) % 3
FRAME = pd.DataFrame(X, columns=["age", "size", "income", "rooms"])
SEQUENCES = [RNG.random((steps, 2)) for steps in 2 + LABELS]
ESTIMATORS = {
    "classifier": AltMinClassifier(hidden_layer_sizes=(3,), max_sweeps=1),
    "regressor": AltMinRegressor(hidden_layer_sizes=(3,), max_sweeps=1),
    "autoencoder": AltMinAutoencoder(hidden_layer_sizes=(3,), max_sweeps=1),
}


def holed(values, *places, value=np.nan):
    values = values.copy()
    for row, column in places:
        (values.iloc if hasattr(values, "iloc") else values)[row, column] = value
    return values


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        (holed(X, (4, 1)), r"Input X contains NaN: row 4, counted from 0, the first in the column 1;"),
        (
            holed(FRAME, (7, 2), (2, 3)),
            r"NaN: rows 2 and 7, counted from 0, the first in the column 'rooms'; leave",
        ),
        (
            holed(X, *((row, 0) for row in range(9)), value=np.inf),
            r"contains infinity.*rows 0, 1 and 2, and more",
        ),
        (sparse.csr_array(holed(X, (6, 3))), r"NaN: row 6, counted from 0, the first in the column 3;"),
        (SEQUENCES, r"X is a list of sequences.*AltMinRecurrentClassifier"),
        ([[1.0, 2.0], [1.0, 2.0, 3.0]] * 15, r"X has rows of 2 values and others of up to 3"),
        (list(X.reshape(30, 2, 2)), r"numpy\.stack\(X\)"),
        (
            FRAME.assign(rooms=["few", "many"] * 15),
            r"text in the column 'rooms'; make numbers of it, as by OneHot",
        ),
    ],
)
def test_samples_that_are_none(kind, samples, sentence):
    with pytest.raises(DataError, match=sentence):
        ESTIMATORS[kind].fit(samples, *([] if kind == "autoencoder" else [LABELS]))


def test_samples_to_predict_for():
    fitted = ESTIMATORS["classifier"].fit(FRAME, LABELS)
    with pytest.raises(DataError, match="row 5, counted from 0, the first in the column 'size'"):
        fitted.predict(holed(FRAME, (5, 1)))
    with pytest.raises(DataError, match="X is a list of sequences"):
        fitted.predict(SEQUENCES)


@pytest.mark.parametrize(
    ("y", "labels"),
    [
        (np.eye(3)[LABELS], "y.argmax"),
        (np.eye(3, dtype=int)[LABELS], "y.argmax"),
        (pd.get_dummies(LABELS), "y.idxmax"),
        (np.eye(3)[LABELS].tolist(), "numpy.argmax"),
    ],
)
def test_one_hot_targets(y, labels):
    with pytest.raises(DataError, match=rf"y has shape \(30, 3\).*{labels}\(.*axis=1\)"):
        ESTIMATORS["classifier"].fit(X, y)
    # and what it says to do is right
    made = y.idxmax(axis=1) if hasattr(y, "idxmax") else np.asarray(y).argmax(axis=1)
    assert np.array_equal(made, LABELS)


def test_targets_without_a_value():
    y = holed(LABELS[:, None] * 1.0, (3, 0), (8, 0))[:, 0]
    for kind in ("classifier", "regressor"):
        with pytest.raises(
            DataError, match="Input y contains NaN: rows 3 and 8, counted from 0; leave such rows out"
        ):
            ESTIMATORS[kind].fit(X, y)


def test_recurrent_networks_read_sequences():
    network = AltMinRecurrentClassifier(hidden_layer_sizes=(3,), max_sweeps=1)
    assert network.fit(SEQUENCES, LABELS).predict(SEQUENCES).shape == (30,)
    with pytest.raises(DataError, match="NaN: row 1, counted from 0"):
        network.fit(holed(X, (1, 1)).reshape(30, 2, 2), LABELS)


def test_no_temporary_folder_is_told(capsys):
    AltMinRegressor(hidden_layer_sizes=(3,), max_sweeps=1, verbose=True).fit(X, LABELS * 1.0)
    out = capsys.readouterr().out
    assert out.startswith("4-3-1 regressor, 30 samples in 1 chunk of 30, ")
    assert "altmin-" not in out
    with pytest.warns(
        AltMinWarning, match=r"column 3 of x in the given arrays has a mean of \S+ and a standard deviation"
    ):
        AltMinAutoencoder(hidden_layer_sizes=(3,), max_sweeps=1).fit(X * [1, 1, 1, 1e3])
    with pytest.raises(DataError, match=r"^x of the given arrays runs from "):
        AltMinAutoencoder(hidden_layer_sizes=(3,), output_activation="sigmoid").fit(X * 9)


def test_nothing_is_said_to_be_kept_of_a_fit(monkeypatch):
    def full(self, *arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("altmin_dask.storage.run.RunFolder.commit", full)
    with pytest.raises(StorageError, match=r"make room on the disk$"):
        AltMinRegressor(hidden_layer_sizes=(3,), max_sweeps=1).fit(X, LABELS * 1.0)


def test_the_name_of_a_column_is_no_target(tmp_path):
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(
        DataError, match=r"y is 'age'; where that is a column of .*, `altmin ingest .* --y age`"
    ):
        ESTIMATORS["classifier"].fit(tmp_path / "t.csv", "age")
    with pytest.raises(DataError, match=r"`altmin ingest .*/a table.csv' samples.zarr --y 'size \(cm\)'`"):
        ESTIMATORS["classifier"].fit(tmp_path / "a table.csv", "size (cm)")


def test_parameters_of_the_wrong_kind_are_refused_in_a_sentence(tmp_path):
    x = np.random.default_rng(0).random((30, 3))
    with pytest.raises(ConfigError, match=r"settings = \['a'\]: give a dict"):
        AltMinRegressor(3, settings=["a"]).fit(x, x[:, 0])
    with pytest.raises(MissingError, match=r"there is no folder .*gone; make it first"):
        AltMinRegressor(3, temporary_folder=tmp_path / "gone").fit(x, x[:, 0])
    with pytest.raises(
        DataError, match=r"x in the given arrays has numbers larger than 1e\+150, .* in other units"
    ):
        AltMinRegressor(3).fit(1e300 * x, x[:, 0])
    with pytest.raises(
        DataError, match="standard deviation of inf, which float64 cannot tell apart, or not hold"
    ):
        AltMinRegressor(3).fit(x, 1e300 * x[:, 0])
    for rows in ("auto", 2.5, 0, True):
        with pytest.raises(
            ConfigError, match=rf"chunk_rows = {rows!r}: give a whole number from 1 on, or None"
        ):
            AltMinRegressor(3, chunk_rows=rows).fit(x, x[:, 0])
    for steps in (0, "3", 1.5):
        for samples in (x, x[:, :, None], [x[:4], x[:2]]):
            with pytest.raises(
                ConfigError, match=rf"steps = {steps!r}: give a whole number from 1 on, or None"
            ):
                AltMinRecurrentRegressor(3, steps=steps).fit(samples, x[: len(samples), 0])


def test_a_store_is_taken_for_its_path(tmp_path):
    store = ingest(array_source(X, LABELS), tmp_path / "s.zarr")
    fitted, wanted = (clone(ESTIMATORS["classifier"]).set_params(random_state=0) for _ in range(2))
    fitted.fit(store), wanted.fit(store.path)
    np.testing.assert_array_equal(fitted.predict(store).compute(), wanted.predict(store.path).compute())
    assert fitted.score(store) == wanted.score(store.path)
    for given, made in ((X, "ndarray; wrap it in array_source"), ("iris.csv", "str; wrap it in open_source")):
        with pytest.raises(DataError, match=f"ingest reads a source, and was given a {made}"):
            ingest(given, tmp_path / "l.zarr")


def test_rows_of_unlike_length_are_no_sequences():
    rows = [[1, 2], [3]]
    with pytest.raises(
        DataError, match=r"X has rows of 1 values and others of up to 2; .* \[\[1\], \[2\]\] in place"
    ):
        ESTIMATORS["classifier"].fit(rows, [0, 1])
    with pytest.raises(DataError, match=r"an array \(steps, features\): make \[\[1\], \[2\]\] of \[1, 2\]"):
        AltMinRecurrentClassifier().fit(rows, [0, 1])


WORDS = [["no", "yes"][label % 2] for label in LABELS]


@pytest.mark.parametrize(
    ("kind", "x", "y", "sentence"),
    [
        ("regressor", X, WORDS, r"y has text \('no'\), and a regressor fits .* there is AltMinClassifier"),
        ("regressor", X, np.array(WORDS, object), r"y has text \('no'\)"),
        ("regressor", X, [[1.0, 2.0], [1.0]] * 15, "y has rows of different lengths; give one target"),
        ("regressor", X, [1.0, [1.0, 2.0]] * 15, "y has rows of different lengths; give one target"),
        ("classifier", X, [[1, 2], [1]] * 15, "y has rows of different lengths; give one target"),
        ("classifier", np.c_[X.astype(str), WORDS], LABELS, "X has text in the column 4; make numbers of it"),
    ],
)
def test_words_and_rows_of_unlike_length(kind, x, y, sentence):
    with pytest.raises(DataError, match=sentence):
        ESTIMATORS[kind].fit(x, y)


def test_columns_of_a_dask_frame_that_are_text_are_named():
    frame = dd.from_pandas(FRAME.assign(town=WORDS), npartitions=2)
    with pytest.raises(DataError, match="X has text in the column 'town'; make numbers of it"):
        ESTIMATORS["classifier"].fit(frame, LABELS)


def test_a_file_without_targets_tells_where_they_are_looked_for(tmp_path):
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(
        DataError, match=r"t.csv holds none; .* column or array called y: `altmin ingest .* --y NAME`"
    ):
        ESTIMATORS["classifier"].fit(tmp_path / "t.csv")


def test_swapped_arguments_are_told():
    for kind, targets in (("classifier", LABELS), ("regressor", LABELS * 1.0)):
        for samples in (X, FRAME, X.tolist()):
            with pytest.raises(
                DataError, match=r"X has shape \(30,\) and y has \(30, 4\), so they are swapped"
            ):
                ESTIMATORS[kind].fit(targets, samples)
    with pytest.raises(DataError, match="one-hot rows"):
        ESTIMATORS["classifier"].fit(X, np.eye(3)[LABELS])


def test_one_hot_rows_of_a_file_are_told_as_those_of_an_array(tmp_path):
    np.savez(tmp_path / "hot.npz", x=X, y=np.eye(3)[LABELS])
    with pytest.raises(
        DataError,
        match=r"hot.npz has shape \(30, 3\): .*; of one-hot rows those are numpy.argmax\(y, axis=1\)$",
    ):
        ESTIMATORS["classifier"].fit(tmp_path / "hot.npz")


@pytest.mark.parametrize(
    ("kind", "changes", "sentence"),
    [
        ("classifier", {"mu": -1}, r"^mu = -1: input"),
        ("classifier", {"mu": {"start": 1}}, r"^mu.factor is missing; mu.stop is missing$"),
        ("classifier", {"settings": {"solver.mu": -1}}, r"^solver.mu = -1: input"),
        ("classifier", {"settings": {"solver.output_damping": 0}}, r"^solver.output_damping = 0: input"),
        (
            "regressor",
            {"penalty": "l1", "schedule": "kfac"},
            "^penalty = 'l1' keeps z, which schedule = 'kfac'",
        ),
        ("classifier", {"standardize": "both"}, "^standardize = 'both': labels"),
        ("autoencoder", {"standardize": "both"}, r"and see StandardScaler of scikit-learn$"),
        ("autoencoder", {"output_activation": "sigmoid"}, r"scale it \(as by MinMaxScaler of scikit-learn\)"),
        ("regressor", {"loss": "mse"}, "^loss = 'mse': .*; did you mean squared"),
        ("regressor", {"layers": 32}, "^layers = 32: .*; widths alone are hidden_layer_sizes$"),
        ("regressor", {"workers": "auto"}, "^workers = 'auto': .*; leave it out, for its default$"),
        (
            "regressor",
            {"hidden_layer_sizes": "x"},
            r"^hidden_layer_sizes = \('x',\)|^hidden_layer_sizes.0 = 'x'",
        ),
    ],
)
def test_what_is_refused_is_called_as_the_parameter(kind, changes, sentence):
    with pytest.raises((ConfigError, DataError), match=sentence):
        clone(ESTIMATORS[kind]).set_params(**changes).fit(9 * X, LABELS)


def test_options_of_commands_are_said_with_the_command(tmp_path):
    holed(FRAME.assign(y=LABELS), (3, 1)).to_csv(tmp_path / "nan.csv", index=False)
    with pytest.raises(
        DataError,
        match=r"by --missing size=mean of `altmin ingest`, whose store is X then, .* with SimpleImputer in front$",
    ):
        ESTIMATORS["classifier"].fit(tmp_path / "nan.csv")
    FRAME.assign(y=LABELS).to_csv(tmp_path / "semi.csv", index=False, sep=";")
    with pytest.raises(DataError, match=r"by --csv 'sep=;' of `altmin ingest`, whose store is X then$"):
        ESTIMATORS["classifier"].fit(tmp_path / "semi.csv")


def test_there_is_no_dropout():
    with pytest.raises(
        TypeError, match="has no parameter 'dropout'; there is no dropout: ridge and weight_decay"
    ):
        AltMinClassifier(dropout=0.5)
