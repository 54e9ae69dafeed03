"""Seconds to a quality, and quality at a moment, between the evaluations of a curve; and the table of them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quality_clock import evaluation_moments, thinned
from quality_report import columns, cost_at, equal_terms, rows_of, seconds_to, table, verdict

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
    found = [seconds for seconds, *_ in thinned(history, evaluation_moments())]
    assert found[:-1] == pytest.approx(due, abs=0.011)
    assert found[-1] == 10


def test_a_history_is_kept_where_it_is_sparse_and_never_its_start():
    assert thinned([(0.0, 9.0, 0.0), (3.0, 2.0, 1.0), (30.0, 1.0, 2.0)], evaluation_moments()) == [
        (3.0, 2.0, 1.0),
        (30.0, 1.0, 2.0),
    ]


def final(contestant, start, curves, *, seed=0, seconds=64.0, setting=None, tried=7, **more):
    """A line of a final."""
    return {
        "spec": {
            "task": "autoencoder",
            "start": start,
            "setting": setting or {},
            "seconds": seconds,
            "seed": seed,
            "part": "final",
        },
        "row": {"contestant": contestant, "tried": tried, "inside": True, "validated": 1.0},
        "curves": curves,
        "status": "budget spent",
        "start_seconds": 0.1,
        "load": [1.0, 2.0],
        "others": 0.25,
        "disturbed": False,
        **more,
    }


def falling(seconds):
    """To 1.02, 0.77, … 0.35 after so many seconds."""
    return [
        [seconds, 1.02, 0.0],
        [2 * seconds, 0.77, 0.0],
        [4 * seconds, 0.49, 0.0],
        [8 * seconds, 0.35, 0.0],
    ]


LINES = [
    {"machine": {"cpu": "A CPU", "cores": 2, "blas": ["openblas"], "versions": {"numpy": "2"}}, "jobs": 2},
    *(final("altmin", "whitened", {"averaged": falling(s)}, seed=i) for i, s in enumerate((1.0, 2.0, 3.0))),
    final("altmin", "random", {"averaged": falling(4.0)}),
    final("altmin-raw", "whitened", {"raw": falling(3.0)}, setting={"averaging": 0.0}),
    *(
        final(
            "adam",
            "whitened",
            {"raw": falling(s / 2), "0.99": falling(s)},
            seed=i,
            setting={"rate": 0.003, "batch": 64},
            averaging_share=0.06,
        )
        for i, s in enumerate((6.0, 4.0, 5.0))
    ),
    final("sgd", "whitened", {"raw": falling(9.0), "0.98": falling(8.0)}),
    final("sgd", "random", {"raw": falling(20.0), "0.98": falling(10.0)}),
]


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_ours_are_compared_with_the_best_of_the_same_start_and_weights():
    rows = rows_of("autoencoder", LINES)
    heads = [head for head in columns("autoencoder", 64.0) if head.is_threshold]
    found = [cells(line) for line in equal_terms("autoencoder", rows, heads)[4:]]
    assert found[0][:3] == ["random, averaged", "altmin", "4"]
    assert found[1][2] == "10<br>sgd"
    assert found[2][2:] == ["2.50 ×"] * 4
    assert found[3][:3] == ["whitened, averaged", "altmin", "2 [1–3]"]
    assert found[4][2] == "5 [4–6]<br>adam"
    assert found[5][2:] == ["2.50 ×"] * 4
    assert found[6][:2] == ["whitened, raw", "altmin-raw"]
    assert found[7][2] == "2.5 [2–3]<br>adam"
    assert found[8][2:] == ["0.83 ×"] * 4
    assert found[9][0] == "altmin against any start and weights"
    assert found[11][2:] == ["1.25 ×"] * 4  # raw Adam is the best of all


def test_the_table_says_how_settings_were_chosen_and_where_it_was_measured():
    text = table("autoencoder", "0123abc", LINES)
    assert "commit 0123abc" in text
    assert "A CPU, 2 cores, BLAS openblas" in text
    assert "other processes kept at most 0.25 cores busy, and disturbed 0 of 10 runs" in text
    [line] = [cells(line) for line in text.splitlines() if line.startswith("| adam | whitened | averaged")]
    assert line[3:6] == ["rate 0.003, batch 64, mean 0.99", "7", "3"]
    [line] = [cells(line) for line in text.splitlines() if line.startswith("| altmin | whitened (default)")]
    assert line[3:6] == ["defaults", "none", "3"]
    assert text.index("On equal terms") < text.index("All:")


def test_seeds_that_ran_for_less_do_not_count_at_later_moments():
    lines = [final("altmin", "whitened", {"averaged": falling(9.0)}, seed=0, seconds=64.0)]
    lines += [final("altmin", "whitened", {"averaged": falling(1.0)[:2]}, seed=1, seconds=2.0)]
    [row] = rows_of("autoencoder", lines)
    [at] = [head for head in columns("autoencoder", 64.0) if head.title == "at 30 s"]
    assert at.cell(row).endswith("(of 1)")
    assert row.at(30.0) == [pytest.approx(cost_at(falling(9.0), 30.0))]
    assert row.to(0.35) == [pytest.approx(72.0), math.inf]


def test_accuracy_counts_by_its_error():
    lines = [final("altmin", "random", {"averaged": [[1.0, 90.0, 0.1], [2.0, 98.0, 0.2]]})]
    [row] = rows_of("classifier", lines)
    assert row.to(2.0) == [2.0]
    head = columns("classifier", 20.0)[1]
    assert (head.title, head.cell(row)) == ("s to 98.0 %", "2")


def test_where_others_are_better_is_said():
    heads = columns("autoencoder", 1.0)
    rows = rows_of("autoencoder", LINES)
    assert verdict("autoencoder", rows, heads) == "No other is better than our defaults in any column."
    faster = rows_of("autoencoder", [*LINES, final("adam", "random", {"raw": falling(1.5)})])
    said = verdict("autoencoder", faster, heads)
    assert said.startswith(
        "**Others are better than our defaults**: s to 1.02: adam, random, raw with 1.5 against 2"
    )


def test_what_ours_would_have_kept_alone_and_what_ended_early_is_said():
    stop = {"seconds": 40.0, "kept_seconds": 30.0, "quality": 0.4}
    lines = [
        LINES[0],
        final("altmin", "whitened", {"averaged": falling(1.0)}, alone=stop),
        {**final("adam", "whitened", {"raw": falling(1.0)}), "status": "diverged"},
    ]
    text = table("autoencoder", "0123abc", lines)
    assert "after 40 s, with the model of 30 s, whose held-out quality is 0.4" in text
    assert "- adam, whitened, , seed 0: diverged" in text.replace("defaults", "")
