"""How near a step comes to plain BLAS, and to PyTorch's forward and backward pass: the chunk's part, and the client's.

Counts the matrix products of one visit of a chunk (those of cut steps left out: their share is printed), times the
visit, times plain float32 products of the same shapes beside it in the same run, and prints the ratio of the two
rates. Between two visits the client solves for W, and the workers wait: so the ratio of a whole step, "step", is what
counts, and that of the chunk's visit alone, "kernel", stands beside it. Of the client's part nothing counts as
products. One thread, CPU seconds; steps, products and PyTorch's passes take turns, medians over the rounds are printed.

"kfac" is a step of the default schedule, one chunk a step, as it is on the average: one in four measures
curvature and factorises it anew, and every one probes a part of its samples; the client's part is the running means,
the direction, the step lengths and the new weights. Where z persists, "incremental" solves for W after every chunk,
as windows do ("batch" only once a sweep: its client's part is left out). Products of the statistics of persistent
z count once although they are made in float64, at half the rate; a Gram matrix of K-FAC steps counts half, as a
triangle of it is made. PyTorch's time is that of a forward and backward pass of the same chunk alone: what an
optimizer does with the gradient, and that it does it for every batch, is left out, in its favour. Nobody's reading,
writing and scheduling is in it (`scaling.py`).

    python benchmarks/kernel.py [--rows 2500] [--rounds 15]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from increment_step import Parts, Stepper
from opening import add_options, line, opening

from altmin_dask.execution.blas import single_threaded_blas
from altmin_dask.networks.builders import dense_network
from altmin_dask.networks.network import BLOCK_ROWS, Network
from altmin_dask.solvers.kernels import enter_chunk, visit_chunk
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.penalties import L2
from altmin_dask.solvers.ridge import ridge_system
from altmin_dask.training.step_sizes import model_every
from altmin_dask.types import Batch

RIDGE = 0.005
"""λ of the solves for W."""
CASES = {
    "784-300-784 sigmoid": dense_network([784, 300, 784], "sigmoid", "squared", "sigmoid"),
    "784-256-256-10 relu": dense_network([784, 256, 256, 10], "relu", "cross_entropy"),
    "784-1000-500-1000-784 tanh": dense_network([784, 1000, 500, 1000, 784], "tanh", "squared", "sigmoid"),
}

Shape = tuple[int, int, int]


def products(chain: Network, settings: NewtonSettings, rows: int, renew: bool) -> Iterator[Shape]:
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


def increment_products(chain: Network, rows: int, curvature: bool) -> Iterator[Shape]:
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


def probe_products(chain: Network, rows: int) -> Iterator[Shape]:
    """(m, k, n) of every product of one block's probe."""
    for i, (d, k) in enumerate(chain.shapes):
        for _ in range(3):
            yield rows, k, d
        for _ in range(2 if i else 0):
            yield rows, k - 1, d


def blocks_of(rows: int) -> list[int]:
    """Rows of the blocks that a chunk is worked through in."""
    return [min(BLOCK_ROWS, rows - start) for start in range(0, rows, BLOCK_ROWS)]


@dataclass(frozen=True)
class Timing:
    """Of a visit of a chunk and the client's part of a step.

    Attributes
    ----------
    kernel, client : float
        CPU seconds of the two.
    sgemm, torch : float
        Those of plain products of the same shapes as the kernel's, and of PyTorch's passes.
    flops : float
        Of the products.
    cut : float
        Share of z-steps that were cut.
    """

    kernel: float
    client: float
    sgemm: float
    torch: float
    flops: float
    cut: float = 0.0

    @property
    def step(self) -> float:
        """CPU seconds of both parts."""
        return self.kernel + self.client


def samples(chain: Network, rows: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Random ones, and labels where the loss wants them."""
    rng = np.random.default_rng(0)
    x = rng.random((rows, chain.sizes[0]), dtype=np.float32)
    return x, rng.integers(0, chain.widths[-1], rows) if chain.loss.target == "labels" else None


def in_turn(
    ours: Callable[[], tuple[float, float]], shapes: list[Shape], torch_pass: Callable[[], float], rounds: int
) -> Timing:
    """Medians over rounds of the two parts of ours, of the products and of PyTorch's passes."""
    operands, flops = plain(shapes, np.random.default_rng(0))
    found = []
    for _ in range(rounds):
        kernel, client = ours()
        start = time.process_time()
        for a, b, out in operands:
            np.matmul(a, b, out=out)
        found.append((kernel, client, time.process_time() - start, torch_pass()))
    return Timing(*np.median(found, axis=0).tolist(), flops)


def measure_increments(chain: Network, rows: int, rounds: int, torch_pass: Callable[[], float]) -> Timing:
    """A step of K-FAC steps, the mean of those from one measurement of curvature to the next."""
    every = model_every(rows, chain)
    stepper = Stepper(chain, *samples(chain, rows), every, time.process_time)
    shapes: list[Shape] = []
    for step in range(4):
        for n in blocks_of(rows):
            shapes += increment_products(chain, n, step == 0)
        for n in blocks_of(-(-rows // every)):
            shapes += probe_products(chain, n)

    def four_steps() -> tuple[float, float]:
        parts = Parts.mean(stepper.cycle())
        return 4 * parts.kernel, 4 * parts.client

    four = in_turn(four_steps, shapes, torch_pass, rounds)
    return Timing(four.kernel / 4, four.client / 4, four.sgemm / 4, four.torch, four.flops / 4)


def torch_passes(chain: Network, rows: int) -> Callable[[], float]:
    """CPU seconds of PyTorch's forward and backward pass of a chunk; NaN without PyTorch."""
    try:
        import torch
    except ImportError:
        return lambda: float("nan")
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

    def once() -> float:
        start = time.process_time()
        net.zero_grad()
        out = net(x)
        loss = torch.nn.functional.cross_entropy(out, y) if labels else 0.5 * (out - x).square().sum() / rows
        loss.backward()
        return time.process_time() - start

    once()
    return once


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


def measure_persistent(
    chain: Network,
    settings: NewtonSettings,
    rows: int,
    rounds: int,
    renew: bool,
    torch_pass: Callable[[], float],
) -> Timing:
    """A visit of a chunk whose z persists, and unless all others are visited first the solve for W after it."""
    x, y = samples(chain, rows)
    weights = chain.initial_weights(0)
    l2 = L2((1.0,) * len(chain.widths))
    z, sums = enter_chunk(chain, weights, l2, Batch(x, y))
    first = ridge_system(sums.gram[0], RIDGE)  # stays factorised while no samples enter
    z, _ = visit_chunk(chain, weights, l2, l2, Batch(x, y), z, settings, replace_all=renew)
    shapes = [s for n in blocks_of(rows) for s in products(chain, settings, n, renew)]
    cut = 0.0

    def visit() -> tuple[float, float]:
        nonlocal cut
        start = time.process_time()
        _, found = visit_chunk(chain, weights, l2, l2, Batch(x, y), z, settings, replace_all=renew)
        visited = time.process_time()
        cut = float(found.statistics.diagnostics[1] / rows)
        if renew:
            return visited - start, 0.0
        for layer, old in enumerate(weights):
            system = ridge_system(sums.gram[layer], RIDGE) if layer else first
            system.solve(sums.cross[layer], old).astype(old.dtype)
        return visited - start, time.process_time() - visited

    timing = in_turn(visit, shapes, torch_pass, rounds)
    return Timing(timing.kernel, timing.client, timing.sgemm, timing.torch, timing.flops, cut)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cg-iterations", type=int, default=2)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NETWORK")
    add_options(parser)
    options = parser.parse_args()
    settings = NewtonSettings(cg_iterations=options.cg_iterations)
    with single_threaded_blas():
        try:
            print(line(opening("torch", options=options)))
        except ImportError:
            print(line(opening(options=options)))
        print(
            f"{options.rows} rows in blocks of {BLOCK_ROWS}, {settings.cg_iterations} CG iterations, one thread; "
            "µs a sample, of sgemm's rate, and times PyTorch's passes"
        )
        print(f"{'':40} {'µs a sample':^23}   {'of sgemm':^13}   {'× PyTorch':^13}")
        print(
            f"{'network':<27} {'sweep':<12} {'kernel':>7} {'client':>7} {'step':>7}   {'kernel':>6} {'step':>6}   "
            f"{'kernel':>6} {'step':>6}   {'sgemm Gflop/s':>13} {'cut':>5}"
        )
        for name in options.cases:
            chain = CASES[name]
            one_pass = torch_passes(chain, options.rows)
            found = {"kfac": measure_increments(chain, options.rows, options.rounds, one_pass)}
            for renew, sweep in ((False, "incremental"), (True, "batch")):
                found[sweep] = measure_persistent(
                    chain, settings, options.rows, options.rounds, renew, one_pass
                )
            for sweep, t in found.items():
                print(row(name, sweep, t, options.rows), flush=True)


def row(name: str, sweep: str, t: Timing, rows: int) -> str:
    """A row of the table."""
    spent = " ".join(f"{1e6 * seconds / rows:7.1f}" for seconds in (t.kernel, t.client, t.step))
    rates = " ".join(f"{t.sgemm / seconds:6.2f}" for seconds in (t.kernel, t.step))
    times = " ".join(f"{seconds / t.torch:6.2f}" for seconds in (t.kernel, t.step))
    return (
        f"{name:<27} {sweep:<12} {spent}   {rates}   {times}   {t.flops / t.sgemm / 1e9:13.1f} {t.cut:5.1%}"
    )


if __name__ == "__main__":
    main()
