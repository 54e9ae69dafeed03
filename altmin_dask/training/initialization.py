"""The weights that training starts from."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import islice

from altmin_dask.errors import ConfigError
from altmin_dask.execution import task_graphs
from altmin_dask.execution.tasks import TaskContext
from altmin_dask.networks.activations import IDENTITY
from altmin_dask.networks.initialization import Directions, whitened_weights
from altmin_dask.networks.losses import Squared
from altmin_dask.networks.mean_loss import MeanLoss
from altmin_dask.networks.network import Network
from altmin_dask.solvers.evaluation import Moments
from altmin_dask.training.algorithm import Initial, advance
from altmin_dask.training.context import RunContext
from altmin_dask.training.defaults import resolve
from altmin_dask.training.grouping import RowGroup
from altmin_dask.training.kfac_training import KFACTraining
from altmin_dask.training.wide_inputs import forms_of, row_space
from altmin_dask.types import Weights

LAYER_STEPS = 60
"""K-FAC steps that every layer of a layer-wise start takes, but no more than two passes over the samples."""


def initial_weights(context: RunContext, group: RowGroup) -> Weights:
    """Weights as `[network] initialization` says.

    Parameters
    ----------
    context : RunContext
        The run, of which nothing is committed yet.
    group : RowGroup
        Whose moments whiten a first layer.
    """
    network, dtype = context.network, context.problem.task_context.dtype
    seed = context.pipeline.training.seed
    how = context.settings.initialization
    if how == "random":
        return network.initial_weights(seed, dtype)
    if how == "layerwise":
        return layerwise_weights(context)
    units, wide = network.layers[0].units, bool(forms_of(context).rows)
    packed = context.compute(partial(task_graphs.moments, with_gram=not wide), context.problem.train, group)
    moments = Moments(network, packed, with_gram=not wide)
    if wide:
        space = row_space(context, group)
        mean = moments.targets / space.rows
        return whitened_weights(network, space.directions(units), mean, seed, dtype)
    samples = moments.gram[-1, -1] / network.layers[0].steps
    directions = Directions.of_moments(moments.gram, units)
    return whitened_weights(network, directions, moments.targets / samples, seed, dtype)


def given_weights(weights: Weights) -> Initial:
    """Weights that are there already, in place of `initial_weights`.

    Raises
    ------
    ConfigError
        When they are asked for, if they are not of the network's shapes.
    """

    def initial(context: RunContext, group: RowGroup) -> Weights:
        if tuple(w.shape for w in weights) != context.network.shapes:
            raise ConfigError(
                f"the weights to begin with have the shapes {[w.shape for w in weights]}, "
                f"and the network's are {list(context.network.shapes)}"
            )
        begun = context.problem.train.standard.unfold(weights)
        return tuple(w.astype(context.problem.task_context.dtype) for w in begun)

    return initial


def layerwise_weights(context: RunContext) -> Weights:
    """Train each hidden layer in turn as a shallow auto-encoder of the activations below it.

    The net d_{i−1} – d_i – d_{i−1} gets φ_i within, and at its output φ_{i−1}, whose values it is to give back (for the
    samples themselves: what the whole network has there if it reconstructs them, else nothing). Its first half
    becomes W̃_i; where the network is a mirror image of itself, its second half becomes the layer opposite.
    Layers that get none are random. (Hinton & Salakhutdinov 2006, "Reducing the dimensionality of data with neural
    networks", with auto-encoders in place of Boltzmann machines; DESIGN section 5.)
    """
    task_context = context.problem.task_context
    network = task_context.network
    weights = list(network.initial_weights(context.pipeline.training.seed, task_context.dtype))
    hidden = len(network.activations)
    mirrored = task_context.target == "inputs" and all(
        network.layers[-1 - i].linear() == network.layers[i].mirror() for i in range((hidden + 1) // 2)
    )
    depth = (hidden + 1) // 2 if mirrored else hidden
    for layer in range(depth):
        encoder = None
        if layer:
            encoder = (
                network.part(0, layer),
                context.weight_store.publish(tuple(weights[:layer]), f"{context.key}-below-{layer}", layer),
            )
        stage = _stage(network, layer, mirrored)
        first, second = _train(
            context, replace(task_context, network=stage, target="inputs", encoder=encoder), layer
        )
        weights[layer] = first
        if mirrored:
            weights[-1 - layer] = second
    context.weight_store.clear()
    return tuple(weights)


def _stage(network: Network, layer: int, mirrored: bool) -> Network:
    """The shallow auto-encoder of one layer."""
    loss = network.loss if mirrored and not layer else MeanLoss(Squared(IDENTITY))
    if layer:
        loss = MeanLoss(Squared(network.activations[layer - 1]))
    return Network((network.layers[layer], network.layers[layer].mirror()), loss)


def _train(context: RunContext, task_context: TaskContext, layer: int) -> Weights:
    """Some K-FAC steps of a shallow net, whose mean weights are returned."""
    pipeline, problem = context.pipeline, context.problem
    # in turn and by exact constraints, however the whole network is trained
    training = {"schedule": "kfac", "max_staleness": 0, "seed": pipeline.training.seed + layer}
    tables = {
        "training": pipeline.training.model_copy(update=training),
        "solver": pipeline.solver.model_copy(
            update={"mu": "auto", "penalty": "l2", "ridge": problem.settings.ridge, "weight_decay": 0.0}
        ),
    }
    pipeline, store = pipeline.model_copy(update=tables), problem.train.store
    samples, settings = (
        replace(problem.train, target="inputs"),
        resolve(pipeline, task_context.network, store.rows, store.chunk_rows),
    )
    own = RunContext(
        pipeline,
        replace(problem, task_context=task_context, train=samples, validation=None, settings=settings),
        context.run,
        context.executor,
    )
    algorithm = KFACTraining(own)
    algorithm.init(
        lambda context, group: task_context.network.initial_weights(
            pipeline.training.seed, task_context.dtype
        )
    )
    steps = (action for action in algorithm.actions() if action.kind == "step")
    for action in islice(steps, min(LAYER_STEPS, 2 * len(algorithm.groups))):
        advance(own, algorithm, action)
    algorithm.drain()
    return algorithm.weights
