"""A NumPy study of the increment form, samples in memory, on the package's kernels; benchmarks/LOG.md has outcomes.

z restarts from a forward pass, takes one Gauss–Newton step by conjugate gradients, and W moves along

    D_i = (Σ v_i ãᵀ / n) (Ḡ_i + ρ I)⁻¹,   or (S̄_i + σ I)⁻¹ D_i (two-sided; S̄_i: mean of g_i g_iᵀ, g_i = ∂ℓ/∂z_i),

by α D + β P, with α and β from the Gauss–Newton model of the nested loss along D and the previous step P. mu = 0
stands for μ → ∞, where v is the negative gradient. One thread; evaluation is off the clock.

    python benchmarks/increments.py MNIST.npz --task autoencoder --mu 0.1 --seconds 30
    python benchmarks/increments.py MNIST.npz --task classifier --two-sided --damping 0.03 --averaging 0.97
    python benchmarks/increments.py MNIST.npz --task deep --rows 2000 --seconds 120
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits

from altmin_dask.networks.activations import Array
from altmin_dask.networks.chain import Chain, Weights, augmented
from altmin_dask.solvers.newton import NewtonSettings, update

TASKS: dict[str, dict[str, Any]] = {
    "autoencoder": {"sizes": [784, 300, 784], "output_activation": "sigmoid"},
    "classifier": {"sizes": [784, 256, 256, 10], "activation": "relu", "loss": "cross_entropy"},
    "deep": {
        "sizes": [784, 1000, 500, 250, 30, 250, 500, 1000, 784],
        "activation": ["tanh"] * 3 + ["identity"] + ["tanh"] * 3,
        "output_activation": "sigmoid",
    },
}
PROBE_EVERY = 4
REFACTOR_EVERY = 20


class Study:
    """One run of the increment form on samples in memory."""

    def __init__(self, network: Chain, x: Array, y: Array | None, options: argparse.Namespace) -> None:
        self.network, self.x, self.y, self.options = network, x, y, options
        self.weights: Weights = network.initial_weights(options.seed)
        self.average = self.weights
        self.previous: Weights = tuple(np.zeros_like(w) for w in self.weights)
        self.grams = [np.zeros((w.shape[1],) * 2, np.float32) for w in self.weights]
        self.metrics = [np.zeros((w.shape[0],) * 2, np.float32) for w in self.weights]
        self.factors: list[Any] = []
        self.steps = 0

    def step(self, rows: Array) -> None:
        """One increment from a group of samples."""
        network, options, n = self.network, self.options, len(rows)
        x = self.x[rows]
        y = x if self.y is None else self.y[rows]
        inputs = augmented(x, np.float32)
        z = network.forward(self.weights, x)
        point = network.evaluate(self.weights, inputs, z[0], y, z)
        gradient = network.loss.gradient(z[-1], point.output, y)
        backward = self.backward(point, gradient)
        if options.mu:
            mu = [options.mu] * len(self.weights)
            settings = NewtonSettings(cg_iterations=options.cg)
            end = update(network, self.weights, mu, x, None if self.y is None else y, z, settings).end
            pull, layers = end.residuals, end.inputs
        else:
            pull, layers = [-g for g in backward], point.inputs
        keep = min(0.95, 1 - 1 / (self.steps + 1))
        for layer, (mean, metric) in enumerate(zip(self.grams, self.metrics, strict=True)):
            mean *= keep
            mean += (1 - keep) / n * (layers[layer].T @ layers[layer])
            if options.two_sided:
                metric *= keep
                metric += (1 - keep) / n * (backward[layer].T @ backward[layer])
        if self.steps % REFACTOR_EVERY == 0 or self.steps in (1, 2, 3, 5, 8, 12):
            self.factors = [self.factor(g, s) for g, s in zip(self.grams, self.metrics, strict=True)]
        change = tuple(
            self.solve(factor, v.T @ a / n) for factor, v, a in zip(self.factors, pull, layers, strict=True)
        )
        alpha, beta = self.lengths(point, gradient, y, change)
        self.previous = tuple(
            np.float32(alpha) * d + np.float32(beta) * p for d, p in zip(change, self.previous, strict=True)
        )
        self.weights = tuple(w + p for w, p in zip(self.weights, self.previous, strict=True))
        forget = min(options.averaging, 1 - 1 / (1 + self.steps / 8))
        self.average = tuple(
            np.float32(forget) * a + np.float32(1 - forget) * w
            for a, w in zip(self.average, self.weights, strict=True)
        )
        self.steps += 1

    def backward(self, point: Any, gradient: Array) -> list[Array]:
        """∂ℓ/∂z_i of every sample."""
        found = [gradient]
        for layer in range(len(self.weights) - 1, 0, -1):
            slope = self.network.activations[layer - 1].derivative(point.inputs[layer][:, :-1])
            found.insert(0, (found[0] @ self.weights[layer][:, :-1]) * slope)
        return found

    def factor(self, gram: Array, metric: Array) -> Any:
        """Damped factors; two-sided ones share the damping as in K-FAC."""
        options = self.options
        if not options.two_sided:
            return cho_factor(
                gram
                + np.float32(options.damping * np.trace(gram) / len(gram))
                * np.eye(len(gram), dtype=np.float32)
            ), None
        inner, outer = np.trace(gram) / len(gram), np.trace(metric) / len(metric) + 1e-30
        split, root = np.sqrt(inner / outer), np.sqrt(options.damping)
        return (
            cho_factor(gram + np.float32(root * split) * np.eye(len(gram), dtype=np.float32)),
            cho_factor(metric + np.float32(root / split) * np.eye(len(metric), dtype=np.float32)),
        )

    @staticmethod
    def solve(factor: Any, pull: Array) -> Array:
        """The direction of a layer."""
        inner, outer = factor
        direction = cho_solve(inner, pull.T).T
        return direction if outer is None else cho_solve(outer, direction)

    def lengths(self, point: Any, gradient: Array, y: Array, change: Weights) -> tuple[float, float]:
        """α and β of the model on every fourth sample."""
        part = slice(None, None, PROBE_EVERY)
        inputs = [a[part] for a in point.inputs]
        curvature = self.network.loss.curvature(point.output[part], y[part])
        d, p = self.tangent(inputs, change), self.tangent(inputs, self.previous)
        g, n = gradient[part], len(d)
        hold = self.options.damping if self.options.two_sided else 0.0
        slopes = np.array([np.vdot(g, d), np.vdot(g, p)], float) / n

        def bend(a: Array, b: Array, first: Weights, second: Weights) -> float:
            flat = sum(np.vdot(u, v) for u, v in zip(first, second, strict=True))
            return float(np.vdot(curvature.apply(a), b)) / n + hold * float(flat)

        dd, pp = bend(d, d, change, change), bend(p, p, self.previous, self.previous)
        dp = bend(d, p, change, self.previous)
        if self.steps == 0 or dd * pp - dp * dp <= 1e-6 * dd * pp:
            return -slopes[0] / dd, 0.0
        alpha, beta = np.linalg.solve([[dd, dp], [dp, pp]], -slopes)
        return float(alpha), float(beta)

    def tangent(self, inputs: list[Array], change: Weights) -> Array:
        """The derivative of z_L along a change of the weights."""
        e = inputs[0] @ change[0].T
        for layer, activation in enumerate(self.network.activations, 1):
            e = (e * activation.derivative(inputs[layer][:, :-1])) @ self.weights[layer][:, :-1].T
            e += inputs[layer] @ change[layer].T
        return e


def quality(network: Chain, weights: Weights, x: Array, y: Array | None) -> str:
    """Held-out mean loss, or accuracy."""
    z = network.forward(weights, x)[-1]
    if y is not None:
        return f"{np.mean(z.argmax(axis=1) == y):.2%}"
    return f"{network.loss.value(z, network.loss.predict(z), x).mean():.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--task", choices=TASKS, default="autoencoder")
    parser.add_argument("--mu", type=float, default=0.0, help="of the z-step; 0 for gradients")
    parser.add_argument("--cg", type=int, default=2)
    parser.add_argument("--rows", type=int, default=1000, help="of a group")
    parser.add_argument("--damping", type=float, default=0.03)
    parser.add_argument("--two-sided", action="store_true")
    parser.add_argument("--averaging", type=float, default=0.95)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with np.load(options.mnist, allow_pickle=False) as file:
        x, held_out = (file[name].reshape(-1, 784).astype(np.float32) / 255 for name in ("x_train", "x_test"))
        labels = options.task == "classifier"
        y, held_out_y = (file[name].astype(np.int64) if labels else None for name in ("y_train", "y_test"))
    network = Chain.build(**TASKS[options.task])
    study, rng = Study(network, x, y, options), np.random.default_rng(options.seed)
    spent, shown, order = 0.0, 1.0, np.array([], dtype=int)
    with threadpool_limits(1):
        while spent < options.seconds:
            start = time.process_time()
            if len(order) < options.rows:
                order = rng.permutation(len(x))
            rows, order = np.sort(order[: options.rows]), order[options.rows :]
            study.step(rows)
            spent += time.process_time() - start
            if spent >= shown:
                shown *= 1.5
                passes = study.steps * options.rows / len(x)
                print(
                    f"{spent:7.1f} s  {passes:5.2f} passes  {quality(network, study.average, held_out, held_out_y)}"
                )


if __name__ == "__main__":
    main()
