"""A network on standardized samples, and the same one on samples as they are, give the same."""

from __future__ import annotations

import numpy as np
import pytest

from altmin_dask.networks.network import build_network
from altmin_dask.networks.standardization import Scale, Standardization
from altmin_dask.types import Batch

RNG = np.random.default_rng(0)
LINEAR = {"kind": "dense", "in_features": 4, "width": 2, "activation": "identity"}
HIDDEN = {"kind": "dense", "in_features": 4, "width": 5, "activation": "tanh"}
OUT = {"kind": "dense", "in_features": 5, "width": 2, "activation": "identity"}
STEPS = {"in_steps": 3}
RECURRENT = {**HIDDEN, "kind": "recurrent", **STEPS}
CONVOLUTION = {
    "kind": "convolution",
    "activation": "relu",
    "image_shape": [4, 4, 1],
    "channels": 3,
    "kernel_size": [2, 2],
    "padding": [1, 1],
}
NETS = {
    "no hidden layer": ([LINEAR], 4),
    "dense": ([HIDDEN, OUT], 4),
    "recurrent": ([RECURRENT, {**OUT, "reads": "last", **STEPS}], 4),
    "targets at every step": ([RECURRENT, {**OUT, "reads": "each", **STEPS}], 4),
    "each step": ([{**HIDDEN, "reads": "each", **STEPS}, {**OUT, "reads": "last", **STEPS}], 4),
    "convolution": ([CONVOLUTION, {**OUT, "in_features": 75}], None),
}


def made(name: str):
    layers, columns = NETS[name]
    steps = 3 if layers[-1].get("reads") == "each" else None
    loss = {"loss": "squared", "output_activation": "identity", "loss_steps": steps}
    network = build_network({"layers": layers, **loss})
    weights = tuple(RNG.normal(size=shape) for shape in network.shapes)
    first = network.layers[0]
    if columns is None:
        assert first.scalable is None
        inputs = Scale.common(37.0, "float64")
    else:
        assert first.scalable == columns
        inputs = Scale(RNG.normal(size=columns) * 1e3, 10 ** RNG.uniform(-3, 3, columns), "float64")
    targets = Scale(RNG.normal(size=2) * 50, np.full(2, 7.0), "float64")
    return network, weights, Standardization(inputs, targets, columns or first.inputs - 1)


@pytest.mark.parametrize("name", NETS)
def test_folded_weights_read_samples_as_they_are(name):
    network, weights, standard = made(name)
    scaled = RNG.normal(size=(20, network.sizes[0]))
    inputs, targets = standard.inputs, standard.targets
    k = len(inputs.shift)
    x = (scaled.reshape(-1, k) * inputs.scale + inputs.shift).reshape(scaled.shape)
    np.testing.assert_allclose(inputs.apply(x), scaled, atol=1e-9)
    given = network.predict(weights, Batch(inputs.apply(x)))
    want = (given.reshape(-1, 2) * targets.scale + targets.shift).reshape(given.shape)
    np.testing.assert_allclose(network.predict(standard.fold(weights), Batch(x)), want, rtol=1e-8, atol=1e-8)
    for back, known in zip(standard.unfold(standard.fold(weights)), weights, strict=True):
        np.testing.assert_allclose(back, known, rtol=1e-9, atol=1e-9)


def test_what_is_standardized_has_a_name_and_a_unit():
    x, y = Scale.common(2.0, "float32"), Scale(np.zeros(3), np.full(3, 5.0), "float32")
    assert [Standardization(a, b).name for a in (None, x) for b in (None, y)] == [
        "none",
        "targets",
        "inputs",
        "both",
    ]
    assert Standardization(x).loss_unit == 1
    assert Standardization(x, y).loss_unit == 25
    assert Standardization(x).of("y") is None
    assert Standardization(x).of("lengths") is None
    values = np.arange(12, dtype=np.uint8).reshape(2, 6)
    assert x.apply(values).dtype == np.float32
    assert (x.apply(values) == values / 2).all()
