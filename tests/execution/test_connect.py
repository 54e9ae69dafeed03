"""How a scheduler is found: by address, by file, from a task, with no worker yet; and what is refused in a sentence."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import dask
import pytest
from certificates import certificates
from command import refused, write_pipeline
from distributed import Client, LocalCluster, Security, get_client
from distributed.comm.core import CommClosedError

import altmin_dask
from altmin_dask import runs
from altmin_dask.config import ClusterTable, Pipeline
from altmin_dask.errors import ConfigError, FaultError, MissingError, SchedulerError
from altmin_dask.execution.cluster import Cluster, _tell_of_the_port, open_cluster
from altmin_dask.execution.connect import _check_workers, _patient, address_in, open_executor
from altmin_dask.execution.versions import versions
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.kfac_training import KFACTraining
from altmin_dask.training.trainer import MOST_RETRIES, Trainer

LOCAL: dict[str, Any] = {"processes": False, "memory_limit": 0, "dashboard_address": ":0"}


def three(settings: ClusterTable, scheduler: Any) -> Any:
    with open_executor(settings, scheduler) as executor:
        return executor.compute(dask.delayed(sum)([1, 2]))


@pytest.mark.parametrize("by", ["address", "client"])
def test_a_cluster_that_adapts_to_what_there_is_to_do_begins_with_no_worker(by):
    with LocalCluster(n_workers=0, threads_per_worker=1, **LOCAL) as cluster:
        cluster.adapt(minimum=0, maximum=1, interval="50 ms")
        with (
            Client(cluster, set_as_default=False) as client,
            open_executor(
                ClusterTable(), client if by == "client" else cluster.scheduler_address
            ) as executor,
        ):
            end = time.monotonic() + 30
            while executor.client.futures:  # by which a worker was waited for
                assert time.monotonic() < end
                time.sleep(0.01)
            assert executor.compute(dask.delayed(sum)([1, 2])) == 3


def test_a_scheduler_is_named_by_its_file(altmin, trained, cluster_address, tmp_path):
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"id": "Scheduler-1", "address": cluster_address}))
    done = altmin("evaluate", trained / "autoencoder", trained / "samples.zarr", "--scheduler-file", file)
    assert (done.code, done.err) == (0, "")
    both = ("--scheduler-file", file, "--scheduler", cluster_address)
    for words in (
        ("train", trained / "autoencoder.toml"),
        ("plan", trained / "autoencoder.toml"),
        ("predict", trained / "autoencoder", trained / "samples.zarr", "p.npy"),
    ):
        refused(altmin(*words, *both), "--scheduler and --scheduler-file both name a scheduler")


def test_a_scheduler_whose_certificate_is_not_trusted_is_not_said_to_be_missing(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
        certificates(folder)
    files = {
        f"distributed.comm.tls.{name}": str(ours / file)
        for name, file in (("ca-file", "ca.pem"), ("client.cert", "node.pem"), ("client.key", "node.key"))
    }
    pair = {"cert": str(theirs / "node.pem"), "key": str(theirs / "node.key")}
    roles = {f"tls_{role}_{part}": file for role in ("scheduler", "client") for part, file in pair.items()}
    security = Security(require_encryption=True, tls_ca_file=str(theirs / "ca.pem"), **roles)
    with (
        LocalCluster(n_workers=0, protocol="tls", security=security, **LOCAL) as cluster,
        dask.config.set(files),
        pytest.raises(
            SchedulerError, match=r"tls://.* cannot be secured \(.*certificate.*\); check Dask's settings"
        ),
    ):
        three(ClusterTable(connect_timeout=0.5), cluster.scheduler_address)


@pytest.mark.parametrize(
    "answer", [None, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["mute", "shut", "http"]
)
def test_what_listens_and_is_no_scheduler_is_not_waited_for(answer, monkeypatch):
    """As the port of the dashboard is: a client would wait for its answer for ever."""
    monkeypatch.setattr("altmin_dask.execution.connect.GREETING_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answers() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1)
                connection.sendall(answer)

        thread = threading.Thread(target=answers, daemon=True)
        if answer is not None:
            thread.start()
        with pytest.raises(
            SchedulerError, match=r"other than a Dask scheduler listens .*is it the dashboard's port"
        ):
            three(ClusterTable(connect_timeout=0.2), f"127.0.0.1:{server.getsockname()[1]}")
    if answer is not None:
        thread.join()


def test_a_worker_is_no_scheduler(cluster_address):
    with Client(cluster_address, set_as_default=False) as client:
        worker = next(iter(client.nthreads()))
    with pytest.raises(SchedulerError, match="other than a Dask scheduler listens"):
        three(ClusterTable(), worker)


def test_a_worker_that_dies_while_it_is_asked_is_not_badly_installed():
    answers = {"tcp://here:1": versions(), "tcp://gone:1": CommClosedError("in <TCP>: Stream is closed")}

    class Asking:
        def run_on_scheduler(self, function: Any) -> str:
            return versions()

        def run(self, function: Any, on_error: str) -> dict[str, Any]:
            return answers

    _check_workers(Asking())
    answers["tcp://bare:1"] = ModuleNotFoundError("No module named 'altmin_dask'")
    with pytest.raises(SchedulerError, match="worker tcp://bare:1 cannot run altmin_dask"):
        _check_workers(Asking())


def test_a_scheduler_that_goes_while_it_is_asked_is_lost(cluster_address, monkeypatch):
    def gone(self: Client, *arguments: Any) -> None:
        raise CommClosedError("in <TCP>: Stream is closed")

    monkeypatch.setattr(Client, "run_on_scheduler", gone)
    with pytest.raises(FaultError, match="the connection to the Dask scheduler is lost; start it"):
        three(ClusterTable(), cluster_address)


def test_runs_that_share_a_client_wait_as_long_as_the_most_patient():
    with LocalCluster(n_workers=0, **LOCAL) as cluster, Client(cluster, set_as_default=False) as client:
        own = client._timeout
        with _patient(client, own + 1):
            second = _patient(client, own + 2)
            with second:
                assert client._timeout == own + 2
            assert client._timeout == own + 1
            second = _patient(client, own + 3)
            second.__enter__()
        assert client._timeout == own + 3  # the first of them has ended first
        second.__exit__(None, None, None)
        assert client._timeout == own


def test_a_port_of_the_dashboard_that_is_taken_is_told_of(caplog):
    with LocalCluster(n_workers=0, **LOCAL) as cluster:
        _tell_of_the_port(":0", cluster)
        assert not caplog.records
        _tell_of_the_port(":1", cluster)
    assert "port 1 (cluster.dashboard) is taken; the dashboard is at port " in caplog.text


@pytest.mark.slow
def test_a_cluster_leaves_no_socket_open_where_its_port_is_taken(caplog):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        settings = ClusterTable(kind="local", workers=1, dashboard=f":{other.getsockname()[1]}")
        with open_cluster(settings):
            gc.collect()  # Python tells of sockets that nobody has closed, which fails a test
    assert f"{settings.dashboard[1:]} (cluster.dashboard) is taken" in caplog.text


def test_a_port_that_is_none_is_refused():
    settings = ClusterTable(kind="local", workers=1, dashboard=":70000")
    with pytest.raises(ConfigError, match="':70000': a port is 65535 or less"), open_cluster(settings):
        pass


def test_a_file_that_names_none(tmp_path):
    with pytest.raises(MissingError, match=r"there is no file .*; `dask scheduler --scheduler-file"):
        address_in(tmp_path / "gone.json", seconds=0.1)
    (tmp_path / "half.json").write_text('{"id": ')
    with pytest.raises(ConfigError, match="holds no address of a scheduler"):
        address_in(tmp_path / "half.json", seconds=0.1)
    later = threading.Timer(0.2, lambda: (tmp_path / "late.json").write_text('{"address": "tcp://a:1"}'))
    later.start()
    assert address_in(tmp_path / "late.json") == "tcp://a:1"
    later.join()


def test_an_asynchronous_client_is_refused():
    async def give() -> None:
        async with Client(asynchronous=True, n_workers=0, **LOCAL) as client:
            with pytest.raises(ConfigError, match=r"the client is asynchronous.*asyncio\.to_thread"):
                three(ClusterTable(), client)

    asyncio.run(give())


def test_a_closed_client_is_refused():
    with LocalCluster(n_workers=0, **LOCAL) as cluster, Client(cluster) as client:
        pass
    with pytest.raises(SchedulerError, match="the client is closed"):
        three(ClusterTable(), client)


def test_a_scheduler_of_this_process_is_reached():
    with LocalCluster(n_workers=1, threads_per_worker=1, **LOCAL) as cluster:
        assert cluster.scheduler_address.startswith("inproc://")
        assert three(ClusterTable(), cluster.scheduler_address) == 3
    with pytest.raises(SchedulerError, match="is a thread of another process"):
        three(ClusterTable(connect_timeout=0.2), "inproc://127.0.0.1/1/1")


@pytest.mark.slow
@pytest.mark.parametrize("by", ["client", "address"])
def test_training_within_a_task_on_the_only_thread_there_is(by, pipeline, make_store, samples, tmp_path):
    """The task gives its thread back, as its own tasks need one."""
    asked = pipeline(make_store(samples).path)
    with LocalCluster(n_workers=1, threads_per_worker=1, **LOCAL) as cluster, Client(cluster) as client:
        address = None if by == "client" else cluster.scheduler_address
        losses = client.submit(_train, asked, tmp_path / "run", address).result(timeout=60)
    here = runs.train(asked, RunFolder(tmp_path / "here"), log=_nothing)
    assert losses == [record.nested_loss for record in here]


def _train(pipeline: Pipeline, folder: Path, address: str | None) -> list[float]:
    records = runs.train(pipeline, RunFolder(folder), scheduler=address or get_client(), log=_nothing)
    return [record.nested_loss for record in records]


def _nothing(line: str) -> None:
    pass


def test_a_local_cluster_is_not_started_by_a_script_without_a_guard(tmp_path, monkeypatch):
    (tmp_path / "script.py").write_text("train()")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "script.py"), raising=False)
    with (
        pytest.raises(
            ConfigError, match=r"import .*script\.py, and .*; put what starts it below `if __name__"
        ),
        open_executor(ClusterTable(kind="local")),
    ):
        pass


@pytest.mark.slow
def test_a_script_without_a_guard_is_named(tmp_path):
    """No process is started that would run the script again, and so on."""
    write_pipeline(tmp_path / "p.toml", "digits:train", cluster={"kind": "local", "dashboard": ":0"})
    (tmp_path / "script.py").write_text(
        "from pathlib import Path\n"
        "from altmin_dask import RunFolder, train\n"
        "from altmin_dask.config import load_pipeline\n"
        "print('begun')\n"
        "train(load_pipeline(Path('p.toml')), RunFolder(Path('run')))\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": str(Path(altmin_dask.__file__).parents[1])},
    )
    assert done.returncode == 1
    assert done.stdout.count("begun") == 1
    assert (
        "script.py, and would begin to train there, too; put what starts it below `if __name__" in done.stderr
    )
    assert done.stderr.count("Traceback") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "schedule",
    [
        "kfac",
        pytest.param("incremental", marks=pytest.mark.slow),
        pytest.param("batch", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("call", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_restart_by_a_colleague_is_gone_on_from(
    schedule, call, pipeline, make_store, samples, tmp_path, caplog, monkeypatch
):
    """The scheduler forgets what it was asked, as it says by a message to all clients."""
    calls, first = count(), Cluster.first

    def lost(self: Cluster, submissions: Any) -> Any:
        if next(calls) == call:
            self.client.sync(forget, self.client)
        return first(self, submissions)

    solver = {"penalty": "l2"} if schedule == "kfac" else {"mu": 0.1}
    asked = pipeline(make_store(samples).path, training={"schedule": schedule}, solver=solver)
    here = runs.train(asked, RunFolder(tmp_path / "here"), log=_nothing)
    monkeypatch.setattr(Cluster, "first", lost)
    monkeypatch.setattr(Cluster, "_latency", lambda self: 0.016)  # which takes steps itself
    with LocalCluster(n_workers=1, threads_per_worker=1, **LOCAL) as cluster, Client(cluster) as client:
        there = runs.train(asked, RunFolder(tmp_path / "there"), scheduler=client, log=_nothing)
    assert caplog.text.count("somebody restarted its workers; training goes on from its last commit") == 1
    assert [record.nested_loss for record in there] == [record.nested_loss for record in here]
    weights = [(tmp_path / run / "model" / "weights.safetensors").read_bytes() for run in ("here", "there")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_cluster_that_fails_over_and_over_is_given_up(pipeline, make_store, samples, tmp_path, monkeypatch):
    """Wherever it does, if no commit is any further."""
    steps, begin, step = list[int](), Trainer.begin, KFACTraining.step

    def beginning(self: Trainer) -> None:
        steps.append(0)
        assert len(steps) < 20, "it begins again for ever"
        begin(self)

    def lost(self: KFACTraining, action: Any, cursor: int) -> int:
        # the last record is after the eighth step
        if steps[-1] == (10 if len(steps) == 1 else 1 + len(steps) % 2):
            raise CommClosedError("in <TCP>: Stream is closed")
        steps[-1] += 1
        return step(self, action, cursor)

    monkeypatch.setattr(KFACTraining, "step", lost)
    monkeypatch.setattr(Trainer, "begin", beginning)
    training = {"schedule": "kfac", "evaluation_share": 1e-3, "group_chunks": 1}
    asked = pipeline(make_store(samples).path, training=training, solver={"penalty": "l2"})
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, **LOCAL) as cluster,
        Client(cluster) as client,
        pytest.raises(FaultError, match="the connection to the Dask scheduler is lost"),
    ):
        runs.train(asked, RunFolder(tmp_path / "run"), scheduler=client, log=_nothing)
    assert steps == [10, 1, 2, 1, 2]
    assert len(steps) == 2 + MOST_RETRIES


async def forget(client: Client) -> None:
    client._handle_restart()
