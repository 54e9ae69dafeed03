"""`benchmarks/recurrent.py`: equal starts, choice by validation alone, and what its tables say."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from quality_data import FINAL, SEARCH
from recurrent import OURS, RATES, RULES, Column, search, table, written
from recurrent_runs import SEQUENCES, data, network, torch_network

from altmin_dask.types import Batch

RUN = Path(__file__).parents[1] / "recurrent_runs.py"
ADDING = {"task": "adding", "steps": 6, "seed": 1}
COLUMNS = {"s to 90": Column(90.0, False), "at the end": Column(None, False)}
TASK = {"task": "rows", "seconds": 9.0}


def test_pytorch_starts_from_the_very_same_network():
    torch = pytest.importorskip("torch")
    x, *_ = data({**ADDING, "part": SEARCH})
    ours = network(ADDING, x)
    weights = ours.initial_weights(ADDING["seed"])
    theirs = torch_network(ADDING, ours)
    with torch.no_grad():
        found = theirs(torch.from_numpy(x[:50])).numpy()
    np.testing.assert_allclose(found, ours.predict(weights, Batch(x[:50])), rtol=1e-4, atol=1e-5)
    trained = sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    assert trained == sum(w.size for w in weights)


def test_a_search_is_judged_by_other_sequences_than_finals_and_both_train_on_the_same():
    search_data, final = (data({**ADDING, "part": part}) for part in (SEARCH, FINAL))
    for a, b in zip(search_data[:2], final[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(final[0]) == SEQUENCES
    seen = {row.tobytes() for row in final[0]}
    judged = [{row.tobytes() for row in held_out} for held_out in (search_data[2], final[2])]
    assert not seen & judged[0] and not seen & judged[1] and not judged[0] & judged[1]  # noqa: PT018


def test_a_column_is_the_first_time_or_the_last_quality():
    curve = [[1.0, 80.0, 0], [2.0, 91.0, 0], [3.0, 95.0, 0], [4.0, 94.0, 0]]
    assert COLUMNS["s to 90"].of(curve) == 2
    assert COLUMNS["at the end"].of(curve) == 94  # the best of a curve would be chosen by the test
    assert Column(0.5, True).of([[1.0, 0.6, 0], [2.0, 0.4, 0]]) == 2
    assert Column(99.0, False).of(curve) == math.inf
    assert COLUMNS["at the end"].cost([]) == math.inf


def quality(spec):
    """More at a rate of 0.01, if the rate decays, and for means of long memory; the test says the opposite."""
    rate = -abs(math.log10(spec["rate"] / 0.01)) + spec["cosine"]
    sign = 1 if spec["part"] == SEARCH else -1
    return {
        name: [[1.0, 50.0, 0], [5.0, 80 + 10 * sign * (rate + bonus), 0]]
        for name, bonus in (("raw", 0.0), ("0.99", 0.1))
    }


def test_rates_are_added_until_the_best_is_inside_and_all_are_counted():
    asked = []

    def run(spec):
        asked.append(spec)
        return quality(spec)

    choice, tried = search(run, TASK, "Adam", COLUMNS)
    assert [spec["rate"] for spec in asked] == [*RATES, 0.01, 0.03]
    assert choice == {"s to 90": (0.01, "0.99"), "at the end": (0.01, "0.99")}
    assert tried == 5 * 2
    assert {spec["part"] for spec in asked} == {SEARCH}


def test_tables_choose_by_validation_and_report_the_test_of_all_seeds_in_turn():
    asked = []

    def run(spec):
        asked.append(spec)
        if spec["optimizer"] == "altmin":
            return {"averaged": [[1.0, 95.0 + spec["seed"], 0]]}
        return quality(spec)

    lines = list(table(run, TASK, TASK, 3, COLUMNS))
    finals = [spec for spec in asked if spec["part"] == FINAL]
    assert [spec["seed"] for spec in finals] == sorted(spec["seed"] for spec in finals)
    assert len(finals) == 3 * (1 + len(RULES))
    assert {spec["rate"] for spec in finals if spec["optimizer"] == "adam"} == {
        0.01
    }  # the test would not say so
    assert [spec["seconds"] for spec in finals[1:4]] == [9.0, 9.0, 3.0]
    assert lines[2] == f"| {OURS} | 1 | 1 [1–1] | 96 [95–97] |"
    assert lines[3].startswith("| Adam | 10 | – [0 of 3] (0.01, mean 0.99) | 79")


def test_goals_that_some_runs_miss_are_counted():
    assert written([1.0, 2.0, math.inf]) == "2 [2 of 3]"
    assert written([math.inf] * 2) == "– [0 of 2]"


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["altmin", "adam"])
def test_a_run_learns(optimizer):
    if optimizer == "adam":
        pytest.importorskip("torch")
    spec = {
        **ADDING,
        "optimizer": optimizer,
        "seconds": 1.5,
        "part": FINAL,
        "rate": 0.01,
        "cosine": True,
        "averages": [0.99],
    }
    done = subprocess.run([sys.executable, RUN, json.dumps(spec)], capture_output=True, text=True, check=True)
    curves = json.loads(done.stdout)["curves"]
    assert list(curves) == (["averaged"] if optimizer == "altmin" else ["raw", "0.99"])
    for curve in curves.values():
        assert curve[0][0] < 1.5 < curve[-1][0] + 1
        assert min(q for _, q, _ in curve) < 0.08 < 1 / 12  # who says the mean has that
