"""Networks of what settings say of their layers, and of the usual forms made of names and widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from altmin_dask.errors import ConfigError
from altmin_dask.networks.activations import IDENTITY, get_activation
from altmin_dask.networks.layers import DenseSettings, Layer, LayerSettings, RecurrentSettings
from altmin_dask.networks.losses import Loss, get_loss
from altmin_dask.networks.mean_loss import MeanLoss
from altmin_dask.networks.network import Network


def stacked_network(
    in_shape: Sequence[int],
    hidden: Sequence[LayerSettings],
    outputs: int,
    loss: Loss,
    activation: str | Sequence[str] = "sigmoid",
    *,
    reads: Literal["all", "each", "last"] = "all",
) -> Network:
    """Make a network of hidden layers of any kind, and a dense output layer.

    Parameters
    ----------
    in_shape : sequence of int
        Shape of a sample: (features,), (steps, features), (height, width), …
    hidden : sequence of LayerSettings
        Of each hidden layer, the first one first.
    outputs : int
        d_L.
    loss : Loss
        ℓ with its output activation φ_L.
    activation : str or sequence of str
        Of hidden layers whose settings name none: one for all, or one for each hidden layer.
    reads : {"all", "each", "last"}
        As `DenseSettings` has it, of the output layer; the last step only where there still are steps.

    Raises
    ------
    DataError, ConfigError
        If a layer does not fit what is below it, a name is unknown, or the lengths do not match.
    """
    shape, layers = tuple(in_shape), list[Layer]()
    for settings, name in zip(hidden, _each(activation, len(hidden)), strict=True):
        layers.append(settings.build(shape, get_activation(settings.activation or name)))
        shape = layers[-1].out_shape
    top = DenseSettings(units=outputs, reads="all" if reads == "last" and len(shape) != 2 else reads)
    layers.append(top.build(shape, IDENTITY))
    return Network(tuple(layers), MeanLoss(loss, layers[-1].steps if reads == "each" else None))


def dense_layers(widths: Sequence[int]) -> tuple[LayerSettings, ...]:
    """The hidden layers of a chain."""
    return tuple(DenseSettings(units=int(width)) for width in widths)


def recurrent_layers(
    widths: Sequence[int],
    head_widths: Sequence[int],
    activation: str | Sequence[str],
    *,
    reads: Literal["each", "last"],
    recurrent_init: Literal["auto", "orthogonal", "identity"] = "auto",
) -> tuple[LayerSettings, ...]:
    """The hidden layers of a recurrent network, and dense ones on top that read the last step or each.

    All V begin alike, by the activation of the first layer where `recurrent_init` is "auto".
    """
    if recurrent_init == "auto":
        first = get_activation(_each(activation, len(widths) + len(head_widths))[0])
        recurrent_init = "identity" if first.rectifier else "orthogonal"
    head: list[LayerSettings] = [
        DenseSettings(units=int(width), reads="all" if number and reads == "last" else reads)
        for number, width in enumerate(head_widths)
    ]
    below = [RecurrentSettings(units=int(width), recurrent_init=recurrent_init) for width in widths]
    return (*below, *head)


def dense_network(
    sizes: Sequence[int],
    activation: str | Sequence[str] = "sigmoid",
    loss: str = "squared",
    output_activation: str | None = None,
) -> Network:
    """Make a chain of dense layers.

    Parameters
    ----------
    sizes : sequence of int
        d_0 (numbers in a sample) … d_L, at least two.
    activation : str or sequence of str
        One name for all hidden layers, or one for each.
    loss, output_activation : str
        See `get_loss`.

    Raises
    ------
    ConfigError
        If a width is not positive, a name is unknown, or the lengths do not match.
    """
    if len(sizes) < 2:
        raise ConfigError("a chain needs at least an input and an output width")
    for layer, size in enumerate(sizes):
        if size < 1:
            raise ConfigError(f"layer {layer} has width {size}; every width must be at least 1")
    first, *hidden, last = map(int, sizes)
    return stacked_network(
        (first,), dense_layers(hidden), last, get_loss(loss, output_activation), activation
    )


def recurrent_network(
    features: int,
    steps: int,
    recurrent_sizes: Sequence[int],
    outputs: int,
    head_sizes: Sequence[int] = (),
    activation: str | Sequence[str] = "tanh",
    loss: str = "squared",
    output_activation: str | None = None,
    *,
    every: bool = False,
    recurrent_init: Literal["auto", "orthogonal", "identity"] = "orthogonal",
) -> Network:
    """Make a stack of recurrent layers with dense ones on top, and a loss at the last step or at every step.

    Parameters
    ----------
    features, steps : int
        Numbers in one step of a sample, and T.
    recurrent_sizes, head_sizes : sequence of int
        Widths of the recurrent layers, and of the hidden layers on top.
    outputs : int
        d_L.
    activation : str or sequence of str
        One name for all hidden layers, or one for each, recurrent ones first.
    loss, output_activation : str
        See `get_loss`.
    every : bool
        Whether there is a loss at every step, or at the last one of a sequence.
    recurrent_init : {"auto", "orthogonal", "identity"}
        What V_i are at first; see `recurrent_layers`.

    Raises
    ------
    ConfigError
        If a width or the number of steps is not positive, there is no recurrent layer, a name is unknown, or the
        lengths do not match.
    """
    if not recurrent_sizes:
        raise ConfigError("a recurrent network needs at least one recurrent layer")
    named = {"features": features, "steps": steps, "outputs": outputs}
    named |= {f"layer {i}": d for i, d in enumerate((*recurrent_sizes, *head_sizes), 1)}
    for name, size in named.items():
        if size < 1:
            raise ConfigError(f"{name} of a recurrent network is {size}; it must be at least 1")
    reads: Literal["each", "last"] = "each" if every else "last"
    names = _each(activation, len(recurrent_sizes) + len(head_sizes))
    hidden = recurrent_layers(recurrent_sizes, head_sizes, names, reads=reads, recurrent_init=recurrent_init)
    shape, loss_of_output = (int(steps), int(features)), get_loss(loss, output_activation)
    return stacked_network(shape, hidden, int(outputs), loss_of_output, names, reads=reads)


def _each(names: str | Sequence[str], hidden: int) -> list[str]:
    """One activation for each hidden layer."""
    each = [names] * hidden if isinstance(names, str) else list(names)
    if len(each) != hidden:
        raise ConfigError(f"{len(each)} activations were given for {hidden} hidden layers; give one for each")
    return each
