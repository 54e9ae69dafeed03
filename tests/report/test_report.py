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
from reports import RECORDS, check_png, make_run, pictures, record, text_of, typed, vectors

from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.errors import DataError, MissingError
from altmin_dask.report.page import write_report
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
    assert sizes["convergence.png"] == (1500, 555)
    assert sizes["residuals.png"] == (1500, 555)
    # 10 digits of 8 × 8, each pixel 15 wide, in two rows of pairs
    assert sizes["reconstructions.png"] == (170 + 10 * 128, 20 + 4 * 120 + 2 * (8 + 28))
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
    assert "best validation loss 0.6388 (sweep 5)" in text
    assert f"The first samples of the training store {digits.path}, each above what" in text
    assert "hidden_layer_sizes 7" in text
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
    page = write_report(run)
    assert f"validation store {other.path}" in text_of(page)
    assert check_png((run.report / "reconstructions.png").read_bytes())[1] == 20 + 4 * 120 + 2 * (8 + 28)


@pytest.mark.slow
def test_vectors_are_drawn_as_lines(tmp_path):
    run = make_run(tmp_path / "run", store=vectors(tmp_path / "vectors.zarr", 23))
    page = write_report(run)
    assert check_png((run.report / "reconstructions.png").read_bytes()) == (1500, 555)
    assert "and what the network makes of them" in text_of(page)


@pytest.mark.slow
def test_fewer_samples_than_places(tmp_path):
    for features, rows in ((64, 1), (5, 3)):
        store = vectors(tmp_path / f"{features}.zarr", features, rows)
        page = write_report(make_run(tmp_path / f"run{features}", store=store))
        check_png((page.parent / "reconstructions.png").read_bytes())


def test_classifier(tmp_path, digits):
    records = [
        record(float(i), nested_accuracy=0.1 + 0.15 * i, validation_accuracy=[0.1, 0.7, 0.6][i])
        for i in range(3)
    ]
    run = make_run(tmp_path / "run", "classifier", digits, records=records)
    page = write_report(run)
    assert pictures(page) == ["convergence.png", "predictions.png", "residuals.png"]
    assert check_png((run.report / "convergence.png").read_bytes()) == (1500, 945)
    width, height = check_png((run.report / "predictions.png").read_bytes())
    assert (width, height) == (8 + 10 * 128, 66 + 4 * (120 + 40))
    right = Model.load(run.model).predict(digits.x[:40]).argmax(axis=1) == digits.y[:40]
    assert f": {right.sum()} of 40 are right." in text_of(page)
    assert "best validation accuracy 70.00% (sweep 1)" in text_of(page)


@pytest.mark.slow
def test_samples_that_make_no_picture(tmp_path, digits):
    store = vectors(tmp_path / "vectors.zarr", 5)
    for kind, given in (("classifier", store), ("regressor", digits)):
        page = write_report(make_run(tmp_path / kind, kind, given))
        assert pictures(page) == ["convergence.png", "residuals.png"]
        assert 'class="note"' not in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_samples_that_cannot_be_shown(tmp_path, digits):
    copy = tmp_path / "digits.zarr"
    shutil.copytree(digits.path, copy)
    run = make_run(tmp_path / "run", store=SampleStore.open(copy))
    assert "reconstructions.png" in pictures(write_report(run))

    (copy / "x" / "zarr.json").write_text("{")
    assert "No reconstructions: the samples cannot be read (" in text_of(write_report(run))
    assert pictures(run.report) == ["convergence.png", "residuals.png"]  # the old one showed an old model
    shutil.rmtree(copy)
    assert "No reconstructions: the samples cannot be read (" in text_of(write_report(run))
    vectors(copy, 9)
    assert "no longer holds the samples that were used." in text_of(write_report(run))


def test_stores_that_were_not_recorded(tmp_path):
    run = make_run(tmp_path / "run")
    file = run.path / "pipeline.json"
    file.write_text(json.dumps({"pipeline": json.loads(file.read_text())["pipeline"]}))
    assert "No reconstructions: the run folder does not say" in text_of(write_report(run))


@pytest.mark.slow
def test_classifier_without_labels(tmp_path):
    store = ingest(array_source(np.random.default_rng(0).random((12, 64))), tmp_path / "store.zarr")
    page = write_report(make_run(tmp_path / "run", "classifier", store))
    assert f"No predictions: {store.path} has no labels." in text_of(page)


# --- records


def test_missing_keys(tmp_path, digits):
    keys = ("sweep", "cpu_seconds", "wall_seconds", "relaxed_objective", "nested_loss", "validation_loss")
    records = [{key: each[key] for key in keys} for each in RECORDS]
    for each in records:
        each["validation_loss"] = None
    page = write_report(make_run(tmp_path / "run", store=digits, records=records))
    assert pictures(page) == ["convergence.png", "reconstructions.png"]
    assert "best nested loss 0.3888 (sweep 5) Convergence" in text_of(page)


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
    assert pictures(page) == ["convergence.png", "feasibility.png", "reconstructions.png", "residuals.png"]
    assert check_png((page.parent / "feasibility.png").read_bytes()) == (1500, 555)
    text = text_of(page)
    # (4 − 1) · 0.5³ / (5 · 0.6³) − 1
    assert "gap of relaxed to nested -65.28% relative residual by layer 0.001, 0.0054" in text
    assert "zero residuals by layer 50.0%, 87.5% Convergence" in text
    assert "Of L1 also the share of residuals that are exactly zero." in text
    assert (
        "steps cut short gap of relaxed to nested residual 1 residual 2 relative residual 1 "
        "relative residual 2 zero residuals 1 zero residuals 2 0 0.00" in text
    )
    assert "-50.00% 1.6 0.7 0.1 0.06 50.0% 50.0%" in text


@pytest.mark.slow
def test_feasibility_without_zeros(tmp_path, digits):
    records = [feasible(i) | {"zero_residuals": None} for i in range(3)]
    page = write_report(make_run(tmp_path / "run", store=digits, records=records))
    assert "feasibility.png" in pictures(page)
    assert "zero residuals" not in text_of(page)
    assert "Of L1" not in text_of(page)


@pytest.mark.slow
def test_a_report_takes_the_place_of_one_with_more_pictures(tmp_path, digits):
    run = make_run(tmp_path / "run", store=digits, records=[feasible(i) for i in range(3)])
    write_report(run)
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
