"""Whole z-updates: minima, no sample that gets worse, independence of rows, what is changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from choices import taking_turns
from hypothesis import given, settings
from hypothesis import strategies as st
from newton_cases import (
    CONVERGED,
    STEPS,
    both_curvatures,
    check_monotone,
    options_strategy,
    run,
    step_of,
)
from scipy.optimize import minimize
from zoo import (
    cases,
    flat,
    make_case,
    naive_derivatives,
    split,
)

from altmin_dask.networks.workspace import Workspace
from altmin_dask.solvers.gauss_newton import update
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.types import Batch


@pytest.mark.parametrize("loss", ["squared", "binary_cross_entropy", "cross_entropy"])
@pytest.mark.parametrize("sizes", [(4, 3), (4, 6, 3), (3, 5, 2, 4)])
@both_curvatures
def test_reaches_the_minimum_of_convex_cases(loss, sizes, curvature):
    case = make_case(sizes, ["identity"] * (len(sizes) - 2), loss, n=4, spread=3.0)
    options = NewtonSettings(newton_steps=40, cg_iterations=12, curvature=curvature)
    result = run(case, options)
    for k in range(4):
        one = case.rows(slice(k, k + 1))

        def f(at, one=one):
            return one.f(split(at[None], one.network))[0]

        def slope(at, one=one):
            return naive_derivatives(one, 0, split(at[None], one.network))[0]

        best = minimize(f, np.zeros(sum(sizes[1:])), jac=slope, method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(flat(result.end.z)[k], best.x, rtol=0, atol=1e-5)
        assert result.objective_after[k] <= best.fun + 1e-10


def test_one_converged_step_solves_a_linear_quadratic_case():
    case = make_case((4, 6, 3), ("identity",), "squared", spread=30.0)
    result = run(case, CONVERGED)
    for k in range(len(case.x)):
        gradient = naive_derivatives(case, k, result.end.z)[0]
        np.testing.assert_allclose(gradient, 0, atol=1e-10)
    assert result.shortened == 0


@given(case=cases(), options=options_strategy)
@settings(max_examples=300, deadline=None)
def test_no_sample_ever_gets_worse(case, options):
    check_monotone(case, options)


@pytest.mark.slow
@given(case=cases(dtype=np.float32), options=options_strategy)
@settings(max_examples=300, deadline=None)
def test_no_sample_ever_gets_worse_in_float32(case, options):
    check_monotone(case, options)


@pytest.mark.parametrize(
    ("dtype", "other"),
    [(dtype, other) for dtype in (np.float32, np.float64) for other in ("x", "z", "mu", "y")],
)
@both_curvatures
def test_weights_decide_the_dtype(dtype, other, curvature):
    """Whatever the types of samples, targets and penalties are."""
    case = make_case((5, 4, 3), ("tanh",), "squared", "sigmoid", dtype=dtype)
    expected = run(case, NewtonSettings(curvature=curvature))
    double = {
        "x": case.x.astype(np.float64),
        "z": [z.astype(np.float64) for z in case.z],
        "mu": np.array(case.mu),
        "y": case.y.astype(np.float64),
    }
    result = run(replace(case, **{other: double[other]}), NewtonSettings(curvature=curvature))
    end = result.end
    for part in (*end.z, *end.residuals, *end.inputs, end.output, end.loss, result.objective_after):
        assert part.dtype == dtype
    np.testing.assert_allclose(flat(end.z), flat(expected.end.z), rtol=1e-4, atol=1e-5)


@both_curvatures
def test_targets_default_to_the_samples(curvature):
    case = make_case((5, 3, 5), ("tanh",))
    options = NewtonSettings(curvature=curvature)
    own = update(case.network, case.weights, case.mu, Batch(case.x), case.z, options)
    given_x = update(case.network, case.weights, case.mu, Batch(case.x, case.x), case.z, options)
    np.testing.assert_array_equal(flat(own.end.z), flat(given_x.end.z))
    boxed = update(case.network, case.weights, case.mu, Batch(case.x.reshape(6, 5, 1)), case.z, options)
    np.testing.assert_array_equal(flat(own.end.z), flat(boxed.end.z))


@given(case=cases(max_spread=30, max_mu_exponent=2), options=options_strategy, data=st.data())
@settings(max_examples=60, deadline=None)
def test_rows_are_independent(case, options, data):
    options = replace(options, max_backtracks=10)
    result = run(case, options)
    order = data.draw(st.permutations(range(len(case.x))))
    cut = data.draw(st.integers(0, len(order)))
    shortened = 0
    for rows in (order[:cut], order[cut:]):
        if rows:
            part = run(case.rows(rows), options)
            whole = flat(result.end.z)[rows]
            # products of matrices of other shapes round differently
            scale = 1 + np.abs(whole).max() + np.abs(flat(case.z)).max()
            np.testing.assert_allclose(flat(part.end.z), whole, rtol=0, atol=1e-6 * scale)
            shortened += part.shortened
    assert shortened == result.shortened


@pytest.mark.parametrize(("dtype", "curvature"), taking_turns([np.float32, np.float64], STEPS))
def test_rows_are_independent_where_f_is_all_rounding(dtype, curvature):
    """One class: ℓ is exactly 0, and after a step or two F is the square of what rounding leaves of residuals."""
    options = NewtonSettings(newton_steps=6, curvature=curvature)
    for seed in range(30):
        sizes, activations = [((3, 1), ()), ((3, 4, 1), ("identity",)), ((2, 3, 4, 1), ("tanh", "identity"))][
            seed % 3
        ]
        case = make_case(sizes, activations, "cross_entropy", n=5, seed=seed, spread=30.0, dtype=dtype)
        result = run(case, options)
        alone = [run(case.rows([k]), options) for k in range(5)]
        assert result.shortened == sum(one.shortened for one in alone), seed
        scale = np.abs(flat(case.z)).max()
        for k, one in enumerate(alone):
            np.testing.assert_allclose(
                flat(one.end.z)[0], flat(result.end.z)[k], rtol=0, atol=1e4 * np.finfo(dtype).eps * scale
            )


@given(case=cases(), options=options_strategy)
@settings(max_examples=40, deadline=None)
def test_nothing_given_is_changed(case, options):
    arrays = [case.x, case.y, *case.z, *case.weights]
    held = [a.copy() for a in arrays]
    for array in arrays:
        array.flags.writeable = False
    result = run(case, options)
    for array, before in zip(arrays, held, strict=True):
        np.testing.assert_array_equal(array, before)
    for start, z in zip(result.start.z, case.z, strict=True):
        np.testing.assert_array_equal(start, z)


def test_no_samples():
    case = make_case((5, 4, 3), ("tanh",), "cross_entropy").rows(slice(0, 0))
    for curvature in STEPS:
        result = run(case, NewtonSettings(curvature=curvature))
        assert [z.shape for z in result.end.z] == [(0, 4), (0, 3)]
        assert result.objective_after.shape == (0,)


@given(drawn=st.lists(st.tuples(cases(max_spread=30), options_strategy), min_size=2, max_size=4))
@settings(max_examples=40, deadline=None)
def test_a_workspace_that_is_used_again_changes_nothing(drawn):
    work = Workspace()
    for case, options in drawn:
        fresh = run(case, options)
        result = update(case.network, case.weights, case.mu, case.batch, case.z, options, work)
        for name in ("start", "end"):
            mine, theirs = getattr(result, name), getattr(fresh, name)
            for part in ("z", "inputs", "residuals", "output", "loss"):
                for a, b in zip(getattr(mine, part), getattr(theirs, part), strict=True):
                    np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(result.objective_before, fresh.objective_before)
        np.testing.assert_array_equal(result.objective_after, fresh.objective_after)
        assert result.shortened == fresh.shortened


def test_steps_accumulate():
    """Three linearisations in one update are three updates of one."""
    case = make_case((4, 6, 5), ("tanh",), "cross_entropy", n=50, mu=(0.01, 1.0))
    at_once = run(case, NewtonSettings(newton_steps=3))
    z, shortened = case.z, []
    for _ in range(3):
        result = run(case, NewtonSettings(), z)
        z = result.end.z
        shortened.append(result.shortened)
    np.testing.assert_allclose(flat(at_once.end.z), flat(z), rtol=1e-9, atol=1e-11)
    assert min(shortened) > 0
    assert at_once.shortened == sum(shortened)
    np.testing.assert_allclose(at_once.objective_after, result.objective_after)


def test_backtracking_shortens_only_those_that_need_it():
    case = make_case((4, 6, 5), ("tanh",), "cross_entropy", n=200, mu=(0.01, 1.0))
    plain = run(case, replace(CONVERGED, max_backtracks=0))
    searched = run(case, CONVERGED)
    stayed = (flat(plain.end.z) == flat(case.z)).all(axis=1)
    assert 0 < stayed.sum() < 200
    assert plain.shortened == searched.shortened == stayed.sum()
    np.testing.assert_allclose(
        flat(searched.end.z)[~stayed], flat(plain.end.z)[~stayed], rtol=1e-9, atol=1e-12
    )
    delta, slope = step_of(case, CONVERGED)
    for k in np.flatnonzero(stayed):
        step = flat(delta)[k]
        t = np.vecdot(flat(searched.end.z)[k] - flat(case.z)[k], step) / np.vecdot(step, step)
        power = np.log(t) / np.log(0.25)
        assert abs(power - round(power)) < 1e-6
        assert round(power) >= 1
        assert searched.objective_after[k] <= searched.objective_before[k] + 0.2 * t * slope[k] + 1e-12
