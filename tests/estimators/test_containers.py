"""Lazy samples of transformers: their columns are checked by name, and what comes back stays lazy."""

from __future__ import annotations

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler as Plain

from altmin_dask import AltMinAutoencoder, AltMinClassifier, StandardScaler

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(RNG.normal(size=(90, 3)) * [1, 10, 100] + [0, 5, 50], columns=["a", "b", "c"])
LAZY = dd.from_pandas(FRAME, npartitions=3)


def test_the_scaler_checks_columns_by_name():
    """Swapped columns were scaled by each other's deviations, without a word."""
    scaler, wanted = StandardScaler().fit(LAZY), Plain().fit(FRAME)
    assert scaler.feature_names_in_.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(scaler.transform(LAZY).compute(), wanted.transform(FRAME))
    for other, words in (
        (LAZY[["b", "a", "c"]], "must be in the same order"),
        (LAZY.rename(columns={"a": "z"}), "unseen at fit time"),
        (LAZY[["a", "b"]], "seen at fit time, yet now missing"),
    ):
        with pytest.raises(ValueError, match=words):
            wanted.transform(other.compute())
        with pytest.raises(ValueError, match=words):
            scaler.transform(other)
    with pytest.raises(ValueError, match="expecting 3 features"):
        StandardScaler().fit(da.ones((9, 3))).transform(da.zeros((4, 2)))
    np.testing.assert_allclose(scaler.inverse_transform(scaler.transform(LAZY)).compute(), FRAME)
    labels = FRAME["a"] > 0
    pipeline = make_pipeline(StandardScaler(), AltMinClassifier(4, max_sweeps=15, random_state=0)).fit(
        LAZY, labels
    )
    assert pipeline.score(LAZY, labels) > 0.9
    with pytest.raises(ValueError, match="same order"):
        pipeline.predict(LAZY[["c", "b", "a"]])


def test_set_output_leaves_lazy_samples_lazy():
    scaler = StandardScaler().set_output(transform="pandas").fit(LAZY)
    frame = scaler.transform(LAZY)
    assert isinstance(frame, dd.DataFrame)
    assert frame.columns.tolist() == ["a", "b", "c"]
    pd.testing.assert_frame_equal(frame.compute().reset_index(drop=True), scaler.transform(FRAME))
    assert isinstance(StandardScaler().set_output(transform="pandas").fit_transform(LAZY), dd.DataFrame)
    assert isinstance(StandardScaler().fit_transform(LAZY), da.Array)
    encoder = AltMinAutoencoder(2, max_sweeps=1, random_state=0).fit(scaler.transform(FRAME))
    with config_context(transform_output="pandas"):
        codes = encoder.transform(frame)
        assert isinstance(codes, dd.DataFrame)
        assert codes.columns.tolist() == ["altminautoencoder0", "altminautoencoder1"]
    encoder.set_output(transform="pandas")
    np.testing.assert_allclose(codes.compute(), encoder.transform(scaler.transform(FRAME)), rtol=1e-9)
    assert isinstance(encoder.fit_transform(frame), dd.DataFrame)
