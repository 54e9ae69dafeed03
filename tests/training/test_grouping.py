"""Groups: every row once a pass, each like all samples, whatever the rows are sorted by."""

from __future__ import annotations

import numpy as np
import pytest
from choices import taking_turns
from hypothesis import given
from hypothesis import strategies as st

from altmin_dask.execution.samples import Samples
from altmin_dask.training.grouping import (
    EVALUATED_CHUNKS,
    SPREAD,
    RowGroup,
    evaluated,
    groups_of,
    readings,
    spread_chunks,
    whole_chunks,
)


def rows_of(store, group: RowGroup) -> np.ndarray:
    """The first numbers of the rows of a group, as tasks read them."""
    return Samples(store, "inputs").arrays(group.chunks, "t", group.part)["x"].compute()[:, 0]


@pytest.mark.parametrize(
    ("shape", "shuffle"), taking_turns([(400, 20, 1), (401, 10, 2), (60, 30, 5), (7, 1, 3)], [True, False])
)
def test_every_row_is_in_one_group(shape, shuffle, make_store):
    rows, chunk_rows, size = shape
    store = make_store(np.arange(2.0 * rows).reshape(rows, 2), chunk_rows=chunk_rows, shuffle=shuffle)
    groups = groups_of(store, size, seed=0)
    seen = [rows_of(store, group) for group in groups]
    assert [len(values) for values in seen] == [group.rows(store) for group in groups]
    assert np.array_equal(np.sort(np.concatenate(seen)), 2.0 * np.arange(rows))


def test_groups_of_sorted_rows_are_like_all(make_store):
    """A mean over 100 rows drawn from all of 4,000 strays by 115/10; that of a chunk by 1155."""
    sorted_rows = np.arange(4000.0)[:, None]
    store = make_store(sorted_rows, chunk_rows=100, shuffle=False)
    means = np.array([rows_of(store, group).mean() for group in groups_of(store, 1, seed=0)])
    assert len(means) == 40
    assert np.abs(means - 1999.5).max() < 4 * 1155 / 10
    assert evaluated(store, 200, seed=0).rows(store) == pytest.approx(200, rel=0.2)
    assert rows_of(store, evaluated(store, 200, seed=0)).mean() == pytest.approx(1999.5, abs=4 * 1155 / 14)


def test_rows_that_repeat_with_the_period_of_the_groups(make_store):
    """Drawn at random, not every so many-th: classes in turn would otherwise be apart."""
    y = np.arange(1600) % 16
    store = make_store(np.repeat(y[:, None], 2, axis=1).astype(float), chunk_rows=100, shuffle=False)
    for group in groups_of(store, 1, seed=0):
        assert len(np.unique(rows_of(store, group))) > 12


@given(n_chunks=st.integers(1, 300), size=st.integers(1, 60), seed=st.integers(0, 2))
def test_spread_groups(n_chunks, size, seed):
    groups = spread_chunks(n_chunks * 20 - 17, 20, size, seed)
    for group in groups:
        assert len(group.chunks) >= max(1, min(n_chunks, SPREAD) - 1)  # the last chunk has few rows
        assert len(set(group.chunks)) == len(group.chunks)
    assert max(1 if g.part is None else g.part.of for g in groups) <= readings(n_chunks * 20 - 17, 20, size)
    assert {chunk for group in groups for chunk in group.chunks} == set(range(n_chunks))


def test_chunks_that_are_kept_whole_come_from_all_over(make_store):
    """The first window of a store that is sorted has to hold all there is."""
    store = make_store(np.arange(1280.0)[:, None], chunk_rows=10, shuffle=False)
    order = [chunk for group in whole_chunks(store, 2, seed=0) for chunk in group.chunks]
    assert sorted(order) == list(range(128))
    for start in range(0, 128, SPREAD):
        assert np.diff(np.sort(order[start : start + SPREAD])).max() < 16
    in_order = [group.chunks for group in whole_chunks(store, 2, seed=None)]
    assert in_order[:2] == [(0, 1), (2, 3)]


def test_a_record_reads_no_more_chunks_than_it_must(make_store):
    x = np.zeros((1000, 2))
    shuffled, as_is = make_store(x, chunk_rows=10), make_store(x, chunk_rows=10, shuffle=False)
    assert len(evaluated(shuffled, 95, seed=0).chunks) == 10
    assert len(evaluated(as_is, 95, seed=0).chunks) == EVALUATED_CHUNKS
    assert evaluated(as_is, 95, seed=0).rows(as_is) in range(95, 200)
    assert evaluated(as_is, 5000, seed=0).rows(as_is) == 1000


@pytest.mark.parametrize(
    ("rows", "chunk_rows", "size", "sizes"),
    [
        (2001, 2000, 1, [2001]),
        (4003, 2000, 1, [2000, 2003]),
        (5000, 2000, 1, [1000, 2000, 2000]),
        (81, 10, 8, [81]),
        (70, 10, 3, [10, 30, 30]),
        (7, 10, 3, [7]),
    ],
)
def test_no_step_is_of_a_handful_of_rows(rows, chunk_rows, size, sizes, make_store):
    """Half of all steps were of one row, always the same, where there was one more than in a chunk."""
    store = make_store(np.arange(float(rows))[:, None], chunk_rows=chunk_rows)
    for seed in range(4):
        groups = groups_of(store, size, seed=seed)
        assert sorted(group.rows(store) for group in groups) == sizes
        assert sorted(chunk for group in groups for chunk in group.chunks) == list(range(store.n_chunks))
