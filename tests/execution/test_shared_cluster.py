"""A cluster that others use, too, and whose parts go at the wrong moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster

from altmin_dask.errors import AltMinWarning, FaultError
from altmin_dask.execution.cluster import Cluster


@pytest.fixture
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, memory_limit=0, dashboard_address=":0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def until(found: Callable[[], Any]) -> None:
    end = time.monotonic() + 30
    while not found():
        assert time.monotonic() < end
        time.sleep(0.01)


def held(file: str) -> bool:
    until(Path(file).exists)
    return True


def in_time(function: Callable[[], Any]) -> BaseException | None:
    """What a function raises, which is not to wait without end."""
    raised: list[BaseException | None] = []

    def call() -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)
        else:
            raised.append(None)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(timeout=20)
    assert raised, "it waits for ever"
    return raised[0]


def test_what_is_given_up_does_not_wait_for_the_tasks_of_others(client, tmp_path, monkeypatch):
    monkeypatch.setattr("altmin_dask.execution.cluster.SETTLE_SECONDS", 1e9)
    other = client.submit(held, str(tmp_path / "go"), pure=False)
    until(lambda: any(client.processing().values()))
    failing = dask.delayed(divmod, pure=False)(1, 0)
    try:
        assert isinstance(in_time(lambda: Cluster(client).compute(failing)), ZeroDivisionError)
        assert not other.done()
    finally:
        (tmp_path / "go").touch()
    assert other.result()


@pytest.mark.slow
def test_what_is_given_up_is_waited_for(client, tmp_path):
    """A task that runs already cannot be stopped."""
    task = dask.delayed(held, pure=False)(str(tmp_path / "go"))
    cluster = Cluster(client)
    (submission,) = [cluster.submit(dask.array.from_delayed(task, (1,), dtype=bool))]
    until(lambda: any(client.processing().values()))
    giving_up = threading.Thread(target=cluster.cancel, args=([submission],))
    giving_up.start()
    giving_up.join(timeout=0.5)
    assert giving_up.is_alive()
    (tmp_path / "go").touch()
    giving_up.join(timeout=20)
    assert not giving_up.is_alive()


def test_workers_that_all_die_before_a_result_is_fetched(client, monkeypatch):
    """What they had is computed anew, by others, who are waited for as ever."""
    monkeypatch.setattr("altmin_dask.execution.cluster.POLL_SECONDS", 0.05)
    gather = Client.gather

    def late(self: Client, *arguments: Any, **options: Any) -> Any:
        for worker in list(client.cluster.workers.values()):
            client.cluster.sync(worker.close)
        until(lambda: not client.nthreads())
        return gather(self, *arguments, **options)

    monkeypatch.setattr(Client, "gather", late)
    error = in_time(lambda: Cluster(client, patience=0.3).compute(dask.delayed(sum)([1, 2])))
    assert isinstance(error, FaultError)
    assert "there has been no worker for 0.3 s (cluster.patience)" in str(error)


def test_a_report_that_cannot_be_made_does_not_hide_what_happened(client, tmp_path):
    page = tmp_path / "performance.html"
    with (
        pytest.warns(AltMinWarning, match=r"report .*performance\.html could not be written"),
        pytest.raises(FaultError, match="the real reason"),
        Cluster(client).profile(page),
    ):
        _fail(client)
    assert not page.exists()


@pytest.mark.slow
def test_a_run_that_ended_well_has_ended_well_without_its_report(client, tmp_path):
    (tmp_path / "report").write_text("no folder")
    with (
        pytest.warns(AltMinWarning, match="could not be written .*; training is not touched"),
        Cluster(client).profile(tmp_path / "report" / "performance.html"),
    ):
        pass


def test_the_log_is_told_of_a_wait_once_whatever_is_counted(client, caplog):
    told: list[str] = []
    cluster = Cluster(client)
    cluster.report_waits(told.append)
    for number in (3, 4, 2):
        cluster._tell(f"waits for workers that are at {number} other tasks", "others")
    cluster._tell("")
    assert [text[-13:] for text in told] == ["3 other tasks", "4 other tasks", "2 other tasks", ""]
    assert [record.getMessage() for record in caplog.records if record.name == "altmin_dask"] == [
        "the run waits for workers that are at 3 other tasks",
        "the run goes on",
    ]


def _fail(client: Client) -> None:
    client.close()
    raise FaultError("the real reason")
