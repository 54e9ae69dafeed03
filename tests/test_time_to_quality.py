"""Seconds to a quality, and quality at a moment, between the evaluations of a curve."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from contestants import evaluation_moments, thinned
from quality_report import Column, Group, compare, cost_at, group_runs, seconds_to
from quality_tasks import TASKS

CURVE = [(1.0, 4.0), (4.0, 2.0), (16.0, 3.0), (64.0, 1.0)]


@pytest.mark.parametrize(
    ("cost", "seconds"),
    [(5.0, 1.0), (4.0, 1.0), (3.0, 2.0), (2.0, 4.0), (1.5, 16 * 4**0.75), (1.0, 64.0), (0.9, math.inf)],
)
def test_the_first_time_counts_and_lies_between_two_evaluations_in_log_time(cost, seconds):
    assert seconds_to(CURVE, cost) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("moment", "cost"),
    [(0.9, math.inf), (1, 4.0), (2, 3.0), (4, 2.0), (8, 2.5), (64, 1.0), (65, 1.0), (70, math.inf)],
)
def test_quality_at_a_moment_is_known_only_while_there_are_evaluations(moment, cost):
    assert cost_at(CURVE, moment) == pytest.approx(cost)


def test_nothing_is_reached_by_a_run_without_evaluations():
    assert seconds_to([], 1.0) == cost_at([], 1.0) == math.inf


curves = st.lists(st.tuples(st.floats(0.5, 1e3), st.floats(0.1, 10)), min_size=1, max_size=20)


@given(curves, st.floats(0.1, 10))
def test_the_quality_at_the_time_it_is_reached_is_that_quality(points, cost):
    times = sorted({seconds for seconds, _ in points})
    curve = [(seconds, value) for seconds, (_, value) in zip(times, points, strict=False)]
    reached = seconds_to(curve, cost)
    if curve[0][0] < reached < math.inf:
        assert cost_at(curve, reached) == pytest.approx(cost, rel=1e-3, abs=1e-3)


def test_a_dense_history_is_thinned_to_the_moments_of_the_others():
    history = [(0.01 * number, 1.0, 0.0) for number in range(1001)]
    moments = evaluation_moments()
    due = [moment for moment in (next(moments) for _ in range(40)) if moment <= 10]
    found = [seconds for seconds, *_ in thinned(history)]
    assert found[:-1] == pytest.approx(due, abs=0.011)
    assert found[-1] == 10


def test_a_history_is_kept_where_it_is_sparse_and_never_its_start():
    assert thinned([(0.0, 9.0, 0.0), (3.0, 2.0, 1.0), (30.0, 1.0, 2.0)]) == [
        (3.0, 2.0, 1.0),
        (30.0, 1.0, 2.0),
    ]


def result(contestant, setting, seed, curve, seconds=64.0, status="budget spent"):
    return {
        "contestant": contestant, "setting": setting, "seed": seed, "seconds": seconds, "status": status,
        "curve": curve,
    }  # fmt: skip


def test_a_number_is_the_median_over_seeds_of_the_setting_that_is_best_for_the_column():
    slow, fast = [(1.0, 4.0), (8.0, 1.0)], [(1.0, 2.0), (8.0, 1.5)]
    results = [result("adam", {"rate": 0.1}, seed, slow) for seed in range(3)]
    results += [result("adam", {"rate": 0.2}, seed, fast) for seed in range(3)]
    groups = group_runs(TASKS["autoencoder"], results, 64.0)
    early = Column("", "", lambda curve: seconds_to(curve, 2.0), str, True).best_of(groups)
    late = Column("", "", lambda curve: seconds_to(curve, 1.0), str, True).best_of(groups)
    assert early is not None
    assert late is not None
    assert (early[0].label, early[1]) == ("rate 0.2", (1.0, 1.0, 1.0))
    assert (late[0].label, late[1]) == ("rate 0.1", pytest.approx((8.0, 8.0, 8.0)))


def test_accuracy_counts_by_its_error_and_a_run_that_stopped_keeps_its_network():
    curve = [(1.0, 90.0, 0.1), (2.0, 98.0, 0.2)]
    [group] = group_runs(
        TASKS["classifier"], [result("altmin", {}, 0, curve, status="stopped by itself")], 64.0
    )
    assert group.measure(lambda curve: cost_at(curve, 30.0))[0] == pytest.approx(2.0)
    assert seconds_to(group.curves[0], 2.0) == 2.0


def test_where_a_baseline_wins_is_said():
    column = Column("s to 1", "to 1", lambda curve: seconds_to(curve, 1.0), "{:g}".format, True)
    ours = Group("altmin", "", 64.0, [[(1.0, 2.0), (8.0, 1.0)]])
    faster, slower = (Group("adam", "rate 0.1", 64.0, [[(s, 1.0)]]) for s in (4.0, 16.0))
    assert compare("altmin", [column], [ours], [slower]) == (
        ["2.00 ×"],
        "No baseline wins against altmin in any column.",
    )
    ratios, verdict = compare("altmin", [column], [ours], [slower, faster])
    assert ratios == ["0.50 ×"]
    assert verdict == "**A baseline wins** against altmin to 1: adam rate 0.1 with 4 s against 8 s."
