"""The page in the Dask dashboard: on real schedulers, and in a real browser where there is one."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bokeh.document import Document
from command import start, write_pipeline
from distributed import Client, LocalCluster

from altmin_dask import runs
from altmin_dask.config import Pipeline
from altmin_dask.dashboard.board import Board, by_activity
from altmin_dask.dashboard.page import POINTS as MOST_POINTS
from altmin_dask.dashboard.page import View
from altmin_dask.dashboard.pictures import pictures
from altmin_dask.dashboard.plugin import install
from altmin_dask.dashboard.server import Follower
from altmin_dask.errors import SchedulerError
from altmin_dask.execution.timing import activity, seconds_spent
from altmin_dask.report.page import write_report
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.algorithms import restore
from altmin_dask.training.callbacks import Callback
from altmin_dask.training.progress import Progress, Usage
from altmin_dask.training.record import Record, read_records

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MARKUP = "<img src=x onerror=document.title='owned'>"


def pipeline(title: str = "digits", **training: Any) -> Pipeline:
    return Pipeline.model_validate(
        {
            "data": {"train": "digits:train", "validation": "digits:test", "scale": 16.0},
            "network": {"kind": "autoencoder", "hidden_layer_sizes": [16]},
            "training": {"schedule": "incremental", "max_sweeps": 2.0, "n_iter_no_change": None, **training},
            "output": {"title": title},
        }
    )


def train(made: Pipeline, folder: Path, client: Client | None, **options: Any) -> list[str]:
    lines: list[str] = []
    runs.train(made, RunFolder(folder), scheduler=client, log=lines.append, **options)
    return lines


def on_board(client: Client, folder: Path) -> Any:
    """What a scheduler knows of a run."""

    def get(dask_scheduler: Any) -> Any:
        states = dask_scheduler.plugins["altmin-dashboard"].board.runs.values()
        (state,) = [state for state in states if str(folder) in state.run]
        return {name: value for name, value in vars(state).items() if name != "marks"}

    return SimpleNamespace(**client.run_on_scheduler(get))


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        page: str = answer.read().decode()
    return page


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


# the board


def message(kind: str, run: str = "r", **content: Any) -> dict[str, Any]:
    return {"run": run, "kind": kind, **content}


def begin(run: str = "r", records: Any = ()) -> dict[str, Any]:
    return message("begin", run, title=run, description="", plan={}, span="", rows=100, records=list(records))


def test_a_board_remembers_all_runs():
    board = Board()
    board.apply(message("record", record={"sweep": 1.0}))  # of a run that nobody has heard of
    assert not board.runs
    board.apply(begin("a"))
    for sweep in range(2000):
        board.apply(message("record", "a", record={"sweep": float(sweep), "nested_loss": 1.0}))
    board.apply(begin("b"))
    board.apply({**begin("c"), "client": "here"})
    board.apply(message("end", "a", status="done"))
    board.lost("here")
    assert "--resume" in board.runs["c"].status
    board.apply(message("record", "c", record={"sweep": 1.0}))
    assert board.runs["c"].status == "running"
    assert len(board.runs["a"].records) == 2000
    assert (board.runs["a"].status, board.runs["b"].status) == ("done", "running")


def test_a_run_that_comes_back_goes_on_with_its_curve():
    board = Board()
    board.apply(begin("a"))
    for sweep in (0.0, 1.0, 2.0):
        board.apply(message("record", "a", record={"sweep": sweep}))
    board.apply(begin("a", [{"sweep": 0.0}, {"sweep": 1.0}, {"sweep": 2.0}]))
    # the last record was not committed, and is made again
    board.apply(message("record", "a", record={"sweep": 2.0}))
    board.apply(message("record", "a", record={"sweep": 3.0}))
    assert [record.sweep for record in board.runs["a"].records] == [0.0, 1.0, 2.0, 3.0]
    assert list(board.runs) == ["a"]


def test_pictures_are_of_what_are_pictures():
    x = np.random.default_rng(0).random((3, 64))
    rows = pictures(x, x)
    assert [len(row) for row in rows] == [3, 3]
    assert rows[0][0][:3] == (8, 8, 1)
    assert rows[0][0][3] == (255 * (x[0] - x.min()) / (x.max() - x.min())).astype(np.uint8).tobytes()
    # no image: a stripe; colours first or last; an image of any size is small
    shapes = {(60,): (1, 60, 1), (3, 8, 9): (8, 9, 3), (8, 9, 3): (8, 9, 3), (512, 300): (64, 38, 1)}
    for shape, drawn in shapes.items():
        samples = np.linspace(0, 1, 2 * math.prod(shape), dtype=np.float32).reshape(2, *shape)
        for row in pictures(samples, samples.reshape(2, -1)):
            assert [picture[:3] for picture in row] == [drawn, drawn]
            assert all(len(picture[3]) == math.prod(drawn) for picture in row)


def test_activities_are_counted_once():
    before, began = seconds_spent(), time.perf_counter()
    with activity("outer test"):
        time.sleep(0.02)
        with activity("inner test"):
            time.sleep(0.1)
    elapsed = time.perf_counter() - began
    spent = {name: value - before.get(name, 0.0) for name, value in seconds_spent().items()}
    assert spent["inner test"] >= 0.1
    assert 0.02 <= spent["outer test"] <= elapsed - spent["inner test"]  # however long sleeping took
    assert by_activity({"read": 1.0, "executor": 2.0}, {"read": 3.0, "wait": 0.0}) == {
        "read": 4.0,
        "other": 2.0,
    }


def test_long_histories_are_thinned():
    board = Board()
    for run in ("a", "b"):
        records = [{"sweep": float(i), "nested_loss": 1.0 + 1 / (i + 1)} for i in range(5000)]
        board.apply(begin(run, [*records, {"sweep": 5000.0, "nested_loss": 0.0}]))
    document = Document()
    view = View(document, board, None)
    view.update()
    xs, ys = view.by_sweep.data["xs"], view.by_sweep.data["ys"]
    assert [len(x) for x in xs] == [len(y) for y in ys] == [MOST_POINTS, MOST_POINTS]
    assert (xs[0][0], xs[0][-1]) == (0.0, 5000.0)
    assert np.isnan(ys[0][-1])  # which has no logarithm
    assert np.isfinite(ys[0][:-1]).all()


def test_of_many_workers_the_largest_are_shown():
    class Workers:
        def memory(self) -> list[tuple[str, float, float]]:
            return [(f"worker {i}", float((i * 7 % 40) << 20), float(64 << 20)) for i in range(40)]

        def seconds(self, span: str) -> dict[str, float]:
            return {}

    view = View(Document(), Board(), Workers())
    view.update()
    assert len(view.memory.data["name"]) == 16
    assert min(view.memory.data["bytes"]) == 24
    assert "the 16 largest of 40" in view.memory_figure.title.text


# on a scheduler


def test_a_run_installs_the_page_and_tells_its_url(client, tmp_path):
    lines = train(pipeline(), tmp_path / "run", client)
    urls = [line.removeprefix("dashboard: ") for line in lines if line.startswith("dashboard: ")]
    assert len(urls) == 1
    assert urls[0].endswith("/altmin")
    assert "bokeh" in fetch(urls[0])
    status = fetch(urls[0].removesuffix("altmin") + "status")
    assert re.search(r'href="altmin">\s*Altmin', status)
    assert install(client) == urls[0]  # again, and there is still one
    records = RunFolder(tmp_path / "run").records()
    state = on_board(client, tmp_path)
    assert [record.to_dict() for record in state.records] == records
    assert state.plan["worker_memory"] > 2**20
    assert "sweeps are done" in state.status
    assert [len(row) for row in state.pictures] == [10, 10]
    assert state.progress.max_sweeps == 2.0


def test_a_resumed_run_is_one_curve(client, tmp_path):
    train(pipeline(), tmp_path / "run", client)
    train(pipeline(max_sweeps=4.0), tmp_path / "run", client, resume=True)
    state = on_board(client, tmp_path)
    assert [record.to_dict() for record in state.records] == RunFolder(tmp_path / "run").records()
    assert state.records[-1].sweep == pytest.approx(4.0)


def test_a_run_that_was_killed_while_it_wrote_a_record_goes_on(client, tmp_path):
    for name, where in (("cluster", client), ("threads", None)):
        run = RunFolder(tmp_path / name)
        train(pipeline(), run.path, where)
        before = run.records()
        with run.history.open("ab") as file:
            file.write(b'{"sweep": 3.0, "cpu_')
        assert run.records(whole=True) == before
        train(pipeline(max_sweeps=4.0), run.path, where, resume=True)
        assert run.records()[: len(before)] == before
        assert run.records()[-1]["sweep"] == pytest.approx(4.0)
    state = on_board(client, tmp_path)
    assert [record.to_dict() for record in state.records] == RunFolder(tmp_path / "cluster").records()


def test_a_run_whose_process_is_gone_is_not_said_to_go_on(client, tmp_path):
    file = write_pipeline(
        tmp_path / "endless.toml", "digits:train", training={"max_sweeps": 1e6}, data={"scale": 16}
    )
    with start("train", file, "--run", tmp_path / "run", "--scheduler", client.scheduler.address) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run" / "progress.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert on_board(client, tmp_path).status == "running"
        process.kill()
        process.communicate(timeout=20)
    while on_board(client, tmp_path).status == "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "--resume" in on_board(client, tmp_path).status


def test_a_folder_whose_name_is_no_text_has_a_curve(client, tmp_path):
    folder = tmp_path / os.fsdecode(b"r\xff")
    train(pipeline(max_sweeps=1.0), folder, client)
    assert "/r?: 64-16-64 autoencoder" in on_board(client, tmp_path).description
    follower = Follower(RunFolder(folder))
    follower.follow()
    assert len(follower.board.runs[follower.name].records) == len(on_board(client, tmp_path).records)


def test_watching_changes_no_bit(client, tmp_path):
    train(pipeline(), tmp_path / "watched", client)
    runs.train(pipeline(), RunFolder(tmp_path / "alone"), log=lambda line: None)
    watched, alone = (restore(RunFolder(tmp_path / name)) for name in ("watched", "alone"))
    assert watched is not None
    assert alone is not None
    for a, b in zip(watched.weights, alone.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_spans_and_activities(client, tmp_path):
    train(pipeline(max_sweeps=3.0), tmp_path / "run", client)
    state = on_board(client, tmp_path)

    def look(dask_scheduler: Any) -> Any:
        spans = dask_scheduler.extensions["spans"].spans_search_by_name
        root = (state.span,)
        sweeps = sorted({name[1] for name in spans if name[:1] == root and len(name) == 2})
        found: set[str] = set()
        for span in spans[root]:
            for part in span.traverse_spans():
                found |= {str(key[2]) for key in part._cumulative_worker_metrics if key[0] == "execute"}
        prefixes = set(dask_scheduler.task_prefixes)
        return sweeps, found, prefixes

    deadline = time.monotonic() + 60  # metrics come with heartbeats
    while True:
        sweeps, activities, prefixes = client.run_on_scheduler(look)
        if {"read", "newton", "statistics", "write", "evaluate"} <= activities or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert {"sweep 1", "sweep 2", "sweep 3"} <= set(sweeps)
    assert {"read", "newton", "statistics", "write", "evaluate"} <= activities
    assert {"altmin_newton", "altmin_evaluate", "altmin_enter"} <= prefixes


@pytest.mark.slow
def test_what_workers_do_comes_back_to_the_terminal_and_the_run_folder(client, tmp_path):
    class Seen(Callback):
        last: Progress

        def on_progress(self, progress: Progress) -> None:
            self.last = progress

    def client_seconds(dask_scheduler: Any) -> dict[str, float]:
        metrics = dask_scheduler.cumulative_worker_metrics.items()
        return {key[2]: value for key, value in metrics if key[:2] == ("execute", "altmin_client")}

    before = client.run_on_scheduler(client_seconds)
    seen = Seen()
    # workers say every half a second what they have done
    runs.train(
        pipeline(max_sweeps=400.0, max_cpu_seconds=5.0),
        RunFolder(tmp_path / "run"),
        [seen],
        scheduler=client,
        log=lambda line: None,
    )
    assert {"read", "newton", "statistics", "write", "solve", "wait", "commit"} <= set(
        seen.last.usage.seconds
    )
    assert len(seen.last.usage.memory) == 2
    assert all(used > 2**20 for _, used, _ in seen.last.usage.memory)
    assert seen.last.usage.planned_memory > 2**20
    after = client.run_on_scheduler(client_seconds)
    gained = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
    assert set(gained) == {"solve", "wait", "commit"}
    assert gained["wait"] == pytest.approx(seen.last.usage.seconds["wait"])
    note = RunFolder(tmp_path / "run").noted()
    assert "CPU seconds are spent" in note["status"]
    assert note["progress"]["usage"]["seconds"]["newton"] == pytest.approx(seen.last.usage.seconds["newton"])


def test_a_scheduler_that_knows_of_no_page_stops_nothing(client, tmp_path, monkeypatch):
    monkeypatch.setattr("altmin_dask.dashboard.publisher._installed", lambda client: None)
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as bare,
    ):
        train(pipeline(max_sweeps=1.0), tmp_path / "run", bare)
    assert RunFolder(tmp_path / "run").records()


def test_a_run_folder_that_takes_no_note_stops_nothing(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".lock").touch()

    class Obstructing(Callback):
        def on_record(self, record: Record) -> None:
            (folder / "progress.json").mkdir(exist_ok=True)

    runs.train(pipeline(), RunFolder(folder), [Obstructing()], log=lambda line: None)
    assert RunFolder(folder).records()[-1]["sweep"] == pytest.approx(2.0)


@pytest.mark.slow
def test_a_performance_report_is_part_of_the_report(client, tmp_path):
    made = pipeline(max_sweeps=1.0)
    made = made.model_copy(update={"output": made.output.model_copy(update={"performance": True})})
    train(made, tmp_path / "run", client)
    assert "altmin_newton" in (tmp_path / "run" / "report" / "performance.html").read_text()
    page = write_report(RunFolder(tmp_path / "run")).read_text()
    assert '<a href="performance.html">' in page


def test_without_a_dashboard_training_goes_on(tmp_path):
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        lines = train(pipeline(max_sweeps=1.0), tmp_path / "run", client)
    assert not any("dashboard:" in line for line in lines)
    assert RunFolder(tmp_path / "run").records()


def test_a_run_that_fails_says_so_on_the_page(client, tmp_path):
    with pytest.raises(RuntimeError, match="diverged"):
        train(pipeline("bad", max_sweeps=40.0, schedule="incremental"), tmp_path / "run", _Failing(client))
    state = on_board(client, tmp_path)
    assert "diverged" in state.status


class _Failing(Client):
    """A client whose third computation fails as diverging weights do."""

    def __init__(self, client: Client) -> None:
        self.__dict__ = dict(client.__dict__)
        self.left = 6

    def compute(self, *words: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("the nested loss diverged")
        return Client.compute(self, *words, **options)

    def __del__(self) -> None:
        pass


SCHEDULER = """
import sys
{block}
from distributed.cli.dask_scheduler import main
main()
"""


@contextmanager
def running_scheduler(folder: Path, *words: str, block: str = "") -> Iterator[str]:
    """A scheduler and a worker of their own; the scheduler may lack the package."""
    (folder / "scheduler.py").write_text(SCHEDULER.format(block=block))
    file = folder / "scheduler.json"
    options = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
    processes = [
        subprocess.Popen(
            [sys.executable, folder / "scheduler.py", *options, "--scheduler-file", file, *words],
            stderr=subprocess.DEVNULL,
        )
    ]
    try:
        deadline = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < deadline
            assert processes[0].poll() is None
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        worker = [
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            address,
            "--nthreads",
            "1",
            "--no-nanny",
        ]
        processes.append(subprocess.Popen([*worker, "--no-dashboard"], stderr=subprocess.DEVNULL))
        yield address
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_the_code_is_sent_to_a_scheduler_that_has_it_not(tmp_path):
    with (
        running_scheduler(tmp_path, block="sys.modules['altmin_dask'] = None") as address,
        Client(address, set_as_default=False) as client,
    ):
        client.wait_for_workers(1, timeout=60)
        url = install(client)
        assert url is not None
        assert "bokeh" in fetch(url)
        client.sync(client.scheduler.altmin_tell, message=begin(str(tmp_path)))
        step = Progress(
            0.5, 2.0, 1, 3, 4.0, 5.0, None, 0.1, 0.3, usage=Usage({"solve": 0.1}, (("w", 1.0, 2.0),))
        )
        told = {"progress": asdict(step), "client_seconds": {"solve": 0.1}}
        client.sync(client.scheduler.altmin_tell, message=message("progress", str(tmp_path), span="", **told))
        made = Record(sweep=1.0, nested_loss=2.0, mu=(0.1, 0.2)).to_dict()
        client.sync(
            client.scheduler.altmin_tell, message=message("record", str(tmp_path), span="", record=made)
        )
        state = on_board(client, tmp_path)
        assert (state.rows, state.progress.usage.memory) == (100, (("w", 1.0, 2.0),))
        assert state.records[-1].mu == (0.1, 0.2)
        assert "bokeh" in fetch(url)
        # its tasks it could not read
        with pytest.raises(SchedulerError, match="install it there as here"):
            train(pipeline(max_sweeps=1.0), tmp_path / "run", client)


@pytest.mark.slow
def test_preload_and_prefix(tmp_path):
    words = ("--preload", "altmin_dask.dashboard", "--dashboard-prefix", "behind")
    with running_scheduler(tmp_path, *words) as address, Client(address, set_as_default=False) as client:
        port = client.scheduler_info()["services"]["dashboard"]
        assert "bokeh" in fetch(f"http://127.0.0.1:{port}/behind/altmin")
        client.wait_for_workers(1, timeout=60)
        assert install(client) == f"http://127.0.0.1:{port}/behind/altmin"


# a server of its own


@contextmanager
def served(run: Path) -> Iterator[str]:
    process = start("dashboard", run, "--port", "0")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.search(r"http://\S+", line)
        assert match, line
        assert "this machine only" in line
        yield match[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


def test_a_run_folder_is_served(client, tmp_path):
    train(pipeline(), tmp_path / "run", client)
    with served(tmp_path / "run") as url:
        assert url.startswith("http://localhost:")
        assert "bokeh" in fetch(url)


def test_a_run_folder_says_as_much_as_a_scheduler(tmp_path):
    folder = RunFolder(tmp_path / "run")
    runs.train(pipeline(), folder, log=lambda line: None)
    follower = Follower(folder)
    follower.follow()
    state = follower.board.runs[follower.name]
    assert state.records == read_records(folder)
    assert state.progress.max_sweeps == 2.0
    assert {"read", "newton", "statistics", "write", "solve", "wait"} <= set(state.progress.usage.seconds)
    ((name, used, _),) = state.progress.usage.memory
    assert (name, used > 2**20) == ("this process", True)
    assert state.plan["worker_memory"] > 2**20
    assert "sweeps are done" in state.status
    assert [len(row) for row in state.pictures] == [10, 10]
    view = View(Document(), follower.board, None)
    view.update()
    assert view.memory.data["name"] == ["this process"]
    assert view.planned.visible
    assert "newton" in view.activities.data["name"]

    # somebody is writing a record, or was killed doing so
    with folder.history.open("ab") as file:
        file.write(b'{"sweep": 3.0, "cpu_')
    follower.follow()
    assert len(state.records) == len(folder.records(whole=True))
    assert "sweeps are done" in state.status
    # of a run that went back to its last commit
    whole = folder.history.read_bytes().splitlines(keepends=True)
    folder.history.write_bytes(b"".join(whole[:2]))
    follower.follow()
    assert len(state.records) == 2
    # and one that was killed
    folder.write_progress({**folder.noted(), "status": "running", "time": time.time() - 3600})
    follower.follow()
    assert state.status == "nothing was heard of it for 1 h 0 min"
    # a folder of which there is nothing but the history
    (folder.path / "progress.json").unlink()
    bare = Follower(folder)
    bare.follow()
    assert (len(bare.board.runs[bare.name].records), bare.board.runs[bare.name].status) == (2, "")


def test_what_is_no_run_is_refused(altmin, tmp_path):
    outcome = altmin("dashboard", tmp_path)
    assert outcome.code == 2
    assert "is not a run folder" in outcome.err


# in a browser


@contextmanager
def browser_page(url: str, scheme: str = "light") -> Iterator[tuple[Any, list[str]]]:
    """An open page, and the errors of its console."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 1250}, color_scheme=scheme)
        errors: list[str] = []
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.wait_for_function("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].roots().length")
        try:
            yield page, errors
        finally:
            browser.close()


# models of the page by what stands in them
POINTS = """() => {
  const sources = Bokeh.documents[0].all_models ? [...Bokeh.documents[0].all_models] : [];
  const lines = sources.filter(m => m.type == 'ColumnDataSource' && m.data && m.data.xs);
  return Math.max(0, ...lines.map(m => (m.data.xs || []).reduce((n, x) => n + x.length, 0)));
}"""
TABLE = """() => {
  const find = root => {
    for (const el of root.querySelectorAll('*')) {
      if (el.shadowRoot) { const f = find(el.shadowRoot); if (f) return f; }
      if (el.tagName == 'TABLE') return el;
    }
  };
  const table = find(document);
  return table ? {text: table.innerText, images: table.querySelectorAll('img').length,
                  color: getComputedStyle(table).color, page: getComputedStyle(document.body).backgroundColor} : null;
}"""


def luminance(color: str) -> float:
    channels = [int(value) / 255 for value in re.findall(r"\d+", color)[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.mark.slow
@needs_browser
def test_a_curve_grows_in_a_browser_and_runs_stand_side_by_side(client, tmp_path):
    train(pipeline("first " + MARKUP, max_sweeps=1.0), tmp_path / "first", client)
    url = install(client)
    assert url is not None
    with browser_page(url) as (page, errors):
        page.wait_for_function(f"({TABLE})() !== null")
        assert page.locator("a[href='altmin']").count() == 1
        before = page.evaluate(POINTS)
        made = pipeline("second", max_sweeps=400.0, max_cpu_seconds=6.0)
        thread = Thread(target=train, args=(made, tmp_path / "second", client))
        thread.start()
        page.wait_for_function(f"({POINTS})() > {before + 6}", timeout=60_000)
        middle = page.evaluate(POINTS)
        page.wait_for_function(f"({POINTS})() > {middle + 6}", timeout=60_000)
        thread.join()
        page.wait_for_function(f"({TABLE})().text.includes('CPU seconds are spent')", timeout=20_000)
        table = page.evaluate(TABLE)
        assert "first" in table["text"]
        assert "second" in table["text"]
        assert MARKUP in table["text"]  # as text
        assert table["images"] == 0
        assert page.title() != "owned"
        assert errors == []


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_readable_in_both_themes(client, tmp_path, scheme):
    train(pipeline(max_sweeps=1.0), tmp_path / "run", client)
    url = install(client)
    assert url is not None
    with browser_page(url, scheme) as (page, errors):
        page.wait_for_function(f"({TABLE})() !== null")
        page.wait_for_timeout(1500)
        table = page.evaluate(TABLE)
        light, dark = sorted((luminance(table["color"]), luminance(table["page"])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4.5  # WCAG's contrast of normal text
        assert (luminance(table["page"]) > 0.5) == (scheme == "light")
        assert errors == []


@pytest.mark.slow
@needs_browser
def test_markup_in_the_name_of_a_folder_stays_text_on_dasks_own_pages(client, tmp_path):
    folder = tmp_path / MARKUP.replace("/", "")
    train(pipeline(max_sweeps=1.0), folder, client)
    url = install(client)
    assert url is not None
    # the tags of spans are choices there, as HTML
    with browser_page(url.removesuffix("altmin") + "individual-fine-performance-metrics") as (page, _):
        page.locator(".choices__item", has_text="sweep 1").first.wait_for(state="attached", timeout=30_000)
        page.wait_for_timeout(500)
        assert page.locator("img[src=x]").count() == 0
        assert page.title() != "owned"
    assert on_board(client, tmp_path).description.startswith(str(folder))  # but on ours, as it is


@pytest.mark.slow
@needs_browser
def test_a_run_folder_is_shown_and_followed(client, tmp_path):
    train(pipeline(), tmp_path / "run", client)
    with served(tmp_path / "run") as url, browser_page(url) as (page, errors):
        page.wait_for_function(f"({POINTS})() > 3")
        before = page.evaluate(POINTS)
        train(pipeline(max_sweeps=6.0), tmp_path / "run", client, resume=True)
        page.wait_for_function(f"({POINTS})() > {before}", timeout=20_000)
        assert errors == []
