"""What a run shows while it goes on: one line a record under one header, and a live line that agrees with them."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from command import LABELS, X, start, told_records, write_pipeline
from rich.console import Console

from altmin_dask import display, runs
from altmin_dask.config import make_pipeline
from altmin_dask.dashboard.publisher import Publisher
from altmin_dask.display import Lines, Live, shares
from altmin_dask.planning.projection import ALLOWANCE, PROGRAM
from altmin_dask.record_lines import Column, sweeps
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.callbacks import Callback, Outcome
from altmin_dask.training.progress import Progress as RunProgress
from altmin_dask.training.progress import Usage
from altmin_dask.training.record import Record


class Watched(Live):
    """Keeps what is live at every moment, as (sweep of the bar, its text, lines below)."""

    def __init__(self) -> None:
        self.file = StringIO()
        super().__init__(Console(file=self.file, force_terminal=True, width=80))
        self.shown = []
        self.at_records = []

    def on_progress(self, progress):
        super().on_progress(progress)
        task = self.bar.tasks[0]
        self.shown.append((task.completed, task.fields["detail"], list(self.bar.lines)))

    def on_record(self, record):
        super().on_record(record)
        if self.shown:
            self.at_records.append((record.sweep, self.bar.tasks[0].completed))


def watched(store, folder, **training):
    """Train on few samples with what is live kept."""
    settings = {
        "data": {"train": store.path},
        "network": {"kind": "autoencoder", "hidden_layer_sizes": (5,), "dtype": "float64"},
        "training": {"schedule": "kfac", "max_sweeps": 4.0, "group_chunks": 1, **training},
        "cluster": {"workers": 1},
    }
    shown = Watched()
    runs.train(make_pipeline(settings), RunFolder(folder), [shown], log=lambda line: None)
    return shown


@pytest.fixture(scope="module")
def live(make_store, tmp_path_factory):
    return watched(make_store(X, chunk_rows=16), tmp_path_factory.mktemp("live") / "run")


# --- the lines of records


@pytest.mark.parametrize(
    ("kind", "tables", "names"),
    [
        ("autoencoder", {}, ["sweep", "CPU", "nested"]),
        ("classifier", {"data": {"validation": 0.2}}, ["sweep", "CPU", "nested", "validation", "accuracy"]),
        (
            "classifier",
            {"data": {"validation": 0.2}, "training": {"schedule": "incremental"}},
            ["sweep", "CPU", "relaxed", "nested", "validation", "accuracy"],
        ),
    ],
)
def test_one_line_a_record_and_no_empty_column(kind, tables, names, altmin, tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=LABELS)
    tables = {"training": {"schedule": "kfac"}, **tables}
    write_pipeline(tmp_path / "p.toml", "a.npz", kind, **tables)
    done = altmin("train", "p.toml", "--run", "run")
    assert (done.code, done.err) == (0, "")
    header, records = told_records(done.out)
    assert header == names
    history = RunFolder(tmp_path / "run").records()
    assert len(records) == len(history)
    columns = list(zip(*records, strict=True))
    assert all(set(column) != {"–"} for column in columns)
    for word, record in zip(columns[header.index("nested")], history, strict=True):
        assert float(word) == pytest.approx(record["nested_loss"], rel=1e-3)
    if "accuracy" in header:
        assert columns[-1][-1] == f"{history[-1]['validation_accuracy']:.2%}"
    logged = (tmp_path / "run" / "training.log").read_text().splitlines()
    table = [line for line in logged if line.startswith("20") and line[21:22] == " "]
    assert len(table) == len(records) + 1
    assert max(map(len, table)) <= 80
    assert {line[21:] for line in logged} <= set(done.out.splitlines())
    assert "\x1b" not in done.out


def test_of_many_short_sweeps_there_are_fewer_and_fewer_lines_and_always_the_last():
    file = StringIO()
    shown = Lines(Console(file=file, width=80))
    shown.columns = [Column("sweep", 6, lambda record: sweeps(record.sweep))]
    for sweep in range(99):
        shown.on_record(Record(sweep=float(sweep)))
    shown.tell("something else")
    shown.on_record(Record(sweep=99.0))
    shown.on_end(Outcome("stopped", (), RuntimeError()))
    header, *lines = [line.strip() for line in file.getvalue().splitlines()]
    told = [float(line) for line in lines if line != "something else"]
    assert header == "sweep"
    assert told[:20] == list(range(20))
    assert all(later >= 1.05 * earlier for earlier, later in pairwise(told[:-2]))
    assert len(told) < 60
    assert lines[-3:] == ["98.000", "something else", "99.000"]


def test_records_that_take_long_have_a_line_each(monkeypatch):
    file, now = StringIO(), [0.0]
    shown = Lines(Console(file=file, width=80))
    shown.columns = [Column("sweep", 6, lambda record: sweeps(record.sweep))]
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for sweep in range(100, 110):
        now[0] += display.SOON_SECONDS
        shown.on_record(Record(sweep=float(sweep)))
    assert len(file.getvalue().splitlines()) == 1 + 10


@pytest.mark.parametrize("value", [0, 0.001, 0.125, 12.5, 99.9994, 99.9996, 300, 999.99, 1000, 9999.5])
def test_sweeps_take_six_characters(value):
    assert len(sweeps(value)) <= 6
    assert float(sweeps(value)) == pytest.approx(value, abs=0.06)


def test_the_end_says_how_long_evaluation_took(altmin, trained, tmp_path):
    done = altmin("train", trained / "autoencoder.toml", "--run", "run")
    found = re.search(r"evaluation took (\d+\.\d) s of (\d+\.\d) s\n", done.out)
    assert found, done.out
    assert float(found[1]) <= float(found[2])


def test_a_dumb_terminal_has_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    file = StringIO()
    console = Console(file=file, force_terminal=True, width=80)
    monkeypatch.setattr(display, "SILENT_SECONDS", 0.02)
    with display.counted(console, "ingest t.csv", 10), display.display(console) as shown:
        assert type(shown) is Lines
        while "the data are made ready, 0 s so far" not in file.getvalue():
            time.sleep(0.01)
        shown.tell("something " * 10)
    assert "\x1b" not in file.getvalue()
    assert max(map(len, file.getvalue().splitlines())) <= 80


# --- the live line


def test_the_live_line_is_never_older_than_the_records_above_it(live):
    assert live.at_records
    assert all(bar >= recorded for recorded, bar in live.at_records)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", live.file.getvalue())
    assert len(re.findall("sweep +CPU s +nested\n", plain)) == 1
    assert not re.search(r"relaxed|–", plain.split("Result")[0])


def test_what_is_printed_has_below_it_what_is_live_now(live):
    """It is drawn together with the record, not when the screen is next refreshed."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", live.file.getvalue()).split("Result")[0]
    lines = re.split(r"[\r\n]+", plain)
    pairs = [
        (float(one.split()[0]), float(found[1]))
        for one, other in pairwise(lines)
        if re.fullmatch(r" *\d+\.\d+( +[\d.e+-]+)+", one)
        and (found := re.search(r"sweep ([\d.]+) of", other))
    ]
    assert len(pairs) >= 3
    assert all(below >= record for record, below in pairs)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_what_matters_less_is_left_out_where_there_is_no_room(width):
    progress = RunProgress(7, 40, 3, 8, 0.1, 0.1, 0.1, 1.0, 2.0, 25_637.0)
    progress = replace(
        progress,
        groups=1,
        usage=Usage({"read": 48.0, "write": 25.0, "newton": 14.0, "commit": 13.0}, (("a", 2.5e8, 0),), 2.7e8),
    )
    record = Record(sweep=7.0, relative_residuals=(0.0003267, 0.0001309), mu=(0.1177, 0.01768))
    first, second = display.figures_of(progress, record, ["no better for 1 of 20 records"], width)
    assert first.startswith("25,637 rows/s  no better for 1 of 20 records")
    assert max(len(first), len(second)) <= width
    assert ("residual 0.00033, 0.00013" in first, "μ 0.1177, 0.01768" in first) == (width > 60, width > 80)
    assert ("commit 13%" in second, second.endswith("%")) == (width > 80, True)


def test_time_left_knows_of_early_stopping(live):
    assert live.shown
    for _, text, _ in live.shown:
        assert re.fullmatch(r"sweep [\d.]+ of at most 4, at most (\d+ s|–) left", text)
        assert len(text) <= 80 - len("━" * 20 + " 100% ")


def test_time_left_where_nothing_ends_a_run_early(make_store, tmp_path):
    shown = watched(make_store(X), tmp_path / "run", n_iter_no_change=None, max_sweeps=2.0).shown
    assert all(re.fullmatch(r"sweep [\d.]+ of 2, (\d+ s|–) left", text) for _, text, _ in shown)


def test_how_long_there_was_no_better_model(make_store, tmp_path):
    shown = watched(make_store(X), tmp_path / "run", n_iter_no_change=3, tol=0.9).shown
    assert "no better for 1 of 3 records" in "\n".join(below[0] for *_, below in shown)


def test_waiting_is_no_work():
    assert shares({"wait": 90.0, "newton": 6.0, "read": 3.0, "solve": 1.0}) == [
        "newton 60%",
        "read 30%",
        "solve 10%",
    ]
    assert shares({"wait": 1.0}) == []


# --- memory beside its plan


class Memory(Callback):
    def __init__(self):
        self.found = []

    def on_progress(self, progress):
        self.found.append((progress.usage.memory[0][1], progress.usage.planned_memory))


def test_memory_is_planned_on_top_of_what_the_process_had(pipeline, make_store, tmp_path, monkeypatch):
    """A process that holds much else, as a notebook does, is within its plan."""
    much = 3 * PROGRAM
    in_use = Publisher._in_use
    monkeypatch.setattr(Publisher, "_in_use", lambda self: in_use(self) + much)
    memory = Memory()
    store = make_store(X, chunk_rows=16)
    runs.train(pipeline(store.path), RunFolder(tmp_path / "run"), [memory], log=lambda line: None)
    assert {planned for _, planned in memory.found} == {memory.found[0][1]}
    assert all(planned > much + ALLOWANCE for _, planned in memory.found)


@pytest.mark.slow
def test_the_first_command_stays_within_its_plan(tmp_path):
    from test_cli_help import PIPELINES

    process = start("train", PIPELINES / "digits_autoencoder.toml", "--run", "run", cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, ""), out
    usage = json.loads((tmp_path / "run" / "progress.json").read_text())["progress"]["usage"]
    assert 0.5 * usage["planned_memory"] < usage["memory"][0][1] <= usage["planned_memory"]


def test_names_of_users_are_no_markup(altmin, tmp_path):
    """Units in brackets were left out, and what closes none ended the plan."""
    names = ["flow [l/min]", "x [/s]"]
    pd.DataFrame(X[:, :2], columns=names).assign(y=X[:, 2]).to_csv(tmp_path / "[b] t.csv", index=False)
    write_pipeline(tmp_path / "[b] p.toml", "[b] t.csv", "regressor", data={"y": "y", "drop": names[1]})
    done = altmin("plan", "[b] p.toml", "--set", f"data.missing.{names[0]}=mean")
    assert (done.code, done.err) == (0, "")
    for words in ("Plan of [b] p.toml", f"{names[0]} mean", names[1], "[b] t.csv"):
        assert words in done.out
    file = StringIO()
    with display.counted(Console(file=file, force_terminal=True, width=80), "ingest [/s] [b] t.csv", 10):
        pass
    assert "ingest [/s] [b] t.csv" in file.getvalue()
