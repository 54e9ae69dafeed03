"""Workers that join while a run goes on, and are not as the others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from distributed import Client, LocalCluster

from altmin_dask.config import ClusterTable
from altmin_dask.execution import newcomers
from altmin_dask.execution.connect import open_executor
from altmin_dask.execution.newcomers import VersionGuard, watch
from altmin_dask.execution.versions import versions

LOCAL: dict[str, Any] = {"n_workers": 0, "processes": False, "memory_limit": 0, "dashboard_address": ":0"}


@pytest.fixture
def client() -> Iterator[Client]:
    with LocalCluster(**LOCAL) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


def left(client: Client, caplog: pytest.LogCaptureFixture) -> str:
    """What is said of a worker that joins and leaves."""
    client.cluster.scale(1)
    end = time.monotonic() + 30
    while not (said := [r.getMessage() for r in caplog.records if r.name == "altmin_dask"]):
        assert time.monotonic() < end
        time.sleep(0.02)
    client.cluster.scale(0)
    return said[0]


def test_a_worker_of_other_versions_leaves_and_is_told_of(client, caplog):
    watch(client, VersionGuard("numpy 0.1", "guard"))
    said = left(client, caplog)
    assert f" has {versions()}, and takes no part; install there what the run has: numpy 0.1" in said
    while client.nthreads():
        time.sleep(0.02)


def test_a_worker_without_the_package_leaves_and_is_told_of(client, caplog):
    watch(client, VersionGuard(versions(), "guard", "altmin_dask.none_such"))
    assert "cannot run altmin_dask (No module named 'altmin_dask.none_such')" in left(client, caplog)


def test_a_worker_as_the_others_stays_and_nothing_is_left_behind(client):
    def plugins(dask_scheduler: Any) -> list[str]:
        return [
            name for name in (*dask_scheduler.worker_plugins, *dask_scheduler.plugins) if "altmin" in name
        ]

    client.cluster.scale(1)
    with open_executor(ClusterTable(), client):
        client.cluster.scale(2)
        client.wait_for_workers(2, timeout=30)
        assert len(client.run_on_scheduler(plugins)) == 2
    assert client.run_on_scheduler(plugins) == []
    assert len(client.nthreads()) == 2
    end = time.monotonic() + 30
    while any("altmin" in topic for topic in client._event_handlers):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_guard_goes_with_its_client(client, monkeypatch):
    monkeypatch.setattr(newcomers, "RETURN_SECONDS", 0.1)

    def plugins(dask_scheduler: Any) -> list[str]:
        return [*dask_scheduler.worker_plugins, *dask_scheduler.plugins]

    with Client(client.scheduler.address, set_as_default=False) as other:
        watch(other, VersionGuard(versions(), "guard"))
        assert {"guard", "guard-keeper"} <= set(client.run_on_scheduler(plugins))
    end = time.monotonic() + 30
    while {"guard", "guard-keeper"} & set(client.run_on_scheduler(plugins)):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_guard_stays_where_a_dropped_connection_is_made_again(client):
    def back(name: str, dask_scheduler: Any) -> bool:
        seen = [event["action"] for _, event in dask_scheduler.get_events(name)]
        return (
            seen.count("add-client") == 2
            and seen.count("remove-client") == 1
            and name in dask_scheduler.clients
        )

    def kept(dask_scheduler: Any) -> set[str]:
        dask_scheduler.plugins["guard-keeper"].forget(dask_scheduler)  # as after so many seconds
        return {*dask_scheduler.worker_plugins, *dask_scheduler.plugins}

    with Client(client.scheduler.address, set_as_default=False) as other:
        watch(other, VersionGuard(versions(), "guard"))
        other.loop.add_callback(other.scheduler_comm.comm.abort)
        end = time.monotonic() + 30
        while not client.run_on_scheduler(back, other.id):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert {"guard", "guard-keeper"} <= client.run_on_scheduler(kept)


def test_what_was_meant_for_a_worker_that_leaves_does_not_count_as_killed_by_it(client, caplog):
    """It is given to the next."""
    with Client(client.scheduler.address, set_as_default=False) as other:
        watch(other, VersionGuard("numpy 0.1", "guard"))
        futures = client.map(abs, range(8), pure=False)
        left(client, caplog)

        def suspected(dask_scheduler: Any) -> list[int]:
            return [dask_scheduler.tasks[future.key].suspicious for future in futures]

        while client.nthreads():
            time.sleep(0.02)
        assert client.run_on_scheduler(suspected) == [0] * 8
        other.unregister_worker_plugin("guard")
        client.cluster.scale(1)
        assert client.gather(futures, direct=False) == list(range(8))
