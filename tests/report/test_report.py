"""The report of a run: what is on the page and in its figures, and what it must survive."""

from __future__ import annotations

import html
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import zarr
from reports import RECORDS, check_png, make_run, pictures, record, result_of, text_of, typed, vectors

from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.errors import DataError, MissingError
from altmin_dask.report.facts import Facts
from altmin_dask.report.page import sections_of, write_report
from altmin_dask.report.pictures import counted
from altmin_dask.report.sampling import MOST_BYTES, MOST_ROWS, chosen_rows, sampled
from altmin_dask.report.style import LIGHT, png
from altmin_dask.report.summary import summary_table
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> SampleStore:
    return ingest(open_source("digits:test"), tmp_path_factory.mktemp("data") / "digits.zarr", scale=16)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, digits: SampleStore) -> Path:
    """A plain report; tests only look at it."""
    return write_report(make_run(tmp_path_factory.mktemp("run") / "plain", store=digits))


# --- the page and its files


def test_files(written):
    assert written.name == "report.html"
    assert written.parent.name == "report"
    assert pictures(written) == ["convergence.png", "reconstructions.png", "residuals.png"]
    sizes = {name: check_png((written.parent / name).read_bytes()) for name in pictures(written)}
    assert sizes["convergence.png"] == sizes["residuals.png"] == (742, 511)
    # 16 digits of 8 × 8, each pixel 10 wide, in two groups of three rows
    assert sizes["reconstructions.png"] == (742, 6 * (30 + 8 * 10) + 2 * (6 + 6 + 12))
    assert all(size < 200_000 for size in (file.stat().st_size for file in written.parent.glob("*.png")))


def test_the_page_needs_nothing_else(written):
    page = written.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(|<script|<iframe|<object", page)
    references = re.findall(r'(?:src|srcset|href)="([^"]*)"', page)
    assert len(references) == 7  # light and dark of three figures, and an empty icon
    assert all(reference.startswith("data:") for reference in references)
    assert "default-src 'none'" in page


def test_the_page_is_well_formed(written):
    class Nesting(HTMLParser):
        stack: tuple[str, ...] = ()

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag not in ("meta", "link", "source", "img"):
                self.stack += (tag,)
            if tag == "img":
                assert dict(attrs)["alt"]

        def handle_endtag(self, tag: str) -> None:
            assert self.stack[-1] == tag
            self.stack = self.stack[:-1]

    parser = Nesting()
    parser.feed(written.read_text(encoding="utf-8"))
    assert parser.stack == ()


def test_what_the_page_says(written, digits):
    text = text_of(written)
    assert "64-7-64 autoencoder · run folder plain" in text
    assert "Kept model sweep 5 of 5 that were done Validation loss 0.6388 Training loss 0.3888" in text
    assert "Why training ended is not recorded" in text
    assert "measured by its record (there is no result.json)" in text
    assert "The first 16 training samples that were read: each above what" in text
    assert "Set in the pipeline data.train digits:train data.scale 16 network.kind autoencoder" in text
    assert "network.hidden_layer_sizes 7 All settings" in text
    assert "max_cpu_seconds –" in text
    assert "penalize_bias true" in text
    # all records, with a dash for what the first one lacks
    assert "sweep CPU s wall s relaxed objective nested loss validation loss steps cut short" in text
    assert "residual 1 residual 2 0 0.00 0.00 – 5 5 – – –" in text
    assert "10.0% 0.6554 0.1681" in text


@pytest.mark.slow
def test_the_title_goes_before_the_folder(tmp_path, digits):
    page = write_report(make_run(tmp_path / "run", store=digits, output={"title": "Ziffern & mehr"}))
    assert "<title>Ziffern &amp; mehr</title>" in page.read_text(encoding="utf-8")


def test_markup_of_users_is_text(tmp_path, digits):
    nasty = '<script>alert("$1^")</script>'
    moved = tmp_path / "'\"><img onerror=x>.zarr"
    shutil.copytree(digits.path, moved)
    store = SampleStore.open(moved)
    run = make_run(tmp_path / "<script>alert(1)<", store=store, output={"title": nasty, "run": nasty})
    source = write_report(run).read_text(encoding="utf-8")
    assert "<script" not in source
    assert "onerror=x>" not in source
    assert source.count(html.escape(nasty).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")) == 4
    assert "run folder &lt;script&gt;alert(1)&lt;" in source


@pytest.mark.slow
def test_folder_name_that_is_no_text(tmp_path, digits):
    try:
        (tmp_path / "run\udcff").mkdir()
    except OSError:
        pytest.skip("this file system takes no such name")
    write_report(make_run(tmp_path / "run\udcff", store=digits)).read_text(encoding="utf-8")


@pytest.mark.slow
def test_writing_again_gives_the_same_bytes(tmp_path, digits):
    run = make_run(tmp_path / "run", store=digits)
    first = {file.name: file.read_bytes() for file in write_report(run).parent.iterdir()}
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "savefig.dpi": 20}):  # a matplotlibrc
        mine = dict(matplotlib.rcParams)
        write_report(run)
        assert dict(matplotlib.rcParams) == mine
    assert {file.name: file.read_bytes() for file in run.report.iterdir()} == first


def test_no_pyplot(written):
    assert "matplotlib.pyplot" not in sys.modules or not matplotlib.pyplot.get_fignums()


# --- samples


@pytest.mark.slow
def test_validation_samples_go_first(tmp_path, digits):
    other = vectors(tmp_path / "other.zarr", 64)
    run = make_run(tmp_path / "run", store=digits, stores={"train": digits.path, "validation": other.path})
    shown = sampled(run, Model.load(run.model))
    assert (shown.role, shown.path, shown.rows) == ("validation", other.path, 12)
    page = write_report(run)
    # vectors without shape are no images: bars, and no picture of what is none
    assert pictures(page) == ["convergence.png", "features.png", "residuals.png"]
    assert "All 12 validation samples: the error of the 24 features with the largest" in text_of(page)


@pytest.mark.slow
def test_fewer_samples_than_places(tmp_path):
    for features, rows in ((64, 1), (5, 3)):
        store = vectors(tmp_path / f"{features}.zarr", features, rows)
        page = write_report(make_run(tmp_path / f"run{features}", store=store))
        check_png((page.parent / "convergence.png").read_bytes())
        assert ("No feature varies" in text_of(page)) == (rows == 1)


def test_classifier(tmp_path, digits):
    records = [
        record(float(i), nested_accuracy=0.1 + 0.15 * i, validation_accuracy=[0.1, 0.7, 0.6][i])
        for i in range(3)
    ]
    run = make_run(tmp_path / "run", "classifier", digits, records=records)
    page = write_report(run)
    expected = ["accuracy.png", "confusion.png", "convergence.png", "errors.png", "residuals.png"]
    assert pictures(page) == expected
    assert check_png((run.report / "accuracy.png").read_bytes()) == (742, 511)
    predicted = Model.load(run.model).predict(digits.x[:]).argmax(axis=1)
    wrong = int((predicted != digits.y[:]).sum())
    text = text_of(page)
    assert "All 360 training samples: of every true class (row)" in text
    assert f"{wrong} of 360 are wrong" in text
    assert f"the first 24 of the {wrong} that are classified wrongly" in text
    assert "Accuracy 60.00% on validation samples" in text


def test_the_confusion_matrix_is_of_all_samples_where_that_was_measured(tmp_path, digits):
    run = make_run(tmp_path / "run", "classifier", digits)
    matrix = (100 * np.eye(10) + 1).astype(int).tolist()
    run.write_result(result_of(metrics={"accuracy": 0.9, "confusion_matrix": matrix}))
    facts = Facts.of(run)
    matrix_picture, errors = sections_of(facts)[0][1].pictures
    assert "All 1,100 training samples: of every true class" in matrix_picture.caption
    assert "90 of 1,100 are wrong" in matrix_picture.caption
    assert "All 360 training samples: the first 24" in errors.caption  # only those that were read


@pytest.mark.parametrize(("off", "words"), [(0.9, "0.9 of 360 are wrong"), (0.0, "0 of 360 are wrong")])
def test_the_confusion_of_samples_with_weights_is_told_by_weight(tmp_path, digits, off, words):
    """It was cut to whole numbers, 0.9 to none."""
    run = make_run(tmp_path / "run", "classifier", digits)
    matrix = np.eye(10) * 35.95
    matrix[0, 0], matrix[0, 1] = 360 - 9 * 35.95 - off, off
    run.write_result(result_of(metrics={"accuracy": 0.9, "confusion_matrix": matrix.tolist()}))
    section = sections_of(Facts.of(run))[0][1]
    assert "All 360 training samples, by weight: of every true class" in section.pictures[0].caption
    assert f"and their weight in each cell; {words}" in section.pictures[0].caption
    most = "Taken for another class most often: 0 for 1 (0.9)."
    assert section.notes == (most if off else "None that has a weight is classified wrongly.",)
    png(section.pictures[0].draw, LIGHT)


def test_counts_are_those_of_scikit_learn():
    from sklearn.metrics import confusion_matrix

    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 5, 300), rng.integers(0, 5, 300)
    np.testing.assert_array_equal(
        counted(truth, predicted, 5), confusion_matrix(truth, predicted, labels=range(5))
    )
    steps = np.where(rng.random((100, 3)) < 0.3, -1, truth.reshape(100, 3))
    assert counted(steps, predicted.reshape(100, 3), 5).sum() == (steps >= 0).sum()


@pytest.mark.parametrize(("rows", "features", "chunk"), [(10**6, 784, 4096), (10**6, 10**6, 8), (50, 5, 7)])
def test_a_bounded_number_of_rows_is_read(tmp_path, digits, rows, features, chunk):
    group = zarr.create_group(tmp_path / "s.zarr")
    group.create_array(
        "x", shape=(rows, features), chunks=(chunk, features), dtype="float32"
    )  # none is written
    store = SampleStore.open(tmp_path / "s.zarr")
    model = Model.load(make_run(tmp_path / "run", store=digits).model)
    slices = chosen_rows(store, model)
    taken = np.concatenate([np.arange(rows)[part] for part in slices])
    assert len(taken) == len(set(taken)) <= min(MOST_ROWS, rows)
    assert len(taken) * features * 4 <= MOST_BYTES
    assert taken[-1] >= rows - 2 * chunk  # from all over it
    if rows == 50:
        assert taken.tolist() == list(range(50))


@pytest.mark.slow
def test_samples_that_make_no_picture(tmp_path, digits):
    store = vectors(tmp_path / "vectors.zarr", 5)
    page = write_report(make_run(tmp_path / "classifier", "classifier", store))
    assert pictures(page) == ["confusion.png", "convergence.png", "residuals.png"]
    page = write_report(make_run(tmp_path / "regressor", "regressor", digits))
    assert pictures(page) == ["convergence.png", "prediction_errors.png", "predictions.png", "residuals.png"]


@pytest.mark.slow
def test_samples_that_cannot_be_shown(tmp_path, digits):
    copy = tmp_path / "digits.zarr"
    shutil.copytree(digits.path, copy)
    run = make_run(tmp_path / "run", store=SampleStore.open(copy))
    assert "reconstructions.png" in pictures(write_report(run))

    (copy / "x" / "zarr.json").write_text("{")
    assert "No pictures of samples: " in text_of(write_report(run))
    assert pictures(run.report) == ["convergence.png", "residuals.png"]  # the old one showed an old model
    shutil.rmtree(copy)
    assert "No pictures of samples: " in text_of(write_report(run))
    vectors(copy, 9)
    assert "no longer holds the samples that were used." in text_of(write_report(run))


def test_stores_that_were_not_recorded(tmp_path):
    run = make_run(tmp_path / "run")
    file = run.path / "pipeline.json"
    file.write_text(json.dumps({"pipeline": json.loads(file.read_text())["pipeline"]}))
    assert "No pictures of samples: The run folder does not say" in text_of(write_report(run))


@pytest.mark.slow
def test_classifier_without_labels(tmp_path):
    store = ingest(array_source(np.random.default_rng(0).random((12, 64))), tmp_path / "store.zarr")
    page = write_report(make_run(tmp_path / "run", "classifier", store))
    assert f"No pictures of samples: {store.path} has no targets to compare predictions with." in text_of(
        page
    )


# --- records


def test_missing_keys(tmp_path, digits):
    keys = ("sweep", "cpu_seconds", "wall_seconds", "relaxed_objective", "nested_loss", "validation_loss")
    records = [{key: each[key] for key in keys} for each in RECORDS]
    for each in records:
        each["validation_loss"] = None
    page = write_report(make_run(tmp_path / "run", store=digits, records=records))
    assert pictures(page) == ["convergence.png", "reconstructions.png"]
    assert "Kept model sweep 5 of 5 that were done Training loss 0.3888" in text_of(page)
    assert "cannot be told: there are no validation samples" in text_of(page)


def test_only_the_record_before_training(tmp_path, digits):
    page = write_report(make_run(tmp_path / "run", store=digits, records=RECORDS[:1]))
    assert pictures(page) == ["convergence.png", "reconstructions.png"]
    assert "relaxed objective" not in " ".join(label for label, _ in summary_table(typed(RECORDS[:1])))


def feasible(sweep: float, **extra: Any) -> dict[str, Any]:
    """A record of L1."""
    started = sweep > 0
    return record(
        sweep,
        ridge_term=0.5**sweep if started else None,
        relative_residuals=[0.1**sweep, 0.2 * 0.3**sweep] if started else None,
        zero_residuals=[0.5, 1 - 0.5**sweep] if started else None,
        **extra,
    )


@pytest.mark.slow
def test_feasibility(tmp_path, digits):
    page = write_report(make_run(tmp_path / "run", store=digits, records=[feasible(i) for i in range(4)]))
    assert pictures(page) == ["convergence.png", "reconstructions.png", "residuals.png", "zeros.png"]
    text = text_of(page)
    # (4 − 1) · 0.5³ / (5 · 0.6³) − 1
    assert "gap of relaxed to nested -65.28% relative residual by layer 0.001, 0.0054 zero" in text
    assert "zero residuals by layer 50.0%, 87.5% weights" in text
    assert "The L1 penalty makes residuals exactly zero" in text
    assert (
        "steps cut short gap of relaxed to nested residual 1 residual 2 relative residual 1 "
        "relative residual 2 zero residuals 1 zero residuals 2 0 0.00" in text
    )
    assert "-50.00% 1.6 0.7 0.1 0.06 50.0% 50.0%" in text


@pytest.mark.slow
def test_feasibility_without_zeros(tmp_path, digits):
    records = [feasible(i) | {"zero_residuals": None} for i in range(3)]
    page = write_report(make_run(tmp_path / "run", store=digits, records=records))
    assert "residuals.png" in pictures(page)
    assert "zeros.png" not in pictures(page)
    assert "zero residuals" not in text_of(page)
    assert "L1" not in text_of(page)


@pytest.mark.slow
def test_a_report_takes_the_place_of_one_with_more_pictures(tmp_path, digits):
    run = make_run(tmp_path / "run", store=digits, records=[feasible(i) for i in range(3)])
    assert "zeros.png" in pictures(write_report(run))
    shutil.copy(run.report / "zeros.png", run.report / "feasibility.png")  # of an earlier version
    run.history.write_text("".join(json.dumps(each) + "\n" for each in RECORDS))
    assert pictures(write_report(run)) == ["convergence.png", "reconstructions.png", "residuals.png"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "extra",
    [
        {"relative_residuals": None, "zero_residuals": None, "ridge_term": None},
        {"relative_residuals": [None, 0.1], "zero_residuals": []},
        *(
            pytest.param(extra, marks=pytest.mark.slow)
            for extra in (
                {"relative_residuals": [0.0, 0.0], "zero_residuals": [1.0, 1.0]},
                {"relative_residuals": [0.1], "zero_residuals": [0.5, 0.5, 0.5]},
                {"relative_residuals": 0.1, "zero_residuals": 1, "ridge_term": None},
                {"nested_loss": 0.0, "validation_loss": 0.0},
                {"relaxed_objective": None},
            )
        ),
    ],
)
def test_records_that_say_little_of_feasibility(tmp_path, digits, extra):
    # what of a run was recorded by an older version, and what a newer one goes on with
    records = [record(0.0), record(1.0), feasible(2.0) | extra]
    page = write_report(make_run(tmp_path / "run", store=digits, records=records))
    assert "nan" not in text_of(page).lower().split("settings")[0]


def test_summary_of_feasibility():
    assert summary_table(typed([feasible(0.0), feasible(1.0), record(2.0)]))[-3:] == [
        ("gap of relaxed to nested", "-50.00%"),
        ("relative residual by layer", "0.1, 0.06"),
        ("zero residuals by layer", "50.0%, 50.0%"),
    ]
    one = feasible(1.0) | {"relative_residuals": [1e-5], "zero_residuals": None}
    assert summary_table(typed([one]))[-1] == ("relative residual", "1e-05")
    many = feasible(1.0) | {"relative_residuals": [0.5] * 20, "zero_residuals": None}
    assert summary_table(typed([many]))[-1] == ("relative residual by layer", "0.5, " * 8 + "…")


def test_summary():
    records = [record(0.0), record(1.5), record(3.0, validation_loss=9.0, cpu_seconds=123456.7)]
    assert summary_table(typed(records)) == [
        ("sweeps", "3"),
        ("CPU seconds", "123,456.70"),
        ("wall seconds", "4.50"),
        ("relaxed objective", "0.5"),
        ("nested loss", "1.08"),
        ("best nested loss", "1.08 (sweep 3)"),
        ("validation loss", "9"),
        ("best validation loss", "2.346 (sweep 1.5)"),
    ]
    assert summary_table([]) == []


# --- what there is no report of


def test_not_a_run_folder(tmp_path):
    with pytest.raises(MissingError, match="is not a run folder"):
        write_report(RunFolder(tmp_path))


@pytest.mark.parametrize("there", [True, False])
def test_no_records(tmp_path, there):
    run = make_run(tmp_path / "run", records=[])
    if there:
        run.history.touch()
    with pytest.raises(MissingError, match=r"^[^.]*has no records to report on; .*--resume`$"):
        write_report(run)
    assert not run.report.exists()


def test_no_model(tmp_path):
    run = make_run(tmp_path / "run", model=False)
    with pytest.raises(MissingError, match="holds no trained model"):
        write_report(run)
    assert not run.report.exists()


def test_damaged_files(tmp_path):
    run = make_run(tmp_path / "run")
    for file in (run.model / "model.json", run.history, run.path / "pipeline.json"):
        file.write_text("{")
        with pytest.raises(DataError, match="damaged"):
            write_report(run)
