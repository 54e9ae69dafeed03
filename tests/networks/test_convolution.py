"""The convolution against PyTorch, against loops that can be read, and its own transpose."""

from __future__ import annotations

import numpy as np
import pytest

from altmin_dask.errors import ConfigError, DataError
from altmin_dask.networks.activations import get_activation
from altmin_dask.networks.layers import Block
from altmin_dask.networks.layers.convolution import Convolution, ConvolutionSettings

CASES = {
    "plain": ((5, 6, 1), (3, 3), (1, 1), (0, 0)),
    "padded": ((5, 5, 2), (3, 3), (1, 1), (1, 1)),
    "strided": ((8, 8, 3), (3, 3), (2, 2), (1, 1)),
    "oblong": ((7, 9, 2), (2, 5), (3, 2), (1, 2)),
    "unread": (
        (6, 6, 2),
        (2, 2),
        (3, 3),
        (0, 0),
    ),  # stride exceeds the kernel, and some values are read by nobody
    "whole": ((4, 3, 2), (4, 3), (1, 1), (0, 0)),
    "pointwise": ((3, 3, 4), (1, 1), (1, 1), (0, 0)),
}
cases = pytest.mark.parametrize("case", CASES)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def convolution(case: str, channels: int = 4, activation: str = "tanh") -> Convolution:
    shape, kernel, stride, padding = CASES[case]
    settings = ConvolutionSettings(channels=channels, kernel_size=kernel, stride=stride, padding=padding)
    return fitted(shape, settings, activation)


def fitted(shape: tuple[int, ...], settings: ConvolutionSettings, activation: str = "tanh") -> Convolution:
    return settings.build(shape, get_activation(activation))


def drawn(layer: Convolution, dtype: str = "float64", samples: int = 3) -> tuple[np.ndarray, ...]:
    """Images, weights, and something of z's shape."""
    rng = np.random.default_rng(3)
    shapes = (samples, layer.in_size), layer.weight_shape, (samples, layer.size)
    return tuple(rng.normal(size=shape).astype(dtype) for shape in shapes)


def passed(layer: Convolution, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    inputs = np.empty((len(x), layer.steps * layer.inputs), x.dtype)
    layer.fill(inputs, x, None, Block())
    return (inputs.reshape(-1, layer.inputs) @ w.T).reshape(len(x), layer.size)


def looped(layer: Convolution, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The definition, one number after the other, in float64."""
    (height, width, channels), (kh, kw) = layer.image_shape, layer.kernel_size
    (s, t), (p, q) = layer.stride, layer.padding
    images = x.reshape(-1, height, width, channels).astype(np.float64)
    kernel = w[:, :-1].reshape(-1, kh, kw, channels).astype(np.float64)
    out = np.zeros((len(x), *layer.out_shape))
    for n, row, column, k in np.ndindex(out.shape):
        out[n, row, column, k] = w[k, -1]
        for i, j, c in np.ndindex(kh, kw, channels):
            a, b = row * s + i - p, column * t + j - q
            if 0 <= a < height and 0 <= b < width:
                out[n, row, column, k] += kernel[k, i, j, c] * images[n, a, b, c]
    return out.reshape(len(x), -1)


@cases
@dtypes
def test_forward_is_the_definition(case: str, dtype: str) -> None:
    layer = convolution(case)
    x, w, _ = drawn(layer, dtype)
    exact = looped(layer, x, w)
    # a sum of k products, of which each is rounded: its error is at most k ε Σ |w||a|
    bound = layer.weight_shape[1] * np.finfo(dtype).eps * looped(layer, abs(x), abs(w))
    assert (abs(passed(layer, x, w) - exact) <= bound).all()


@cases
@dtypes
def test_forward_and_gradient_are_those_of_pytorch(case: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    layer = convolution(case)
    x, w, h = drawn(layer, dtype)
    height, width, channels = layer.image_shape
    images = torch.tensor(x.reshape(-1, height, width, channels).transpose(0, 3, 1, 2), requires_grad=True)
    kernel, bias = torch.tensor(layer.kernel(w)), torch.tensor(w[:, -1])
    z = torch.nn.functional.conv2d(images, kernel, bias, layer.stride, layer.padding)
    assert z.shape[1:] == (layer.channels, *layer.positions)
    z.backward(torch.tensor(h.reshape(-1, *layer.out_shape).transpose(0, 3, 1, 2)))
    tolerance = 64 * np.finfo(dtype).eps
    flat = z.detach().numpy().transpose(0, 2, 3, 1).reshape(len(x), -1)
    np.testing.assert_allclose(passed(layer, x, w), flat, rtol=tolerance, atol=tolerance * abs(flat).max())
    gradient = images.grad.numpy().transpose(0, 2, 3, 1).reshape(len(x), -1)
    back = layer.adjoint(w, h, np.empty_like(x), Block())
    np.testing.assert_allclose(back, gradient, rtol=tolerance, atol=tolerance * abs(gradient).max())


@cases
@dtypes
def test_adjoint_is_the_transpose_of_the_tangent(case: str, dtype: str) -> None:
    layer = convolution(case)
    x, w, h = drawn(layer, dtype)
    every, block = np.eye(layer.size, dtype=dtype), Block()
    adjoint = layer.adjoint(w, every, np.empty((layer.size, layer.in_size), dtype), block)
    # every entry is one weight or none: nothing is rounded
    np.testing.assert_array_equal(adjoint, layer.matrix(w))
    forth = layer.image(w, x, None, np.empty_like(h), block)
    back = layer.adjoint(w, h, np.empty_like(x), block)
    scale = np.finfo(dtype).eps / np.finfo(np.float64).eps * 1e-12
    assert abs(np.vdot(h, forth) - np.vdot(back, x)) < scale * np.linalg.norm(h) * np.linalg.norm(forth)


@cases
def test_image_is_forward_without_the_bias(case: str) -> None:
    layer = convolution(case)
    x, w, h = drawn(layer)
    w[:, -1] = 0
    moved = layer.image(w, x, None, np.empty_like(h), Block())
    np.testing.assert_allclose(moved, passed(layer, x, w), rtol=1e-13, atol=1e-13)


def test_scratch_of_other_layers_leaves_no_trace() -> None:
    block = Block()
    for case in CASES:
        for samples in (5, 2):
            layer = convolution(case)
            x, w, h = drawn(layer, samples=samples)
            for array in block.work._arrays.values():
                array.fill(np.nan)
            found = layer.adjoint(w, h, np.empty_like(x), block)
            np.testing.assert_array_equal(found, layer.adjoint(w, h, np.empty_like(x), Block()))
            again = layer.image(w, x, None, np.empty_like(h), block)
            np.testing.assert_array_equal(again, layer.image(w, x, None, np.empty_like(h), Block()))


def test_values_may_have_gaps_and_samples_another_dtype() -> None:
    layer = convolution("padded")
    x, w, _ = drawn(layer, "float32")
    wide = np.full((len(x), layer.in_size + 1), np.nan)
    wide[:, :-1] = x
    np.testing.assert_array_equal(
        passed(layer, wide[:, :-1], w.astype(float)), passed(layer, x.astype(float), w.astype(float))
    )
    inputs = [np.empty((len(x), layer.steps * layer.inputs), "float32") for _ in range(2)]
    for out, values in zip(inputs, (x, wide[:, :-1]), strict=True):
        layer.fill(out, values, None, Block())
    np.testing.assert_array_equal(*inputs)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_weights_start_at_the_variance_of_their_rule(activation: str) -> None:
    layer = fitted((9, 9, 8), ConvolutionSettings(channels=64), activation)
    w = layer.initial_weights(np.random.default_rng(0))
    # He et al. 2015 and Glorot & Bengio 2010, a patch fanning in and a kernel's outputs fanning out
    variance = 2 / (9 * 8) if activation == "relu" else 2 / (9 * (8 + 64))
    assert w.shape == (64, 73)
    assert not w[:, -1].any()
    # of 4608 uniform numbers: the variance of a sample variance is 4/5 σ⁴ / n
    assert abs(w[:, :-1].var() / variance - 1) < 4 * np.sqrt(0.8 / w[:, :-1].size)


def test_samples_that_are_no_images_are_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(64,\); give x of shape \(samples, height, width\)"):
        fitted((64,), ConvolutionSettings(channels=2))
    with pytest.raises(DataError, match="a convolution reads images"):
        fitted((2, 8, 8, 1), ConvolutionSettings(channels=2))


def test_geometry_that_cannot_be_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"kernel_size 5 exceeds the width 4 of images of shape \(8, 4, 1\)"
    ):
        fitted((8, 4), ConvolutionSettings(channels=2, kernel_size=5))
    with pytest.raises(ConfigError, match="padding 3 of a convolution's height is not less than its kernel"):
        fitted((8, 8), ConvolutionSettings(channels=2, padding=(3, 0)))


def test_grey_images_have_one_channel() -> None:
    settings = ConvolutionSettings(channels=2, stride=2, padding=1)
    assert fitted((8, 6), settings) == fitted((8, 6, 1), settings)
    assert fitted((8, 6), settings).out_shape == (4, 3, 2)
