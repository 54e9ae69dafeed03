"""What `benchmarks/kernel.py` times: a whole step, and that it is counted whole."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from increment_step import Parts, Stepper
from kernel import Timing, row

from altmin_dask.networks.builders import dense_network
from altmin_dask.solvers.evaluation import evaluate_chunk
from altmin_dask.solvers.kfac import CURVATURE_EVERY, KFACState
from altmin_dask.solvers.preconditioner import KroneckerPreconditioner
from altmin_dask.types import Batch

BENCHMARK = Path(__file__).parents[1] / "kernel.py"


def test_the_steps_that_are_timed_train_and_hold_all_that_the_client_does(monkeypatch):
    calls = []
    for kind, name in (
        (KFACState, "update_averages"),
        (KroneckerPreconditioner, "__init__"),
        (KroneckerPreconditioner, "direction"),
        (KroneckerPreconditioner, "step_coefficients"),
        (KFACState, "move"),
    ):
        original = getattr(kind, name)

        def counted(*arguments, original=original, name=name, **settings):
            calls.append(name)
            return original(*arguments, **settings)

        monkeypatch.setattr(kind, name, counted)
    network = dense_network([6, 5, 6], "tanh")
    x = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    ticks = count()
    stepper = Stepper(network, x, x, 4, lambda: float(next(ticks)))
    before = evaluate_chunk(network, stepper.weights, Batch(x, x)).mean_loss
    calls.clear()
    steps = stepper.cycle() + stepper.cycle()
    assert evaluate_chunk(network, stepper.weights, Batch(x, x)).mean_loss < before
    for name in ("update_averages", "direction", "step_coefficients", "move"):
        assert calls.count(name) == len(steps) == 2 * CURVATURE_EVERY
    assert calls.count("__init__") == 2  # curvature is factorised once a cycle, inside what is timed
    # by a clock that ticks when it is read: four parts, nothing between them
    assert steps == [Parts(1.0, 1.0, 1.0, 1.0)] * len(steps)
    assert next(ticks) == 5 * (2 * CURVATURE_EVERY + len(steps))


def test_the_step_is_the_kernel_and_the_client():
    parts = Parts.mean([Parts(3.0, 1.0, 2.0, 0.5), Parts(5.0, 2.0, 2.0, 0.5)])
    assert (parts.kernel, parts.client, parts.whole) == (6.0, 2.0, 8.0)
    timing = Timing(kernel=6.0, client=2.0, sgemm=4.0, torch=2.0, flops=4e9)
    assert timing.step == 8
    assert row("net", "kfac", timing, 1000).split()[2:9] == [
        "6000.0",
        "2000.0",
        "8000.0",
        "0.67",
        "0.50",
        "3.00",
        "4.00",
    ]


@pytest.mark.slow
def test_the_table_begins_with_the_machine_and_ends_with_steps_that_take_longer_than_kernels():
    case = "784-256-256-10 relu"
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--rows", "200", "--rounds", "1", "--cases", case, "--anyway"],
        capture_output=True,
        text=True,
        check=True,
    )
    first, *_, increments, incremental, batch = done.stdout.splitlines()
    assert re.search(
        r"cores, of which other processes keep .*; BLAS .*numpy .*; commit ([0-9a-f]{7,}|unknown)", first
    )
    for line, name in ((increments, "kfac"), (incremental, "incremental"), (batch, "batch")):
        assert line.startswith(f"{case}  ")
        kernel, client, step, kernel_rate, step_rate = map(float, line.split(name)[1].split()[:5])
        assert step == pytest.approx(kernel + client, abs=0.2)
        assert step_rate <= kernel_rate
        assert (client > 0) == (name != "batch")
