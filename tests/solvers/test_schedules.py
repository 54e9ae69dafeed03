"""The order of actions, as plain sequences."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmin_dask.solvers.schedules import Enter, Geometric, Record, Visit, mu_at, window_schedule


def short(actions, count):
    """V3.1 is a visit of group 3 in pass 1, E0-2 an entry, R a record."""
    names = {
        Visit: lambda a: f"V{a.group}.{a.number}",
        Enter: lambda a: f"E{a.first}-{a.stop}",
        Record: lambda a: "R",
    }
    return " ".join(names[type(action)](action) for action in islice(actions, count))


def test_batch_is_one_group():
    assert short(window_schedule(1, 1, 4), 8) == "R E0-1 V0.0 R V0.1 R V0.2 R"


def test_incremental_is_all_groups_at_once():
    assert short(window_schedule(3, 3, 4), 10) == "R E0-3 V0.0 V1.0 V2.0 R V0.1 V1.1 V2.1 R"


def test_windows_double():
    expected = "R E0-1 V0.0 R V0.1 R E1-2 V0.2 V1.2 R V0.3 V1.3 R E2-3 V0.4 V1.4 V2.4 R V0.5 V1.5 V2.5 R V0.6"
    assert short(window_schedule(3, 1, 2), len(expected.split())) == expected


@given(st.integers(1, 20), st.integers(1, 30), st.integers(1, 4))
def test_only_what_has_entered_is_visited_and_everything_enters_once(groups, first, passes):
    entered, numbers, visits = 0, [], []
    for action in islice(window_schedule(groups, first, passes), 400):
        if isinstance(action, Enter):
            assert action.first == entered < action.stop
            entered = action.stop
        elif isinstance(action, Visit):
            assert action.group < entered
            numbers.append(action.number)
            visits.append(action.group)
    assert entered == groups or len(visits) > 100
    assert numbers == sorted(numbers)
    assert entered <= groups


def test_mu_at():
    assert mu_at(0.5, 2, 7) == (0.5, 0.5)
    assert mu_at([1, 2], 2, 7) == (1.0, 2.0)
    falling = [mu_at(Geometric(1.0, 0.1, 0.02), 1, t)[0] for t in range(4)]
    assert falling == pytest.approx([1.0, 0.1, 0.02, 0.02])
    assert mu_at(Geometric(1.0, 10.0, 5.0), 1, 10_000) == (5.0,)
    assert mu_at(Geometric(1.0, 1.0, 1.0), 1, 3) == (1.0,)
    rising = [mu_at(Geometric(0.1, 2.0, 0.5), 1, t)[0] for t in range(5)]
    assert rising == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])
