"""The page in the Dask dashboard, on real schedulers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import start, write_pipeline
from dashboards import begin, fetch, message, on_board, pipeline, train, two_workers
from distributed import Client, LocalCluster

from altmin_dask import runs
from altmin_dask.dashboard.plugin import install
from altmin_dask.dashboard.server import Follower
from altmin_dask.errors import SchedulerError
from altmin_dask.report.page import write_report
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.algorithms import restore
from altmin_dask.training.callbacks import Callback
from altmin_dask.training.progress import Progress, Usage
from altmin_dask.training.record import Record

client = pytest.fixture(scope="module", name="client")(two_workers)


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
    assert state.state == "finished"
    result = RunFolder(tmp_path / "run").result()
    assert result is not None
    single = {name: value for name, value in result["kept"]["metrics"].items() if isinstance(value, float)}
    assert "rmse" in single
    told = json.loads(json.dumps(state.result))  # on the way lists become tuples
    assert told == {**result, "kept": {**result["kept"], "metrics": single}}
    assert 0 < state.ended - state.began < 600
    assert sum(state.progress.usage.seconds.values()) > 0
    assert state.thread_seconds > 0
    assert [len(row) for row in state.pictures] == [10, 10]
    assert state.progress.max_sweeps == 2.0


@pytest.mark.slow
def test_a_resumed_run_is_one_curve(client, tmp_path):
    train(pipeline(), tmp_path / "run", client)
    train(pipeline(max_sweeps=4.0), tmp_path / "run", client, resume=True)
    state = on_board(client, tmp_path)
    assert [record.to_dict() for record in state.records] == RunFolder(tmp_path / "run").records()
    assert state.records[-1].sweep == pytest.approx(4.0)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_folder_whose_name_is_no_text_has_a_curve(client, tmp_path):
    folder = tmp_path / os.fsdecode(b"r\xff")
    train(pipeline(max_sweeps=1.0), folder, client)
    assert "/r?: 64-16-64 autoencoder" in on_board(client, tmp_path).description
    follower = Follower(RunFolder(folder))
    follower.follow()
    assert len(follower.board.runs[follower.name].records) == len(on_board(client, tmp_path).records)


@pytest.mark.slow
def test_watching_changes_no_bit(client, tmp_path):
    train(pipeline(), tmp_path / "watched", client)
    runs.train(pipeline(), RunFolder(tmp_path / "alone"), log=lambda line: None)
    watched, alone = (restore(RunFolder(tmp_path / name)) for name in ("watched", "alone"))
    assert watched is not None
    assert alone is not None
    for a, b in zip(watched.weights, alone.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_scheduler_that_knows_of_no_page_stops_nothing(client, tmp_path, monkeypatch):
    monkeypatch.setattr("altmin_dask.dashboard.publisher._installed", lambda client: None)
    with (
        LocalCluster(
            n_workers=1, processes=False, dashboard_address=":0", scheduler_kwargs={"dashboard": False}
        ) as cluster,
        Client(cluster, set_as_default=False) as bare,
    ):
        train(pipeline(max_sweeps=1.0), tmp_path / "run", bare)
    assert RunFolder(tmp_path / "run").records()


@pytest.mark.slow
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


@pytest.mark.slow
def test_without_a_dashboard_training_goes_on(tmp_path):
    with (
        LocalCluster(
            n_workers=1, processes=False, dashboard_address=":0", scheduler_kwargs={"dashboard": False}
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        lines = train(pipeline(max_sweeps=1.0), tmp_path / "run", client)
    assert not any("dashboard:" in line for line in lines)
    assert RunFolder(tmp_path / "run").records()


@pytest.mark.slow
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
