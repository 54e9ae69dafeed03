"""A 2-D convolution: each position of its output reads a patch of the image below, all by the same weights.

With P positions of an image and t one of them, the layer is

    z_t = W vec(patch_t(a)) + b,        patch_t(a) the kernel_size of values of a at stride · t − padding,

that is, one product W̃ ã_t for rows ã_t = [vec(patch_t); 1]. Every position is a row of ã and of z, as every step is
of a recurrent layer: statistics, gradients and Kronecker factors are sums over samples and positions, and nothing
that adds up rows has to know of images.

**Channels last.** An image is (H, W, C), and the layers' values are (n, H·W·C), flat. Then (n, P·C_out) is
(n·P, C_out) seen otherwise: what a product writes is z, and what z has is the product's rows, without a copy. A patch
is kh runs of kw·C_in numbers that stand side by side in the image. Channels first would have to be transposed on
either side of every product. Files for programs with channels first are transposed once, when they are exported.

**Kronecker factors** are those of Grosse & Martens 2016, "A Kronecker-factored approximate Fisher matrix for
convolution layers" (KFC). ∂ℓ/∂W̃ = Σ_t g_t ã_tᵀ, and if inputs and derivatives are independent, have the same moments
at all positions, and derivatives at two positions are uncorrelated, its second moment is

    E[ã ãᵀ] ⊗ Σ_t E[g_t g_tᵀ]  =  (mean over positions) ⊗ (sum over positions).

They put the sum to the inputs, and the mean to the derivatives: the same product. Here it is the sum over positions of
derivatives and the mean over rows of inputs, as for the steps of a recurrent layer, so that both factors have the units
of the dense layer's: E[ã ãᵀ] that of one row, to which ρ_i is relative, and S̄ the curvature of the loss of one sample
in z_t summed over t, to which σ is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from altmin_dask.errors import ConfigError, DataError
from altmin_dask.networks.layers.settings import LayerSettings, pair, whole
from altmin_dask.networks.workspace import Workspace
from altmin_dask.types import Array

if TYPE_CHECKING:
    from collections.abc import Sequence

AXES = "height", "width"


@dataclass(frozen=True, kw_only=True)
class ConvolutionSettings(LayerSettings):
    """`{kind = "convolution", channels = 8, kernel_size = 3, stride = 2, padding = 1}`.

    Attributes
    ----------
    channels : int
        Of the output.
    kernel_size, stride, padding : int or (int, int)
        Of both axes, or of height and width.
    """

    kind: ClassVar[str] = "convolution"
    channels: int
    kernel_size: int | tuple[int, int] = 3
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.channels, "channels")
        for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0)):
            object.__setattr__(self, name, pair(getattr(self, name), name, least))


@dataclass(frozen=True)
class Geometry:
    """Which numbers of an image every position of a convolution reads.

    Attributes
    ----------
    image : tuple of int
        H, W, C of what is read.
    kernel : tuple of int
        kh, kw.
    stride, padding : tuple of int
        Of the vertical and the horizontal axis; the padding is of zeros, on both sides.
    """

    image: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    @classmethod
    def fitting(
        cls,
        in_shape: Sequence[int],
        kernel: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
    ) -> Geometry:
        """The geometry over samples of a shape, (H, W) or (H, W, C).

        Raises
        ------
        DataError
            If they are no images.
        ConfigError
            If there is no position at which the kernel fits, or some would read nothing but padding.
        """
        if len(in_shape) not in (2, 3):
            raise DataError(
                f"a convolution reads images, and what it is given has the shape {tuple(in_shape)}; give x of shape "
                "(samples, height, width) or (samples, height, width, channels)"
            )
        for axis, size, k, p in zip(AXES, in_shape, kernel, padding, strict=False):
            if p >= k:
                raise ConfigError(
                    f"padding {p} of a convolution's {axis} is not less than its kernel_size {k}: some positions "
                    "would read nothing but zeros"
                )
            if k > size + 2 * p:
                raise ConfigError(
                    f"a convolution's kernel_size {k} exceeds the {axis} {size} of images of shape "
                    f"{tuple(in_shape)}, padded by {p} on both sides; give a smaller kernel or more padding"
                )
        height, width, *channels = in_shape
        return cls((height, width, *channels) if channels else (height, width, 1), kernel, stride, padding)

    @cached_property
    def positions(self) -> tuple[int, int]:
        """Height and width of the output."""
        height, width = (
            (size + 2 * p - k) // s + 1
            for size, k, s, p in zip(self.image, self.kernel, self.stride, self.padding, strict=False)
        )
        return height, width

    @property
    def rows(self) -> int:
        """Positions of an image, P."""
        return prod(self.positions)

    @property
    def columns(self) -> int:
        """Numbers in a patch, kh · kw · C."""
        return prod(self.kernel) * self.image[2]

    @property
    def padded(self) -> tuple[int, int, int]:
        """H, W, C of the padded image."""
        (height, width, channels), (p, q) = self.image, self.padding
        return height + 2 * p, width + 2 * q, channels

    def gather(self, values: Array, out: Array, work: Workspace) -> Array:
        """Copy the patches of images, (n, H·W·C), into rows, (n·P, kh·kw·C); `out` may be part of wider rows."""
        images = self._padded(values.reshape(-1, *self.image), work)
        windows = sliding_window_view(images, self.kernel, axis=(1, 2))[
            :, :: self.stride[0], :: self.stride[1]
        ]
        patches = out.reshape(*windows.shape[:3], *self.kernel, self.image[2], copy=False)
        patches[...] = windows.transpose(0, 1, 2, 4, 5, 3)
        return out

    def scatter(self, rows: Array, out: Array, work: Workspace) -> Array:
        """Add up in images, (n, H·W·C), what rows (n·P, kh·kw·C) hold for their numbers: the transpose of `gather`."""
        (height, width, channels), (p, q), (s, t) = self.image, self.padding, self.stride
        n, (down, across) = len(out), self.positions
        patches = rows.reshape(n, down, across, *self.kernel, channels)
        images = out.reshape(n, *self.image)
        padded = images
        if p or q:
            padded = work.take("padded", n, prod(self.padded), out.dtype).reshape(n, *self.padded)
        padded[...] = 0
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                reached = padded[:, i : i + s * (down - 1) + 1 : s, j : j + t * (across - 1) + 1 : t]
                reached += patches[:, :, :, i, j]
        if p or q:
            images[...] = padded[:, p : p + height, q : q + width]
        return out

    def _padded(self, images: Array, work: Workspace) -> Array:
        (height, width, _), (p, q) = self.image, self.padding
        if not (p or q):
            return images
        n = len(images)
        padded = work.take("padded", n, prod(self.padded), images.dtype).reshape(n, *self.padded)
        padded[...] = 0
        padded[:, p : p + height, q : q + width] = images
        return padded


@dataclass(frozen=True)
class Convolution:
    """W̃ ã at every position.

    Attributes
    ----------
    geometry : Geometry
        What every position reads.
    channels : int
        C_out.
    """

    geometry: Geometry
    channels: int

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of z of a sample."""
        return (*self.geometry.positions, self.channels)

    @property
    def width(self) -> int:
        """Numbers in z of a sample."""
        return prod(self.out_shape)

    @property
    def weight_shape(self) -> tuple[int, int]:
        """(C_out, kh · kw · C_in + 1)."""
        return self.channels, self.geometry.columns + 1

    def initial_weights(self, rng: np.random.Generator, rule: str) -> Array:
        """Uniform He or Glorot, float64, zero biases; kh · kw · C_in numbers fan in, kh · kw · C_out fan out."""
        fan_in, fan_out = self.geometry.columns, prod(self.geometry.kernel) * self.channels
        limit = np.sqrt(6 / fan_in) if rule == "he" else np.sqrt(6 / (fan_in + fan_out))
        weights = np.zeros(self.weight_shape)
        weights[:, :-1] = rng.uniform(-limit, limit, (self.channels, fan_in))
        return weights

    def inputs(self, below: Array, out: Array, work: Workspace) -> Array:
        """ã of images (n, H·W·C_in): (n·P, kh·kw·C_in + 1)."""
        self.geometry.gather(below, out[:, :-1], work)
        out[:, -1] = 1
        return out

    def propagate(self, w: Array, inputs: Array, out: Array) -> Array:
        """Z, (n, P·C_out), of ã."""
        np.matmul(inputs, w.T, out=out.reshape(-1, self.channels))
        return out

    def tangent(self, w: Array, below: Array, out: Array, work: Workspace) -> Array:
        """W on a change of the values below, (n, H·W·C_in) to (n, P·C_out)."""
        patches = work.take("patches", len(below) * self.geometry.rows, self.geometry.columns, below.dtype)
        self.geometry.gather(below, patches, work)
        np.matmul(patches, w[:, :-1].T, out=out.reshape(-1, self.channels))
        return out

    def adjoint(self, w: Array, back: Array, out: Array, work: Workspace) -> Array:
        """The transpose of `tangent`, (n, P·C_out) to (n, H·W·C_in)."""
        patches = work.take("patches", len(back) * self.geometry.rows, self.geometry.columns, back.dtype)
        np.matmul(back.reshape(-1, self.channels), w[:, :-1], out=patches)
        return self.geometry.scatter(patches, out, work)
