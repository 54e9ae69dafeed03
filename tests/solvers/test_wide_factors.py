"""Factors of wide layers, in the forms that keep them small, against the matrices that they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from altmin_dask.networks.builders import dense_network
from altmin_dask.networks.nested import Pass
from altmin_dask.networks.network import Network
from altmin_dask.solvers import kronecker
from altmin_dask.solvers.factors import DiagonalOutput, WeightedRows
from altmin_dask.solvers.kernels import kfac_chunk
from altmin_dask.solvers.kfac import KFACSettings, KFACState
from altmin_dask.solvers.kronecker import MATRICES, Forms, KroneckerSums
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.preconditioner import KroneckerPreconditioner
from altmin_dask.solvers.row_space import RowSpace
from altmin_dask.types import Array, Batch, Weights

ROWS, FEATURES = 14, 40
GROUPS = (np.array([0, 3, 4, 9, 12]), np.array([1, 2, 5, 6, 7]), np.array([8, 10, 11, 13, 0]))
PLAIN = NewtonSettings()


def lower(matrix: Array) -> Array:
    return np.tril(matrix) + np.tril(matrix, -1).T


def samples(dtype: str = "f8", outputs: int = 3) -> tuple[Network, Weights, Array, Array]:
    network = dense_network([FEATURES, 6, outputs], "tanh", "squared")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(ROWS, FEATURES)) + 0.5, rng.normal(size=(ROWS, outputs))
    return network, network.initial_weights(1, dtype), x.astype(dtype), y.astype(dtype)


def states(dtype: str, mu: Any = None) -> tuple[KFACState, KFACState, KroneckerSums, KroneckerSums, Weights]:
    """After three groups, of which the last is returned too, in both forms."""
    network, weights, x, y = samples(dtype)
    wide, found = Forms(ROWS), []
    for forms in (MATRICES, wide):
        state = KFACState.start(weights, forms)
        for step, rows in enumerate(GROUPS):
            sums = kfac_chunk(
                network,
                weights,
                mu,
                Batch(x[rows], y[rows]),
                PLAIN,
                [step],
                forms,
                rows if forms.rows else None,
            )
            state.update_averages(sums, weights, 0.95, rows=rows)
        found.append((state, sums))
    (dense, sums), (rows_state, row_sums) = found
    assert rows_state.forms == wide
    return dense, rows_state, sums, row_sums, weights


@pytest.mark.parametrize("damping", [1e-4, 0.1, 300.0])
@pytest.mark.parametrize(("ridge", "penalize_bias"), [(0.0, True), (0.02, True), (0.02, False)])
@pytest.mark.parametrize("mu", [None, (0.5, 0.7)])
def test_the_direction_by_rows_is_that_of_the_matrix(damping, ridge, penalize_bias, mu):
    dense, by_rows, sums, row_sums, weights = states("f8", mu)
    settings = KFACSettings(damping, 0.03, ridge=ridge, penalize_bias=penalize_bias)
    x = samples()[2]
    space = RowSpace([x[:5], x[5:]], "f8")
    expected = KroneckerPreconditioner(dense, settings)
    found = KroneckerPreconditioner(by_rows, settings, space)
    assert found.rho == pytest.approx(expected.rho, rel=1e-12)
    for mine, theirs in zip(
        found.direction(row_sums, weights), expected.direction(sums, weights), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-10 * np.abs(theirs).max())
    norm = sums.gradient_norm(weights, ridge, penalize_bias)
    assert row_sums.gradient_norm(weights, ridge, penalize_bias, space) == pytest.approx(norm, rel=1e-10)


def test_weights_of_rows_are_the_running_mean_of_the_input_factor():
    dense, by_rows, _, _, _ = states("f8")
    a = np.column_stack([samples()[2], np.ones(ROWS)])
    weights = by_rows.input_factors[0]
    assert weights.sum() == pytest.approx(1.0)
    np.testing.assert_allclose((a.T * weights) @ a, lower(dense.input_factors[0]), rtol=1e-12)


def test_float32_directions_agree_to_rounding_however_samples_are_stored():
    network, weights, _, y = samples("f4")
    x = np.random.default_rng(2).integers(0, 255, (ROWS, FEATURES)).astype(np.uint8)
    directions = []
    for forms in (MATRICES, Forms(ROWS)):
        rows = np.arange(ROWS)
        sums = kfac_chunk(network, weights, None, Batch(x, y), PLAIN, [0], forms, rows)
        state = KFACState.start(weights, forms)
        state.update_averages(sums, weights, 0.95, rows=rows)
        space = RowSpace([x[:9], x[9:]], "f4")
        directions.append(
            KroneckerPreconditioner(state, KFACSettings(3.0, 0.03, ridge=0.01), space).direction(
                sums, weights
            )
        )
    for theirs, mine in zip(*directions, strict=True):
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def test_weights_of_rows_come_back_from_a_commit_and_begin_anew_on_other_rows():
    _, by_rows, _, _, _ = states("f4")
    back = KFACState.restore(dict(by_rows.tensors()), by_rows.scalars())
    assert back.forms == by_rows.forms
    np.testing.assert_array_equal(back.input_factors[0], by_rows.input_factors[0])
    updates = back.curvature_updates
    for forms in (Forms(5), MATRICES, Forms(9)):
        moved = back.on_rows(forms)
        assert (moved.forms, moved.lacks_inputs, moved.curvature_updates) == (forms, True, updates)


@pytest.mark.parametrize("forms", [MATRICES, Forms(5)], ids=["matrix", "rows"])
def test_what_begins_anew_is_the_mean_of_the_first_group(forms):
    """And nothing of the zeros before it, though all other factors are means of many."""
    network, weights, x, y = samples()
    state, rows = states("f8")[1].on_rows(forms), np.arange(5)
    sums = kfac_chunk(network, weights, None, Batch(x[:5], y[:5]), PLAIN, [0], forms, rows)
    state.update_averages(sums, weights, 0.95, rows=rows)
    if forms.rows:
        np.testing.assert_allclose(state.input_factors[0], np.full(5, 0.2))
    else:
        np.testing.assert_allclose(state.input_factors[0], sums.input_factors[0] / 5)


@pytest.mark.parametrize(("loss", "output"), [("squared", "sigmoid"), ("binary_cross_entropy", None)])
def test_a_diagonal_output_factor_is_the_expected_matrix(loss, output):
    network = dense_network([4, 5, 6], "tanh", loss, output)
    rng = np.random.default_rng(0)
    x, y, weights = rng.normal(size=(30, 4)), rng.random((30, 6)), network.initial_weights(0, np.float64)
    sums = kfac_chunk(network, weights, None, Batch(x, y), PLAIN, [0], Forms(diagonal=True))
    found = Pass.forward(network, weights, Batch(x, y))
    expected = np.stack([found.curvature().apply(np.tile(row, (30, 1))).sum(axis=0) for row in np.eye(6)])
    np.testing.assert_allclose(np.diag(sums.output_factors[-1]), expected, rtol=1e-10, atol=1e-12)
    d = rng.normal(size=(6, 5))
    np.testing.assert_allclose(
        DiagonalOutput(sums.output_factors[-1], 0.03).solve(d),
        np.linalg.solve(expected + 0.03 * np.eye(6), d),
        rtol=1e-10,
    )


def test_which_form_is_taken_hangs_on_widths_rows_and_the_loss_alone():
    def forms(sizes: list[int], rows: int, loss: str = "squared") -> Forms:
        return Forms.of(dense_network(sizes, "tanh", loss), rows)

    assert forms([1022, 5, 2], 10) == forms([5000, 5, 2], 2501) == MATRICES
    assert forms([1023, 5, 2], 512) == forms([1023, 5, 1023], 512) == Forms(512)
    assert forms([30, 5, 1024], 10**6) == Forms(diagonal=True)
    assert forms([30, 5, 1024], 10**6, "cross_entropy") == MATRICES
    assert kronecker.WIDE == 1024


def test_damping_below_rounding_is_none_and_no_samples_are_no_factor():
    _, weights, x, _ = samples("f4")
    space = RowSpace([np.repeat(x[:1], ROWS, axis=0)], "f4")  # all rows are one
    for damping in (0.0, 1e-12):
        factor = WeightedRows(np.full(ROWS, 1 / ROWS), space, damping)
        assert np.isfinite(factor.solve(np.ones((ROWS, 6), np.float32), 1.0, 0.1, weights[0])).all()
    nothing = WeightedRows(np.zeros(ROWS), space, 0.1)
    assert np.isfinite(nothing.solve(np.ones((ROWS, 6), np.float32), 1.0, 0.1, weights[0])).all()
