"""The comparison of contestants: equal starts, two clocks, and samples that measure and decide nothing."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count

import measuring
import numpy as np
import pytest
import time_to_quality
import zarr
from choices import slow_but, taking_turns
from contestants import alone, torch_model
from quality_clock import AVERAGED, RAW, SPENT, Means, Run, kept_share, mix_arrays, mix_tensors
from quality_data import FINAL, SEARCH, make_stores, pipeline_of, samples, starting_weights
from quality_tasks import TASKS

from altmin_dask import RunFolder, train
from altmin_dask.config import make_pipeline
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.execution.blas import single_threaded_blas
from altmin_dask.execution.connect import open_executor
from altmin_dask.solvers.kfac import KFACState
from altmin_dask.training.algorithms import restore
from altmin_dask.training.context import RunContext
from altmin_dask.training.initialization import initial_weights
from altmin_dask.training.kfac_training import KFACTraining
from altmin_dask.training.problem import build_problem

TINY = replace(
    TASKS["autoencoder"],
    network={**TASKS["autoencoder"].network, "hidden_layer_sizes": [8]},
    first_evaluation=0.01,
)
LABELLED = replace(
    TASKS["classifier"], network={**TASKS["classifier"].network, "hidden_layer_sizes": [12, 8]}
)


@pytest.fixture(autouse=True)
def tasks(monkeypatch):
    monkeypatch.setitem(TASKS, "tiny", TINY)
    monkeypatch.setitem(TASKS, "labelled", LABELLED)


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    """Ten blurred pictures with noise; the test digits are brighter than any other, so that they are known anywhere."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 120, (10, 28, 28))

    def make(rows, add):
        y = rng.integers(0, 10, rows)
        return (pictures[y] + rng.integers(0, 60, (rows, 28, 28)) + add).astype(np.uint8), y.astype(np.uint8)

    (x, y), (x_test, y_test) = make(6000, 0), make(500, 70)
    x_test[:, 0, 0] = 255
    file = tmp_path_factory.mktemp("mnist") / "mnist.npz"
    np.savez(file, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return file


@pytest.fixture(scope="module")
def stores(mnist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    for part in (SEARCH, FINAL):
        for rows in (None, 1000):
            make_stores(mnist, folder, part, rows)
    return folder


def spec_of(
    optimizer, setting=None, *, task="tiny", start="whitened", part=FINAL, averages=(), seconds=0.3, seed=0
):
    return {
        "task": task,
        "optimizer": optimizer,
        "cosine": False,
        "start": start,
        "setting": setting or {},
        "averages": list(averages),
        "seconds": seconds,
        "seed": seed,
        "part": part,
    }


# ---- running means of weights, and whose clock they are on


@pytest.mark.parametrize("stride", [1, 20])
def test_running_means_are_those_of_a_plain_loop(stride):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    steps = [rng.standard_normal((3, 4)).astype(np.float32) for _ in range(60)]
    decays = (0.5, 0.99)
    arrays = Means(decays, [[steps[0].copy()] for _ in decays], mix_arrays, stride)
    tensors = Means(decays, [[torch.tensor(steps[0])] for _ in decays], mix_tensors, stride)
    expected = [steps[0].astype(np.float64) for _ in decays]
    for number, w in enumerate(steps, start=1):
        arrays.update([w])
        tensors.update([torch.tensor(w)])
        for i, decay in enumerate(decays):
            keep = min(decay**stride, number / (number + 8))
            expected[i] = keep * expected[i] + (1 - keep) * w
    for i in range(2):
        np.testing.assert_allclose(arrays.means[i][0], expected[i], atol=1e-5)
        np.testing.assert_allclose(tensors.means[i][0].numpy(), expected[i], atol=1e-5)


def test_a_running_mean_warms_up_as_altmins_own():
    ours = KFACState.start((np.zeros((1, 1)),))
    mean = Means([0.95], [[np.zeros((1, 1))]], mix_arrays)
    for number in range(1, 300):
        ours.steps = number
        w = np.array([[math.sin(number)]])
        ours.average = ours.averaged((w,), 0.95)
        mean.update([w])
    np.testing.assert_allclose(mean.means[0][0], ours.average[0], rtol=1e-12)
    assert kept_share(0.95, 10**6) == 0.95


def test_running_means_are_on_the_clock_of_the_averaged_weights_alone():
    def burn(mean, weights, share):
        end = time.process_time() + 0.01
        while time.process_time() < end:
            pass

    means = Means([0.9, 0.99], [[], []], burn)
    run = Run(0.02, lambda model: 1.0, ["raw", "one", "other"], means, 10, iter(()))
    run.start(0.005)
    for _ in range(5):
        means.update([])
    assert means.seconds >= 0.1
    raw, averaged = run.raw, run.averaged
    assert 0.005 <= raw < 0.02  # or the machine stood still within these lines
    assert averaged - raw == pytest.approx(means.seconds / 2, abs=1e-3)
    while run.goes_on():
        pass
    assert run.curves[RAW][-1][0] >= 0.02
    assert run.curves["0.9"][-1][0] - run.curves[RAW][-1][0] == pytest.approx(means.seconds / 2, abs=1e-3)


# ---- equal starts


@pytest.mark.parametrize(("task", "start"), taking_turns(["tiny", "labelled"], ["random", "whitened"]))
@pytest.mark.parametrize("seed", slow_but([1], [0, 1]))
def test_others_start_from_the_very_weights_that_the_engine_begins_with(stores, tmp_path, task, start, seed):
    spec = spec_of("adam", {"batch": 128, "rate": 1e-3}, task=task, start=start, seed=seed)
    given, seconds = starting_weights(spec, stores)
    pipeline = pipeline_of({**spec, "optimizer": "altmin", "setting": {}}, stores)
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    with (
        run.locked(),
        open_executor(pipeline.cluster) as executor,
        single_threaded_blas(),
    ):  # as the trainer has it
        run.manifest.write(pipeline.model_dump(mode="json"), pipeline.identity(), z=None)
        problem = build_problem(pipeline, SampleStore.open(pipeline.data.train), None, executor)
        session = RunContext(pipeline, problem, run, executor)
        groups = KFACTraining(session).groups
        assert len(groups) > 1  # so that it matters which one whitens
        expected = initial_weights(session, groups[0])
    assert seconds > 0
    for w, e in zip(given, expected, strict=True):
        np.testing.assert_array_equal(w, e)
    if start == "whitened":
        assert not given[-1][:, :-1].any()  # not by chance: as `whitened_weights` leaves the last layer
    pytest.importorskip("torch")
    linears = [
        layer
        for layer in torch_model(TASKS[task].network, given, labels=TASKS[task].accuracy)
        if hasattr(layer, "weight")
    ]
    for w, linear in zip(given, linears, strict=True):
        np.testing.assert_array_equal(linear.weight.detach().numpy(), w[:, :-1])
        np.testing.assert_array_equal(linear.bias.detach().numpy(), w[:, -1])


# ---- what test samples may do: measure


def test_the_search_sees_no_test_sample(mnist, stores):
    x, y, held_back, held_back_y = samples(mnist, SEARCH)
    whole, labels, test, _ = samples(mnist, FINAL)
    assert (len(x), len(held_back), len(whole)) == (5000, 1000, 6000)
    both = np.concatenate([x, held_back])
    order, expected = (np.lexsort(a.reshape(len(a), -1).T) for a in (both, whole))
    np.testing.assert_array_equal(both[order], whole[expected])
    np.testing.assert_array_equal(np.concatenate([y, held_back_y])[order], labels[expected])
    assert (test[:, 0, 0] == 255).all()
    pipeline = pipeline_of(spec_of("altmin", part=SEARCH), stores)
    for path, rows in ((pipeline.data.train, x), (pipeline.data.validation, held_back)):
        where = np.argsort(zarr.open_group(path, mode="r")["row"][:])
        stored = SampleStore.open(path).x[:].reshape(-1, 784)[where]
        assert stored.max() < 1  # all test digits have a pixel of 1
        np.testing.assert_allclose(stored, rows.reshape(-1, 784) / np.float32(255))


@pytest.mark.slow
def test_what_ours_are_measured_with_changes_no_bit_of_the_weights(stores, tmp_path):
    found = []
    for number, judged in enumerate((True, False)):
        pipeline = pipeline_of(spec_of("altmin"), stores)
        assert pipeline.training.n_iter_no_change is None
        # left to itself, fewer rows are evaluated beside those held out
        limits = {"max_cpu_seconds": None, "max_sweeps": 2.0, "evaluation_rows": 500}
        pipeline = pipeline.model_copy(update={"training": pipeline.training.model_copy(update=limits)})
        if not judged:
            pipeline = pipeline.model_copy(
                update={"data": pipeline.data.model_copy(update={"validation": None})}
            )
        run = RunFolder(tmp_path / str(number))
        records = train(pipeline, run, log=lambda line: None)
        found.append(({r.sweep: r.nested_loss for r in records}, restore(run).algorithm_state.kfac_state))
        assert (records[-1].validation_loss is not None) == judged
    (losses, memory), (others, other) = found
    shared = losses.keys() & others.keys()  # there may be more records where each takes less
    assert {0.0, 1.0, 2.0} <= shared
    assert [losses[sweep] for sweep in shared] == [others[sweep] for sweep in shared]
    for a, b in zip(memory.average, other.average, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_where_ours_would_have_stopped_alone_is_where_they_do(tmp_path):
    records = []
    for patience, sweeps in ((10, 400.0), (None, 20.0)):
        training = {"max_sweeps": sweeps, "n_iter_no_change": patience, "tol": 0.05}
        pipeline = make_pipeline(
            {
                "data": {"train": "digits:train", "scale": 16.0, "chunk_rows": 200},
                "network": {"kind": "autoencoder", "hidden_layer_sizes": [8]},
                "training": {**training, "group_chunks": 1, "averaging": 0.0},
            }
        )
        run = RunFolder(tmp_path / f"patience-{patience}")
        records.append(train(pipeline, run, log=lambda line: None))
    stopped, whole = records
    assert 12 < len(stopped) < len(whole)
    curve = [(float(n), float(-n), 0.0) for n in range(len(whole))]
    said = alone(whole, curve, tol=0.05)
    assert said is not None
    assert said["seconds"] == len(stopped) - 1
    losses = [record.nested_loss for record in stopped]
    assert said["kept_seconds"] == -said["quality"] == losses.index(min(losses))
    assert alone(whole[:10], curve[:10], tol=0.05) is None


# ---- refusals


def test_a_plan_that_takes_too_long_is_refused(mnist, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "x",
            str(mnist),
            "--task",
            "classifier",
            "--minutes",
            "1",
            "--out",
            str(tmp_path),
            "--allow-dirty",
        ],
    )
    with pytest.raises(SystemExit, match="more than --minutes 1"):
        time_to_quality.main()
    assert "CPU minutes" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--contestants", "adam,eve"], "no contestant eve"),
        (["--starts", "cold"], "no start cold"),
        (["--jobs", "1000"], "cores"),
        (["--commit", "abc"], "--table-only"),
    ],
)
def test_what_cannot_be_asked_for(arguments, said, capsys):
    with pytest.raises(SystemExit):
        time_to_quality.parse(["mnist.npz", "--task", "deep", *arguments])
    assert said in capsys.readouterr().err


# ---- runs and their file


def test_runs_of_a_search_share_processes_but_every_job_has_some():
    specs = [{"seconds": 3.0, "number": number} for number in range(10)]
    assert [len(some) for some in time_to_quality.batches(specs, 2)] == [5, 5]
    assert [len(some) for some in time_to_quality.batches(specs * 4, 2)] == [10] * 4
    assert [len(some) for some in time_to_quality.batches([{"seconds": 300.0}] * 2, 2)] == [1, 1]


def test_a_line_that_was_cut_off_does_not_count(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text('{"a": 1}\n{"b": 2}\n{"c"')
    assert time_to_quality.read_lines(file) == [{"a": 1}, {"b": 2}]


CONTESTANTS = {
    "adam": {"batch": 128, "rate": 1e-3},
    "adamw": {"batch": 64, "rate": 1e-3, "decay": 0.01},
    "sgd": {"batch": 512, "rate": 0.01},
    "lbfgs": {"batch": 1000},
    "sklearn": {"batch": 128, "rate": 1e-3},
    "altmin": {},
}


@pytest.mark.slow
def test_every_contestant_runs_from_every_start(mnist, stores):
    pytest.importorskip("torch")
    specs = [
        spec_of(
            optimizer,
            setting,
            task="classifier",
            start=start,
            seconds=0.15,
            part=SEARCH,
            averages=() if optimizer == "altmin" else (0.9, 0.99),
        )
        for optimizer, setting in CONTESTANTS.items()
        for start in ("random", "whitened")
    ]
    specs.append({**specs[1], "cosine": True, "part": FINAL, "task": "autoencoder"})
    asked = json.dumps({"mnist": str(mnist), "stores": str(stores), "specs": specs})
    done = subprocess.run(
        [sys.executable, time_to_quality.HERE / "contestants.py", asked],
        env={**os.environ, **measuring.ONE_THREAD},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["spec"] for result in results] == specs
    for result in results:
        ours = result["spec"]["optimizer"] == "altmin"
        assert set(result["curves"]) == ({AVERAGED} if ours else {RAW, "0.9", "0.99"})
        for curve in result["curves"].values():
            # ours may end with a record whose commit takes what is left
            assert curve[-1][0] >= (0.05 if ours else 0.15), result
            assert result["status"] == SPENT
        if result["spec"]["part"] == SEARCH:
            assert 0 < result["start_seconds"] <= curve[-1][0] + 1e-3  # rounded


@pytest.mark.slow
def test_a_whole_comparison(mnist, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(time_to_quality, "wait_for_quiet", lambda *a, **k: 0.0)  # tests run beside others
    monkeypatch.setattr(time_to_quality, "REPEATS", 1)
    arguments = [
        str(mnist),
        "--task",
        "classifier",
        "--contestants",
        "altmin,adam,adam-cosine-0.1",
        "--horizons",
        "0.1",
        "--starts",
        "random",
        "--rungs",
        "0.05,0.1",
        "--seconds",
        "0.2",
        "--seeds",
        "2",
        "--allow-dirty",
        "--out",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", ["x", *arguments])
    time_to_quality.main()
    [folder] = [path for path in tmp_path.iterdir() if path.is_dir()]
    lines = time_to_quality.read_lines(folder / "classifier.jsonl")
    text = (tmp_path / "classifier.md").read_text(encoding="utf-8")
    assert folder.name in text
    assert "On equal terms" in text
    assert (tmp_path / "classifier.png").stat().st_size > 10_000
    finals = [line for line in lines if "row" in line]
    assert {line["row"]["contestant"] for line in finals} == {"altmin", "adam", "adam-cosine-0.1"}
    # nothing is repeated
    numbers = count()
    monkeypatch.setattr(time_to_quality.Runs, "carry_out", lambda *a: next(numbers))
    time_to_quality.main()
    assert next(numbers) == 0
    # another commit's runs are no part of it
    monkeypatch.setattr(sys, "argv", ["x", *arguments, "--table-only", "--commit", "other"])
    with pytest.raises(SystemExit, match="no finals of classifier"):
        time_to_quality.main()
