"""The method in memory: z-updates and W-updates in turn, and F only ever falls."""

from __future__ import annotations

import numpy as np
import pytest
from choices import slow_but
from zoo import NETWORKS, PAIRINGS, make_case, solve_layer

from altmin_dask.solvers.gauss_newton import update
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.statistics import Statistics
from altmin_dask.types import Batch


def total(case, ridge):
    """F as a sum over samples, by its definition."""
    return case.f().sum() + ridge * sum((w**2).sum() for w in case.weights)


def refit(case, statistics, ridge, **options):
    """Every layer's weights from the sums."""
    return tuple(
        solve_layer(cross, gram, ridge / mu, previous=w, **options)
        for cross, gram, mu, w in zip(statistics.cross, statistics.gram, case.mu, case.weights, strict=True)
    )


@pytest.mark.parametrize(("sizes", "activations"), NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize(("loss", "output"), PAIRINGS, ids=["-".join(p) for p in PAIRINGS])
@pytest.mark.parametrize("curvature", slow_but(["gauss_newton"], ["gauss_newton", "exact"]))
def test_batch_sweeps_are_monotone(sizes, activations, loss, output, curvature):
    case = make_case(sizes, activations, loss, output, n=30, spread=0.5)
    options, ridge = NewtonSettings(curvature=curvature), 0.01
    history = [total(case, ridge)]
    for _ in range(6):
        result = update(case.network, case.weights, case.mu, case.batch, case.z, options)
        case.z = result.end.z
        history.append(total(case, ridge))
        statistics = Statistics(case.network.shapes, with_inputs=True)
        statistics.add(result.end)
        case.weights = refit(case, statistics, ridge)
        history.append(total(case, ridge))
        reported = statistics.objective(case.weights, case.mu, ridge) * 30
        np.testing.assert_allclose(reported, history[-1], rtol=1e-9)
    assert (np.diff(history) <= 1e-12 * history[0]).all()
    assert history[-1] < 0.99 * history[0]


@pytest.mark.parametrize("proximal", [0.0, 0.1])
@pytest.mark.parametrize(("loss", "output"), PAIRINGS, ids=["-".join(p) for p in PAIRINGS])
def test_incremental_sweeps_are_monotone(loss, output, proximal):
    """W is solved after every group of samples, the statistics of the others standing as they are."""
    case = make_case((6, 5, 4), ("tanh",), loss, output, n=40, spread=0.5)
    ridge = 0.01
    statistics = Statistics(case.network.shapes, with_inputs=True)
    statistics.add(case.point())
    history = [total(case, ridge)]
    for visit in range(12):
        rows = np.arange(visit % 4, 40, 4)
        part = case.rows(rows)
        result = update(case.network, case.weights, case.mu, Batch(part.x, part.y), part.z, NewtonSettings())
        change = Statistics(case.network.shapes, with_inputs=False)
        change.replace(result.start, result.end)
        statistics.merge(change)
        for mine, theirs in zip(case.z, result.end.z, strict=True):
            mine[rows] = theirs
        history.append(total(case, ridge))
        case.weights = refit(case, statistics, ridge, proximal=proximal)
        history.append(total(case, ridge))
        reported = statistics.objective(case.weights, case.mu, ridge) * 40
        np.testing.assert_allclose(reported, history[-1], rtol=1e-9)
    assert (np.diff(history) <= 1e-12 * history[0]).all()
    assert history[-1] < 0.99 * history[0]
