"""How near one chunk's z-update plus statistics comes to plain BLAS, and to PyTorch's forward and backward pass.

Counts the matrix products of one visit of a chunk (those of cut steps left out: their share is printed), times the
visit, times plain float32 products of the same shapes beside it in the same run, and prints the ratio of the two
rates. One thread, CPU seconds; chunk and products take turns, the median over the rounds is printed. Products of
the statistics of persistent z count once although they are made in float64, at half the rate; a Gram matrix of
increments counts half, as a triangle of it is made. "increments" is a step of the default schedule as it is on the
average: one in four measures curvature, and every one probes a quarter of its samples. Where PyTorch is installed, the
last column is the visit's time over that of a forward and backward pass of the same chunk.

    python benchmarks/kernel.py [--rows 2500] [--rounds 15]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from altmin_dask.engine.blas import single_threaded_blas
from altmin_dask.networks.chain import BLOCK_ROWS, Chain
from altmin_dask.solvers.chunks import enter_chunk, increment_chunk, probe_chunk, visit_chunk
from altmin_dask.solvers.newton import NewtonSettings

CASES = {
    "784-300-784 sigmoid": Chain.build([784, 300, 784], "sigmoid", "squared", "sigmoid"),
    "784-256-256-10 relu": Chain.build([784, 256, 256, 10], "relu", "cross_entropy"),
    "784-1000-500-1000-784 tanh": Chain.build([784, 1000, 500, 1000, 784], "tanh", "squared", "sigmoid"),
}

Shape = tuple[int, int, int]


def products(chain: Chain, settings: NewtonSettings, rows: int, renew: bool) -> Iterator[Shape]:
    """(m, k, n) of every product of one block's visit."""
    d, layers = chain.sizes, range(2, len(chain.sizes))
    yield rows, d[0] + 1, d[1]
    for _ in range(settings.newton_steps + 1):
        yield from ((rows, d[i - 1] + 1, d[i]) for i in layers)
    for _ in range(settings.newton_steps * settings.cg_iterations):
        yield from ((rows, d[i - 1], d[i]) for i in layers)
        yield from ((rows, d[i], d[i - 1]) for i in layers)
    yield d[1], rows, d[0] + 1
    for _ in range(1 if renew else 2):
        for i in layers:
            yield d[i], rows, d[i - 1] + 1
            yield d[i - 1] + 1, rows, d[i - 1] + 1


def increment_products(chain: Chain, rows: int, curvature: bool) -> Iterator[Shape]:
    """(m, k, n) of every product of one block's increment."""
    for i, (d, k) in enumerate(chain.shapes):
        yield rows, k, d
        yield d, rows, k
        for _ in range(2 if curvature else 1):
            if i:
                yield rows, d, k - 1
        if curvature:
            yield k, rows // 2, k
            yield d, rows // 2, d


def probe_products(chain: Chain, rows: int) -> Iterator[Shape]:
    """(m, k, n) of every product of one block's probe."""
    for i, (d, k) in enumerate(chain.shapes):
        for _ in range(3):
            yield rows, k, d
        for _ in range(2 if i else 0):
            yield rows, k - 1, d


def blocks_of(rows: int) -> list[int]:
    """Rows of the blocks that a chunk is worked through in."""
    return [min(BLOCK_ROWS, rows - start) for start in range(0, rows, BLOCK_ROWS)]


def measure_increments(chain: Chain, rows: int, rounds: int) -> tuple[float, ...]:
    """As `measure`, for a step of increments on the average of four."""
    rng = np.random.default_rng(0)
    x = rng.random((rows, chain.sizes[0]), dtype=np.float32)
    y = rng.integers(0, chain.widths[-1], rows) if chain.loss.target == "labels" else None
    weights, settings = chain.initial_weights(0), NewtonSettings()
    before = tuple(np.float32(0.9) * w for w in weights)
    shapes: list[Shape] = []
    for step in range(4):
        for n in blocks_of(rows):
            shapes += increment_products(chain, n, step == 0)
        for n in blocks_of(rows // 4):
            shapes += probe_products(chain, n)
    operands, flops = plain(shapes, rng)

    def four_steps() -> None:
        for step in range(4):
            increment_chunk(chain, weights, None, x, y, settings, None if step else [0])
            probe_chunk(chain, weights, before, before, x[::4], None if y is None else y[::4])

    four_steps()
    ours, theirs = [], []
    for _ in range(rounds):
        start = time.process_time()
        four_steps()
        middle = time.process_time()
        for a, b, out in operands:
            np.matmul(a, b, out=out)
        ours.append(middle - start)
        theirs.append(time.process_time() - middle)
    kernel, reference = float(np.median(ours)), float(np.median(theirs))
    ratio = float(np.median(np.array(theirs) / ours))
    return 1e6 * kernel / 4 / rows, flops / kernel / 1e9, flops / reference / 1e9, ratio, 0.0


def torch_pass(chain: Chain, rows: int, rounds: int) -> float:
    """Microseconds a sample of PyTorch's forward and backward pass; NaN without PyTorch."""
    try:
        import torch
    except ImportError:
        return float("nan")
    torch.set_num_threads(1)
    acts = {"sigmoid": torch.nn.Sigmoid, "tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}
    layers: list[Any] = []
    for i, (d, k) in enumerate(chain.shapes):
        layers.append(torch.nn.Linear(k - 1, d))
        if i < len(chain.activations):
            layers.append(acts[chain.activations[i].name]())
    labels = chain.loss.target == "labels"
    if not labels:
        layers.append(torch.nn.Sigmoid())
    net, x = torch.nn.Sequential(*layers), torch.rand(rows, chain.sizes[0])
    y = torch.randint(chain.widths[-1], (rows,))
    times = []
    for _ in range(rounds):
        start = time.process_time()
        net.zero_grad()
        out = net(x)
        loss = torch.nn.functional.cross_entropy(out, y) if labels else 0.5 * (out - x).square().sum() / rows
        loss.backward()
        times.append(time.process_time() - start)
    return 1e6 * float(np.median(times)) / rows


def plain(shapes: list[Shape], rng: np.random.Generator) -> tuple[list[tuple[np.ndarray, ...]], float]:
    """Operands of every product, and their flops."""
    operands = {
        shape: (
            rng.random(shape[:2], dtype=np.float32),
            rng.random(shape[1:], dtype=np.float32),
            np.empty((shape[0], shape[2]), np.float32),
        )
        for shape in set(shapes)
    }
    return [operands[shape] for shape in shapes], sum(2.0 * m * k * n for m, k, n in shapes)


def measure(chain: Chain, settings: NewtonSettings, rows: int, rounds: int, renew: bool) -> tuple[float, ...]:
    """Microseconds a sample, the two rates in Gflop/s, their ratio (all medians), and the share of steps cut."""
    rng = np.random.default_rng(0)
    x = rng.random((rows, chain.sizes[0]), dtype=np.float32)
    y = rng.integers(0, chain.widths[-1], rows) if chain.loss.target == "labels" else None
    weights = chain.initial_weights(0)
    mu = (1.0,) * len(chain.widths)
    z, _ = enter_chunk(chain, weights, x, y)
    z, _ = visit_chunk(chain, weights, mu, x, y, z, settings, renew=renew)
    operands, flops = plain([s for n in blocks_of(rows) for s in products(chain, settings, n, renew)], rng)
    ours, theirs = [], []
    for _ in range(rounds):
        start = time.process_time()
        _, statistics = visit_chunk(chain, weights, mu, x, y, z, settings, renew=renew)
        middle = time.process_time()
        for a, b, out in operands:
            np.matmul(a, b, out=out)
        end = time.process_time()
        ours.append(middle - start)
        theirs.append(end - middle)
    ratio = np.median(np.array(theirs) / ours)
    kernel, reference = float(np.median(ours)), float(np.median(theirs))
    cut = statistics.diagnostics[1] / rows
    return 1e6 * kernel / rows, flops / kernel / 1e9, flops / reference / 1e9, float(ratio), float(cut)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cg-iterations", type=int, default=2)
    options = parser.parse_args()
    settings = NewtonSettings(cg_iterations=options.cg_iterations)
    print(
        f"{options.rows} rows in blocks of {BLOCK_ROWS}, {settings.cg_iterations} CG iterations, one thread"
    )
    print(
        f"{'network':<28} {'sweep':<12} {'µs/sample':>9} {'Gflop/s':>8} {'sgemm':>8} {'ratio':>6} {'cut':>6} "
        f"{'torch':>6}"
    )
    with single_threaded_blas():
        for name, chain in CASES.items():
            one_pass = torch_pass(chain, options.rows, options.rounds)
            found = {"increments": measure_increments(chain, options.rows, options.rounds)}
            for renew, sweep in ((True, "batch"), (False, "incremental")):
                found[sweep] = measure(chain, settings, options.rows, options.rounds, renew)
            for sweep, (spent, rate, reference, ratio, cut) in found.items():
                print(
                    f"{name:<28} {sweep:<12} {spent:9.1f} {rate:8.1f} {reference:8.1f} {ratio:6.2f} {cut:6.1%} "
                    f"{spent / one_pass:5.1f}×"
                )


if __name__ == "__main__":
    main()
