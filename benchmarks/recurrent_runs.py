"""One run of one contestant of `recurrent.py`, in a process of its own with one thread.

    python benchmarks/recurrent_runs.py '{"task": "rows", "optimizer": "adam", "rate": 0.001, …}'

Clocks and running means are those of `quality_clock.py`, for PyTorch; altmin runs as the command line does, with
defaults, from a zarr store, and its history is its curve. Both start from the same weights.
"""

from __future__ import annotations

import copy
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from quality_clock import AVERAGED, Means, Run, evaluation_moments, mix_tensors, rounded, thinned
from quality_data import FINAL, samples

from altmin_dask.data.open import open_source
from altmin_dask.networks.builders import recurrent_network
from altmin_dask.networks.network import Network

Array = np.ndarray[Any, Any]
Spec = dict[str, Any]
"""A run: task, optimizer, seconds, seed, part ("search", "final"); mnist, or steps; of Adam rate, cosine, averages."""
ROWS, ADDING = "rows", "adding"
UNITS = {ROWS: 128, ADDING: 64}
SEQUENCES, HELD_OUT = 20_000, 2_000
"""Of the adding problem."""
BATCH, NORM, SLICE = 128, 1.0, 1000


def data(spec: Spec) -> tuple[Array, Array, Array, Array]:
    """Sequences (n, steps, features) and targets to train on, and those to be judged by.

    A search is judged by part of the training data (of the adding problem, by as many sequences more), finals by the
    test data.
    """
    if spec["task"] == ROWS:
        x, y, held_out, held_out_y = samples(Path(spec["mnist"]), spec["part"])
        parts = [np.float32(images.reshape(-1, 28, 28)) / 255 for images in (x, held_out)]
        return parts[0], y.astype(np.int64), parts[1], held_out_y.astype(np.int64)
    name = f"adding:rows={SEQUENCES + HELD_OUT},steps={spec['steps']},seed={spec['seed']}"
    x, y = whole(f"{name}:train")
    if spec["part"] == FINAL:
        return x[:SEQUENCES], y[:SEQUENCES], *(array[:HELD_OUT] for array in whole(f"{name}:test"))
    return x[:SEQUENCES], y[:SEQUENCES], x[SEQUENCES:], y[SEQUENCES:]


def whole(name: str) -> tuple[Array, Array]:
    """All of a source."""
    source = open_source(name)
    x, y = next(iter(source.blocks(source.rows)))
    return np.asarray(x, np.float32), np.asarray(y, np.float32)


def network(spec: Spec, x: Array) -> Network:
    """The one that both train."""
    rows = spec["task"] == ROWS
    return recurrent_network(
        x.shape[2],
        x.shape[1],
        [UNITS[spec["task"]]],
        10 if rows else 1,
        loss="cross_entropy" if rows else "squared",
    )


def by_altmin(spec: Spec) -> dict[str, Any]:
    """The engine, with defaults."""
    from altmin_dask import runs
    from altmin_dask.config import make_pipeline
    from altmin_dask.data.ingest import ingest
    from altmin_dask.data.source import array_source
    from altmin_dask.storage.run import RunFolder

    rows = spec["task"] == ROWS
    x, y, *held_out = data(spec)
    with tempfile.TemporaryDirectory() as folder:
        for name, parts in (("train", (x, y)), ("held-out", held_out)):
            ingest(array_source(*parts), f"{folder}/{name}.zarr", chunk_rows=1000)
        pipeline = make_pipeline(
            {
                "data": {"train": f"{folder}/train.zarr", "validation": f"{folder}/held-out.zarr"},
                "network": {
                    "kind": "recurrent_classifier" if rows else "recurrent_regressor",
                    "hidden_layer_sizes": (UNITS[spec["task"]],),
                },
                "training": {
                    "seed": spec["seed"],
                    "max_cpu_seconds": float(spec["seconds"]),
                    "max_sweeps": 1e6,
                    "n_iter_no_change": None,
                    "evaluation_rows": 2000,
                },
                "cluster": {"kind": "threads", "workers": 1},
            }
        )
        records = runs.train(pipeline, RunFolder(Path(folder) / "run"), log=lambda line: None)
    quality = [100 * r.validation_accuracy if rows else r.validation_loss for r in records]
    curve = [(r.cpu_seconds, q, r.sweep) for r, q in zip(records, quality, strict=True)]
    return {"status": "budget spent", "curves": {AVERAGED: rounded(thinned(curve, evaluation_moments()))}}


def torch_network(spec: Spec, chosen: Network) -> Any:
    """The same network with the same weights, as a module."""
    import torch
    from torch import nn

    below = chosen.sizes[0] // chosen.layers[0].steps

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loop = nn.RNN(below, chosen.layers[0].units, batch_first=True)
            self.out = nn.Linear(chosen.layers[0].units, chosen.widths[-1])

        def forward(self, x: Any) -> Any:
            return self.out(self.loop(x)[0][:, -1])

    net, (first, last) = Net(), chosen.initial_weights(spec["seed"])
    with torch.no_grad():
        net.loop.weight_ih_l0.copy_(torch.from_numpy(first[:, :below].copy()))
        net.loop.weight_hh_l0.copy_(torch.from_numpy(first[:, below:-1].copy()))
        net.loop.bias_ih_l0.copy_(torch.from_numpy(first[:, -1].copy()))
        net.loop.bias_hh_l0.zero_()
        net.out.weight.copy_(torch.from_numpy(last[:, :-1].copy()))
        net.out.bias.copy_(torch.from_numpy(last[:, -1].copy()))
    net.loop.bias_hh_l0.requires_grad_(False)  # there is one bias, not the sum of two
    return net


def by_torch(spec: Spec) -> dict[str, Any]:
    """PyTorch's Adam on batches, clipped, with a constant rate or one that decays to 0 over the budget."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(spec["seed"])
    rows = spec["task"] == ROWS
    arrays = data(spec)
    net = torch_network(spec, network(spec, arrays[0]))
    x, y, held_out, held_out_y = map(torch.from_numpy, arrays)
    parameters = [p for p in net.parameters() if p.requires_grad]
    shadows = [copy.deepcopy(net) for _ in spec["averages"]]
    means = [[p for p in shadow.parameters() if p.requires_grad] for shadow in shadows]

    @torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
    def quality(model: Any) -> float:
        found = torch.cat([model(part) for part in held_out.split(SLICE)])
        if rows:
            return 100 * float((found.argmax(1) == held_out_y).float().mean())
        return float(functional.mse_loss(found[:, 0], held_out_y) / 2)

    run = Run(
        spec["seconds"],
        quality,
        [net, *shadows],
        Means(spec["averages"], means, mix_tensors),
        len(x),
        evaluation_moments(),
    )
    optimizer = torch.optim.Adam(parameters, spec["rate"], fused=True)
    run.start(0.0)
    while True:
        order: Any = torch.randperm(len(x))
        for batch in order.split(BATCH):
            if spec["cosine"]:
                optimizer.param_groups[0]["lr"] = spec["rate"] * (1 + math.cos(math.pi * run.progress)) / 2
            optimizer.zero_grad()
            found, target = net(x[batch]), y[batch]
            loss = (
                functional.cross_entropy(found, target) if rows else functional.mse_loss(found[:, 0], target)
            )
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, NORM)
            optimizer.step()
            run.means.update(parameters)
            run.visited += len(batch)
            if not run.goes_on():
                return {
                    "status": run.status,
                    "curves": {name: rounded(curve) for name, curve in run.curves.items()},
                }


def main() -> None:
    spec = json.loads(sys.argv[1])
    result = by_altmin(spec) if spec["optimizer"] == "altmin" else by_torch(spec)
    print(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    main()
