"""How near one chunk's z-update plus statistics comes to plain BLAS.

Counts the matrix products of one visit of a chunk (those of cut steps left out: their share is printed), times the
visit, times plain float32 products of the same shapes beside it in the same run, and prints the ratio of the two
rates. One thread, CPU seconds; chunk and products take turns, the median over the rounds is printed. Products of
the statistics count once although they are made in float64, at half the rate.

    python benchmarks/kernel.py [--rows 2500] [--rounds 15]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np

from altmin_dask.engine.blas import single_threaded_blas
from altmin_dask.networks.chain import Chain
from altmin_dask.solvers.chunks import BLOCK_ROWS, enter_chunk, visit_chunk
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
    blocks = [min(BLOCK_ROWS, rows - start) for start in range(0, rows, BLOCK_ROWS)]
    operands, flops = plain([s for n in blocks for s in products(chain, settings, n, renew)], rng)
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
        f"{'network':<28} {'sweep':<12} {'µs/sample':>9} {'Gflop/s':>8} {'sgemm':>8} {'ratio':>6} {'cut':>6}"
    )
    with single_threaded_blas():
        for name, chain in CASES.items():
            for renew, sweep in ((True, "batch"), (False, "incremental")):
                spent, rate, reference, ratio, cut = measure(
                    chain, settings, options.rows, options.rounds, renew
                )
                print(
                    f"{name:<28} {sweep:<12} {spent:9.1f} {rate:8.1f} {reference:8.1f} {ratio:6.2f} {cut:6.1%}"
                )


if __name__ == "__main__":
    main()
