"""The weights that training starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile

import numpy as np

from altmin_dask.errors import ConfigError
from altmin_dask.execution import task_graphs
from altmin_dask.networks.activations import IDENTITY
from altmin_dask.networks.initialization import whitened_weights
from altmin_dask.networks.losses import Squared
from altmin_dask.networks.mean_loss import MeanLoss
from altmin_dask.networks.network import Network
from altmin_dask.solvers.evaluation import Moments
from altmin_dask.solvers.kfac import KFACState
from altmin_dask.solvers.schedules import KFACStep
from altmin_dask.training.checkpoint import State
from altmin_dask.training.context import RunContext
from altmin_dask.training.kfac_training import KFACTraining
from altmin_dask.training.problem import Problem
from altmin_dask.types import Weights

LAYER_STEPS = 60
"""K-FAC steps that every layer of a layer-wise start takes, but no more than two passes over the samples."""


def initial_weights(session: RunContext, chunks: tuple[int, ...]) -> Weights:
    """Weights as `[network] initialization` says.

    Parameters
    ----------
    session : Session
        The run, which has no state yet.
    chunks : tuple of int
        Those whose moments whiten a first layer.
    """
    kernel, seed = session.problem.kernel, session.pipeline.training.seed
    how = session.pipeline.network.start
    if how == "random":
        return kernel.network.initial_weights(seed, kernel.dtype)
    if how == "layerwise":
        return layerwise_weights(session)
    moments = Moments(kernel.network, session.compute(task_graphs.moments, session.problem.train, chunks))
    samples = moments.gram[-1, -1] / kernel.network.layers[0].steps
    return whitened_weights(kernel.network, moments.gram, moments.targets / samples, seed, kernel.dtype)


def given_weights(weights: Weights) -> Callable[[RunContext, tuple[int, ...]], Weights]:
    """Weights that are there already, in place of `initial_weights`.

    Raises
    ------
    ConfigError
        When they are asked for, if they are not of the network's shapes.
    """

    def initial(session: RunContext, chunks: tuple[int, ...]) -> Weights:
        kernel = session.problem.kernel
        if tuple(w.shape for w in weights) != kernel.network.shapes:
            raise ConfigError(
                f"the weights to begin with have the shapes {[w.shape for w in weights]}, "
                f"and the network's are {list(kernel.network.shapes)}"
            )
        return tuple(w.astype(kernel.dtype) for w in weights)

    return initial


def layerwise_weights(session: RunContext) -> Weights:
    """Train each hidden layer in turn as a shallow auto-encoder of the activations below it.

    The net d_{i−1} – d_i – d_{i−1} gets φ_i within, and at its output φ_{i−1}, whose values it is to give back (for the
    samples themselves: what the whole network has there if it reconstructs them, else nothing). Its first half
    becomes W̃_i; where the network is a mirror image of itself, its second half becomes the layer opposite.
    Layers that get none are random. (Hinton & Salakhutdinov 2006, "Reducing the dimensionality of data with neural
    networks", with auto-encoders in place of Boltzmann machines; DESIGN section 5.)
    """
    kernel = session.problem.kernel
    network = kernel.network
    weights = list(network.initial_weights(session.pipeline.training.seed, kernel.dtype))
    hidden = len(network.activations)
    mirrored = kernel.target == "inputs" and all(
        network.layers[-1 - i].linear() == network.layers[i].mirror() for i in range((hidden + 1) // 2)
    )
    depth = (hidden + 1) // 2 if mirrored else hidden
    for layer in range(depth):
        encoder = None
        if layer:
            encoder = (
                network.part(0, layer),
                session.weight_store.publish(tuple(weights[:layer]), f"{session.key}-below-{layer}", layer),
            )
        stage = _stage(network, layer, mirrored)
        first, second = _train(
            session, replace(kernel, network=stage, target="inputs", encoder=encoder), layer
        )
        weights[layer] = first
        if mirrored:
            weights[-1 - layer] = second
    session.weight_store.clear()
    return tuple(weights)


def _stage(network: Network, layer: int, mirrored: bool) -> Network:
    """The shallow auto-encoder of one layer."""
    loss = network.loss if mirrored and not layer else MeanLoss(Squared(IDENTITY))
    if layer:
        loss = MeanLoss(Squared(network.activations[layer - 1]))
    return Network((network.layers[layer], network.layers[layer].mirror()), loss)


def _train(session: RunContext, kernel: task_graphs.TaskContext, layer: int) -> Weights:
    """Some K-FAC steps of a shallow net, whose mean weights are returned."""
    pipeline, problem = session.pipeline, session.problem
    # in turn and by exact constraints, however the whole network is trained
    tables = {
        "training": pipeline.training.model_copy(
            update={"max_staleness": 0, "seed": pipeline.training.seed + layer}
        ),
        "solver": pipeline.solver.model_copy(update={"mu": "auto"}),
    }
    own = RunContext(
        pipeline.model_copy(update=tables),
        Problem(kernel, task_graphs.Samples(problem.train.store, "inputs"), None, problem.scale),
        session.run,
        session.executor,
    )
    weights = kernel.network.initial_weights(pipeline.training.seed + layer, kernel.dtype)
    own.state = State(weights, None, np.zeros(0, np.int64), kfac_state=KFACState.start(weights))
    form = KFACTraining(own)
    steps = min(LAYER_STEPS, 2 * len(form.groups))
    actions = (action for action in form.actions() if isinstance(action, KFACStep))
    for action in takewhile(lambda _: own.state.cursor < steps, actions):
        form.act(action)
        own.state.cursor += 1
    return form.weights
