"""Element-wise activations φ with their first and second derivatives.

Both derivatives are given z and the *value* a = φ(z), which is at hand wherever a derivative is needed, and take of
them what is cheapest: of most activations the value, so that no transcendental function is evaluated twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.special import ndtr

from altmin_dask.errors import ConfigError, did_you_mean
from altmin_dask.types import Array


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
        ``derivative(z, a, out=None)`` gives φ'(z), with a = φ(z); `out` may be `z`.
    second_derivative : callable
        ``second_derivative(z, a)`` gives φ''(z), with a = φ(z) (0 at the kink of piecewise linear functions).
    inverse : callable
        ``inverse(a)`` gives a z with φ(z) near a, for a within the range of φ or at its ends.
    torch : callable
        ``torch(nn)`` makes the module of ``torch.nn``.
    onnx : callable
        ``onnx(graph, values)`` adds nodes to a graph (`altmin_dask.export.onnx`) and names what they give.
    initialization : {"glorot", "he"}
        The variance rule that keeps a forward pass at unit scale.
    rectifier : bool
        Whether φ(z) = z for z > 0: through time such values stay as they are where V is the identity.
    low, high : float
        inf φ and sup φ. Targets of an output beyond them are refused. Those at them are not, though sigmoid, tanh and
        softplus only approach theirs: the loss is finite there, and its gradient fades as z grows.
    """

    name: str
    value: Callable[..., Array]
    derivative: Callable[..., Array]
    second_derivative: Callable[[Array, Array], Array]
    inverse: Callable[[Array], Array]
    torch: Callable[[Any], Any]
    onnx: Callable[[Any, str], str]
    initialization: str = "glorot"
    rectifier: bool = False
    low: float = -math.inf
    high: float = math.inf

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel by name: another process has the same functions."""
        return get_activation, (self.name,)


def negated(a: Array, out: Array | None = None) -> Array:
    """−a, by a product: `np.negative` errs for some strides (CONTRIBUTING.md, "Known faults upstream")."""
    return np.multiply(a, -1, out=out)


def _identity(z: Array, out: Array | None = None) -> Array:
    return np.positive(z, out=out)


def _one(z: Array, a: Array, out: Array | None = None) -> Array:
    out = np.empty_like(a) if out is None else out
    out.fill(1)
    return out


def _zero(z: Array, a: Array) -> Array:
    return np.zeros_like(a)


def sigmoid(z: Array, out: Array | None = None) -> Array:
    """1 / (1 + exp(−z)), accurate in relative terms where it is small; exp may overflow to an exact 0."""
    with np.errstate(over="ignore"):
        out = negated(z, out)
        np.exp(out, out=out)
        out += 1
        return np.reciprocal(out, out=out)


def _sigmoid_derivative(z: Array, a: Array, out: Array | None = None) -> Array:
    out = np.subtract(1, a, out=out)
    out *= a
    return out


def _sigmoid_second(z: Array, a: Array) -> Array:
    return a * (1 - a) * (1 - 2 * a)


def _logit(a: Array) -> Array:
    a = np.clip(a, 0.002, 0.998)
    return np.log(a / (1 - a))


def _tanh_derivative(z: Array, a: Array, out: Array | None = None) -> Array:
    out = np.square(a, out=out)
    return np.subtract(1, out, out=out)


def _tanh_second(z: Array, a: Array) -> Array:
    return -2 * a * (1 - np.square(a))


def _artanh(a: Array) -> Array:
    return np.arctanh(np.clip(a, -0.996, 0.996))


def _relu(z: Array, out: Array | None = None) -> Array:
    return np.maximum(z, 0, out=out)


def _relu_derivative(z: Array, a: Array, out: Array | None = None) -> Array:
    out = np.empty_like(a) if out is None else out
    return np.greater(a, 0, out=out, casting="unsafe")


def _leaky_relu(z: Array, out: Array | None = None) -> Array:
    return np.maximum(z, z * z.dtype.type(LEAKY_SLOPE), out=out)


def _leaky_derivative(z: Array, a: Array, out: Array | None = None) -> Array:
    out = _relu_derivative(z, a, out)
    out *= 1 - LEAKY_SLOPE
    out += LEAKY_SLOPE
    return out


def _leaky_inverse(a: Array) -> Array:
    return np.where(a > 0, a, a / LEAKY_SLOPE)


def softplus(z: Array, out: Array | None = None) -> Array:
    """log(1 + exp(z)) = max(z, 0) + log1p(exp(−|z|)), without overflow."""
    tail = np.abs(z)
    negated(tail, tail)
    np.exp(tail, out=tail)
    np.log1p(tail, out=tail)
    out = np.maximum(z, 0, out=out)
    out += tail
    return out


def _softplus_derivative(z: Array, a: Array, out: Array | None = None) -> Array:
    # φ' = sigmoid(z) = 1 − exp(−a), by expm1 so that it stays accurate where a is tiny.
    out = negated(a, out)
    np.expm1(out, out=out)
    return negated(out, out)


def _softplus_second(z: Array, a: Array) -> Array:
    slope = -np.expm1(-a)
    return slope * (1 - slope)


def _softplus_inverse(a: Array) -> Array:
    a = np.maximum(a, 0.002)
    return a + np.log(-np.expm1(-a))


def _elu(z: Array, out: Array | None = None) -> Array:
    # max(z, 0) + expm1(min(z, 0)), of which one is 0
    above = np.maximum(z, 0)
    out = np.minimum(z, 0, out=out)
    np.expm1(out, out=out)
    out += above
    return out


def _elu_derivative(z: Array, a: Array, out: Array | None = None) -> Array:
    # not 1 + a, which has no digits left where φ comes near −1
    out = np.minimum(z, 0, out=out)
    return np.exp(out, out=out)


def _elu_second(z: Array, a: Array) -> Array:
    return np.where(z < 0, np.exp(np.minimum(z, 0)), 0)


def _elu_inverse(a: Array) -> Array:
    return np.where(a > 0, a, np.log1p(np.clip(a, -0.998, 0)))


def _silu(z: Array, out: Array | None = None) -> Array:
    out = sigmoid(z, out)
    out *= z
    return out


def _silu_derivative(z: Array, a: Array, out: Array | None = None) -> Array:
    # (zσ)' = σ + zσ(1 − σ) = σ + a(1 − σ)
    out = sigmoid(z, out)
    rest = np.subtract(1, out)
    rest *= a
    out += rest
    return out


def _silu_second(z: Array, a: Array) -> Array:
    # σ(1 − σ)(2 + z(1 − 2σ)), of which zσ is a
    s = sigmoid(z)
    return (1 - s) * (2 * s + a * (1 - 2 * s))


def _gelu(z: Array, out: Array | None = None) -> Array:
    return np.multiply(z, ndtr(z), out=out)


def _normal_density(z: Array) -> Array:
    with np.errstate(over="ignore"):
        density = np.square(z)
    density *= -0.5
    np.exp(density, out=density)
    density *= _DENSITY_AT_0
    return density


def _gelu_derivative(z: Array, a: Array, out: Array | None = None) -> Array:
    steep = _normal_density(z)
    steep *= z
    out = ndtr(z, out=out)
    out += steep
    return out


def _gelu_second(z: Array, a: Array) -> Array:
    density = _normal_density(z)
    return 2 * density - z * (z * density)


def _upper_inverse(value: Callable[[Array], Array], lowest: float, least: float) -> Callable[[Array], Array]:
    """Inverse of z g(z) that falls to `least` at `lowest`, and rises from there on, with ½ ≤ g(z) ≤ 1 for z ≥ 0."""

    def inverse(a: Array) -> Array:
        a = np.maximum(a, least + 0.001)  # at the least value itself the slope would be 0
        low, high = np.full_like(a, lowest), 2 * np.maximum(a, 0)
        for _ in range(60):
            middle = (low + high) / 2
            small = value(middle) < a
            low, high = np.where(small, middle, low), np.where(small, high, middle)
        return high

    return inverse


LEAKY_SLOPE = 0.01
_DENSITY_AT_0 = 1 / math.sqrt(2 * math.pi)
_SILU_LOWEST = -1.2784645427610738, -0.2784645427610738
_GELU_LOWEST = -0.7517915246935645, -0.16997120747990369
"""Where their derivatives vanish, and their values there."""


def _operator(name: str, **attributes: Any) -> Callable[[Any, str], str]:
    """One node of ONNX."""

    def add(graph: Any, values: str) -> str:
        node: str = graph.node(name, [values], **attributes)
        return node

    return add


def _onnx_silu(graph: Any, values: str) -> str:
    node: str = graph.node("Mul", [values, graph.node("Sigmoid", [values])])
    return node


def _onnx_gelu(graph: Any, values: str) -> str:
    # ½ z (1 + erf(z/√2)); an operator of its own came later than the opset that is written
    erf = graph.node("Erf", [graph.node("Mul", [values, graph.constant(math.sqrt(0.5))])])
    twice = graph.node("Mul", [values, graph.node("Add", [erf, graph.constant(1.0)])])
    node: str = graph.node("Mul", [twice, graph.constant(0.5)])
    return node


IDENTITY = Activation(
    "identity", _identity, _one, _zero, _identity, lambda nn: nn.Identity(), _operator("Identity")
)
_SIGMOID = Activation(
    "sigmoid",
    sigmoid,
    _sigmoid_derivative,
    _sigmoid_second,
    _logit,
    lambda nn: nn.Sigmoid(),
    _operator("Sigmoid"),
    low=0,
    high=1,
)
_TANH = Activation(
    "tanh",
    np.tanh,
    _tanh_derivative,
    _tanh_second,
    _artanh,
    lambda nn: nn.Tanh(),
    _operator("Tanh"),
    low=-1,
    high=1,
)
_RELU = Activation(
    "relu",
    _relu,
    _relu_derivative,
    _zero,
    _relu,
    lambda nn: nn.ReLU(),
    _operator("Relu"),
    "he",
    rectifier=True,
    low=0,
)
_LEAKY_RELU = Activation(
    "leaky_relu",
    _leaky_relu,
    _leaky_derivative,
    _zero,
    _leaky_inverse,
    lambda nn: nn.LeakyReLU(LEAKY_SLOPE),
    _operator("LeakyRelu", alpha=LEAKY_SLOPE),
    "he",
    rectifier=True,
)
_SOFTPLUS = Activation(
    "softplus",
    softplus,
    _softplus_derivative,
    _softplus_second,
    _softplus_inverse,
    lambda nn: nn.Softplus(),
    _operator("Softplus"),
    "he",
    low=0,
)
_ELU = Activation(
    "elu",
    _elu,
    _elu_derivative,
    _elu_second,
    _elu_inverse,
    lambda nn: nn.ELU(),
    _operator("Elu"),
    "he",
    rectifier=True,
    low=-1,
)
_SILU = Activation(
    "silu",
    _silu,
    _silu_derivative,
    _silu_second,
    _upper_inverse(_silu, *_SILU_LOWEST),
    lambda nn: nn.SiLU(),
    _onnx_silu,
    "he",
    low=_SILU_LOWEST[1],
)
_GELU = Activation(
    "gelu",
    _gelu,
    _gelu_derivative,
    _gelu_second,
    _upper_inverse(_gelu, *_GELU_LOWEST),
    lambda nn: nn.GELU(),
    _onnx_gelu,
    "he",
    low=_GELU_LOWEST[1],
)

ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        activation.name: activation
        for activation in (IDENTITY, _SIGMOID, _TANH, _RELU, _LEAKY_RELU, _SOFTPLUS, _ELU, _SILU, _GELU)
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
    out -= activation.derivative(z, value) * delta
    lost = np.abs(out) <= 4 * np.finfo(out.dtype).eps * (np.abs(value) + np.abs(moved))
    second = activation.second_derivative(z, value) * np.square(delta)
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
        raise ConfigError(
            f"activation '{name}' is unknown; choose one of {', '.join(ACTIVATIONS)}{did_you_mean(name, ACTIVATIONS)}"
        ) from None
