"""Tables on a terminal and on the page of a report: of the kept model, of each target, and of what was wrong."""

from __future__ import annotations

import html
import re
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Altmin, write_pipeline
from reports import RECORDS, make_run, record, result_of, text_of, typed, vectors
from rich.console import Console

from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source
from altmin_dask.display import Lines
from altmin_dask.report.facts import Facts
from altmin_dask.report.page import sections_of, write_report
from altmin_dask.report.result_table import MOST_OUTPUTS, quality_tables, training_rows
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.callbacks import Outcome
from altmin_dask.training.result import Result

ERRORS = {"mse": 4.0, "rmse": 2.0, "mae": 1.5}
FEASIBLE = [
    record(
        float(sweep),
        relaxed_objective=2.0 - 0.25 * sweep,
        ridge_term=0.25,
        relative_residuals=[0.4 / 2**sweep, 0.2],
    )
    for sweep in range(1, 6)
]


def by_feature(count: int) -> dict[str, Any]:
    errors = {name: [value] * count for name, value in ERRORS.items()}
    return {**ERRORS, "by_feature": {"names": [f"column {k}" for k in range(count)], **errors}}


def test_how_training_went_is_told_of_the_kept_model_as_in_the_report(tmp_path):
    """The last record may be of weights that nobody keeps."""
    own, last = dict(training_rows(typed(FEASIBLE), 2.0)), dict(training_rows(typed(FEASIBLE)))
    assert (own["sweeps"], own["of the kept model"]) == ("5", "sweep 2")
    assert (own["relaxed objective"], own["relative residual by layer"]) == ("1.5", "0.1, 0.2")
    assert (last["of the last record"], last["relaxed objective"]) == ("sweep 5", "0.75")
    assert not {"nested loss", "best nested loss"} & {*own, *last}
    run = make_run(tmp_path / "run", records=FEASIBLE)
    run.write_result(result_of(sweep=2.0))
    kept = dict(Facts.of(run).kept())
    assert kept["relaxed objective"] == "1.5"
    assert kept["relative residual by layer"] == "0.1, 0.2"
    assert kept["gap of relaxed to nested"] == own["gap of relaxed to nested"]


def test_of_what_keeps_no_z_there_is_only_how_long_it_took():
    plain = [record(float(sweep), relaxed_objective=None, residuals=None) for sweep in range(3)]
    assert [label for label, _ in training_rows(typed(plain), 1.0)] == [
        "sweeps",
        "CPU seconds",
        "wall seconds",
    ]
    assert training_rows([]) == []


def test_the_end_on_a_terminal():
    """No blanks behind titles, and errors with what they are in."""
    file = StringIO()
    result = Result.from_json(result_of(sweep=2.0, metrics=ERRORS))
    Lines(Console(file=file, width=80)).on_end(Outcome("", tuple(typed(FEASIBLE)), result=result))
    lines = file.getvalue().splitlines()
    assert lines == [line.rstrip() for line in lines]
    assert max(map(len, lines)) <= 80
    assert "those of the raw data, of the mean square error squared" in file.getvalue()
    assert re.search(r"of the kept model +│ +sweep 2 │", file.getvalue())


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (ERRORS, ["raw data"]),
        ({"r2": 0.5, "rmse": 2.0, "mae": 1.5}, ["raw targets"]),
        ({"accuracy": 0.5}, []),
    ],
)
def test_evaluate_says_what_errors_are_in(metrics, words):
    found = {
        "run": "run",
        "source": "a.csv",
        "samples": 4,
        "loss": 1.0,
        "loss_unit": "½ pigs",
        "classes": None,
    }
    file = StringIO()
    for table in quality_tables({**found, "metrics": metrics}):
        Console(file=file, width=80).print(table)
    assert re.findall(r"raw \w+", file.getvalue()) == words


def test_each_target_has_a_line(tmp_path):
    each = [
        {"output": "length [m]", "r2": 0.5, "rmse": 2.5, "mae": 2.0},
        {"output": "mass", "r2": 0.75, "rmse": 0.001, "mae": None},
    ]
    run = make_run(tmp_path / "run", "regressor")
    run.write_result(result_of(metrics={"r2": 0.625, "rmse": 1.25, "mae": 1.0, "by_output": each}))
    text = text_of(write_report(run))
    assert "Each target target R² RMSE MAE length [m] 0.5000 2.5 2 mass 0.7500 0.001 –" in text
    assert "units of errors those of the raw targets" in text


@pytest.mark.parametrize(("count", "told"), [(3, True), (MOST_OUTPUTS + 1, False)])
def test_each_feature_has_a_line_where_they_are_few(count, told, tmp_path):
    run = make_run(tmp_path / "run")
    run.write_result(result_of(metrics=by_feature(count)))
    text = text_of(write_report(run))
    table = (
        "Each feature, in units of the raw data feature mean square error RMSE MAE column 0 4 2 1.5 column 1"
    )
    assert (table in text) == told
    assert "units of errors those of the raw data" in text


def test_samples_that_are_no_images_are_listed_where_they_are_wrong(tmp_path):
    store = vectors(tmp_path / "store.zarr", 6, rows=40)
    run = make_run(tmp_path / "run", "classifier", store=store)
    sections, _ = sections_of(Facts.of(run))
    ((table,),) = [section.tables for section in sections if section.heading == "Predictions"]
    assert table.head == ["training sample", "true class", "predicted", "its probability"]
    chances = [float(row[3].rstrip("%")) for row in table.rows]
    assert store.y is not None
    labels = np.asarray(store.y[:])
    assert len(chances) == 10
    assert chances == sorted(chances, reverse=True)
    for number, true, predicted, _ in table.rows:
        assert str(labels[int(number)]) == true != predicted
    assert re.search(r"All 40 training samples: the 10 surest of the \d+ that are", table.name)


def test_images_have_pictures_in_place_of_the_list(tmp_path):
    store = ingest(open_source("digits:test"), tmp_path / "digits.zarr", scale=16)
    sections, _ = sections_of(Facts.of(make_run(tmp_path / "run", "classifier", store=store)))
    assert all(not section.tables for section in sections)


def test_what_is_wrong_is_listed_in_raw_units(altmin: Altmin, tmp_path):
    rng = np.random.default_rng(4)
    x = np.round(rng.normal(size=(80, 2)) * [1, 1000], 3)
    lines = [f"{a!r},{b!r},{label}" for (a, b), label in zip(x.tolist(), ["<a>", "b"] * 40, strict=True)]
    Path("t.csv").write_text("\n".join(["small,large,label", *lines]))
    data = {"y": "label", "validation": 0.5, "standardize": True}
    file = write_pipeline(tmp_path / "p.toml", "t.csv", "classifier", data=data)
    done = altmin("train", file, "--run", "run")
    assert (done.code, done.err) == (0, "")
    assert altmin("report", "run").code == 0
    page = Path("run/report/report.html").read_text(encoding="utf-8")
    (body,) = re.findall(
        r"its probability</th><th[^>]*>small</th><th[^>]*>large</th>.*?<tbody>(.*?)</tbody>", page, re.DOTALL
    )
    cells = [re.findall("<td>(.*?)</td>", row) for row in body.split("</tr>")[:-1]]
    raw = {(f"{a:.4g}", f"{b:.4g}"): label for (a, b), label in zip(x, ["<a>", "b"] * 40, strict=True)}
    assert 1 <= len(cells) <= 10
    for _, true, predicted, _, small, large in cells:
        assert raw[small, large] == html.unescape(true) != html.unescape(predicted)


def test_records_alone_make_no_tables(tmp_path):
    assert Facts.of(make_run(tmp_path / "run", records=RECORDS)).tables() == []


def labelled_sequences(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of unlike length with a class at most steps, some of them noise; their classes and lengths."""
    rng = np.random.default_rng(5)
    x, lengths = rng.normal(size=(60, 7, 2)), rng.integers(2, 8, 60)
    y = np.where(
        rng.random((60, 7)) < 0.15, rng.integers(0, 3, (60, 7)), np.digitize(x[:, :, 0], [-0.5, 0.5])
    )
    y[rng.random((60, 7)) < 0.1] = -1  # no label
    np.savez(file, x=x, y=y, lengths=lengths)
    return y, lengths


def test_of_labels_at_every_step_wrong_steps_are_listed(altmin: Altmin, tmp_path):
    y, lengths = labelled_sequences(tmp_path / "t.npz")
    file = write_pipeline(
        tmp_path / "p.toml",
        "t.npz",
        "recurrent_classifier",
        data={"shuffle": False},
        training={"schedule": "kfac", "max_sweeps": 6},
    )
    done = altmin("train", file, "--run", "run")
    assert (done.code, done.err) == (0, "")
    sections, _ = sections_of(Facts.of(RunFolder(Path("run"))))
    (section,) = [each for each in sections if each.heading == "Predictions"]
    steps, sequences = section.tables
    assert steps.head == ["training sample", "step, from 1", "true class", "predicted", "its probability"]
    there = (np.arange(7) < lengths[:, None]) & (y >= 0)
    chances = [float(row[4].rstrip("%")) for row in steps.rows]
    assert len(chances) == 10
    assert chances == sorted(chances, reverse=True)
    made = altmin("predict", "run", "t.npz", "made.npy")
    assert (made.code, made.err) == (0, "")
    predicted = np.load("made.npy")
    wrong = there & (predicted != y)
    for row, step, true, said, _ in steps.rows:
        place = int(row), int(step) - 1
        assert (str(y[place]), str(predicted[place])) == (true, said)
        assert wrong[place]
    assert (
        steps.name
        == f"All 60 training samples: the 10 surest of the {wrong.sum()} steps that are classified wrongly"
    )
    counts = wrong.sum(axis=1)
    assert [row[1] for row in sequences.rows] == [
        f"{counts[int(row)]} of {there[int(row)].sum()}" for row, *_ in sequences.rows
    ]
    assert [counts[int(row)] for row, *_ in sequences.rows] == sorted(counts, reverse=True)[:10]
    row, _, text = sequences.rows[0]
    first = int(np.flatnonzero(wrong[int(row)])[0])
    assert text.startswith(f"{first + 1}: {y[int(row), first]} → {predicted[int(row), first]}")
    # the matrix is of steps
    caption = section.pictures[0].caption
    assert caption.startswith(f"All {there.sum()} training steps: ")
    assert f"{wrong.sum()} of {there.sum()} are wrong" in caption
    page = text_of(write_report(RunFolder(Path("run"))))
    assert f"{steps.name} training sample step, from 1 true class predicted its probability" in page
    # of a run that has no result yet, too
    Path("run/result.json").unlink()
    sections, _ = sections_of(Facts.of(RunFolder(Path("run"))))
    (section,) = [each for each in sections if each.heading == "Predictions"]
    assert section.pictures[0].caption.startswith(
        f"All 60 training samples, {there.sum()} steps of which have a label: "
    )
