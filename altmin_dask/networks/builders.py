"""Networks of the usual forms, made of names and widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from altmin_dask.errors import ConfigError
from altmin_dask.networks.activations import IDENTITY, Activation, get_activation
from altmin_dask.networks.layers import Dense, Layer, Recurrent
from altmin_dask.networks.losses import get_loss
from altmin_dask.networks.mean_loss import MeanLoss
from altmin_dask.networks.network import Network


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
    _check({f"layer {i}": size for i, size in enumerate(sizes)}, "a chain")
    activations = (*_activations(activation, len(sizes) - 2), IDENTITY)
    layers = tuple(
        Dense(phi, int(k), int(d)) for phi, k, d in zip(activations, sizes[:-1], sizes[1:], strict=True)
    )
    return Network(layers, MeanLoss(get_loss(loss, output_activation)))


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
    recurrent_init: Literal["auto", "orthogonal", "identity"] = "auto",
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
        What V_i are at first; "auto" as `Recurrent.fitting` has it, of the first layer's activation.

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
    _check(named, "a recurrent network")
    activations = _activations(activation, len(recurrent_sizes) + len(head_sizes))
    if recurrent_init == "auto":
        recurrent_init = "identity" if activations[0].rectifier else "orthogonal"
    layers: list[Layer] = []
    for width in recurrent_sizes:
        below = layers[-1].units if layers else int(features)
        layers.append(Recurrent(activations[len(layers)], below, int(width), int(steps), recurrent_init))
    reads: Literal["each", "last", "all"] = "each" if every else "last"
    for width, phi in zip(
        (*head_sizes, outputs), (*activations[len(recurrent_sizes) :], IDENTITY), strict=True
    ):
        layers.append(Dense(phi, layers[-1].units, int(width), reads, 1 if reads == "all" else int(steps)))
        reads = "each" if every else "all"
    return Network(tuple(layers), MeanLoss(get_loss(loss, output_activation), int(steps) if every else None))


def _check(sizes: Mapping[str, int], what: str) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"{name} of {what} is {size}; it must be at least 1")


def _activations(names: str | Sequence[str], hidden: int) -> tuple[Activation, ...]:
    """One for each hidden layer."""
    each = [names] * hidden if isinstance(names, str) else list(names)
    if len(each) != hidden:
        raise ConfigError(f"{len(each)} activations were given for {hidden} hidden layers; give one for each")
    return tuple(get_activation(name) for name in each)
