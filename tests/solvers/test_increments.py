"""The increment form's arithmetic, against dense Kronecker algebra, finite differences and plain loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from zoo import NETWORKS, augmented, make_case, targets

from altmin_dask.networks.builders import dense_network
from altmin_dask.networks.nested import Pass
from altmin_dask.networks.network import BLOCK_ROWS
from altmin_dask.solvers.evaluation import evaluate_chunk
from altmin_dask.solvers.gauss_newton import update
from altmin_dask.solvers.kernels import kfac_chunk, quadratic_model_chunk, since
from altmin_dask.solvers.kfac import (
    DAMPING_FADE,
    DAMPING_GROWTH,
    LOSS_SHARE,
    KFACSettings,
    KFACState,
    curvature_due,
)
from altmin_dask.solvers.kfac_defaults import default_input_damping
from altmin_dask.solvers.kronecker import KroneckerSums
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.packing import packed_size
from altmin_dask.solvers.preconditioner import KroneckerPreconditioner, PreconditionerCache
from altmin_dask.types import Batch

PLAIN = NewtonSettings(cg_iterations=20)


def problem(loss="squared", output=None, rows=40, seed=0):
    case = make_case((5, 4, 6, 3), ("tanh", "sigmoid"), loss, output, n=rows, seed=seed)
    return case.network, case.weights, case.x, case.y


def symmetric(lower):
    return np.tril(lower) + np.tril(lower, -1).T


@pytest.mark.parametrize("name", NETWORKS)
def test_the_limit_is_the_gradient_of_the_nested_loss(name):
    case = make_case(*NETWORKS[name], n=30, seed=1)
    ascent = kfac_chunk(case.network, case.weights, None, case.batch, PLAIN)
    change = tuple(np.random.default_rng(2).normal(size=w.shape) for w in case.weights)

    def loss(step):
        moved = tuple(w + step * d for w, d in zip(case.weights, change, strict=True))
        return evaluate_chunk(case.network, moved, case.batch).loss

    slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
    assert -sum(
        np.vdot(p, d) for p, d in zip(ascent.negative_gradient, change, strict=True)
    ) == pytest.approx(slope, rel=1e-5)
    losses = Pass.forward(case.network, case.weights, case.batch).loss
    assert ascent.totals == pytest.approx([30, losses.sum(), (losses**2).sum()])


def test_a_large_penalty_leads_to_the_limit():
    network, weights, x, y = problem()
    limit = kfac_chunk(network, weights, None, Batch(x, y), PLAIN).negative_gradient
    near = kfac_chunk(network, weights, [1e6] * 3, Batch(x, y), PLAIN).negative_gradient
    for a, b in zip(limit, near, strict=True):
        assert np.abs(a - b).max() < 1e-5 * np.abs(a).max()


def test_a_finite_penalty_gives_the_gradient_of_f_at_the_updated_z():
    network, weights, x, y = problem()
    mu = [0.5, 0.7, 0.9]
    ascent = kfac_chunk(network, weights, mu, Batch(x, y), PLAIN)
    z = update(network, weights, mu, Batch(x, y), network.forward(weights, Batch(x)), PLAIN).end.z

    def f(moved):
        inputs, total = augmented(x, np.float64), 0.0
        for layer, (w, m) in enumerate(zip(moved, mu, strict=True)):
            total += m * float(((z[layer] - inputs @ w.T) ** 2).sum())
            if layer + 1 < len(moved):
                inputs = augmented(network.activations[layer].value(z[layer]), np.float64)
        return total

    change = tuple(np.random.default_rng(2).normal(size=w.shape) for w in weights)
    plus, minus = (f([w + h * d for w, d in zip(weights, change, strict=True)]) for h in (1e-5, -1e-5))
    expected = (plus - minus) / 2e-5
    assert -sum(
        np.vdot(p, d) for p, d in zip(ascent.negative_gradient, change, strict=True)
    ) == pytest.approx(expected, rel=1e-6)


def pulls(network, weights, mu, x, y, dtype, options=PLAIN):
    """Of all layers, the computation being in `dtype`."""
    y = y if network.loss.target == "labels" else y.astype(dtype)
    weights = tuple(w.astype(dtype) for w in weights)
    return kfac_chunk(network, weights, mu, Batch(x.astype(dtype), y), options).negative_gradient


@pytest.mark.parametrize("mu", [1.0, 1e2, 1e4, 1e6, 1e8, 1e16])
@pytest.mark.parametrize("curvature", ["gauss_newton", "exact"])
@pytest.mark.parametrize("name", NETWORKS)
def test_float32_gives_the_pull_of_any_penalty(name, curvature, mu):
    """2μ times residuals that are far below the rounding of z; and of a large μ the limit."""
    case = make_case(*NETWORKS[name], n=30, seed=1, dtype=np.float32)
    problem, options = (case.network, case.weights), NewtonSettings(curvature=curvature)
    found = pulls(*problem, [mu] * len(case.mu), case.x, case.y, np.float32, options)
    # float64 has fewer digits of residuals than it has of z, but enough up to here
    expected = pulls(*problem, [mu] * len(case.mu), case.x, case.y, np.float64, options)
    limit = pulls(*problem, None, case.x, case.y, np.float64)
    for p, q, r in zip(found, expected, limit, strict=True):
        assert np.abs(p - q).max() < 1e-5 * np.abs(q).max()
        assert np.abs(p - r).max() < (1e-5 + 10 / mu) * np.abs(r).max()


@pytest.mark.parametrize("mu", [[1.0, 1e6, 1.0], [1e6, 1.0, 1e6], [1e-2, 1e2, 1e6]])
@pytest.mark.parametrize("steps", [1, 3])
def test_float32_gives_the_pull_of_penalties_that_differ(mu, steps):
    """A stiff layer behind a soft one: its residual is small beside the step of its z, too."""
    network, weights, x, y = problem()
    options = NewtonSettings(newton_steps=steps, cg_iterations=8)
    found, expected = (
        pulls(network, weights, mu, x, y, dtype, options) for dtype in (np.float32, np.float64)
    )
    for p, q in zip(found, expected, strict=True):
        assert np.abs(p - q).max() < 1e-5 * np.abs(q).max()


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("curvature", ["gauss_newton", "exact"])
def test_residuals_formed_from_steps_are_those_of_z(curvature, steps):
    """In float64, and a penalty for which these have digits enough; with steps that are cut among them."""
    case = make_case(
        (5, 4, 6, 3), ("tanh", "softplus"), "squared", "sigmoid", n=60, seed=2, mu=(0.01, 1.0, 0.1)
    )
    weights = tuple(4 * w for w in case.weights)
    options = NewtonSettings(newton_steps=steps, curvature=curvature)
    result = update(case.network, weights, case.mu, case.batch, None, options)
    assert result.shortened > 0
    case.weights = weights
    plain = case.point([z.copy() for z in result.end.z])
    for mine, theirs in zip(result.end.residuals, plain.residuals, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(result.objective_after, case.f(result.end.z), rtol=1e-12)


@pytest.mark.parametrize(
    ("loss", "output"), [pytest.param("squared", "sigmoid", marks=pytest.mark.slow), ("cross_entropy", None)]
)
def test_curvature_is_that_of_the_loss_in_z(loss, output):
    network, weights, x, y = problem(loss, output)
    repeats = 1500
    mean = [np.zeros((d, d)) for d in network.widths]
    for seed in range(repeats):
        ascent = kfac_chunk(network, weights, None, Batch(x, y), PLAIN, [seed])
        for total, metric in zip(mean, ascent.output_factors, strict=True):
            total += symmetric(metric) / repeats
    found = Pass.forward(network, weights, Batch(x, y))
    h = np.stack([found.curvature().apply(np.tile(row, (len(x), 1))) for row in np.eye(3)], axis=2)
    for layer, metric in enumerate(mean):
        jacobian = np.stack(
            [found.backward(np.tile(row, (len(x), 1)))[layer].copy() for row in np.eye(3)],
            1,
        )
        expected = np.einsum("nji,njk,nkl->il", jacobian, h, jacobian)
        assert np.abs(metric - expected).max() < 0.05 * np.abs(expected).max()
    for gram, layer in zip(ascent.input_factors, found.inputs, strict=True):
        assert np.allclose(symmetric(gram), layer.T @ layer)


def test_chunks_add_up_and_blocks_do_not_matter():
    network = dense_network([3, 4, 2], "tanh")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2 * BLOCK_ROWS + 7, 3))
    y = targets(network, len(x), rng)
    weights = network.initial_weights(0, np.float64)
    whole = kfac_chunk(network, weights, None, Batch(x, y), PLAIN)
    cut = BLOCK_ROWS + 3
    parts = [
        kfac_chunk(network, weights, None, Batch(x[rows], y[rows]), PLAIN)
        for rows in (slice(cut), slice(cut, None))
    ]
    assert np.allclose(whole.vector, parts[0].vector + parts[1].vector, rtol=1e-10)
    assert whole.vector.size == packed_size(KroneckerSums.layout(network.shapes, curvature=False))
    d = tuple(rng.normal(size=w.shape) for w in weights)
    probes = [
        quadratic_model_chunk(
            network, weights, d, tuple(0.5 * w for w in weights), Batch(x[rows], y[rows])
        ).vector
        for rows in (slice(None), slice(cut), slice(cut, None))
    ]
    assert np.allclose(probes[0], probes[1] + probes[2], rtol=1e-10)


def measured(network, weights, x, y, settings):
    memory = KFACState.start(weights)
    ascent = kfac_chunk(network, weights, None, Batch(x, y), PLAIN, [0])
    memory.update_averages(ascent, weights, 0.95)
    return memory, ascent, KroneckerPreconditioner(memory, settings)


@pytest.mark.parametrize("output_damping", [0.03, 10.0])
@pytest.mark.parametrize("penalize_bias", [True, False])
def test_the_direction_solves_the_kronecker_system(output_damping, penalize_bias):
    network, weights, x, y = problem()
    settings = KFACSettings(0.1, output_damping, ridge=0.01, penalize_bias=penalize_bias)
    memory, ascent, metric = measured(network, weights, x, y, settings)
    for layer, d in enumerate(metric.direction(ascent, weights)):
        gram, s = symmetric(memory.input_factors[layer]), symmetric(memory.output_factors[layer])
        right = gram + 0.1 * np.trace(gram) / len(gram) * np.eye(len(gram))
        left = s + output_damping * np.eye(len(s))
        held = weights[layer].copy()
        held[:, -1] *= penalize_bias
        pull = ascent.negative_gradient[layer] / len(x) - 0.02 * held
        dense = np.linalg.solve(np.kron(left, right), pull.ravel()).reshape(pull.shape)
        assert np.allclose(d, dense, rtol=1e-9, atol=1e-12)


def test_sigma_is_what_is_left_of_the_loss():
    """As of when curvature was measured last, so that a run that goes on has the same; older states know of none."""
    network, weights, x, y = problem()
    settings = KFACSettings(0.1, 0.03, weight_decay=0.2, damping_power=1.0, decay_power=0.5)
    state, sums, first = measured(network, weights, x, y, settings)
    assert (state.left, first.sigma) == (1.0, 0.03)
    state.loss_ema = 0.2 * state.first_loss
    assert KroneckerPreconditioner(state, settings).sigma == 0.03
    state.update_averages(sums, weights, 0.95)
    assert state.left == pytest.approx(0.2 + 0.8 * LOSS_SHARE)
    assert KroneckerPreconditioner(state, settings).sigma == pytest.approx(0.03 * state.left)
    assert settings.delta(state) == pytest.approx(0.2 * state.left**0.5)
    assert KroneckerPreconditioner(state, replace(settings, damping_power=0.0)).sigma == 0.03
    tensors, scalars = dict(state.tensors()), state.scalars()
    assert KFACState.restore(tensors, scalars).left == state.left
    older = KFACState.restore(tensors, {k: v for k, v in scalars.items() if k not in ("first_loss", "left")})
    older.update_averages(sums, weights, 0.95)
    assert older.left == 1.0


def test_the_lengths_minimise_the_model():
    network, weights, x, y = problem(seed=3)
    settings = KFACSettings(0.1, 0.03, ridge=0.01)
    _, ascent, metric = measured(network, weights, x, y, settings)
    direction = metric.direction(ascent, weights)
    before = tuple(w - 0.1 * np.random.default_rng(5).normal(size=w.shape) for w in weights)
    probe = quadratic_model_chunk(network, weights, direction, since(before, weights), Batch(x, y))
    lengths = metric.step_coefficients(probe, weights, direction, since(before, weights))
    repeated = tuple(w - old for w, old in zip(weights, before, strict=True))
    found = Pass.forward(network, weights, Batch(x, y))
    ways = [found.directional(direction, "a").copy(), found.directional(repeated, "b").copy()]

    def model(alpha, beta):
        e = alpha * ways[0] + beta * ways[1]
        value = (found.gradient * e).sum() + 0.5 * (found.curvature().apply(e) * e).sum()
        value /= len(x)
        for rho, w, d, p in zip(metric.rho, weights, direction, repeated, strict=True):
            step = alpha * d + beta * p
            value += 0.01 * ((w + step) ** 2).sum() + 0.5 * rho * metric.sigma * (step**2).sum()
        return value

    best = model(*lengths)
    for change in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        assert model(*(lengths + change)) > best


def test_without_a_step_before_only_the_direction_counts():
    network, weights, x, y = problem()
    _, ascent, metric = measured(network, weights, x, y, KFACSettings(0.1, 0.03))
    direction = metric.direction(ascent, weights)
    probe = quadratic_model_chunk(network, weights, direction, since(weights, weights), Batch(x, y))
    alpha, beta = metric.step_coefficients(probe, weights, direction, since(weights, weights))
    assert alpha > 0
    assert beta == 0


def test_a_step_with_its_decay():
    _, weights, *_ = problem()
    random = np.random.default_rng(3)
    direction, before = (tuple(random.normal(size=w.shape) for w in weights) for _ in range(2))
    for alpha, decayed in ((0.5, 0.5), (3.0, 1.0), (-2.0, 0.0)):
        moved = KFACState.start(weights).move(weights, direction, before, np.array([alpha, 0.3]), 0.1)
        for layer, (found, w, d, old) in enumerate(zip(moved, weights, direction, before, strict=True)):
            share = 0.1 * decayed * (layer < len(weights) - 1)
            assert np.allclose(found, (1 - share) * w + alpha * d + 0.3 * (w - old), rtol=1e-12, atol=1e-14)


def test_decay_comes_to_rest_where_the_gradient_is_that_of_the_weights_kronecker_norm():
    """½ δ ⟨W̃, (S̄ + σI) W̃ (Ḡ + ρI)⟩, whose gradient is found by differences."""
    network, weights, x, y = problem()
    memory, sums, preconditioner = measured(network, weights, x, y, KFACSettings(0.1, 0.03))

    def norm(layer, w):
        gram, s = symmetric(memory.input_factors[layer]), symmetric(memory.output_factors[layer])
        right = gram + preconditioner.rho[layer] * np.eye(len(gram))
        return 0.05 * np.vdot(w, (s + 0.03 * np.eye(len(s))) @ w @ right)

    for layer, w in enumerate(weights):
        for place in np.ndindex(w.shape):
            unit = np.zeros_like(w)
            unit[place] = 1e-5
            slope = (norm(layer, w + unit) - norm(layer, w - unit)) / 2e-5
            sums.negative_gradient[layer][place] = len(x) * slope
    direction = preconditioner.direction(sums, weights)
    moved = memory.move(weights, direction, weights, np.array([1.0, 0.0]), 0.1)
    for found, w in zip(moved[:-1], weights, strict=False):
        assert np.allclose(found, w, rtol=1e-6, atol=1e-8)
    assert not np.allclose(moved[-1], weights[-1], rtol=1e-3)


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_steps_lower_the_loss(loss):
    network, weights, x, y = problem(loss, rows=200)
    settings = KFACSettings(default_input_damping(network, 200), network.loss.output_damping)
    memory = KFACState.start(weights)
    first = evaluate_chunk(network, weights, Batch(x, y)).mean_loss
    for step in range(30):
        ascent = kfac_chunk(
            network, weights, None, Batch(x, y), PLAIN, [step] if curvature_due(step) else None
        )
        memory.update_averages(ascent, weights, 0.95)
        metric = KroneckerPreconditioner(memory, settings)
        direction = metric.direction(ascent, weights)
        repeated = since(memory.previous_weights, weights)
        probe = quadratic_model_chunk(network, weights, direction, repeated, Batch(x, y))
        lengths = metric.step_coefficients(probe, weights, direction, repeated)
        weights = memory.move(weights, direction, memory.previous_weights, lengths)
    assert memory.steps == 30
    assert evaluate_chunk(network, weights, Batch(x, y)).mean_loss < 0.7 * first


def test_a_step_that_made_things_worse_is_taken_back():
    network, weights, x, y = problem()
    memory, ascent, _ = measured(network, weights, x, y, KFACSettings(0.1, 0.03))
    assert not memory.is_suspect(ascent)
    worse = KroneckerSums(ascent.shapes, True, ascent.vector.copy())
    worse.totals[1:] *= (20, 400)
    assert memory.is_suspect(worse)
    lost = KroneckerSums(ascent.shapes, True, ascent.vector.copy())
    lost.negative_gradient[1][0, 0] = np.nan
    assert memory.is_suspect(lost)
    assert memory.reject_step() is memory.average is memory.previous_weights
    assert (memory.damping_scale, memory.rejections) == (DAMPING_GROWTH, 1)
    settings = KFACSettings(0.1, 0.03)
    assert KroneckerPreconditioner(memory, settings).sigma == DAMPING_GROWTH * settings.output_damping
    unmoved = memory.move(weights, tuple(np.full_like(w, np.inf) for w in weights), weights, np.ones(2))
    assert unmoved is memory.average
    assert memory.rejections == 2
    memory.move(weights, weights, weights, np.zeros(2))
    assert memory.rejections == 2
    assert memory.damping_scale == DAMPING_GROWTH**2


def test_taking_every_other_step_back_is_no_progress():
    """A group confirms a step, but not the mean that was gone back to; and decay shrinks as all of a step does."""
    network, weights, x, y = problem()
    settings = KFACSettings(0.1, 0.03, weight_decay=0.2)
    memory, *_ = measured(network, weights, x, y, settings)
    plain = kfac_chunk(network, weights, None, Batch(x, y), PLAIN, None)
    for number in range(1, 4):
        back = memory.reject_step()
        assert settings.delta(memory) == 0.2 / DAMPING_GROWTH**number
        memory.update_averages(plain, back, 0.95)
        assert memory.rejections == number
        moved = memory.move(
            back, tuple(map(np.ones_like, back)), back, np.array([0.1, 0]), settings.delta(memory)
        )
    memory.update_averages(plain, moved, 0.95)
    assert memory.rejections == 0


def test_damping_fades_when_factors_are_made_anew_and_by_as_much_as_steps_have_gone_by():
    network, weights, x, y = problem()
    memory, ascent, _ = measured(network, weights, x, y, KFACSettings(0.1, 0.03))
    memory.reject_step()
    plain = kfac_chunk(network, weights, None, Batch(x, y), PLAIN)
    for memory.steps in range(20):
        memory.update_averages(ascent if curvature_due(memory.steps) else plain, weights, 0.95)
        measured_at = max(step for step in range(memory.steps + 1) if curvature_due(step))
        faded = DAMPING_GROWTH * DAMPING_FADE ** max(measured_at, 1)
        assert memory.damping_scale == pytest.approx(max(1.0, faded), rel=0.06)


def test_the_memory_comes_back():
    network, weights, x, y = problem()
    memory, _, _ = measured(network, weights, x, y, KFACSettings(0.1, 0.03))
    memory.reject_step()
    back = KFACState.restore(dict(memory.tensors()), memory.scalars())
    assert back.scalars() == memory.scalars()
    for (name, a), (other, b) in zip(memory.tensors(), back.tensors(), strict=True):
        assert name == other
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("value", [0.0, 1e-30])
def test_samples_without_information_leave_finite_steps(value):
    network = dense_network([3, 2, 2], "relu")
    weights = tuple(np.zeros((d, k), np.float32) for d, k in network.shapes)
    x = np.full((10, 3), value, np.float32)
    settings = KFACSettings(0.0, 0.03)
    _, ascent, metric = measured(network, weights, x, np.zeros((10, 2), np.float32), settings)
    direction = metric.direction(ascent, weights)
    assert all(np.isfinite(d).all() for d in direction)
    probe = quadratic_model_chunk(
        network, weights, direction, since(weights, weights), Batch(x, np.zeros((10, 2), np.float32))
    )
    assert np.isfinite(metric.step_coefficients(probe, weights, direction, since(weights, weights))).all()


def test_a_preconditioner_is_made_anew_when_factors_or_damping_change_and_only_then():
    network, weights, x, y = problem()
    settings = KFACSettings(0.1, 0.03)
    memory, ascent, _ = measured(network, weights, x, y, settings)
    cache = PreconditionerCache(settings)
    first = cache.of(memory)
    plain = kfac_chunk(network, weights, None, Batch(x, y), PLAIN)
    memory.update_averages(plain, weights, 0.95)
    assert cache.of(memory) is first
    memory.update_averages(ascent, weights, 0.95)
    second = cache.of(memory)
    assert second is not first
    memory.reject_step()
    third = cache.of(memory)
    assert third.sigma == DAMPING_GROWTH * second.sigma
    memory.move(weights, weights, weights, np.zeros(2))
    memory.update_averages(plain, weights, 0.95)
    assert cache.of(memory) is third
    memory.update_averages(ascent, weights, 0.95)  # damping fades
    assert cache.of(memory).sigma < third.sigma
