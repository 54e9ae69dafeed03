"""The command line as a user meets it: whole jobs, and every kind of bad input in one sentence."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from choices import slow_but
from command import LABELS, RNG, Outcome, X, files_below, refused, start, told_records, write_pipeline

import altmin_dask
from altmin_dask import cli
from altmin_dask.config.loading import load_pipeline
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.runs import default_run
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.algorithms import restore

# --- whole jobs


@pytest.mark.slow
def test_digits_from_ingest_to_resume(altmin, tmp_path):
    """The autoencoder, by way of stores."""
    for part in ("train", "test"):
        done = altmin("ingest", f"digits:{part}", f"{part}.zarr", "--scale", 16, "--chunk-rows", 200)
        assert (done.code, done.err) == (0, "")
        assert "samples of 8×8" in done.out
        assert len(done.out.splitlines()) == 1
    assert SampleStore.open("train.zarr").n_chunks == 8
    write_pipeline(tmp_path / "digits.toml", "train.zarr", data={"validation": "test.zarr"})
    done = altmin(
        "train", "digits.toml", "--run", "run", "--set", "network.hidden_layer_sizes=[8]", "solver.mu=0.2"
    )
    assert (done.code, done.err) == (0, "")
    assert "run run: 64-8-64 autoencoder, 1437 samples in 8 chunks of 200, 2 threads" in done.out
    header, lines = told_records(done.out)
    assert header == ["sweep", "CPU", "relaxed", "nested", "validation"]
    assert [words[0] for words in lines] == ["0.000", "1.000", "2.000"]
    assert json.loads(Path("run/pipeline.json").read_text())["pipeline"]["solver"]["mu"] == 0.2

    history = [json.loads(line) for line in Path("run/history.jsonl").read_text().splitlines()]
    assert [record["sweep"] for record in history] == [0, 1, 2]
    done = altmin("evaluate", "run", "test.zarr", "--json")
    assert (done.code, done.err) == (0, "")
    result = json.loads(done.out)
    assert result["samples"] == 360
    assert result["accuracy"] is None
    assert result["loss"] == pytest.approx(history[-1]["validation_loss"], rel=1e-12)
    # a raw source is scaled as the training data were
    raw = json.loads(altmin("evaluate", "run", "digits:test", "--json").out)
    assert raw["loss"] == pytest.approx(result["loss"], rel=1e-12)
    done = altmin("evaluate", "run", "test.zarr")
    assert f"{result['loss']:.6g}" in done.out
    assert "accuracy" not in done.out

    done = altmin("predict", "run", "test.zarr", "out/predictions.zarr")
    assert (done.code, done.err) == (0, "")
    assert "predictions for 360 samples" in done.out
    assert zarr.open_array("out/predictions.zarr/prediction").shape == (360, 64)

    done = altmin("report", "run")
    assert (done.code, done.err) == (0, "")
    assert done.out.strip().endswith("report/report.html")
    assert Path("run/report/reconstructions.png").exists()

    more = "training.max_sweeps=4", "output.report=true"
    done = altmin(
        *("train", "digits.toml", "--run", "run", "--resume", "--set"),
        *("network.hidden_layer_sizes=[8]", "solver.mu=0.2", *more),
    )
    assert (done.code, done.err) == (0, "")
    assert "report: " in done.out
    assert [r["sweep"] for r in RunFolder(Path("run")).records()] == [0, 1, 2, 3, 4]
    again = json.loads(altmin("evaluate", "run", "test.zarr", "--json").out)
    assert again["loss"] < result["loss"]


@pytest.mark.slow
def test_a_classifier_from_a_raw_source(altmin, tmp_path):
    file = write_pipeline(
        tmp_path / "c.toml",
        "digits:train",
        "classifier",
        data={"validation": "digits:test", "scale": 16.0},
        output={"run": "mine", "report": True},
    )
    done = altmin("train", file)
    assert (done.code, done.err) == (0, "")
    assert "64-5-10 classifier" in done.out
    result = json.loads(altmin("evaluate", "mine", "digits:test", "--json").out)
    last = RunFolder(Path("mine")).records()[-1]
    assert result["accuracy"] == pytest.approx(last["validation_accuracy"])
    assert "accuracy" in altmin("evaluate", "mine", "digits:test").out
    assert altmin("predict", "mine", "digits:test", "p.zarr").code == 0
    assert zarr.open_array("p.zarr/label").shape == (360,)
    # stores of a run's own are found where the folder is moved
    shutil.move("mine", "moved")
    assert json.loads(Path("moved/pipeline.json").read_text())["stores"]["train"] == "data/train.zarr"
    assert altmin("report", "moved").code == 0
    page = Path("moved/report/report.html").read_text()
    assert "the samples cannot be read" not in page
    assert Path("moved/report/confusion.png").exists()
    assert altmin("train", file, "--run", "moved", "--resume", "--set", "training.max_sweeps=3").code == 0


@pytest.mark.parametrize("columns", slow_but([2], [None, 2]))
def test_a_regressor_from_npz(altmin, tmp_path, columns):
    y = X @ RNG.random(6) if columns is None else X @ RNG.random((6, columns))
    np.savez(tmp_path / "data.npz", samples=X, targets=y)
    done = altmin(
        "ingest",
        "data.npz",
        "data.zarr",
        "--x",
        "samples",
        "--y",
        "targets",
        "--chunk-rows",
        16,
        "--dtype",
        "float64",
    )
    assert (done.code, done.err) == (0, "")
    write_pipeline(tmp_path / "r.toml", "data.zarr", "regressor", network={"activation": "tanh"})
    done = altmin("train", "r.toml")
    assert (done.code, done.err) == (0, "")
    result = json.loads(altmin("evaluate", "runs/r", "data.zarr", "--json").out)
    assert result["samples"] == 60
    assert result["accuracy"] is None
    assert altmin("predict", "runs/r", "data.zarr", "p.zarr").code == 0
    assert zarr.open_array("p.zarr/prediction").shape == (60, columns or 1)


def test_runs_are_numbered_and_the_newest_is_resumed(altmin, tmp_path):
    np.savez(tmp_path / "a.npz", x=X)
    write_pipeline(tmp_path / "job.toml", "a.npz")
    assert altmin("train", "job.toml").code == 0
    assert altmin("train", "job.toml").code == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["job", "job-2"]
    assert altmin("train", "job.toml", "training.max_sweeps=3", "--resume").code == 0
    assert len(RunFolder(Path("runs/job")).records()) == 3
    assert len(RunFolder(Path("runs/job-2")).records()) == 4


def test_runs_that_were_removed_leave_the_newest_where_it_is(monkeypatch, tmp_path):
    """Where one was missing, the one before it was resumed, and the next new one took its place."""
    monkeypatch.chdir(tmp_path)
    pipeline = load_pipeline(write_pipeline(tmp_path / "job.toml", "a.npz"))
    file = Path("job.toml")
    assert [default_run(pipeline, file, resume) for resume in (True, False)] == [Path("runs/job")] * 2
    for name in ("job", "job-3", "job-10", "job-01", "job-1", "job-11x", "jobs-20", "a-job-30"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert default_run(pipeline, file, resume=True) == Path("runs/job-10")
    assert default_run(pipeline, file, resume=False) == Path("runs/job-11")


def test_everything_on_a_cluster(altmin, tmp_path, cluster_address):
    np.savez(tmp_path / "a.npz", x=X, y=LABELS)
    write_pipeline(tmp_path / "job.toml", "a.npz", "classifier", data={"chunk_rows": 20})
    done = altmin("train", "job.toml", "--run", "run", "--scheduler", cluster_address)
    assert (done.code, done.err) == (0, "")
    assert f"Dask cluster at {cluster_address}" in done.out
    there = altmin("evaluate", "run", "a.npz", "--json", "--scheduler", cluster_address)
    here = altmin("evaluate", "run", "a.npz", "--json")
    assert (there.code, there.err) == (0, "")
    assert there.out == here.out
    done = altmin("predict", "run", "a.npz", "p.zarr", "--scheduler", cluster_address.removeprefix("tcp://"))
    assert (done.code, done.err) == (0, "")


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer(trained, tmp_path):
    """In a process of its own, with all that the libraries would log."""
    words = ("--run", "run", "--scheduler", "127.0.0.1:9", "cluster.connect_timeout=1")
    process = start("train", trained / "autoencoder.toml", *words, cwd=tmp_path)
    out, err = process.communicate(timeout=60)
    refused(Outcome(process.returncode, out, err), "no Dask scheduler answers at 127.0.0.1:9 in 1 s")
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize(
    "words",
    [
        ["train"],
        ["train", "p.toml", "--speed"],
        ["fly"],
        ["ingest", "digits"],
        ["ingest", "digits", "d", "--scale", "x"],
        ["evaluate", "run"],
        ["report"],
        ["predict", "run", "digits"],
        ["dashboard", "run", "--port", "99999"],
    ],
)
def test_wrong_usage(words, altmin, tmp_path):
    outcome = altmin(*words)
    assert outcome.code == 2
    assert "Usage: altmin" in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    assert files_below(tmp_path) == set()


def test_help(altmin):
    assert "Usage: altmin" in altmin("--help").out
    for command in ("ingest", "train", "evaluate", "predict", "report"):
        done = altmin(command, "--help")
        assert done.code == 0
        assert f"Usage: altmin {command}" in done.out


def test_version(altmin):
    done = altmin("--version")
    assert (done.code, done.out, done.err) == (0, f"altmin {altmin_dask.__version__}\n", "")


SLOW = {"bokeh", "dask", "distributed", "matplotlib", "numpy", "scipy", "sklearn", "zarr"}


@pytest.mark.parametrize(
    "words", [["--version"], ["--help"], [], ["--speed"], ["ingest", "--help"], ["train", "--help"]]
)
def test_help_imports_nothing_slow(words):
    """What is loaded is the same everywhere; seconds are not."""
    program = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: json.dump(sorted(sys.modules), sys.stdout))\n"
        "from altmin_dask.cli import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout[done.stdout.rindex("[") :])}
    assert "typer" in loaded
    assert loaded & SLOW == set()


def test_the_package_imports_next_to_nothing():
    program = "import sys; old = set(sys.modules); import altmin_dask; print(*(set(sys.modules) - old))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    ours = {name for name in done.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names}
    assert ours == {"altmin_dask"}


# --- what nobody asked for


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RuntimeError("out of\nluck"), 1, "RuntimeError: out of luck (ALTMIN_DEBUG=1 shows where)"),
        (OSError(28, "No space left on device", "s.zarr"), 1, "No space left on device"),
        (
            PermissionError(13, "Permission denied", "s.zarr"),
            2,
            "s.zarr: Permission denied; change its permissions, or choose",
        ),
        (KeyboardInterrupt(), 1, "interrupted"),
    ],
)
def test_what_is_unexpected(error, code, message, altmin, monkeypatch):
    def fail(*args: Any, **settings: Any) -> None:
        raise error

    monkeypatch.setattr("altmin_dask.data.ingest.ingest", fail)
    refused(altmin("ingest", "digits", "s.zarr"), message, code)


def test_debugging_shows_the_traceback(altmin, monkeypatch):
    monkeypatch.setenv("ALTMIN_DEBUG", "1")
    monkeypatch.setattr("altmin_dask.data.open.open_source", lambda *args, **names: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        altmin("ingest", "digits", "s.zarr")


@pytest.mark.parametrize("how", slow_but([signal.SIGINT], [signal.SIGINT, signal.SIGTERM]))
def test_an_interrupted_run_says_how_to_go_on(how, trained, tmp_path):
    process = start(
        "train", trained / "autoencoder.toml", "training.max_sweeps=1000000", "--run", "run", cwd=tmp_path
    )
    deadline = time.monotonic() + 60
    while not any((tmp_path / "run" / "state").glob("*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(how)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    refused(Outcome(process.returncode, out, err), "--run run --resume", 1)
    state = restore(RunFolder(tmp_path / "run"))
    assert state is not None
    assert not [name for name in files_below(tmp_path) if "partial" in name]


# --- the display


def on_terminal(*words: Any, columns: int, cwd: Path) -> tuple[int, str]:
    """Run the command line under a pseudo-terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-m", "altmin_dask", *map(str, words)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        cwd=cwd,
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 1 << 16):
            shown += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    return process.wait(timeout=60), shown.decode()


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, pytest.param(120, marks=pytest.mark.slow)])
def test_the_live_line_on_a_terminal(columns, trained, tmp_path):
    file = trained / "autoencoder.toml"
    code, shown = on_terminal(
        "train", file, "--run", "run", "training.max_sweeps=12", columns=columns, cwd=tmp_path
    )
    assert code == 0
    assert "\x1b[2K" in shown  # a line that is redrawn
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    number = r"\d[\d.e+-]*"
    assert re.search(rf"sweep {number} of at most 12, at most \d+ s left", plain), plain
    group = rf"group [1-4] of 4, relaxed {number}"
    below = rf"{number} rows/s  {group}  residual {number}, {number}  μ {number}, {number}"
    assert re.search(below, plain), plain
    assert re.search(r"memory [\d.]+ MiB of [\d.]+ MiB planned  [a-z]+ \d+%", plain), plain
    assert len(re.findall(r"sweep +CPU s +relaxed +nested", plain)) == 1
    assert re.search(r"12\.000 +[\d.]+ +[\d.]+ +[\d.]+\s", plain)
    assert "Result" in plain


@pytest.mark.slow
def test_plain_lines_anywhere_else(trained, tmp_path):
    process = start("train", trained / "classifier.toml", "--run", "run", cwd=tmp_path)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "\x1b" not in out
    assert "\r" not in out
    lines = out.splitlines()
    assert lines[0].startswith("run run: 6-5-3 classifier, 60 samples in 4 chunks of 16, ")
    header, records = told_records(out)
    assert header == ["sweep", "CPU", "relaxed", "nested", "accuracy"]
    assert [words[0] for words in records] == ["0.000", "1.000", "2.000"]
    logged = (tmp_path / "run" / "training.log").read_text().splitlines()
    assert max(len(line) for line in logged if line.startswith("20") and line[21:22] == " ") <= 80


def words_of(shown: str) -> list[str]:
    """Lines as they stand on a terminal, with numbers that are of one run left out."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    return [re.sub(r"\d[\d.,e+-]*", "#", line).rstrip() for line in re.split(r"[\r\n]+", plain)]


@pytest.mark.slow
def test_at_80_columns_nothing_is_wider_and_plain_lines_are_those_of_a_terminal(trained, tmp_path):
    words = ["train", trained / "autoencoder.toml", "--set", "training.max_sweeps=3", "--run"]
    name = "a_folder_of_a_run_with_a_rather_long_name"
    process = start(*words, name, cwd=tmp_path, env={"COLUMNS": "80"})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", out)
    assert max(map(len, out.splitlines())) <= 80
    assert len(re.findall(r"sweep +CPU s", out)) == 1
    command = re.search(r"next: (altmin train (?:.*\\\n)+.*)\n", out)  # as a shell takes it
    assert command, out
    assert shlex.split(command[1].replace("\\\n", ""))[-5:] == [
        "--run",
        name,
        "--resume",
        "--set",
        "training.max_sweeps=6",
    ]
    (tmp_path / name).rename(tmp_path / "before")
    code, shown = on_terminal(*words, name, columns=80, cwd=tmp_path)
    assert code == 0
    assert not [line for line in words_of(out) if line not in words_of(shown)]


@pytest.mark.slow
def test_a_failed_command_on_a_terminal(tmp_path):
    code, shown = on_terminal("ingest", "gone.npz", "s.zarr", columns=80, cwd=tmp_path)
    assert code == 2
    assert shown.startswith("altmin: there is no file or folder gone.npz")
