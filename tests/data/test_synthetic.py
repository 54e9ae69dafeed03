"""synthetic: samples can be learned, are the same however they are read, and wrong wishes are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_order import ingest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge

from altmin_dask.data.open import open_source
from altmin_dask.errors import DataError


def read(spec: str, rows: int = 1 << 20) -> tuple[np.ndarray, np.ndarray]:
    source = open_source(f"synthetic:{spec}")
    x, y = zip(*source.blocks(rows), strict=True)
    return np.concatenate(x), None if source.y is None else np.concatenate(y)


# --- what it can be learned by


def test_a_classifier_learns_it():
    x, y = read("rows=2000,features=60,classes=6,seed=4")
    unseen_x, unseen_y = read("rows=1000,features=60,classes=6,seed=4:test")
    assert LogisticRegression(max_iter=300).fit(x, y).score(unseen_x, unseen_y) > 0.85
    other_x, other_y = read("rows=1000,features=60,classes=6,seed=5")
    assert LogisticRegression(max_iter=300).fit(x, y).score(other_x, other_y) < 0.5  # another teacher


def test_a_regression_learns_it():
    x, y = read("rows=2000,features=60,outputs=3")
    unseen_x, unseen_y = read("rows=1000,features=60,outputs=3:test")
    assert y.shape == (2000, 3)
    assert Ridge().fit(x, y).score(unseen_x, unseen_y) > 0.9


def test_few_components_hold_most_of_it_and_a_straight_subspace_is_not_all():
    x, _ = read("rows=2000,features=100,latent=5,noise=0.01")
    unseen, _ = read("rows=1000,features=100,latent=5,noise=0.01:test")
    components = PCA(15).fit(x)

    def unexplained(count: int) -> float:
        directions = components.components_[:count]
        centred = unseen - components.mean_
        return float(((centred - centred @ directions.T @ directions) ** 2).mean() / centred.var())

    assert unexplained(15) < 0.1
    # five numbers determine a sample, but for noise of 0.01² beside a variance of 0.1
    assert unexplained(5) > 20 * 0.01**2 / unseen.var()


@pytest.mark.parametrize(("features", "classes"), [(60, 2), (60, 10), (60, 40), (5, 30)])
def test_classes_are_balanced(features, classes):
    _, y = read(f"rows=30000,features={features},classes={classes}")
    counts = np.bincount(y, minlength=classes)
    expected = 30000 / classes
    assert len(counts) == classes
    assert abs(counts - expected).max() < 6 * np.sqrt(expected)  # six standard deviations


@pytest.mark.parametrize("noise", [0, 0.02, 0.25])
def test_x_fills_the_unit_interval(noise):
    x, _ = read(f"rows=3000,features=200,noise={noise}")
    assert 0 <= x.min() < 0.1
    assert 0.9 < x.max() <= 1
    assert 0.1 < x.std() < 0.4


def test_noise_has_the_size_asked_for():
    (quiet, quiet_y), (noisy, noisy_y) = (
        read(f"rows=3000,features=200,outputs=2,noise={n}") for n in (0, 0.1)
    )
    # besides the noise, what is not noise shrinks to leave room for it
    room = 1 - 0.1 * np.sqrt(12)
    assert (noisy - room * quiet).std() == pytest.approx(0.1, rel=0.01)
    assert (noisy_y - quiet_y).std() == pytest.approx(0.1, rel=0.05)


# --- the same however it is read


SPEC = "rows=9000,features=70,{},seed=3"
KINDS = ("classes=4", "outputs=2", "classes=100", "latent=3")


@pytest.fixture(scope="module")
def whole() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {kind: read(SPEC.format(kind)) for kind in KINDS}


@settings(max_examples=20)
@given(rows=st.integers(50, 9001), kind=st.sampled_from(KINDS))
def test_values_do_not_depend_on_the_block(whole, rows, kind):
    x, y = read(SPEC.format(kind), rows)
    np.testing.assert_array_equal(x, whole[kind][0])
    np.testing.assert_array_equal(y, whole[kind][1])


@settings(max_examples=20)
@given(rows=st.integers(1, 9000), kind=st.sampled_from(KINDS))
def test_a_shorter_set_is_the_beginning_of_a_longer_one(whole, rows, kind):
    x, y = read(SPEC.format(kind).replace("9000", str(rows)))
    np.testing.assert_array_equal(x, whole[kind][0][:rows])
    if y is not None:
        np.testing.assert_array_equal(y, whole[kind][1][:rows])


def test_single_rows(whole):
    x, y = read(SPEC.format(KINDS[0]).replace("9000", "40"), 1)
    np.testing.assert_array_equal(x, whole[KINDS[0]][0][:40])
    np.testing.assert_array_equal(y, whole[KINDS[0]][1][:40])


def test_no_two_samples_are_alike(whole):
    for x, _ in whole.values():
        assert len(np.unique(x[:, :2], axis=0)) == 9000
    unseen, _ = read(SPEC.format(KINDS[0]) + ":test")
    assert len(np.unique(np.concatenate([unseen, whole[KINDS[0]][0]])[:, :2], axis=0)) == 18000


@pytest.mark.parametrize("threads", ["1", "2"])
def test_other_processes_make_the_same(whole, tmp_path, threads):
    spec = f"synthetic:{SPEC.format(KINDS[1])}"
    script = (
        "import sys, numpy as np; from altmin_dask.data.open import open_source; "
        "x, y = next(open_source(sys.argv[1]).blocks(9000)); np.savez(sys.argv[2], x=x, y=y)"
    )
    subprocess.run(
        [sys.executable, "-c", script, spec, str(tmp_path / "made.npz")],
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OPENBLAS_NUM_THREADS": threads},
    )
    with np.load(tmp_path / "made.npz") as made:
        np.testing.assert_array_equal(made["x"], whole[KINDS[1]][0])
        np.testing.assert_array_equal(made["y"], whole[KINDS[1]][1])


# --- how it is asked for


def test_shapes_and_dtypes():
    source = open_source("synthetic:rows=1e3, features=2_0, classes=3")
    assert (source.rows, source.x_shape, source.x_dtype) == (1000, (20,), np.float32)
    assert (source.y_shape, source.y_dtype) == ((), np.int64)
    source = open_source("synthetic:rows=5,features=20,outputs=1:train")
    assert (source.y_shape, source.y_dtype) == ((1,), np.float32)
    assert open_source("synthetic:rows=5,features=1").y is None


def test_it_is_ingested(altmin, tmp_path):
    spec = "synthetic:rows=600,features=12,classes=3"
    outcome = altmin("ingest", spec, "s.zarr", "--chunk-rows", 100, "--no-shuffle")
    assert outcome.out.endswith("s.zarr: 600 samples of 12 float32, targets int64, 6 chunks of 100 rows\n"), (
        outcome
    )
    x, y = read(spec.removeprefix("synthetic:"))
    store = ingest(open_source("s.zarr"), "t.zarr", chunk_rows=77)
    np.testing.assert_array_equal(store.x[:], x)
    np.testing.assert_array_equal(store.y[:], y)
    assert store.summary.y_max == 2


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("", "rows is missing"),
        ("rows=5", "features is missing"),
        ("rows", "'rows' is not of the form key=value"),
        ("rows=,features=3", "'rows=' is not of the form key=value"),
        ("rows=5,features=3,colour=1", "colour is not one of rows, features, classes"),
        ("rows=5,features=3,rows=6", "rows is given twice"),
        ("rows=0,features=3", "rows is 0, less than 1"),
        ("rows=-5,features=3", "rows is -5, less than 1"),
        ("rows=1.5,features=3", "rows is 1.5, not a whole number"),
        ("rows=many,features=3", "rows is many, not a whole number"),
        ("rows=nan,features=3", "rows is nan, not a whole number"),
        ("rows=1e999999999,features=3", "rows is 1e999999999, not a whole number"),
        ("rows=1e-999999999,features=3", "rows is 1e-999999999, not a whole number"),
        ("rows=1e18,features=1e4", "fit on no disk"),
        ("rows=5,features=1e12", "make a teacher of more than 1 GiB"),
        ("rows=5,features=3,classes=1", "classes is 1, less than 2"),
        (
            "rows=5,features=3,classes=2,outputs=2",
            "classes make labels and outputs make real targets; give one",
        ),
        ("rows=5,features=3,latent=4", "latent is 4, more than the 3 features"),
        ("rows=5,features=3,noise=0.5", "noise is 0.5, not a number from 0 to 0.25"),
        ("rows=5,features=3,noise=nan", "noise is nan, not a number"),
        ("rows=5,features=3,noise=loud", "noise is loud, not a number"),
        ("rows=5,features=3,seed=-1", "seed is -1, less than 0"),
    ],
)
def test_what_cannot_be_made(spec, sentence):
    with pytest.raises(DataError, match=f"synthetic samples cannot be made: .*{sentence}") as error:
        open_source(f"synthetic:{spec}")
    assert str(error.value).endswith("; write for example synthetic:rows=1e5,features=784,classes=10")


def test_the_word_alone_and_names_of_arrays():
    with pytest.raises(DataError, match="rows is missing"):
        open_source("synthetic")
    with pytest.raises(DataError, match="leaves no arrays to choose from"):
        open_source("synthetic:rows=5,features=3", x="x")
