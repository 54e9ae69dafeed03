"""What a plan refuses before anything is done, and what it advises."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import Altmin, files_below, foreign, refused, write_pipeline

from altmin_dask.errors import ConfigError
from altmin_dask.execution.resources import Resources
from altmin_dask.networks.builders import dense_network
from altmin_dask.planning import needs, plan, projection
from altmin_dask.planning.memory import Workload
from altmin_dask.planning.projection import project

REFUSED = {
    "raw": ({"data": {"train": "x.npz"}}, "set data.chunk_rows = "),
    "store": ({"data": {"train": "x.zarr"}}, "`altmin ingest` data.train again with --chunk-rows "),
    "validation": (
        {"data": {"train": "small.zarr", "validation": "x.zarr"}},
        "`altmin ingest` data.validation again with --chunk-rows ",
    ),
    "one row": (
        {"data": {"train": "small.zarr"}, "network": {"hidden_layer_sizes": [4000, 4000]}},
        "even one row, which is more than 60% of its 600.00 MiB: give smaller network.hidden_layer_sizes",
    ),
    "local cluster": (
        {"data": {"train": "x.zarr"}, "cluster": {"kind": "local", "workers": 1}},
        "a worker would need",
    ),
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same samples as a source, in one large chunk, and in small ones."""
    home = tmp_path_factory.mktemp("large")
    x = np.random.default_rng(0).random((60_000, 100), dtype="f4")
    np.savez(home / "x.npz", x=x)
    foreign(home / "x.zarr", x, chunk_rows=60_000)
    foreign(home / "small.zarr", x[:1000], chunk_rows=500)
    return home


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_fit_is_refused_before_anything_is_done(altmin: Altmin, tmp_path, large, case):
    tables, sentence = REFUSED[case]
    tables = {**tables, "data": {k: str(large / v) for k, v in tables["data"].items()}}
    if case == "raw":
        tables["data"]["chunk_rows"] = 60_000
    cluster = {"memory_limit": "600 MiB", **tables.pop("cluster", {})}
    write_pipeline(tmp_path / "job.toml", "", cluster=cluster, **tables)
    before = files_below(tmp_path)
    for command in ("train", "plan"):
        done = altmin(command, "job.toml", *(("--run", "run") if command == "train" else ()))
        refused(done, sentence)
        assert "cluster.memory_limit" in done.err
        assert files_below(tmp_path) == before
    assert ("no" in done.out.split()) == (command == "plan")


def test_the_advice_of_a_refusal_fits(altmin: Altmin, tmp_path, large):
    write_pipeline(
        tmp_path / "job.toml",
        large / "x.npz",
        data={"chunk_rows": 60_000},
        cluster={"memory_limit": "600 MiB"},
    )
    advice = altmin("plan", "job.toml").err.split("data.chunk_rows = ")[1].split()[0]
    assert altmin("plan", "job.toml", f"data.chunk_rows={advice}").code == 0
    refused(altmin("plan", "job.toml", f"data.chunk_rows={int(advice) + 1}"), f"data.chunk_rows = {advice} ")


@pytest.mark.slow
def test_workers_of_a_running_cluster_that_are_too_small_are_refused(altmin: Altmin, tmp_path, large):
    from distributed import LocalCluster

    write_pipeline(tmp_path / "job.toml", large / "x.zarr")
    with LocalCluster(
        n_workers=1, threads_per_worker=1, memory_limit="600 MiB", dashboard_address=":0"
    ) as cluster:
        done = altmin("train", "job.toml", "--run", "run", "--scheduler", cluster.scheduler_address)
    refused(done, "a worker would need")
    assert not Path("run").exists()


def test_what_trains_must_fit_as_well():
    place = Resources(4, 1, None, in_process=False)
    work = Workload(dense_network((100_000, 10, 10)), 1000, 10, 400_000, in_process=False)
    made = plan.Plan(work, project(work), place, raw=False)
    assert not made.fits
    with pytest.raises(ConfigError, match="the process that trains would need"):
        made.check()


@pytest.mark.parametrize("value", ["0", "-3", "1.5", "true", "large"])
def test_chunk_rows_is_a_number_or_auto(altmin: Altmin, tmp_path, value):
    write_pipeline(tmp_path / "job.toml", "digits")
    refused(altmin("plan", "job.toml", f"data.chunk_rows={value}"), 'write "auto", or how many rows')


def test_workers_of_one_machine_must_fit_into_it_together(monkeypatch):
    """Each of them may fit into its own limit."""
    for module in (needs, projection):
        monkeypatch.setattr(module, "MEMORY_LIMIT", 16 << 30)
    place = Resources(4, 1, 12 << 30, in_process=False)
    work = Workload(dense_network((784, 300, 10)), 10_000_000, 500_000, 4 * 784, workers=4, in_process=False)
    made = plan.Plan(work, project(work), place, raw=True)
    assert 3 << 30 < made.worker_memory < 0.6 * (12 << 30)
    assert not made.fits
    with pytest.raises(
        ConfigError, match=r"^4 workers with .* more than 80% of this machine's 16\.00 GiB: give"
    ) as said:
        made.check()
    workers, rows = map(int, re.findall(r" = (\d+) or less", str(said.value)))
    assert (place.workers, work.chunk_rows) > (workers, rows)
    fewer, smaller = replace(work, workers=workers), work.chunked(rows)
    plan.Plan(fewer, project(fewer), replace(place, workers=workers), raw=True).check()
    plan.Plan(smaller, project(smaller), place, raw=True).check()
    # of a cluster that runs nobody knows how many machines it has
    plan.Plan(work, project(work), replace(place, running=True), raw=True).check()


@pytest.mark.parametrize("kind", ["threads", "local"])
def test_a_limit_that_would_do_is_told(kind, altmin: Altmin, tmp_path):
    """Little more than an idle process is no matter of the network."""
    write_pipeline(tmp_path / "job.toml", "digits", cluster={"kind": kind, "workers": 1})
    done = altmin("plan", "job.toml", "cluster.memory_limit=64 MiB")
    refused(done, "200.00 MiB of it idle, ")
    assert "leave columns out" not in done.err
    limit = re.search(r"cluster\.memory_limit = '(\d+ MiB)' or more", done.err)[1]
    assert altmin("plan", "job.toml", f"cluster.memory_limit={limit}").code == 0
