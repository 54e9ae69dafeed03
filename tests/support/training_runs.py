"""Training in this process, and the objective by its formula, from what is on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from altmin_dask import runs
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.networks.network import Network
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.algorithms import restore
from altmin_dask.training.checkpoint import Checkpoint


def train(pipeline: Any, folder: Path, **options: Any) -> tuple[RunFolder, Checkpoint, list[dict[str, Any]]]:
    run = RunFolder(folder)
    records = runs.train(pipeline, run, log=lambda line: None, **options)
    state = restore(run)
    assert state is not None
    return run, state, records


def sums_on_disk(
    run: RunFolder,
    state: Checkpoint,
    store: SampleStore,
    groups: list[list[int]],
    mu: list[float],
    ridge: float,
) -> tuple[float, int]:
    """Σ F_k + λ Σ ‖W̃‖² by the formula, from z on disk, over the samples that have entered."""
    model = Model.load(run.model)
    entered = round(state.algorithm_state.statistics.samples)
    total, seen = 0.0, 0
    for index, group in enumerate(groups):
        if seen == entered:
            break
        for chunk in group:
            rows = slice(chunk * store.chunk_rows, min((chunk + 1) * store.chunk_rows, store.rows))
            z = np.asarray(
                zarr.open_array(
                    f"{run.latent}/{state.algorithm_state.generations[index]:06d}.zarr", mode="r"
                )[rows]
            )
            x = np.asarray(store.x[rows]).reshape(len(z), -1)
            y = x if store.y is None or model.kind == "autoencoder" else np.asarray(store.y[rows])
            total += objective_by_hand(model.network, state.weights, mu, x, y, z)
            seen += len(z)
    return total + ridge * sum(float((w**2).sum()) for w in state.weights), seen


def objective_by_hand(network: Network, weights: Any, mu: list[float], x: Any, y: Any, z: Any) -> float:
    total, inputs, start = 0.0, x, 0
    for layer, width in enumerate(network.widths):
        part = z[:, start : start + width]
        residual = part - inputs @ weights[layer][:, :-1].T - weights[layer][:, -1]
        total += mu[layer] * float((residual**2).sum())
        last = layer + 1 == len(network.widths)
        inputs = network.loss.predict(part.copy()) if last else network.activations[layer].value(part)
        start += width
    if network.loss.target == "labels":
        shifted = part - part.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return total - float(log_p[np.arange(len(y)), y].sum())
    return total + 0.5 * float(((inputs - y.reshape(len(inputs), -1)) ** 2).sum())
