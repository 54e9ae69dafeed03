"""Training runs of contestants of `time_to_quality.py`, in this process, one after the other.

    python benchmarks/contestants.py '{"mnist": "mnist.npz", "stores": "stores", "specs": [{…}, …]}'

prints a line of JSON for each: `quality_clock.py` says what its curves are, `quality_data.py` what a spec is. One
thread needs OMP_NUM_THREADS=1 and its like in the environment, as `time_to_quality.py` sets them.
"""

from __future__ import annotations

import copy
import json
import math
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from quality_clock import (
    AVERAGED,
    DIVERGED,
    RAW,
    SPENT,
    Curve,
    Means,
    Run,
    evaluation_moments,
    mix_arrays,
    mix_tensors,
    rounded,
    thinned,
)
from quality_data import FINAL, Spec, flat_samples, pipeline_of, starting_weights
from quality_tasks import TASKS

SLICE = 2000
"""Samples of a forward pass where all count: larger ones leave the cache."""
BATCH_ITERATIONS = 5
"""L-BFGS iterations on a mini-batch before the next one."""
CALL = 20
"""Steps of scikit-learn in a call."""

Result = dict[str, Any]


def moments_of(spec: Spec) -> Iterator[float]:
    """When a run is evaluated besides at its end: in a search, never."""
    return evaluation_moments(TASKS[spec["task"]].first_evaluation) if spec["part"] == FINAL else iter(())


def result_of(run: Run, start_seconds: float) -> Result:
    """What is kept of a run."""
    means = run.means.seconds / max(1, len(run.means.decays))
    return {
        "status": run.status,
        "curves": {name: rounded(curve) for name, curve in run.curves.items()},
        "start_seconds": round(start_seconds, 4),
        "averaging_share": round(means / max(run.raw, 1e-9), 4),
        "passes": round(run.visited / run.samples, 3),
    }


def by_torch(spec: Spec, mnist: Path, stores: Path) -> Result:
    """Adam, AdamW, SGD with momentum, or L-BFGS."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # moments of units that have died would slow everything down
    torch.manual_seed(spec["seed"])
    task = TASKS[spec["task"]]
    x, labels, held_out, held_out_labels = (
        torch.from_numpy(array) for array in flat_samples(mnist, spec["part"])
    )
    weights, start_seconds = starting_weights(spec, stores)
    model = torch_model(task.network, weights, labels=task.accuracy)
    shadows = [copy.deepcopy(model) for _ in spec["averages"]]
    means = Means(spec["averages"], [list(shadow.parameters()) for shadow in shadows], mix_tensors)

    def loss(net: Any, rows: Any, y: Any) -> Any:
        """The sum over some samples."""
        if task.accuracy:
            return functional.cross_entropy(net(rows), y, reduction="sum")
        return functional.mse_loss(net(rows), rows, reduction="sum") / 2

    @torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
    def evaluate(net: Any) -> float:
        total = 0.0
        for rows, y in zip(held_out.split(SLICE), held_out_labels.split(SLICE), strict=True):  # type: ignore[no-untyped-call, unused-ignore]
            total += float((net(rows).argmax(1) == y).sum() * 100 if task.accuracy else loss(net, rows, y))
        return total / len(held_out)

    run = Run(spec["seconds"], evaluate, [model, *shadows], means, len(x), moments_of(spec))
    train = lbfgs if spec["optimizer"] == "lbfgs" else stochastic
    train(run, spec, model, partial(loss, model), x, labels, start_seconds)
    return result_of(run, start_seconds)


def torch_model(network: Mapping[str, Any], weights: Sequence[Any], *, labels: bool) -> Any:
    """The network as modules, with these weights W̃ = [W | b]; softmax is part of the loss."""
    import torch
    from torch import nn

    modules = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU, "identity": nn.Identity}
    names = network["activation"]
    if isinstance(names, str):
        names = [names] * (len(weights) - 1)
    output = "identity" if labels else network["output_activation"]
    layers: list[Any] = []
    for w, name in zip(weights, [*names, output], strict=True):
        linear = nn.Linear(w.shape[1] - 1, w.shape[0])
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(w[:, :-1])))
            linear.bias.copy_(torch.from_numpy(np.ascontiguousarray(w[:, -1])))
        layers += [linear] if name == "identity" else [linear, modules[name]()]
    return nn.Sequential(*layers)


def stochastic(
    run: Run, spec: Spec, model: Any, loss: Callable[..., Any], x: Any, labels: Any, start_seconds: float
) -> None:
    """Steps on mini-batches. Fused is the fastest of PyTorch's forms: deep, Adam, 25 ms a step against 36–40."""
    import torch

    setting, parameters = spec["setting"], list(model.parameters())
    rate = setting["rate"]
    if spec["optimizer"] == "sgd":
        optimizer: Any = torch.optim.SGD(parameters, lr=rate, momentum=0.9, fused=True)
    elif spec["optimizer"] == "adamw":
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=setting["decay"], fused=True)
    else:
        optimizer = torch.optim.Adam(parameters, lr=rate, fused=True)
    run.start(start_seconds)
    while True:
        order: Any = torch.randperm(len(x))
        for batch in order.split(setting["batch"]):
            if spec["cosine"]:
                optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * run.progress)) / 2
            optimizer.zero_grad()
            (loss(x[batch], labels[batch]) / len(batch)).backward()
            optimizer.step()
            run.means.update(parameters)
            run.visited += len(batch)
            if not run.goes_on():
                return


def lbfgs(
    run: Run, spec: Spec, model: Any, loss: Callable[..., Any], x: Any, labels: Any, start_seconds: float
) -> None:
    """L-BFGS with strong Wolfe on all samples, or some iterations on each large mini-batch with the memory kept.

    One iteration a call, so that there is an evaluation between any two; the gradient at the point that the line
    search has accepted, which PyTorch asks for again at the start of a call, is kept.
    """
    import torch

    batch, parameters = spec["setting"]["batch"], list(model.parameters())
    optimizer: Any = torch.optim.LBFGS(
        parameters,
        history_size=20,
        max_iter=1,
        max_eval=25,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )
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

    run.start(start_seconds)
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
                run.means.update(parameters)
                if not run.goes_on():
                    return


def by_sklearn(spec: Spec, mnist: Path, stores: Path) -> Result:
    """MLPClassifier by partial_fit; MLPRegressor's output is linear, so it has no part in the auto-encoders."""
    from sklearn.neural_network import MLPClassifier

    task, rng, setting = TASKS[spec["task"]], np.random.default_rng(spec["seed"]), spec["setting"]
    if not task.accuracy:
        raise ValueError("scikit-learn's MLPRegressor has no sigmoid output")
    x, labels, held_out, held_out_labels = flat_samples(mnist, spec["part"])
    weights, start_seconds = starting_weights(spec, stores)
    model = MLPClassifier(
        tuple(task.sizes[1:-1]),
        activation=task.network["activation"],
        batch_size=setting["batch"],
        learning_rate_init=setting["rate"],
        random_state=spec["seed"],
    )
    # it takes no initial weights: they are put in place of those of a first step, and the optimizer begins anew
    model.partial_fit(x[: setting["batch"]], labels[: setting["batch"]], classes=np.arange(10))
    model.coefs_ = [np.ascontiguousarray(w[:, :-1].T) for w in weights]
    model.intercepts_ = [w[:, -1].copy() for w in weights]
    del model._optimizer
    shadows = [copy.deepcopy(model) for _ in spec["averages"]]
    means = Means(spec["averages"], [s.coefs_ + s.intercepts_ for s in shadows], mix_arrays, CALL)

    def evaluate(net: Any) -> float:
        return 100 * float(np.mean(net.predict(held_out) == held_out_labels))

    run = Run(spec["seconds"], evaluate, [model, *shadows], means, len(x), moments_of(spec))
    rows = CALL * setting["batch"]
    run.start(start_seconds)
    while True:
        order = rng.permutation(len(x))
        for begin in range(0, len(order), rows):
            some = order[begin : begin + rows]
            try:
                model.partial_fit(x[some], labels[some])
            except ValueError as error:
                if "non-finite" not in str(error):
                    raise
                run.status = DIVERGED
                return result_of(run, start_seconds)
            run.means.update(model.coefs_ + model.intercepts_)
            run.visited += len(some)
            if not run.goes_on():
                return result_of(run, start_seconds)


def by_altmin(spec: Spec, mnist: Path, stores: Path) -> Result:
    """The engine, on stores that are there; the curve is the run's history, of the running mean of its weights."""
    from altmin_dask import runs
    from altmin_dask.errors import AltMinError
    from altmin_dask.storage.run import RunFolder
    from altmin_dask.training.record import read_records

    pipeline, status = pipeline_of(spec, stores), SPENT
    name = AVERAGED if pipeline.training.averaging else RAW
    # what our runs leave (commits) is gone with the folder
    with tempfile.TemporaryDirectory(prefix="run-") as scratch:
        folder = RunFolder(Path(scratch) / "run")
        try:
            runs.train(pipeline, folder, log=lambda line: None)
        except AltMinError as error:
            status = str(error)
        records = read_records(folder)
    accuracy = TASKS[spec["task"]].accuracy
    quality = [100 * r.validation_accuracy if accuracy else r.validation_loss for r in records]
    curve: Curve = [(r.cpu_seconds, q, r.sweep) for r, q in zip(records, quality, strict=True)]
    return {
        "status": status,
        "curves": {name: rounded(thinned(curve, moments_of(spec)))},
        "start_seconds": round(records[0].cpu_seconds, 4) if records else 0.0,
        "passes": round(curve[-1][2], 3) if curve else 0.0,
        "alone": alone(records, curve, pipeline.training.tol),
    }


def alone(records: Sequence[Any], curve: Curve, tol: float, patience: int = 10) -> Result | None:
    """Where a run without validation samples would have stopped, and the model it would have kept.

    By the loss of training samples, as `[training] n_iter_no_change` says; None if it would have gone on. The quality
    is that of the model with the lowest training loss till then: no held-out sample has chosen it.
    """
    best, improved, kept = math.inf, 0, 0
    for number, record in enumerate(records):
        loss = record.nested_loss
        if loss < best:
            kept = number
            if loss < (1 - tol) * best:
                improved = number
            best = loss
        if number - improved >= patience:
            return {
                "seconds": float(f"{curve[number][0]:.4g}"),
                "kept_seconds": float(f"{curve[kept][0]:.4g}"),
                "quality": float(f"{curve[kept][1]:.5g}"),
            }
    return None


RUNNERS: dict[str, Callable[[Spec, Path, Path], Result]] = {
    "altmin": by_altmin,
    "adam": by_torch,
    "adamw": by_torch,
    "sgd": by_torch,
    "lbfgs": by_torch,
    "sklearn": by_sklearn,
}


def main() -> int:
    asked, failed = json.loads(sys.argv[1]), 0
    for spec in asked["specs"]:
        began = time.process_time()
        try:
            result = RUNNERS[spec["optimizer"]](spec, Path(asked["mnist"]), Path(asked["stores"]))
        except Exception:  # the others are run all the same
            traceback.print_exc()
            failed += 1
            continue
        # with loading and evaluation
        result["process_seconds"] = round(time.process_time() - began, 2)
        print(json.dumps({"spec": spec, **result}, allow_nan=False), flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main())
