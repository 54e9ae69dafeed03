"""What every kind of layer keeps to, whatever it computes; a new kind is one more entry of EXAMPLES."""

from __future__ import annotations

import json
from math import prod
from typing import Any

import numpy as np
import pytest
from zoo import PAIRINGS

from altmin_dask.errors import ConfigError
from altmin_dask.networks.activations import get_activation
from altmin_dask.networks.builders import stacked_network
from altmin_dask.networks.layers import LAYERS, Block, Layer, LayerSettings, build_layer, read_settings
from altmin_dask.networks.losses import get_loss
from altmin_dask.networks.nested import Pass
from altmin_dask.networks.network import build_network
from altmin_dask.networks.workspace import Workspace
from altmin_dask.types import Batch

EXAMPLES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "dense": ({"kind": "dense", "units": 4}, (3,)),
    "dense on images": ({"kind": "dense", "units": 4}, (2, 3)),
    "dense at each step": ({"kind": "dense", "units": 3, "reads": "each"}, (4, 2)),
    "dense at the last step": ({"kind": "dense", "units": 3, "reads": "last"}, (4, 2)),
    "recurrent": ({"kind": "recurrent", "units": 3}, (4, 2)),
    "recurrent of one step": ({"kind": "recurrent", "units": 3, "recurrent_init": "identity"}, (1, 2)),
    "convolution": ({"kind": "convolution", "channels": 3, "stride": 2, "padding": 1}, (5, 4, 2)),
    "convolution of grey images": ({"kind": "convolution", "channels": 2, "kernel_size": (2, 3)}, (4, 4)),
}
SAMPLES = 5


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> tuple[LayerSettings, tuple[int, ...]]:
    settings, shape = EXAMPLES[request.param]
    return read_settings(settings), shape


@pytest.fixture
def layer(example: tuple[LayerSettings, tuple[int, ...]]) -> Layer:
    settings, shape = example
    return settings.build(shape, get_activation("tanh"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def drawn(layer: Layer, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Weights with biases, values below, and something of z's shape."""
    shapes = layer.weight_shape, (SAMPLES, layer.in_size), (SAMPLES, layer.size)
    return tuple(rng.normal(size=shape) for shape in shapes)


def filled(
    layer: Layer, below: np.ndarray, own: np.ndarray | None = None, block: Block | None = None
) -> np.ndarray:
    inputs = np.full((len(below), layer.steps * layer.inputs), np.nan)
    layer.fill(inputs, below, own if layer.recurrent else None, block or Block())
    return inputs


def forward(
    layer: Layer, w: np.ndarray, below: np.ndarray, block: Block | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """z and its values."""
    z, values = (np.full((len(below), layer.size), np.nan) for _ in range(2))
    layer.propagate(w, filled(layer, below, block=block), z, values, block or Block())
    return z, values


def moved(
    layer: Layer, w: np.ndarray, slope: np.ndarray, u: np.ndarray, block: Block | None = None
) -> np.ndarray:
    """The step of z when u is added, what it makes of its own values included."""
    if not layer.recurrent:
        return u
    out = np.full_like(u, np.nan)
    layer.carry(w, slope, u, out, block or Block())
    return out


def test_every_kind_has_an_example() -> None:
    assert {settings["kind"] for settings, _ in EXAMPLES.values()} == set(LAYERS)


def test_settings_and_layers_survive_files(example: Any, layer: Layer) -> None:
    settings, _ = example
    assert read_settings(json.loads(json.dumps(settings.describe()))) == settings
    assert build_layer(json.loads(json.dumps(layer.describe()))) == layer
    assert layer.describe()["kind"] == settings.describe()["kind"] == layer.kind


def test_settings_check_themselves(example: Any) -> None:
    described = example[0].describe()
    with pytest.raises(ConfigError, match=f"sort is not a setting of a {described['kind']} layer"):
        read_settings({**described, "sort": 1})
    with pytest.raises(ConfigError, match="activation 'step' is unknown"):
        read_settings({**described, "activation": "step"})
    numbers = [name for name, value in described.items() if isinstance(value, int)]
    assert numbers
    for name in numbers:
        with pytest.raises(ConfigError, match=f"{name} is -1; write a whole number of at least 1"):
            read_settings({**described, name: -1})


def test_shapes_agree(example: Any, layer: Layer) -> None:
    assert layer.in_size == prod(example[1])
    assert layer.size == prod(layer.out_shape) == layer.steps * layer.units
    assert layer.weight_shape == (layer.units, layer.inputs)


def test_weights_begin_without_biases(layer: Layer) -> None:
    w = layer.initial_weights(np.random.default_rng(0))
    assert (w.shape, w.dtype) == (layer.weight_shape, np.float64)
    assert w[:, :-1].any(axis=1).all()
    assert not w[:, -1].any()
    np.testing.assert_array_equal(w, layer.initial_weights(np.random.default_rng(0)))


def test_z_is_the_weights_times_the_rows(layer: Layer, rng: Any) -> None:
    """Residuals of a forward pass vanish: the identity that every solver rests on."""
    w, below, _ = drawn(layer, rng)
    z, values = forward(layer, w, below)
    inputs = filled(layer, below, values)
    np.testing.assert_allclose(
        z.reshape(-1, layer.units), inputs.reshape(-1, layer.inputs) @ w.T, rtol=1e-13, atol=1e-13
    )
    np.testing.assert_array_equal(inputs.reshape(-1, layer.inputs)[:, -1], 1)
    np.testing.assert_allclose(values, np.tanh(z), rtol=1e-13)
    slope = np.full_like(z, np.nan)
    layer.differentiate(z, values, slope, Block(), 3.0)
    np.testing.assert_allclose(slope, 3 * (1 - np.tanh(z) ** 2), rtol=1e-12)


def test_values_may_have_gaps_and_stand_in_place(layer: Layer, rng: Any) -> None:
    _, below, h = drawn(layer, rng)
    inputs, gaps = filled(layer, below, h), np.full((SAMPLES, layer.in_size + 1), np.nan)
    gaps[:, :-1] = below
    np.testing.assert_array_equal(filled(layer, gaps[:, :-1], h), inputs)
    place = layer.place(there := np.full_like(inputs, np.nan))
    if place is not None:
        place[...] = below
        layer.fill(there, None, None, Block())
        np.testing.assert_array_equal(there, inputs)


def test_the_image_is_how_z_changes(layer: Layer, rng: Any) -> None:
    w, below, own = drawn(layer, rng)
    delta, change = (rng.normal(size=a.shape) for a in (below, own))
    before, after = (
        filled(layer, *values).reshape(-1, layer.inputs) @ w.T
        for values in ((below, own), (below + delta, own + change))
    )
    image = layer.image(w, delta, change if layer.recurrent else None, np.full_like(own, np.nan), Block())
    np.testing.assert_allclose(image, (after - before).reshape(image.shape), rtol=1e-12, atol=1e-12)


def test_the_adjoint_is_the_transpose_of_the_image(layer: Layer, rng: Any) -> None:
    w, below, h = drawn(layer, rng)
    image = layer.image(w, below, None, np.full_like(h, np.nan), Block())
    back = layer.adjoint(w, h, np.full_like(below, np.nan), Block())
    np.testing.assert_allclose((h * image).sum(axis=1), (back * below).sum(axis=1), rtol=1e-12, atol=1e-12)


def test_what_is_carried_back_is_the_transpose_of_what_is_carried(layer: Layer, rng: Any) -> None:
    w, _, u = drawn(layer, rng)
    slope, h = rng.normal(size=u.shape), rng.normal(size=u.shape)
    forth, back = slope * moved(layer, w, slope, u), h.copy()
    layer.carry_back(w, slope, back, Block())
    np.testing.assert_allclose((h * forth).sum(axis=1), (back * u).sum(axis=1), rtol=1e-12, atol=1e-12)


def test_the_tangent_is_the_derivative_of_a_forward_pass(layer: Layer, rng: Any) -> None:
    w, below, _ = drawn(layer, rng)
    delta, step = rng.normal(size=below.shape), 1e-5
    (z, values), (more, _), (less, _) = (forward(layer, w, below + t * delta) for t in (0, step, -step))
    slope = np.full_like(z, np.nan)
    layer.differentiate(z, values, slope, Block())
    image = layer.image(w, delta, None, np.empty_like(z), Block())
    found = moved(layer, w, slope, image)
    np.testing.assert_allclose(found, (more - less) / (2 * step), rtol=1e-7, atol=1e-8)


def test_scratch_arrays_are_declared_and_leave_no_trace(layer: Layer, rng: Any) -> None:
    w, below, h = drawn(layer, rng)
    slope = rng.normal(size=h.shape)

    def everything(block: Block) -> list[np.ndarray]:
        found = [*forward(layer, w, below, block), layer.image(w, below, None, np.empty_like(h), block)]
        found += [layer.adjoint(w, h, np.empty_like(below), block), moved(layer, w, slope, h, block)]
        back = h.copy()
        layer.carry_back(w, slope, back, block)
        return [*found, back]

    work = Workspace()
    clean = everything(Block(work=work))
    taken = {name: columns for name, columns, _ in work._arrays}
    assert taken.items() <= layer.scratch().items()
    for array in work._arrays.values():
        array.fill(np.nan)
    for mine, theirs in zip(everything(Block(work=work)), clean, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_mirror_gives_what_was_read(layer: Layer) -> None:
    try:
        mirror = layer.mirror()
    except ConfigError as error:
        assert layer.kind in str(error)  # noqa: PT017
    else:
        assert (mirror.in_size, mirror.size) == (layer.size, layer.in_size)


def test_the_matrix_is_the_image(layer: Layer, rng: Any) -> None:
    w, below, h = drawn(layer, rng)
    try:
        matrix = layer.matrix(w)
    except ConfigError as error:
        assert layer.kind in str(error)  # noqa: PT017
    else:
        image = layer.image(w, below, None, np.empty_like(h), Block())
        np.testing.assert_allclose(below @ matrix.T, image, rtol=1e-12, atol=1e-12)


def test_torch_gives_the_same(layer: Layer, rng: Any) -> None:
    torch = pytest.importorskip("torch")
    w, below, _ = drawn(layer, rng)
    try:
        module = layer.to_torch(w, torch)
    except ConfigError as error:
        assert layer.kind in str(error)  # noqa: PT017
        return
    with torch.no_grad():
        np.testing.assert_allclose(
            module(torch.tensor(below)).numpy(), forward(layer, w, below)[0], rtol=1e-12, atol=1e-12
        )
    tensors = {name: values.numpy() for name, values in module.state_dict().items()}
    assert tensors.keys() == layer.torch_tensors(w).keys()
    for name, values in layer.torch_tensors(w).items():
        np.testing.assert_array_equal(values, tensors[name])


@pytest.mark.parametrize(("loss", "output"), PAIRINGS, ids=["-".join(pair) for pair in PAIRINGS])
def test_gradients_of_networks_with_any_loss_are_those_of_differences(
    example: Any, loss: str, output: str
) -> None:
    settings, shape = example
    rng = np.random.default_rng(2)
    network = stacked_network(shape, [settings], 3, get_loss(loss, output), "softplus")
    assert build_network(json.loads(json.dumps(network.describe()))) == network
    x, weights = rng.normal(size=(SAMPLES, *shape)), network.initial_weights(rng, np.float64)
    y = (
        rng.integers(3, size=SAMPLES)
        if network.loss.target == "labels"
        else rng.random((SAMPLES, network.widths[-1]))
    )

    def total(step: float) -> float:
        moved = tuple(w + step * v for w, v in zip(weights, change, strict=True))
        return float(Pass.forward(network, moved, Batch(x, y)).loss.sum())

    nested = Pass.forward(network, weights, Batch(x, y))
    change = [rng.normal(size=w.shape) for w in weights]
    found = sum(
        np.vdot(g.T @ a, v)
        for g, a, v in zip(nested.backward(nested.gradient), nested.inputs, change, strict=True)
    )
    assert found == pytest.approx((total(1e-6) - total(-1e-6)) / 2e-6, rel=1e-6, abs=1e-6)
