"""The weights that training starts from."""

from __future__ import annotations

from altmin_dask.engine import sweep
from altmin_dask.engine.session import Session
from altmin_dask.networks.chain import Weights
from altmin_dask.networks.whitening import whitened_weights


def initial_weights(session: Session, chunks: tuple[int, ...]) -> Weights:
    """Random weights, or weights from the moments of some chunks."""
    kernel, seed = session.problem.kernel, session.pipeline.training.seed
    if session.pipeline.network.initialization == "random":
        return kernel.network.initial_weights(seed, kernel.dtype)
    packed = session.compute(sweep.moments, session.problem.train, chunks)
    k = kernel.network.shapes[0][1]
    gram, targets = packed[: k * k].reshape(k, k), packed[k * k :]
    return whitened_weights(kernel.network, gram, targets / gram[-1, -1], seed, kernel.dtype)
