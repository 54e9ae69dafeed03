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

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from altmin_dask.errors import ConfigError, DataError
from altmin_dask.networks.activations import IDENTITY, Activation
from altmin_dask.networks.layers.dense import Dense
from altmin_dask.networks.layers.layer import Block, Layer, uniform
from altmin_dask.networks.layers.settings import LayerSettings, whole
from altmin_dask.networks.workspace import Workspace
from altmin_dask.types import Array

AXES = "height", "width"


@dataclass(frozen=True)
class Convolution(Layer):
    """W̃ [patch; 1] at every position.

    Attributes
    ----------
    image_shape : tuple of int
        H, W, C_in of what is read.
    channels : int
        C_out.
    kernel_size, stride, padding : tuple of int
        Of height and width; the padding is of zeros, on both sides.
    """

    image_shape: tuple[int, int, int]
    channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    kind: ClassVar[str] = "convolution"

    def __post_init__(self) -> None:
        shape = self.image_shape
        for axis, size, k, p in zip(AXES, shape, self.kernel_size, self.padding, strict=False):
            if p >= k:
                raise ConfigError(
                    f"padding {p} of a convolution's {axis} is not less than its kernel_size {k}: some positions "
                    "would read nothing but zeros"
                )
            if k > size + 2 * p:
                raise ConfigError(
                    f"a convolution's kernel_size {k} exceeds the {axis} {size} of images of shape {shape}, padded by "
                    f"{p} on both sides; give a smaller kernel or more padding"
                )

    # --- shape

    @property
    def positions(self) -> tuple[int, int]:
        """Height and width of the output."""
        height, width = (
            (size + 2 * p - k) // s + 1
            for size, k, s, p in zip(
                self.image_shape, self.kernel_size, self.stride, self.padding, strict=False
            )
        )
        return height, width

    @property
    def steps(self) -> int:
        return prod(self.positions)

    @property
    def patch_size(self) -> int:
        """Numbers in a patch, kh · kw · C_in."""
        return prod(self.kernel_size) * self.image_shape[2]

    @property
    def weight_shape(self) -> tuple[int, int]:
        return self.channels, self.patch_size + 1

    @property
    def in_size(self) -> int:
        return prod(self.image_shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return (*self.positions, self.channels)

    # --- patches

    def gather(self, values: Array, out: Array, work: Workspace) -> Array:
        """Copy the patches of images, (n, H·W·C), into rows, (n·P, kh·kw·C), that may be part of wider ones."""
        images = values.reshape(-1, *self.image_shape)
        if any(self.padding):
            padded, inner = self._padded(len(images), out.dtype, work)
            padded[...] = 0
            inner[...] = images
            images = padded
        windows = sliding_window_view(images, self.kernel_size, axis=(1, 2))
        windows = windows[:, :: self.stride[0], :: self.stride[1]].transpose(0, 1, 2, 4, 5, 3)
        out.reshape(windows.shape, copy=False)[...] = windows
        return out

    def scatter(self, rows: Array, out: Array, work: Workspace) -> Array:
        """Add up in images, (n, H·W·C), what rows (n·P, kh·kw·C) hold for their numbers: the transpose of `gather`."""
        (down, across), (s, t) = self.positions, self.stride
        patches = rows.reshape(-1, down, across, *self.kernel_size, self.image_shape[2])
        images = out.reshape(-1, *self.image_shape)
        padded, inner = self._padded(len(images), out.dtype, work) if any(self.padding) else (images, images)
        padded[...] = 0
        for i, j in np.ndindex(self.kernel_size):
            reached = padded[:, i : i + s * (down - 1) + 1 : s, j : j + t * (across - 1) + 1 : t]
            reached += patches[:, :, :, i, j]
        if inner is not images:
            images[...] = inner
        return out

    def _padded(self, n: int, dtype: Any, work: Workspace) -> tuple[Array, Array]:
        """Room for padded images, and the images within it."""
        (height, width, _), (p, q), shape = self.image_shape, self.padding, self._padded_shape
        padded = work.take("padded", n, prod(shape), dtype).reshape(n, *shape)
        return padded, padded[:, p : p + height, q : q + width]

    @property
    def _padded_shape(self) -> tuple[int, int, int]:
        (height, width, channels), (p, q) = self.image_shape, self.padding
        return height + 2 * p, width + 2 * q, channels

    def _patches(self, n: int, dtype: Any, work: Workspace) -> Array:
        """Room for the patches of all positions."""
        return work.take("patches", n, self.steps * self.patch_size, dtype).reshape(-1, self.patch_size)

    # --- the rows that weights act on, and the linear map

    def fill(self, inputs: Array, below: Array | None, own: Array | None, block: Block) -> None:
        assert below is not None  # there is no place for it
        rows = inputs.reshape(-1, self.inputs)
        self.gather(below, rows[:, :-1], block.work)
        rows[:, -1] = 1

    def image(self, w: Array, below: Array, own: Array | None, out: Array, block: Block) -> Array:
        patches = self.gather(below, self._patches(len(below), below.dtype, block.work), block.work)
        np.matmul(patches, w[:, :-1].T, out=out.reshape(-1, self.channels))
        return out

    def adjoint(self, w: Array, back: Array, out: Array, block: Block) -> Array:
        patches = self._patches(len(back), back.dtype, block.work)
        np.matmul(back.reshape(-1, self.channels), w[:, :-1], out=patches)
        return self.scatter(patches, out, block.work)

    def matrix(self, w: Array) -> Array:
        (height, width, channels), (p, q), (s, t) = self.image_shape, self.padding, self.stride
        down, across = np.divmod(np.arange(self.steps), self.positions[1])
        padded = np.zeros((self.steps, self.channels, *self._padded_shape), w.dtype)
        kernel = w[:, :-1].reshape(self.channels, *self.kernel_size, channels)
        for i, j in np.ndindex(self.kernel_size):
            padded[np.arange(self.steps), :, s * down + i, t * across + j] = kernel[:, i, j]
        return padded[:, :, p : p + height, q : q + width].reshape(self.size, self.in_size)

    def scratch(self) -> dict[str, int]:
        padded = {"padded": prod(self._padded_shape)} if any(self.padding) else {}
        return {"patches": self.steps * self.patch_size, **padded}

    # --- weights to begin with, other programs

    def initial_weights(self, rng: np.random.Generator) -> Array:
        weights, fan_in = np.zeros(self.weight_shape), self.patch_size
        fan_out, he = prod(self.kernel_size) * self.channels, self.activation.initialization == "he"
        weights[:, :-1] = uniform(rng, (self.channels, fan_in), fan_in, fan_out, he=he)
        return weights

    def mirror(self) -> Layer:
        return Dense(IDENTITY, self.size, self.in_size)

    def kernel(self, w: Array) -> Array:
        """W as other programs have it, channels first: (C_out, C_in, kh, kw)."""
        kernel = w[:, :-1].reshape(self.channels, *self.kernel_size, self.image_shape[2])
        return np.ascontiguousarray(kernel.transpose(0, 3, 1, 2))

    def to_torch(self, w: Array, torch: Any) -> Any:
        shape, outputs = self.image_shape, self.size

        class ChannelsLast(torch.nn.Conv2d):  # type: ignore[misc]
            """A Conv2d of flat images with the channels last."""

            def forward(self, values: Any) -> Any:
                images = values.reshape(-1, *shape).permute(0, 3, 1, 2)
                return super().forward(images).permute(0, 2, 3, 1).reshape(-1, outputs)

        module = ChannelsLast(
            shape[2], self.channels, self.kernel_size, self.stride, self.padding, dtype=torch.tensor(w).dtype
        )
        module.load_state_dict({name: torch.tensor(values) for name, values in self.torch_tensors(w).items()})
        return module

    def torch_tensors(self, w: Array) -> dict[str, Array]:
        return {"weight": self.kernel(w), "bias": w[:, -1]}

    def to_onnx(self, w: Array, graph: Any, values: str) -> str:
        shape = graph.constant(np.array([-1, *self.image_shape], np.int64))
        images = graph.node("Transpose", [graph.node("Reshape", [values, shape])], perm=[0, 3, 1, 2])
        weight, bias = graph.constant(self.kernel(w)), graph.constant(w[:, -1])
        z = graph.node(
            "Conv", [images, weight, bias], strides=[*self.stride], pads=[*self.padding, *self.padding]
        )
        flat = graph.constant(np.array([-1, self.size], np.int64))
        name: str = graph.node("Reshape", [graph.node("Transpose", [z], perm=[0, 2, 3, 1]), flat])
        return name


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

    layer: ClassVar[type[Layer]] = Convolution
    channels: int
    kernel_size: int | tuple[int, int] = 3
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.channels, "channels")
        for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0)):
            object.__setattr__(self, name, _pair(getattr(self, name), name, least))

    def build(self, in_shape: Sequence[int], activation: Activation) -> Convolution:
        """Make the layer for images (height, width), which have one channel, or (height, width, channels).

        Raises
        ------
        DataError
            If samples are no images.
        ConfigError
            If there is no position at which the kernel fits, or some would read nothing but padding.
        """
        if len(in_shape) not in (2, 3):
            raise DataError(
                f"a convolution reads images, and what it is given has the shape {tuple(in_shape)}; give x of shape "
                "(samples, height, width) or (samples, height, width, channels)"
            )
        height, width, channels = (*in_shape, 1)[:3]
        kernel, stride, padding = (
            _pair(getattr(self, name), name, 0) for name in ("kernel_size", "stride", "padding")
        )
        return Convolution(activation, (height, width, channels), self.channels, kernel, stride, padding)


def _pair(value: Any, name: str, least: int = 1) -> tuple[int, int]:
    """A whole number for each of two axes, of one number or two.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    each = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(each) != 2:
        raise ConfigError(f"{name} is {value!r}; write one number, or two for height and width")
    first, second = (whole(number, name, least) for number in each)
    return first, second
