"""Models leave: saved folders, PyTorch, ONNX, safetensors; every activation and loss gives the same outputs there."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from choices import taking_turns
from command import write_pipeline
from safetensors import safe_open
from safetensors.numpy import load_file
from scipy.special import softmax

from altmin_dask import AltMinAutoencoder, AltMinClassifier, AltMinRegressor
from altmin_dask.errors import DataError
from altmin_dask.export.onnx import write_onnx
from altmin_dask.export.torch import sequential, state_dict, write_safetensors
from altmin_dask.networks.activations import ACTIVATIONS
from altmin_dask.networks.builders import dense_network
from altmin_dask.storage.model import Model
from altmin_dask.types import Batch

try:
    import torch
except ImportError:  # of some hundred MB, so it is not installed for tests alone
    torch = None
needs_torch = pytest.mark.skipif(torch is None, reason="needs PyTorch")

X = np.random.default_rng(2).normal(size=(60, 5))
NAMES = np.array(["no", "yes", "maybe"])[np.arange(60) % 3]
OUTPUTS = [("squared", name) for name in ACTIVATIONS] + [
    ("binary_cross_entropy", None),
    ("cross_entropy", None),
]


def model(activation: str, loss: str, output: str | None, dtype: Any = np.float32) -> Model:
    network = dense_network([12, 7, 6, 3], activation, loss, output)
    kind = "classifier" if loss == "cross_entropy" else "regressor"
    rng = np.random.default_rng(1)
    weights = tuple(
        w + rng.normal(size=w.shape, scale=0.3).astype(dtype) for w in network.initial_weights(0, dtype)
    )
    return Model(kind, network, weights, (3, 4), 8.0)


def rounding_of(trained: Model, x: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """How far apart two right evaluations of the network may be, (n, 1): the root of the summed squares of roundings.

    A sum of n terms w a is off by √n ε ‖w ∘ a‖ where roundings are independent (Higham & Mary 2019, SIAM J. Sci.
    Comput. 41, A2815), a function by 4 ε of its value. Both pass through the weights above; no slope is much over 1.
    """
    eps = np.finfo(outputs.dtype).eps
    network, squares = trained.network, np.zeros((len(x), x[0].size))
    a = x.reshape(len(x), -1)
    layers = list(zip(trained.weights, network.forward(trained.weights, Batch(a)), strict=True))
    for i, (w, z) in enumerate(layers):
        squares = (squares + w.shape[1] * (eps * a) ** 2) @ (w[:, :-1] ** 2).T + w.shape[1] * (
            eps * w[:, -1]
        ) ** 2
        a = outputs if i + 1 == len(layers) else network.activations[i].value(z)
        squares += (4 * eps * a) ** 2
    return np.sqrt(squares.max(axis=1, keepdims=True))  # a softmax mixes the outputs of a sample


def run_onnx(file: Any, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {"x": x.astype(np.float32)})
    return found


@pytest.mark.parametrize(("activation", "pair"), taking_turns(ACTIVATIONS, OUTPUTS))
def test_onnx_gives_the_same_outputs(activation, pair, tmp_path):
    loss, output = pair
    trained = model(activation, loss, output)
    raw = 8 * np.random.default_rng(0).normal(size=(20, 3, 4), scale=2).astype(np.float32)
    wanted = trained.predict(raw)
    found = run_onnx(write_onnx(trained, tmp_path / "net.onnx"), raw)
    assert (np.abs(found[0] - wanted) <= rounding_of(trained, raw / 8, wanted)).all()
    if loss == "cross_entropy":
        np.testing.assert_array_equal(found[1], wanted.argmax(axis=1))


def test_tensors_by_their_names_are_the_network(tmp_path):
    """As docs/model.md has them."""
    trained = model("relu", "cross_entropy", None)
    raw = 8 * np.random.default_rng(0).normal(size=(20, 3, 4)).astype(np.float32)
    t = load_file(write_safetensors(trained, tmp_path / "m.safetensors"))
    found = (raw.reshape(20, -1) - t["0.shift"]) / t["0.scale"]
    for number in (1, 3):
        found = np.maximum(found @ t[f"{number}.weight"].T + t[f"{number}.bias"], 0)
    found = found @ t["5.weight"].T + t["5.bias"]
    np.testing.assert_allclose(softmax(found, axis=1), trained.predict(raw), atol=1e-5)


@needs_torch
@pytest.mark.parametrize(("activation", "pair"), taking_turns(ACTIVATIONS, OUTPUTS))
def test_torch_gives_the_same_outputs(activation, pair):
    loss, output = pair
    for dtype in (np.float32, np.float64):
        trained = model(activation, loss, output, dtype)
        raw = 8 * np.random.default_rng(0).normal(size=(20, 12), scale=2).astype(dtype)
        x = raw / 8
        wanted, network = trained.predict(raw), sequential(trained)
        with torch.no_grad():
            outputs = network(torch.tensor(raw)).numpy()
        assert outputs.dtype == dtype
        assert (np.abs(outputs - wanted) <= rounding_of(trained, x, wanted)).all()
        network.load_state_dict({name: torch.tensor(value) for name, value in state_dict(trained).items()})


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_estimators_in_torch(dtype):
    x = X.astype(dtype)
    classifier = AltMinClassifier(4, max_sweeps=2, random_state=0).fit(x, NAMES)
    with torch.no_grad():
        outputs = classifier.to_torch()(torch.tensor(x)).numpy()
    assert outputs.dtype == dtype
    np.testing.assert_allclose(
        outputs, classifier.predict_proba(x), rtol=1e-5 if dtype == "float32" else 1e-12
    )


def test_estimators_in_onnx(tmp_path):
    classifier = AltMinClassifier(4, max_sweeps=2, random_state=0).fit(X, NAMES)
    classifier.to_onnx(tmp_path / "c.onnx")
    probabilities, labels = run_onnx(tmp_path / "c.onnx", X)
    np.testing.assert_allclose(probabilities, classifier.predict_proba(X), atol=1e-5)
    classes = json.loads({p.key: p.value for p in onnx.load(tmp_path / "c.onnx").metadata_props}["classes"])
    assert [classes[label] for label in labels] == classifier.predict(X).tolist()
    autoencoder = AltMinAutoencoder(2, max_sweeps=2, random_state=0).fit(X)
    autoencoder.to_onnx(tmp_path / "a.onnx")
    np.testing.assert_allclose(run_onnx(tmp_path / "a.onnx", X)[0], autoencoder.reconstruct(X), atol=1e-5)


def test_numbers_of_classes_are_in_exported_files(altmin, tmp_path):
    """Of labels that are not 0 … K − 1 they were left out, and nobody could tell what a `label` is."""
    np.savez("t.npz", x=X, y=np.arange(len(X)) % 3 * 10 - 5)
    write_pipeline(tmp_path / "p.toml", "t.npz", "classifier")
    assert altmin("train", "p.toml", "--run", "run").code == 0
    for name in ("m.onnx", "m.safetensors"):
        assert altmin("export", "run", name).code == 0
    said = {p.key: p.value for p in onnx.load("m.onnx").metadata_props}
    with safe_open("m.safetensors", framework="numpy") as file:
        about = json.loads(file.metadata()["model"])
    assert json.loads(said["classes"]) == about["classes"] == [-5, 5, 15]


def test_saved_estimators_that_cannot_be_loaded(tmp_path):
    fitted = AltMinRegressor(3, max_sweeps=1, random_state=0).fit(X, X[:, 0])
    fitted.save(tmp_path / "saved")
    file = tmp_path / "saved" / "estimator.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "version": 99}))
    with pytest.raises(DataError, match="later version"):
        AltMinRegressor.load(tmp_path / "saved")
    file.write_text(json.dumps({key: value for key, value in content.items() if key != "learnt"}))
    with pytest.raises(DataError, match="is damaged"):
        AltMinRegressor.load(tmp_path / "saved")


@pytest.mark.parametrize("kind", ["autoencoder", "classifier"])
def test_a_run_is_exported(kind, trained, altmin, tmp_path):
    run = trained / kind
    wanted = Model.load(run / "model")
    x = np.random.default_rng(0).random((7, *wanted.sample_shape)).astype(np.float32)
    assert altmin("export", run, "net.onnx").code == 0
    np.testing.assert_allclose(run_onnx("net.onnx", x)[0], wanted.predict(x / wanted.scale), atol=1e-5)
    assert altmin("export", run, "net.safetensors").code == 0
    tensors = load_file("net.safetensors")
    np.testing.assert_array_equal(tensors["0.weight"], wanted.weights[0][:, :-1])

    for words, message in (
        (("net.onnx",), "exists already"),
        (("net.pth",), "no format known here"),
        (("nowhere/net.onnx",), "there is no folder"),
    ):
        outcome = altmin("export", run, *words)
        assert outcome.code == 2
        assert message in outcome.err
    assert altmin("export", run, "net.onnx", "--overwrite").code == 0
    assert "it is not a run folder; name a run folder" in altmin("export", tmp_path, "other.onnx").err


def test_inputs_have_names_in_their_order(altmin, tmp_path):
    """As the numbers stand in a row, with those of words, dates and missing values."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"city": rng.choice(["Bern", "Rome"], 60), "age": rng.normal(40, 9, 60)})
    table.loc[3, "age"] = np.nan
    table.assign(y=rng.normal(size=60)).to_csv(tmp_path / "t.csv", index=False)
    data = {"y": "y", "missing": "mean"}
    write_pipeline(tmp_path / "p.toml", "t.csv", "regressor", data=data, training={"schedule": "auto"})
    assert altmin("train", "p.toml", "--run", "run").code == 0
    told = altmin("export", "run", "m.onnx")
    names = ["city=Bern", "city=Rome", "age", "age is missing"]
    assert told.out.endswith(f"regressor; reads, in this order: {', '.join(names)}\n")
    about = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert json.loads(about["inputs"]) == names
