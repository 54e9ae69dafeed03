"""The convolution against PyTorch, against loops that can be read, and its own transpose."""

from __future__ import annotations

import numpy as np
import pytest

from altmin_dask.errors import ConfigError, DataError
from altmin_dask.networks.layers.convolution import Convolution, Geometry
from altmin_dask.networks.workspace import Workspace

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


def convolution(case: str, channels: int = 4) -> Convolution:
    return Convolution(Geometry.fitting(*CASES[case]), channels)


def drawn(layer: Convolution, dtype: str = "float64", samples: int = 3) -> tuple[np.ndarray, ...]:
    """Images, weights, and something of z's shape."""
    rng = np.random.default_rng(3)
    shapes = (samples, int(np.prod(layer.geometry.image))), layer.weight_shape, (samples, layer.width)
    return tuple(rng.normal(size=shape).astype(dtype) for shape in shapes)


def passed(layer: Convolution, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    rows, columns = len(x) * layer.geometry.rows, layer.weight_shape[1]
    inputs = layer.inputs(x, np.empty((rows, columns), x.dtype), Workspace())
    return layer.propagate(w, inputs, np.empty((len(x), layer.width), x.dtype))


def looped(layer: Convolution, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The definition, one number after the other, in float64."""
    (height, width, channels), (kh, kw) = layer.geometry.image, layer.geometry.kernel
    (s, t), (p, q) = layer.geometry.stride, layer.geometry.padding
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
    height, width, channels = layer.geometry.image
    images = torch.tensor(x.reshape(-1, height, width, channels).transpose(0, 3, 1, 2), requires_grad=True)
    kernel = w[:, :-1].reshape(-1, *layer.geometry.kernel, channels).transpose(0, 3, 1, 2)
    z = torch.nn.functional.conv2d(
        images,
        torch.tensor(kernel),
        torch.tensor(w[:, -1]),
        layer.geometry.stride,
        layer.geometry.padding,
    )
    assert z.shape[1:] == (layer.channels, *layer.geometry.positions)
    z.backward(torch.tensor(h.reshape(-1, *layer.out_shape).transpose(0, 3, 1, 2)))
    tolerance = 64 * np.finfo(dtype).eps
    flat = z.detach().numpy().transpose(0, 2, 3, 1).reshape(len(x), -1)
    np.testing.assert_allclose(passed(layer, x, w), flat, rtol=tolerance, atol=tolerance * abs(flat).max())
    gradient = images.grad.numpy().transpose(0, 2, 3, 1).reshape(len(x), -1)
    back = layer.adjoint(w, h, np.empty_like(x), Workspace())
    np.testing.assert_allclose(back, gradient, rtol=tolerance, atol=tolerance * abs(gradient).max())


@cases
@dtypes
def test_adjoint_is_the_transpose_of_the_tangent(case: str, dtype: str) -> None:
    layer = convolution(case)
    size = int(np.prod(layer.geometry.image))
    _, w, _ = drawn(layer, dtype)
    work = Workspace()
    tangent = layer.tangent(w, np.eye(size, dtype=dtype), np.empty((size, layer.width), dtype), work).copy()
    every = np.eye(layer.width, dtype=dtype)
    adjoint = layer.adjoint(w, every, np.empty((layer.width, size), dtype), work)
    # every entry is one weight, or none: nothing is rounded but by sums of zeros
    np.testing.assert_array_equal(adjoint, tangent.T)
    x, _, h = drawn(layer, dtype)
    forth = layer.tangent(w, x, np.empty_like(h), work).copy()
    back = layer.adjoint(w, h, np.empty_like(x), work)
    scale = np.finfo(dtype).eps / np.finfo(np.float64).eps * 1e-12
    assert abs(np.vdot(h, forth) - np.vdot(back, x)) < scale * np.linalg.norm(h) * np.linalg.norm(forth)


@cases
def test_tangent_is_forward_without_the_bias(case: str) -> None:
    layer = convolution(case)
    x, w, h = drawn(layer)
    w[:, -1] = 0
    moved = layer.tangent(w, x, np.empty_like(h), Workspace())
    np.testing.assert_allclose(moved, passed(layer, x, w), rtol=1e-13, atol=1e-13)


def test_scratch_of_other_layers_leaves_no_trace() -> None:
    work = Workspace()
    for case in CASES:
        for samples in (5, 2):
            layer = convolution(case)
            x, w, h = drawn(layer, samples=samples)
            for array in work._arrays.values():
                array.fill(np.nan)
            found = layer.adjoint(w, h, np.empty_like(x), work)
            np.testing.assert_array_equal(found, layer.adjoint(w, h, np.empty_like(x), Workspace()))
            again = layer.tangent(w, x, np.empty_like(h), work)
            np.testing.assert_array_equal(again, layer.tangent(w, x, np.empty_like(h), Workspace()))


@pytest.mark.parametrize("rule", ["he", "glorot"])
def test_weights_start_at_the_variance_of_their_rule(rule: str) -> None:
    layer = Convolution(Geometry.fitting((9, 9, 8), (3, 3)), 64)
    w = layer.initial_weights(np.random.default_rng(0), rule)
    fans = 9 * 8 if rule == "he" else 9 * (8 + 64) / 2
    variance = 2 / fans if rule == "he" else 1 / fans
    assert w.shape == (64, 73)
    assert not w[:, -1].any()
    # of 4608 uniform numbers: the variance of a sample variance is 4/5 σ⁴ / n
    assert abs(w[:, :-1].var() / variance - 1) < 4 * np.sqrt(0.8 / w[:, :-1].size)


def test_samples_that_are_no_images_are_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(64,\); give x of shape \(samples, height, width\)"):
        Geometry.fitting((64,), (3, 3))
    with pytest.raises(DataError, match="a convolution reads images"):
        Geometry.fitting((2, 8, 8, 1), (3, 3))


def test_geometry_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"kernel_size 5 exceeds the width 4 of images of shape \(8, 4\)"):
        Geometry.fitting((8, 4), (5, 5))
    with pytest.raises(ConfigError, match="padding 3 of a convolution's height is not less than its kernel"):
        Geometry.fitting((8, 8), (3, 3), padding=(3, 0))


def test_grey_images_have_one_channel() -> None:
    geometry = Geometry.fitting((8, 6), (3, 3), stride=(2, 2), padding=(1, 1))
    assert geometry == Geometry.fitting((8, 6, 1), (3, 3), (2, 2), (1, 1))
    assert geometry.positions == (4, 3)
