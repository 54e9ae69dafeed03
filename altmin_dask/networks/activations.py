"""Element-wise activations φ with their first and second derivatives.

Both derivatives are functions of the *value* a = φ(z), not of z: the value is at hand wherever a derivative is
needed, so a z-update evaluates one transcendental function per pre-activation and keeps no second array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from altmin_dask.errors import ConfigError
from altmin_dask.types import Array

LEAKY_SLOPE = 0.01


@dataclass(frozen=True)
class Activation:
    """An element-wise function φ and what the solvers need to know of it.

    Attributes
    ----------
    name : str
        The name by which settings refer to it.
    value : callable
        ``value(z, out=None)`` gives a = φ(z); finite for every finite z.
    derivative : callable
        ``derivative(a, out=None)`` gives φ'(z) from a = φ(z).
    second_derivative : callable
        ``second_derivative(a)`` gives φ''(z) from a = φ(z) (0 at the kink of piecewise linear functions).
    inverse : callable
        ``inverse(a)`` gives a z with φ(z) near a, for a within the range of φ or at its ends.
    initialization : {"glorot", "he"}
        The variance rule that keeps a forward pass at unit scale.
    low, high : float
        inf φ and sup φ. Targets of an output beyond them are refused. Those at them are not, though sigmoid, tanh and
        softplus only approach theirs: the loss is finite there, and its gradient fades as z grows.
    """

    name: str
    value: Callable[..., Array]
    derivative: Callable[..., Array]
    second_derivative: Callable[[Array], Array]
    inverse: Callable[[Array], Array]
    initialization: str = "glorot"
    low: float = -math.inf
    high: float = math.inf


def negated(a: Array, out: Array | None = None) -> Array:
    """−a, by a product: `np.negative` errs for some strides (CONTRIBUTING.md, "Known faults upstream")."""
    return np.multiply(a, -1, out=out)


def _identity(z: Array, out: Array | None = None) -> Array:
    return np.positive(z, out=out)


def _one(a: Array, out: Array | None = None) -> Array:
    out = np.empty_like(a) if out is None else out
    out.fill(1)
    return out


def sigmoid(z: Array, out: Array | None = None) -> Array:
    """1 / (1 + exp(−z)), accurate in relative terms where it is small; exp may overflow to an exact 0."""
    with np.errstate(over="ignore"):
        out = negated(z, out)
        np.exp(out, out=out)
        out += 1
        return np.reciprocal(out, out=out)


def _sigmoid_derivative(a: Array, out: Array | None = None) -> Array:
    out = np.subtract(1, a, out=out)
    out *= a
    return out


def _sigmoid_second(a: Array) -> Array:
    return a * (1 - a) * (1 - 2 * a)


def _tanh_derivative(a: Array, out: Array | None = None) -> Array:
    out = np.square(a, out=out)
    return np.subtract(1, out, out=out)


def _tanh_second(a: Array) -> Array:
    return -2 * a * (1 - np.square(a))


def _relu(z: Array, out: Array | None = None) -> Array:
    return np.maximum(z, 0, out=out)


def _relu_derivative(a: Array, out: Array | None = None) -> Array:
    out = np.empty_like(a) if out is None else out
    return np.greater(a, 0, out=out, casting="unsafe")


def _leaky_relu(z: Array, out: Array | None = None) -> Array:
    return np.maximum(z, z * z.dtype.type(LEAKY_SLOPE), out=out)


def _leaky_derivative(a: Array, out: Array | None = None) -> Array:
    out = _relu_derivative(a, out)
    out *= 1 - LEAKY_SLOPE
    out += LEAKY_SLOPE
    return out


def softplus(z: Array, out: Array | None = None) -> Array:
    """log(1 + exp(z)) = max(z, 0) + log1p(exp(−|z|)), without overflow."""
    tail = np.abs(z)
    negated(tail, tail)
    np.exp(tail, out=tail)
    np.log1p(tail, out=tail)
    out = np.maximum(z, 0, out=out)
    out += tail
    return out


def _softplus_derivative(a: Array, out: Array | None = None) -> Array:
    # φ' = sigmoid(z) = 1 − exp(−a), by expm1 so that it stays accurate where a is tiny.
    out = negated(a, out)
    np.expm1(out, out=out)
    return negated(out, out)


def _softplus_second(a: Array) -> Array:
    slope = -np.expm1(-a)
    return slope * (1 - slope)


def _logit(a: Array) -> Array:
    a = np.clip(a, 0.002, 0.998)
    return np.log(a / (1 - a))


def _artanh(a: Array) -> Array:
    return np.arctanh(np.clip(a, -0.996, 0.996))


def _leaky_inverse(a: Array) -> Array:
    return np.where(a > 0, a, a / LEAKY_SLOPE)


def _softplus_inverse(a: Array) -> Array:
    a = np.maximum(a, 0.002)
    return a + np.log(-np.expm1(-a))


ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        activation.name: activation
        for activation in (
            Activation("identity", _identity, _one, np.zeros_like, _identity),
            Activation("sigmoid", sigmoid, _sigmoid_derivative, _sigmoid_second, _logit, low=0, high=1),
            Activation("tanh", np.tanh, _tanh_derivative, _tanh_second, _artanh, low=-1, high=1),
            Activation("relu", _relu, _relu_derivative, np.zeros_like, _relu, "he", low=0),
            Activation("leaky_relu", _leaky_relu, _leaky_derivative, np.zeros_like, _leaky_inverse, "he"),
            Activation(
                "softplus", softplus, _softplus_derivative, _softplus_second, _softplus_inverse, "he", low=0
            ),
        )
    }
)
"""Every activation by name; a new one is one more entry."""


def remainder(activation: Activation, z: Array, delta: Array) -> Array:
    """φ(z + δ) − φ(z) − φ'(z) δ, which is of the size of δ², in float64: exact to some 10⁻⁸ of δ, however small.

    It is the difference as it stands, or where no digit of that is left, ½ φ''(z) δ².
    """
    z, delta = z.astype(np.float64), delta.astype(np.float64)
    value, moved = activation.value(z), activation.value(z + delta)
    out = moved - value
    out -= activation.derivative(value) * delta
    lost = np.abs(out) <= 4 * np.finfo(out.dtype).eps * (np.abs(value) + np.abs(moved))
    second = activation.second_derivative(value) * np.square(delta)
    return np.where(lost, 0.5 * second, out)


def get_activation(name: str) -> Activation:
    """Look an activation up by name.

    Raises
    ------
    ConfigError
        If there is no activation of that name.
    """
    try:
        return ACTIVATIONS[name]
    except KeyError:
        raise ConfigError(f"activation '{name}' is unknown; choose one of {', '.join(ACTIVATIONS)}") from None
