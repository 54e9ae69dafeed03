"""Where estimators train: small samples on threads, others on the active client, and what workers have to see."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster

from altmin_dask.errors import AltMinError, ConfigError, ExistsError, MissingError, StorageError
from altmin_dask.estimators import AltMinRegressor, settings
from altmin_dask.execution.cluster import Cluster

RNG = np.random.default_rng(0)
X = RNG.random((40, 3))
Y = X @ RNG.random(3)


def regressor(**parameters: Any) -> AltMinRegressor:
    return AltMinRegressor(hidden_layer_sizes=(2,), max_sweeps=1.0, random_state=0, **parameters)


@pytest.fixture
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client


def used(client: Client, **parameters: Any) -> bool:
    """Whether a fit brings tasks to the cluster."""

    def told(dask_scheduler: Any) -> int:
        return len(dask_scheduler.transition_log)

    before = client.run_on_scheduler(told)
    regressor(**parameters).fit(X, Y)
    return bool(client.run_on_scheduler(told) > before)


def test_small_samples_stay_on_threads_unless_the_cluster_is_asked_for(client, caplog):
    settings._say_small.cache_clear()
    assert not used(client)
    assert not used(client)
    (said,) = [record.getMessage() for record in caplog.records if record.name == "altmin_dask"]
    assert said.startswith(
        "a Dask client is active, but samples of at most 1,048,576 numbers are fitted faster"
    )
    assert used(client, scheduler="cluster")


def test_what_is_small_is_a_rule(client, make_store, monkeypatch):
    store = make_store(X)
    monkeypatch.setattr(settings, "SMALL", X.size)
    assert settings.place_of(None, store) is None
    monkeypatch.setattr(settings, "SMALL", X.size - 1)
    assert settings.place_of(None, store) is client
    assert settings.place_of("threads", store) is None
    monkeypatch.undo()
    assert settings.SMALL == 1_048_576  # as is said where `scheduler` is described
    assert settings.place_of("tcp://127.0.0.1:1", store) == "tcp://127.0.0.1:1"


def test_a_cluster_that_is_asked_for_has_to_be_there(caplog):
    with pytest.raises(ConfigError, match="no Dask client is active; make one, or give an address"):
        regressor(scheduler="cluster").fit(X, Y)
    regressor().fit(X, Y)
    assert not [record for record in caplog.records if record.name == "altmin_dask"]


def _fit(**parameters: Any) -> float:
    return float(regressor(**parameters).fit(X, Y).best_loss_)


@pytest.mark.parametrize("scheduler", [None, "cluster"])
def test_a_fit_within_a_task_ends(client, scheduler):
    assert client.submit(_fit, scheduler=scheduler).result(timeout=60) == _fit(scheduler="threads")


def test_workers_that_do_not_see_the_temporary_folder_are_told_of(client, monkeypatch, tmp_path):
    """They are threads here; that they are elsewhere is pretended."""
    monkeypatch.setattr(Cluster, "run", lambda self, function, path: [("far", False), ("near", True)])
    with pytest.raises(
        MissingError, match=r"1 of 2 workers, at far, do not see .*; give a temporary_folder that"
    ):
        regressor(scheduler="cluster", temporary_folder=tmp_path).fit(X, Y)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def read(monkeypatch):
    """Whether samples were looked at."""
    looked = []
    monkeypatch.setattr(AltMinRegressor, "_stores", lambda *args, **words: looked.append(args))
    return looked


@pytest.mark.parametrize(
    ("folder", "error", "said"),
    [
        ("gone", MissingError, r"^temporary_folder: there is no folder .*/gone; make it first$"),
        ("file", ExistsError, r"^temporary_folder: .*/file is not a folder; give another path$"),
        ("/proc", StorageError, r"^temporary_folder: /proc cannot be written: .+; choose another place$"),
        ("s3://bucket/x", ConfigError, r"^temporary_folder: s3://bucket/x is a URL; give a path on this"),
        (5, ConfigError, r"^temporary_folder = 5: give the path of a folder, or None$"),
    ],
)
def test_a_temporary_folder_that_will_not_do_is_told_before_any_work(
    folder, error, said, tmp_path, monkeypatch, read
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(error, match=said) as found:
        AltMinRegressor(3, temporary_folder=folder).fit(X, Y)
    assert isinstance(found.value, AltMinError)
    assert not read


@pytest.mark.parametrize(
    ("number", "advice"), [(13, "change its permissions"), (28, "make room on the disk")]
)
def test_a_temporary_folder_that_takes_nothing_is_told_with_what_to_do(
    number, advice, tmp_path, monkeypatch, read
):
    """Root may write anywhere, so the system's refusal is made here."""
    real = os.mkdir

    def mkdir(path, *args, **words):
        if str(path).startswith(str(tmp_path)):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *args, **words)

    monkeypatch.setattr(os, "mkdir", mkdir)
    where = f"{tmp_path} cannot be written: {os.strerror(number)}; {advice}"
    with pytest.raises(StorageError, match=f"^temporary_folder: {re.escape(where)}"):
        AltMinRegressor(3, temporary_folder=tmp_path).fit(X, Y)
    with (
        dask.config.set({"temporary-directory": str(tmp_path)}),
        pytest.raises(StorageError, match=f"^temporary-directory of Dask: {re.escape(where)}"),
    ):
        AltMinRegressor(3).fit(X, Y)
    assert not read
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(
        StorageError, match=r"^no temporary folder of the system can be written: .*; give a temp"
    ):
        AltMinRegressor(3).fit(X, Y)


def test_a_temporary_folder_in_the_home_of_a_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "scratch").mkdir()
    AltMinRegressor((3,), max_sweeps=1.0, temporary_folder="~/scratch").fit(X, Y)
    assert not any((tmp_path / "scratch").iterdir())
