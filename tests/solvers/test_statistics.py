"""Statistics: sums that add up in any order, are replaced exactly, and know F for any weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import NETWORKS, PAIRINGS, cases, make_case

from altmin_dask.solvers.packing import packed_size
from altmin_dask.solvers.statistics import Statistics

every_network = pytest.mark.parametrize(("sizes", "activations"), NETWORKS.values(), ids=NETWORKS)


def collected(case, rows=slice(None), *, with_inputs=True):
    statistics = Statistics(case.network.shapes, with_inputs)
    statistics.add(case.rows(rows).point())
    return statistics


def moved(case, seed=1):
    """The same samples at other z."""
    rng = np.random.default_rng(seed)
    return replace(case, z=[z + rng.normal(size=z.shape) for z in case.z])


def assert_same(mine, theirs, rtol=1e-11):
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol * scale)


@st.composite
def split_cases(draw):
    """A case, and its samples dealt into groups."""
    case = draw(cases(max_spread=30))
    count = len(case.x)
    labels = np.array(draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    return case, [np.flatnonzero(labels == label) for label in range(4)]


# what they hold


@every_network
def test_add_collects_the_moments(sizes, activations):
    case = make_case(sizes, activations, n=7)
    statistics, point = collected(case), case.point()
    assert statistics.samples == 7
    np.testing.assert_allclose(statistics.totals, [point.loss.sum(), 7])
    for i, (z, inputs) in enumerate(zip(point.z, point.inputs, strict=True)):
        cross = sum(np.outer(z[k], inputs[k]) for k in range(7))
        gram = sum(np.outer(inputs[k], inputs[k]) for k in range(7))
        np.testing.assert_allclose(statistics.cross[i], cross, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(statistics.gram[i], gram, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(statistics.squares[i], (z**2).sum())


@every_network
@pytest.mark.parametrize("with_inputs", [True, False])
def test_one_vector_holds_everything(sizes, activations, with_inputs):
    case = make_case(sizes, activations)
    shapes = case.network.shapes
    statistics = collected(case, with_inputs=with_inputs)
    assert statistics.vector.dtype == np.float64
    assert statistics.vector.shape == (packed_size(Statistics.layout(shapes, with_inputs)),)
    again = Statistics(shapes, with_inputs, statistics.vector.copy())
    for name in ("cross", "gram", "squares", "totals"):
        for mine, theirs in zip(getattr(again, name), getattr(statistics, name), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    # every number stands in exactly one place
    again.vector[:] = 1
    parts = [again.totals, again.diagnostics, again.squares, *again.cross, *again.gram]
    assert sum(part.sum() for part in parts) == again.vector.size
    for part in parts:
        part[...] = 0
    assert not again.vector.any()
    assert [c.shape for c in again.cross] == list(shapes)
    first = (shapes[0][1], shapes[0][1]) if with_inputs else (0,)
    assert [g.shape for g in again.gram] == [first, *((k, k) for _, k in shapes[1:])]


def test_new_statistics_are_zero_and_their_own():
    one, other = Statistics([(2, 3)], True), Statistics([(2, 3)], True)
    one.vector += 1
    assert not other.vector.any()


# the group


@given(drawn=split_cases())
@settings(max_examples=60, deadline=None)
def test_parts_add_up_to_the_whole(drawn):
    case, groups = drawn
    whole = collected(case)
    tree = Statistics(case.network.shapes, True)
    for rows in groups:
        tree.add(case.rows(rows).point())
    assert_same(tree.vector, whole.vector)
    # added as packed vectors, in another order
    assert_same(sum(collected(case, rows).vector for rows in groups[::-1]), whole.vector)
    merged = Statistics(case.network.shapes, True)
    for rows in groups:
        merged.merge(collected(case, rows))
    assert_same(merged.vector, whole.vector)


@given(drawn=split_cases(), with_inputs=st.booleans())
@settings(max_examples=60, deadline=None)
def test_replace_takes_the_old_away_and_adds_the_new(drawn, with_inputs):
    case, _ = drawn
    new = moved(case)
    change = Statistics(case.network.shapes, with_inputs)
    change.replace(case.point(), new.point())
    old_sums, new_sums = (collected(c, with_inputs=with_inputs).vector for c in (case, new))
    scale = max(np.abs(old_sums).max(), np.abs(new_sums).max())
    np.testing.assert_allclose(change.vector, new_sums - old_sums, rtol=0, atol=1e-11 * scale)
    if with_inputs:
        assert not change.gram[0].any()
    assert change.samples == 0


@given(drawn=split_cases())
@settings(max_examples=60, deadline=None)
def test_a_group_is_replaced_in_the_whole(drawn):
    """All at the old z, then the change of one group, is what one gets by collecting anew."""
    case, groups = drawn
    new = moved(case)
    rows = groups[0]
    statistics = collected(case)
    change = Statistics(case.network.shapes, with_inputs=False)
    change.replace(case.rows(rows).point(), new.rows(rows).point())
    statistics.merge(change)
    z = [old.copy() for old in case.z]
    for mine, theirs in zip(z, new.z, strict=True):
        mine[rows] = theirs[rows]
    scale = max(np.abs(statistics.vector).max(), np.abs(collected(new).vector).max())
    np.testing.assert_allclose(
        statistics.vector, collected(replace(case, z=z)).vector, rtol=0, atol=1e-11 * scale
    )
    # and back
    back = Statistics(case.network.shapes, with_inputs=False)
    back.replace(new.rows(rows).point(), case.rows(rows).point())
    statistics.merge(back)
    np.testing.assert_allclose(statistics.vector, collected(case).vector, rtol=0, atol=1e-11 * scale)


def test_merge_without_inputs_leaves_their_gram_matrix():
    case = make_case((5, 4, 3), ("tanh",))
    statistics, inner = collected(case), collected(case, with_inputs=False)
    held = statistics.gram[0].copy()
    statistics.merge(inner)
    np.testing.assert_array_equal(statistics.gram[0], held)
    np.testing.assert_allclose(statistics.gram[1], 2 * inner.gram[1])
    for mine, theirs in zip(statistics.cross, inner.cross, strict=True):
        np.testing.assert_allclose(mine, 2 * theirs)
    assert statistics.samples == 12
    statistics.merge(collected(case))
    np.testing.assert_allclose(statistics.gram[0], 2 * held)


def test_replacing_all_keeps_only_the_gram_matrix_of_the_inputs():
    case = make_case((5, 4, 3), ("tanh",))
    new = moved(case)
    statistics = collected(case)
    statistics.replace_all(collected(new, with_inputs=False))
    assert_same(statistics.vector, collected(new).vector)


def test_diagnostics_are_those_of_the_last_merge():
    one, two = Statistics([(2, 3)], True), Statistics([(2, 3)], False)
    one.diagnostics[:] = 5, 1
    two.diagnostics[:] = 7, 2
    one.merge(two)
    np.testing.assert_array_equal(one.diagnostics, [7, 2])


def test_float32_blocks_are_summed_in_float64():
    case = make_case((5, 4, 3), ("tanh",), dtype=np.float32, n=50)
    statistics = Statistics(case.network.shapes, True)
    for k in range(50):
        statistics.add(case.rows(slice(k, k + 1)).point())
    assert statistics.vector.dtype == np.float64
    point = case.point()
    exact = (point.z[1].astype(float)).T @ point.inputs[1].astype(float)
    np.testing.assert_allclose(statistics.cross[1], exact, rtol=1e-5, atol=1e-5)


# F from sums


@given(case=cases(max_mu_exponent=2, max_spread=30), seed=st.integers(0, 1000), ridge=st.floats(0, 10))
@settings(max_examples=100, deadline=None)
def test_objective_of_any_weights_is_the_direct_one(case, seed, ridge):
    statistics = collected(case)
    rng = np.random.default_rng(seed)
    weights = tuple(w + rng.normal(size=w.shape) for w in case.weights)
    elsewhere = replace(case, weights=weights)
    residuals = elsewhere.point().residuals
    magnitude = statistics.squares + [
        np.abs(w @ g).max() * np.abs(w).sum() for w, g in zip(weights, statistics.gram, strict=True)
    ]
    np.testing.assert_allclose(
        statistics.residual_squares(weights),
        [(r**2).sum() for r in residuals],
        rtol=1e-10,
        atol=1e-12 * magnitude.max(),
    )
    slack = 1e-12 * (np.array(case.mu) @ magnitude) / len(case.x)
    for penalize_bias in (True, False):
        size = sum((w**2).sum() - (0 if penalize_bias else (w[:, -1] ** 2).sum()) for w in weights)
        expected = (elsewhere.f().sum() + ridge * size) / len(case.x)
        value = statistics.objective(weights, case.mu, ridge, penalize_bias)
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=slack)


def test_residual_squares_are_never_negative():
    """On a forward pass they are rounding alone."""
    case = make_case((4, 3, 5, 6, 2), ("softplus", "leaky_relu", "sigmoid"), n=200)
    case = replace(case, z=case.network.forward(case.weights, case.batch))
    squares = collected(case).residual_squares(case.weights)
    assert (squares >= 0).all()
    assert squares.max() < 1e-9


@pytest.mark.parametrize(("loss", "output"), PAIRINGS)
def test_objective_of_the_weights_at_hand(loss, output):
    case = make_case((5, 4, 3), ("tanh",), loss, output)
    value = collected(case).objective(case.weights, case.mu, 0.0)
    np.testing.assert_allclose(value, case.f().mean(), rtol=1e-11)
