"""`benchmarks/cluster.py`: equal data for all, clocks that mean what they say, and two real processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cluster
import cluster_ours
import numpy as np
import pytest
from cluster import Bench, parse, plan, ratio, table
from cluster_ours import CLASSES, FEATURES, TASKS, Table, settings_of, start_of, stores_of, train_ours
from measuring import ONE_THREAD
from quality_clock import crossing

from altmin_dask.config import make_pipeline
from altmin_dask.data.ingest import ingest
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source

torch = pytest.importorskip("torch")

from cluster_ddp import Chunks, child, share_of  # noqa: E402 - without PyTorch there is none

TINY = replace(TASKS["table"], network={**TASKS["table"].network, "hidden_layer_sizes": [8]}, rows=2000)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def stores(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "table", TINY)
        return stores_of("table", Path("no-mnist.npz"), home)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(TASKS, "table", TINY)


# ---- data


def test_labels_of_the_table_follow_the_teachers_softmax():
    source = Table(0).source(20_000)
    (x, y), *_ = source.blocks(20_000)
    logits = Table(0).logits(x)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert (x.shape, p.shape) == ((20_000, FEATURES), (20_000, CLASSES))
    np.testing.assert_allclose(np.bincount(y) / len(y), p.mean(axis=0), atol=0.01)
    entropy = -(p * np.log(p)).sum(axis=1).mean()
    assert -np.log(p[np.arange(len(y)), y]).mean() == pytest.approx(entropy, abs=0.02)
    assert 0.3 < entropy < TASKS["table"].thresholds[-1]  # which can be met, though labels are noisy


def test_rows_of_the_table_do_not_depend_on_blocks_and_held_out_ones_are_others():
    parts = [np.concatenate([x for x, _ in Table(0).source(9000).blocks(size)]) for size in (9000, 700)]
    np.testing.assert_array_equal(*parts)
    ((held_out, _),) = Table(1).source(100).blocks(100)
    rows = {row.tobytes() for row in parts[0]}
    assert not any(row.tobytes() in rows for row in held_out)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_process_has_as_many_rows_and_none_twice(processes):
    sizes, order = [10, 10, 7], [2, 0, 1]
    shares = [list(share_of(sizes, order, rank, processes)) for rank in range(processes)]
    seen = [[(chunk, row) for chunk, a, b in share for row in range(a, b)] for share in shares]
    assert {len(rows) for rows in seen} == {27 // processes}
    assert len(set().union(*seen)) == 27 // processes * processes


@pytest.fixture(scope="module")
def numbered(home):
    x = np.arange(1000, dtype=np.float32)[:, None] * np.ones(3, np.float32)
    return ingest(array_source(x, np.arange(1000)), home / "numbered.zarr", chunk_rows=64).path


@pytest.mark.parametrize("batch", [10, 100, 150])
def test_an_epoch_has_every_row_at_most_once_in_whole_batches(numbered, batch):
    found = [list(Chunks(numbered, batch, 3, rank, 2).epoch(0)) for rank in range(2)]
    for batches in found:
        assert len(batches) == 500 // batch
        assert {len(x) for x, _ in batches} == {batch}
        for x, y in batches:
            np.testing.assert_array_equal(x[:, 0], y)
    rows = torch.cat([y for batches in found for _, y in batches])
    assert len(rows.unique()) == len(rows)
    chunks = Chunks(numbered, batch, 3)
    first, second = (torch.cat([y for _, y in chunks.epoch(number)]) for number in range(2))
    assert not torch.equal(first, second)
    assert sorted(chunks.kept) == list(range(16))  # the second is read from memory


# ---- clocks


def test_a_threshold_is_met_between_two_evaluations():
    curve = [(0.0, 8.0, 0, 0.0), (1.0, 4.0, 0, 10.0), (2.0, 1.0, 0, 20.0), (3.0, 2.0, 0, 30.0)]
    assert crossing(curve, 2.0) == pytest.approx(1.5)
    assert crossing(curve, 2.0, 3) == pytest.approx(15.0)
    assert crossing(curve, 4.0) == 1.0
    assert crossing(curve, 9.0) == 0.0
    assert crossing(curve, 0.5) == math.inf


def test_ours_is_the_default_but_for_its_end(stores):
    pipeline = make_pipeline(settings_of("table", stores, 5))
    plain = make_pipeline({"data": stores, "network": TASKS["table"].network, "training": {"seed": 5}})
    ends = {"max_sweeps", "n_iter_no_change"}
    assert pipeline.training.model_dump(exclude=ends) == plain.training.model_dump(exclude=ends)
    assert pipeline.solver == plain.solver
    assert cluster_ours.toml({"a": {"b": [1, "c"], "d": True}}) == '[a]\nb = [1, "c"]\nd = true\n'


# ---- runs


@pytest.fixture
def bench(tiny, home, stores, monkeypatch):
    monkeypatch.setitem(TASKS, "table", replace(TINY, thresholds=(1.39, 1.3, 0.1)))
    return Bench("table", parse(["no-mnist.npz", "--anyway", "--seconds", "0.3"]), home)


@pytest.fixture(scope="module")
def in_threads(stores, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "table", replace(TINY, thresholds=(1.3, 1.25)))
        return train_ours("table", "threads", 1, 1, 600.0, stores, tmp_path_factory.mktemp("threads"))


def check_curves(curves, step):
    assert set(curves) == {"raw", "0.9"}
    for curve in curves.values():
        wall, quality, passes, cpu = zip(*curve, strict=True)
        assert wall[-1] >= 0.3 > wall[0] > 0
        assert quality[-1] < quality[0] == curves["raw"][0][1]
        assert sorted(cpu) == list(cpu)
        visited = np.array(passes) * TINY.rows / step
        np.testing.assert_allclose(visited, visited.round(), atol=1e-6)


@pytest.mark.slow
def test_pytorch_trains_from_altmins_weights(bench, in_threads, home, stores, capsys):
    start = start_of("table", stores, 1, home)
    with np.load(start) as file:
        assert [file[name].shape for name in file.files] == [(), (8, FEATURES + 1), (CLASSES, 9)]
    spec = {"task": "table", "processes": 1, "batch": 50, "rate": 0.01, "seed": 1, "seconds": 0.3}
    threads = torch.get_num_threads()
    try:
        child(0, {**spec, "averages": [0.9], "stores": stores, "start": str(start)}, "")
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
    found = json.loads(capsys.readouterr().out)
    check_curves(found["curves"], 50)
    # of altmin's weights, as altmin measures it
    assert found["curves"]["raw"][0][1] == pytest.approx(in_threads["curve"][0][1], rel=1e-5)


@pytest.mark.slow
def test_two_processes_of_pytorch_share_the_rows(bench):
    found = bench.torch("ddp-2-128", 1, 0.01, [0.9], 0.5)
    check_curves(found["curves"], 256)
    assert found["others"] >= 0


@pytest.mark.slow
def test_a_local_cluster_tells_how_idle_its_workers_were(tiny, stores, tmp_path):
    found = train_ours("table", "local", 2, 1, 0.2, stores, tmp_path)
    assert found["curve"][-1][0] >= 0.2
    assert len(found["busy_seconds"]) == 2
    assert 0 < found["idle_share"] < 1
    assert 0 < found["evaluation_share"] < 1
    assert found["start_seconds"] > 0
    assert not (tmp_path / "run/report").exists()


@pytest.mark.slow
def test_a_run_ends_when_its_last_threshold_is_met(in_threads):
    curve = in_threads["curve"]
    assert min(point[1] for point in curve) <= 1.25 < curve[0][1]
    assert curve[-1][0] < 60.0  # of 600
    assert "idle_share" not in in_threads


def test_tables_and_ratios(bench, monkeypatch):
    def curve(*points):
        return [[wall, quality, 0.0, 2 * wall] for wall, quality in points]

    runs = {
        "threads-1": curve((0, 2), (4, 1)),
        "threads-2": curve((0, 2), (2, 1)),
        "workers-2": curve((0, 2), (8, 1)),
        "ddp-1-128": curve((0, 2), (9, 1.8)),
        "ddp-1-512": curve((0, 2), (6, 1)),
    }
    choice = {"rate": 0.01, "weights": "0.99", "at_an_end": True}
    entry = {
        "seconds": 10.0,
        "choices": {"ddp-1-128": choice, "ddp-1-512": {**choice, "at_an_end": False}},
        "runs": [
            {"contestant": name, "seed": seed, "curve": found, "idle_share": 0.25}
            for name, found in runs.items()
            for seed in (1, 2)
        ],
    }
    monkeypatch.setitem(TASKS, "table", replace(TINY, thresholds=(1.0, 0.5)))
    said = table("table", entry)
    assert "| 2 threads : 1 thread | 2.00 | – |" in said
    assert "| 1 thread : DDP on 1 | 1.50 | – |" in said
    assert "2 workers" not in said  # there is nothing to compare them with
    assert "| ddp-1-128, rate 0.01*, 0.99 | >10 [>10–>10] | >10 [>10–>10] |" in said
    assert "| threads-1 | 4 [4–4] | >10 [>10–>10] | 8 [8–8] | 1 [1–1] |  |  | 25% |" in said
    assert ratio(entry, ["ddp-1-128"], "threads-1", 1.0) == ">2.50"
    assert ratio(entry, ["threads-1"], "ddp-1-128", 1.0) == "<0.40"


def test_searches_choose_by_seconds_and_then_by_how_near_they_came(bench, monkeypatch):
    def pretended(contestant, seed, rate, averages, seconds):
        assert (seed, averages) == (0, cluster.AVERAGES)
        slow = [[0.0, 2.0, 0, 0.0], [10 * rate, 1.2, 0, 0.0]]
        return {"curves": {"raw": slow, "0.99": [[0.0, 2.0, 0, 0.0], [100 * rate, 1.2, 0, 0.0]]}}

    monkeypatch.setattr(bench, "torch", pretended)
    found = bench.choice("ddp-1-128")
    assert (found["rate"], found["weights"], found["at_an_end"]) == (1e-3, "raw", True)
    monkeypatch.setattr(
        bench, "torch", lambda c, s, rate, a, b: {"curves": {"raw": [[0.0, 9.0 + abs(rate - 3e-3), 0, 0.0]]}}
    )
    found = bench.choice("ddp-1-128")
    assert (found["rate"], found["seconds"], found["at_an_end"]) == (3e-3, None, False)


def test_plans_and_unknown_names(capsys):
    options = parse(
        ["mnist.npz", "--tasks", "deep", "--contestants", "threads-1,ddp-1-128", "--seconds", "60"]
    )
    assert plan(options).startswith("deep: 3 runs of the search, 6 of the rounds: 9 minutes\n")
    with pytest.raises(SystemExit):
        parse(["mnist.npz", "--contestants", "ddp-3-128"])
    assert "there is no ddp-3-128; there are threads-1" in capsys.readouterr().err


@pytest.mark.slow
def test_the_loop_is_as_fast_as_a_plain_one_over_tensors_in_memory(stores):
    file = Path(cluster.__file__).with_name("cluster_ddp.py")
    words = [sys.executable, str(file), "--check", stores["train"], "--seconds", "0.3"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, **ONE_THREAD})
    assert float(done.stdout.rpartition("ratio ")[2]) > 0.5
    assert SampleStore.open(stores["train"]).rows == 2000
