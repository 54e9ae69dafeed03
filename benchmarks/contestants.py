"""One training run of one contestant of `time_to_quality.py`, in this process.

The clock counts CPU seconds of this process while it trains; loading, evaluation and the making of stores are off it.
Whatever PyTorch trains starts from the weights that altmin starts from with the same seed.

    python benchmarks/contestants.py '{"task": "classifier", "contestant": "adam", "setting": {"rate": 0.001}, …}' OUT

One thread needs OMP_NUM_THREADS=1 and its like in the environment, as `time_to_quality.py` sets them.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from quality_tasks import TASKS, Task

Array = np.ndarray[Any, Any]
Curve = list[tuple[float, float, float]]
"""CPU seconds, held-out quality, passes over the training data."""

SPENT, STOPPED = "budget spent", "stopped by itself"
BATCH = 128
SLICE = 2000
"""Samples of a forward pass where all count: larger ones leave the cache."""
BATCH_ITERATIONS = 5
"""L-BFGS iterations on a mini-batch before the next one."""


@dataclass
class Run:
    """The clock and the curve of one run."""

    seconds: float
    evaluate: Callable[[], float]
    curve: Curve = field(default_factory=list)
    status: str = SPENT
    samples: int = 60_000
    visited: int = 0
    """Samples whose gradient was taken."""

    def __post_init__(self) -> None:
        self.moments = evaluation_moments()
        self.next = next(self.moments)
        self.off = time.process_time()

    @property
    def spent(self) -> float:
        """CPU seconds of training."""
        return time.process_time() - self.off

    def goes_on(self) -> bool:
        """After every step: evaluates if it is time, and tells whether there is budget left."""
        spent = self.spent
        if spent < min(self.next, self.seconds):
            return True
        start = time.process_time()
        quality = self.evaluate()
        if math.isfinite(quality):
            self.curve.append((spent, quality, self.visited / self.samples))
        else:
            self.status = "diverged"
        while self.next <= spent:
            self.next = next(self.moments)
        self.off += time.process_time() - start
        return spent < self.seconds and self.status != "diverged"


def evaluation_moments(a_decade: int = 12, first: float = 0.5) -> Iterator[float]:
    """Geometrically spaced, for ever."""
    number = 0
    while True:
        yield first * 10 ** (number / a_decade)
        number += 1


def load(mnist: str) -> tuple[Array, Array, Array, Array]:
    """Training samples and labels, and the held-out ones."""
    with np.load(mnist, allow_pickle=False) as file:
        x, held_out = (file[name].reshape(-1, 784).astype(np.float32) / 255 for name in ("x_train", "x_test"))
        return x, file["y_train"].astype(np.int64), held_out, file["y_test"].astype(np.int64)


def by_torch(spec: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """Adam, SGD with momentum, or L-BFGS."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    torch.set_flush_denormal(True)  # moments of units that have died would slow everything down
    torch.manual_seed(spec["seed"])
    task, seconds = TASKS[spec["task"]], spec["seconds"]
    data: tuple[Any, ...] = tuple(torch.from_numpy(array) for array in load(spec["mnist"]))
    x, labels, held_out, held_out_labels = data
    model = torch_model(task, spec["seed"])

    def loss(rows: Any, y: Any) -> Any:
        """The sum over some samples."""
        if task.accuracy:
            return functional.cross_entropy(model(rows), y, reduction="sum")
        return functional.mse_loss(model(rows), rows, reduction="sum") / 2

    @torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
    def evaluate() -> float:
        total = 0.0
        for rows, y in zip(held_out.split(SLICE), held_out_labels.split(SLICE), strict=True):
            total += float((model(rows).argmax(1) == y).sum() * 100 if task.accuracy else loss(rows, y))
        return total / len(held_out)

    run = Run(seconds, evaluate, samples=len(x))
    if spec["contestant"] == "lbfgs":
        lbfgs(run, model, loss, x, labels, spec["setting"]["batch"])
    else:
        stochastic(run, spec, model, loss, x, labels)
    return run, {"versions": {"torch": torch.__version__, "numpy": np.__version__}}


def torch_model(task: Task, seed: int) -> Any:
    """The network as modules, with the weights that altmin starts from."""
    import torch
    from torch import nn

    from altmin_dask.networks.chain import Chain

    modules = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU, "identity": nn.Identity}
    names, sizes = task.network["activation"], task.sizes
    if isinstance(names, str):
        names = [names] * (len(sizes) - 2)
    chain = Chain.build(sizes, names, "cross_entropy" if task.accuracy else "squared")
    # softmax is part of the loss
    output = "identity" if task.accuracy else task.network["output_activation"]
    layers: list[Any] = []
    for w, name in zip(chain.initial_weights(seed), [*names, output], strict=True):
        linear = nn.Linear(w.shape[1] - 1, w.shape[0])
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(w[:, :-1]))
            linear.bias.copy_(torch.from_numpy(w[:, -1]))
        layers += [linear] if name == "identity" else [linear, modules[name]()]
    return nn.Sequential(*layers)


def stochastic(
    run: Run, spec: dict[str, Any], model: Any, loss: Callable[..., Any], x: Any, labels: Any
) -> None:
    """Adam or SGD on mini-batches. Fused is the fastest of PyTorch's forms: deep, Adam, 25 ms a step against 36–40."""
    import torch

    rate, cosine = spec["setting"]["rate"], spec["contestant"] == "adam-cosine"
    if spec["contestant"] == "sgd":
        optimizer: Any = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, fused=True)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
    run.off = time.process_time()
    while True:
        order: Any = torch.randperm(len(x))
        for batch in order.split(BATCH):
            if cosine:
                progress = min(run.spent / run.seconds, 1.0)
                optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * progress)) / 2
            optimizer.zero_grad()
            (loss(x[batch], labels[batch]) / len(batch)).backward()
            optimizer.step()
            run.visited += len(batch)
            if not run.goes_on():
                return


def lbfgs(run: Run, model: Any, loss: Callable[..., Any], x: Any, labels: Any, batch: int) -> None:
    """L-BFGS with strong Wolfe on all samples, or some iterations on each large mini-batch with the memory kept.

    One iteration a call, so that there is an evaluation between any two; the gradient at the point that the line
    search has accepted, which PyTorch asks for again at the start of a call, is kept.
    """
    import torch

    parameters = list(model.parameters())
    optimizer: Any = torch.optim.LBFGS(
        parameters, history_size=20, max_iter=1, max_eval=25, tolerance_grad=0, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip
    known: list[tuple[Any, float, Any]] = []
    rows: Any = torch.arange(len(x))

    def flat(tensors: Any) -> Any:
        return torch.cat([tensor.reshape(-1) for tensor in tensors])

    def closure() -> float:
        point = flat(p.detach() for p in parameters)
        for other, value, gradient in known:
            if torch.equal(point, other):
                parts = gradient.split([p.numel() for p in parameters])
                for p, part in zip(parameters, parts, strict=True):
                    p.grad = part.view_as(p).clone()
                return value
        optimizer.zero_grad()
        value = 0.0
        for some in rows.split(SLICE):
            part = loss(x[some], labels[some]) / len(rows)
            part.backward()
            value += float(part.detach())
        run.visited += len(rows)
        known[:] = [*known[-3:], (point, value, flat(p.grad for p in parameters))]
        return value

    run.off = time.process_time()
    while True:
        order: Any = torch.randperm(len(x))
        for some_rows in order.split(batch) if batch < len(x) else [rows]:
            if batch < len(x):
                rows = some_rows
                known.clear()
                if optimizer.state[parameters[0]]:  # no difference of gradients is one of two batches
                    closure()
                    optimizer.state[parameters[0]]["prev_flat_grad"] = flat(p.grad for p in parameters)
            for _ in range(BATCH_ITERATIONS):
                optimizer.step(closure)
                if not run.goes_on():
                    return


def by_sklearn(spec: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """MLPClassifier by partial_fit; MLPRegressor's output is linear, so it has no part in the auto-encoders."""
    import sklearn
    from sklearn.neural_network import MLPClassifier

    task, rng = TASKS[spec["task"]], np.random.default_rng(spec["seed"])
    if not task.accuracy:
        raise SystemExit("scikit-learn's MLPRegressor has no sigmoid output")
    x, labels, held_out, held_out_labels = load(spec["mnist"])
    model = MLPClassifier(
        tuple(task.sizes[1:-1]), activation=task.network["activation"], batch_size=BATCH,
        learning_rate_init=spec["setting"]["rate"], random_state=spec["seed"],
    )  # fmt: skip
    classes = np.arange(10)
    run = Run(
        spec["seconds"],
        lambda: 100 * float(np.mean(model.predict(held_out) == held_out_labels)),
        samples=len(x),
    )
    rows = 20 * BATCH  # a call for twenty steps, so that there is an evaluation close to every moment
    while True:
        order = rng.permutation(len(x))
        for start in range(0, len(order), rows):
            some = order[start : start + rows]
            try:
                model.partial_fit(x[some], labels[some], classes=classes)
            except ValueError as error:
                if "non-finite" not in str(error):
                    raise
                run.status = "diverged"
                break
            run.visited += len(some)
            if not run.goes_on():
                break
        else:
            continue
        return run, {"versions": {"sklearn": sklearn.__version__, "numpy": np.__version__}}


def by_altmin(spec: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """The engine, on stores that are there; the curve is the run's history."""
    from altmin_dask import runs
    from altmin_dask.config import Pipeline
    from altmin_dask.errors import AltMinError
    from altmin_dask.storage.run import RunFolder

    class Silent:
        def progressed(self, progress: Any) -> None: ...
        def recorded(self, record: dict[str, Any]) -> None: ...

    task = TASKS[spec["task"]]
    folder = RunFolder(Path(spec["scratch"]) / "run")
    run = Run(spec["seconds"], lambda: math.nan)
    try:
        runs.train(Pipeline.model_validate(spec["pipeline"]), folder, Silent(), announce=lambda line: None)
    except AltMinError as error:
        run.status = str(error)
    else:
        records = folder.records()
        if records[-1]["cpu_seconds"] < 0.95 * spec["seconds"]:
            run.status = STOPPED
    key, unit = ("validation_accuracy", 100) if task.accuracy else ("validation_loss", 1)
    records = [r for r in folder.records() if r[key] is not None] if folder.history.exists() else []
    run.curve = thinned([(r["cpu_seconds"], unit * r[key], r["sweep"]) for r in records])
    return run, {"versions": {"altmin-dask": version("altmin-dask"), "numpy": np.__version__}}


def thinned(curve: Curve) -> Curve:
    """The first evaluation at or after each of the moments at which the others are evaluated, and the last one.

    More of them would be an advantage where quality is noisy: the best counts, and the first to pass a threshold.
    """
    kept: Curve = []
    moments = evaluation_moments()
    due = next(moments)
    for number, point in enumerate(curve):
        if point[0] >= due or (number == len(curve) - 1 and point[0] > 0):
            kept.append(point)
            while due <= point[0]:
                due = next(moments)
    return kept


RUNNERS: dict[str, Callable[[dict[str, Any]], tuple[Run, dict[str, Any]]]] = {
    "altmin": by_altmin,
    "altmin-tuned": by_altmin,
    "adam": by_torch,
    "adam-cosine": by_torch,
    "sgd": by_torch,
    "lbfgs": by_torch,
    "sklearn": by_sklearn,
}


def main() -> None:
    spec, out = json.loads(sys.argv[1]), Path(sys.argv[2])
    load_before, wall = os.getloadavg()[0], time.perf_counter()
    run, more = RUNNERS[spec["contestant"]](spec)
    result = {
        **{key: value for key, value in spec.items() if key not in ("mnist", "scratch")},
        **more,
        "status": run.status,
        "wall_seconds": time.perf_counter() - wall,
        "machine_load": [load_before, os.getloadavg()[0]],
        "curve": run.curve,
    }
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1, allow_nan=False), encoding="utf-8")
    partial.replace(out)  # a file that is there is complete


if __name__ == "__main__":
    main()
