"""The network that fits samples: its inputs and outputs follow from what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal, Self

from altmin_dask.config import NetworkTable
from altmin_dask.data.checks import is_labels
from altmin_dask.data.open import how_to_name_targets
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.summaries import Summary
from altmin_dask.errors import ConfigError, DataError
from altmin_dask.networks.builders import dense_layers, recurrent_layers, stacked_network
from altmin_dask.networks.losses import Loss, get_loss
from altmin_dask.networks.network import Network
from altmin_dask.preparation import Column
from altmin_dask.training.checks import check_layout
from altmin_dask.training.defaults import DEFAULT_LOSS, default_loss
from altmin_dask.training.labels import Classes
from altmin_dask.training.steps_of_tables import check_steps


@dataclass(frozen=True)
class DatasetSpec:
    """What a network follows from: known of a source by its header, but for the largest label.

    Attributes
    ----------
    name : str
        What messages call the samples.
    rows : int
        How many samples.
    sample_shape : tuple of int
        Shape of one.
    y_shape : tuple of int or None
        Shape of one target, None without targets.
    y_integer : bool
        Whether targets are integer labels.
    y_max : float or None
        The largest target.
    sequence_arrays : tuple of str
        What sequences have beside x and y: lengths, states.
    classes : tuple of str or None
        What labels are called, where targets were text.
    columns : tuple of Column
        Inputs of a table.
    """

    name: str
    rows: int
    sample_shape: tuple[int, ...]
    y_shape: tuple[int, ...] | None
    y_integer: bool
    y_max: float | None
    sequence_arrays: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    columns: tuple[Column, ...] = ()

    def with_classes(self, classes: Classes | None) -> Self:
        """The same with the classes that were found, which number 0 … K − 1 in the network."""
        return self if classes is None else replace(self, y_integer=True, y_max=float(classes.count - 1))

    def for_run(self, begun: Mapping[str, Any] | None) -> Self:
        """Without columns where a run goes on: it may have cut a table otherwise than new ones could."""
        return self if begun is None else replace(self, columns=())

    @classmethod
    def of(cls, store: SampleStore, ranges: Summary | None) -> Self:
        """That of a store, whose ranges may not be known."""
        shape = None if store.y is None else store.y.shape[1:]
        integer = store.y is not None and is_labels(store.y.dtype)
        return cls(
            store.path,
            store.rows,
            store.sample_shape,
            shape,
            integer,
            None if ranges is None else ranges.y_max,
            tuple(store.sequence_arrays),
            None if store.preparation is None else store.preparation.classes,
            () if store.preparation is None else store.preparation.columns,
        )


def make_network(settings: NetworkTable, samples: DatasetSpec) -> Network:
    """Make the network that fits samples.

    Raises
    ------
    DataError
        If there are no targets where there must be, or labels that are no classes.
    ConfigError
        If settings do not fit the kind of network, or each other.
    """
    target = settings.target
    loss, output_activation = default_loss(settings.loss, settings.output_activation, target)
    base = get_loss(loss, output_activation)
    if base.target == "labels" and target != "labels":
        called = "an auto-encoder" if target == "inputs" else "a regressor"
        raise ConfigError(f"network.loss = '{loss}' needs labels; {called} uses '{DEFAULT_LOSS[target]}'")
    if target == "inputs":
        outputs = prod(samples.sample_shape)
    elif samples.y_shape is None:
        raise DataError(
            f"{samples.name} has no targets y, which a {settings.kind} needs; "
            f"{how_to_name_targets(samples.name, labels=target == 'labels')}"
        )
    elif target == "labels":
        if base.target != "labels":
            raise ConfigError(
                f"network.loss = '{loss}' does not fit a classifier; use '{DEFAULT_LOSS[target]}'"
            )
        if samples.y_shape and not settings.recurrent:
            raise DataError(
                f"y of {samples.name} has labels of shape {samples.y_shape} for every sample; a classifier needs one: "
                "of one-hot rows the number of the column (y.argmax(axis=1))"
            )
        outputs = settings.classes or max(2, int(samples.y_max or 0) + 1)
    else:
        if samples.classes is not None:
            raise DataError(
                f"y of {samples.name} is text ({', '.join(samples.classes[:3])}, …), which has no distances for a "
                f"{settings.kind} to learn; give numbers, or train a {settings.kind.replace('regressor', 'classifier')}"
            )
        outputs = prod(samples.y_shape)
    if settings.recurrent:
        return _make_recurrent(settings, samples, outputs, base)
    hidden = settings.layers
    if hidden is None:
        hidden = dense_layers(settings.hidden_layer_sizes)
    return stacked_network(samples.sample_shape, hidden, outputs, base, settings.hidden_activation)


def _make_recurrent(settings: NetworkTable, samples: DatasetSpec, outputs: int, loss: Loss) -> Network:
    """Make the recurrent network that fits sequences."""
    features = prod(samples.sample_shape)
    if settings.steps is None and len(samples.sample_shape) < 2:
        raise DataError(
            f"{samples.name} has samples of shape {samples.sample_shape}, which are no sequences; give "
            "x of shape (samples, steps, features), or, where a row holds all of a sequence, step after step, say by "
            "network.steps how many there are"
        )
    steps = settings.steps or samples.sample_shape[0]
    check_steps(samples.name, samples.columns if len(samples.sample_shape) == 1 else (), steps)
    if features % steps or (samples.sequence_arrays and steps != samples.sample_shape[0]):
        raise ConfigError(
            f"network.steps = {steps} does not fit samples of shape {samples.sample_shape} in {samples.name}"
        )
    y_shape = samples.y_shape or ()
    labels = settings.target == "labels"
    every = settings.loss_at == "every"
    if settings.loss_at in (None, "auto"):
        every = len(y_shape) == (1 if labels else 2) and y_shape[0] == steps
    if every and (not y_shape or y_shape[0] != steps):
        raise DataError(
            f"y of {samples.name} has shape {y_shape} for every sample, not one target for each of {steps} steps; "
            'give such targets, or set network.loss_at = "last"'
        )
    if labels and not every and y_shape:
        raise DataError(
            f"y of {samples.name} has shape {y_shape} for every sample; the last step needs one label"
        )
    reads: Literal["each", "last"] = "each" if every else "last"
    hidden, activation = settings.layers, settings.hidden_activation
    if hidden is None:
        init = settings.recurrent_initialization or "auto"
        hidden = recurrent_layers(
            settings.hidden_layer_sizes,
            settings.head_layer_sizes,
            activation,
            reads=reads,
            recurrent_init=init,
        )
    outputs = outputs // steps if every and not labels else outputs
    return stacked_network((steps, features // steps), hidden, outputs, loss, activation, reads=reads)


def fitted(network: Network, store: SampleStore) -> Network:
    """The network as it reads a store: of the same weights, but for sequences as long as those there.

    Raises
    ------
    DataError
        If the samples do not fit.
    """
    if network.sequence_steps is not None and len(store.sample_shape) > 1:
        steps = store.features * network.sequence_steps // network.sizes[0]
        if steps != network.sequence_steps and store.sample_shape[0] == steps:
            network = network.with_steps(steps)
    check_layout(network, store)
    return network
