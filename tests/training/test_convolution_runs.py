"""Convolutional networks as any others: trained by K-FAC steps and with z, resumed, planned, exported, predicted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from choices import slow_but
from command import Altmin, refused, write_pipeline
from sklearn.datasets import load_digits

from altmin_dask import AltMinAutoencoder, AltMinClassifier, runs
from altmin_dask.config import Pipeline, make_pipeline
from altmin_dask.data.ingest import ingest
from altmin_dask.data.source import array_source
from altmin_dask.errors import ConfigError, DataError
from altmin_dask.networks.activations import get_activation
from altmin_dask.networks.builders import stacked_network
from altmin_dask.networks.layers import read_settings
from altmin_dask.networks.losses import get_loss
from altmin_dask.networks.mean_loss import MeanLoss
from altmin_dask.networks.nested import Pass
from altmin_dask.networks.network import Network, build_network
from altmin_dask.networks.workspace import thread_workspace
from altmin_dask.planning.kfac_memory import kfac_task
from altmin_dask.planning.memory import Workload, enter_task, visit_task
from altmin_dask.solvers.kernels import enter_chunk, kfac_chunk, visit_chunk
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.penalties import L2
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.algorithms import restore
from altmin_dask.training.record import Record
from altmin_dask.types import Batch

DIGITS = load_digits()
IMAGES, LABELS = DIGITS.images / 16, DIGITS.target
LAYERS = (
    {"kind": "convolution", "channels": 4, "stride": 2, "padding": 1},
    {"kind": "convolution", "channels": 6, "kernel_size": 2, "activation": "softplus"},
    {"kind": "dense", "units": 12},
)
TOML = """network.layers=[
    {kind = "convolution", channels = 4, stride = 2, padding = 1},
    {kind = "convolution", channels = 6, kernel_size = [2, 2], activation = "softplus"},
    {kind = "dense", units = 12},
]"""
"""The same on the command line."""
SCHEDULES: dict[str, dict[str, dict[str, Any]]] = {
    "kfac": {"training": {"schedule": "kfac", "group_chunks": 2}},
    "finite μ": {"training": {"schedule": "kfac", "group_chunks": 2}, "solver": {"mu": 5.0}},
    "windows": {"training": {"schedule": "windows", "first_window": 2, "window_passes": 2}},
    "batch": {"training": {"schedule": "batch"}},
    "L1": {"solver": {"penalty": "l1"}, "training": {"schedule": "incremental"}},
    "multipliers": {"solver": {"penalty": "multipliers"}, "training": {"schedule": "incremental"}},
}


def make(train: Any, **tables: dict[str, Any]) -> Pipeline:
    settings: dict[str, Any] = {
        "data": {"train": str(train)},
        "network": {"kind": "classifier", "layers": LAYERS, "activation": "tanh", "dtype": "float64"},
        "training": {"max_sweeps": 3.0, "n_iter_no_change": None},
        "cluster": {"workers": 2},
    }
    for name, table in tables.items():
        settings[name] = {**settings.get(name, {}), **table}
    return make_pipeline(settings)


def train(pipeline: Pipeline, folder: Path, **options: Any) -> tuple[Any, list[Record]]:
    run = RunFolder(folder)
    records = runs.train(pipeline, run, log=lambda line: None, **options)
    state = restore(run)
    assert state is not None
    return state, records


def network_of(*layers: dict[str, Any], loss: str = "cross_entropy") -> Network:
    hidden = [read_settings(layer) for layer in layers]
    return stacked_network((8, 8), hidden, 10, get_loss(loss, None), "tanh")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def written(
        rows: slice = slice(0, 200), chunk_rows: int = 25, dtype: str = "float64", **given: Any
    ) -> Path:
        folder = tmp_path_factory.mktemp("store") / "samples.zarr"
        x, y = given.get("x", IMAGES)[rows], given.get("y", LABELS)
        ingest(array_source(x, None if y is None else y[rows]), folder, chunk_rows=chunk_rows, dtype=dtype)
        return folder

    return written


@pytest.mark.slow
def test_kfac_learns_to_tell_digits(store, tmp_path):
    """A twentieth of the 1,797 digits are held out: 4 of these 90 may be wrong."""
    layers = (
        {"kind": "convolution", "channels": 8, "padding": 1},
        {"kind": "convolution", "channels": 16, "stride": 2, "padding": 1},
        {"kind": "dense", "units": 32},
    )
    order = np.random.default_rng(0).permutation(len(IMAGES))
    folder = store(slice(0, 1707), 427, "float32", x=IMAGES[order], y=LABELS[order])
    pipeline = make(
        folder,
        network={"layers": layers, "activation": "relu", "dtype": "float32"},
        training={"max_sweeps": 12.0, "group_chunks": 1},
    )
    train(pipeline, tmp_path / "run")
    model = Model.load(RunFolder(tmp_path / "run").model)
    held_out = order[1707:]
    right = model.predict(IMAGES[held_out].astype("f4")).argmax(axis=1) == LABELS[held_out]
    assert right.mean() >= 0.95


@pytest.mark.parametrize("name", slow_but(["incremental"], ["incremental", "batch", "windows"]))
def test_f_never_rises(name, store, tmp_path):
    training = {"schedule": name, "max_sweeps": 5.0, "first_window": 8 if name == "windows" else None}
    _, records = train(make(store(), training=training, solver={"mu": 0.3}), tmp_path / "run")
    values = [r.relaxed_objective for r in records if r.relaxed_objective is not None]
    assert len(values) >= 4
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(values))
    assert values[-1] < 0.9 * values[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_but(["kfac", "windows"], SCHEDULES))
def test_resuming_equals_no_interruption_bit_for_bit(name, store, tmp_path):
    samples, tables = store(), SCHEDULES[name]
    whole, records = train(make(samples, **tables), tmp_path / "whole")
    short = {**tables, "training": {**tables["training"], "max_sweeps": 1.5}}
    train(make(samples, **short), tmp_path / "cut")
    resumed, again = train(make(samples, **tables), tmp_path / "cut", resume=True)
    for mine, theirs in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert again[-1].nested_loss == records[-1].nested_loss
    assert records[-1].nested_loss < records[0].nested_loss


def test_chunking_does_not_change_the_result(store, tmp_path):
    found = []
    for rows in (40, 130):
        pipeline = make(store(chunk_rows=rows), training={"schedule": "batch", "max_sweeps": 2.0})
        found.append(train(pipeline, tmp_path / str(rows))[0].weights)
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


def test_the_nested_gradient_is_that_of_differences():
    network, rng = network_of(*LAYERS), np.random.default_rng(1)
    weights, batch = network.initial_weights(2, np.float64), Batch(IMAGES[:9], LABELS[:9])

    def loss(step: float, change: Any) -> float:
        moved = tuple(w + step * v for w, v in zip(weights, change, strict=True))
        return float(Pass.forward(network, moved, batch).loss.sum())

    nested = Pass.forward(network, weights, batch)
    gradients = [g.T @ a for g, a in zip(nested.backward(nested.gradient), nested.inputs, strict=True)]
    for layer in range(len(weights)):
        change = [rng.normal(size=w.shape) * (i == layer) for i, w in enumerate(weights)]
        measured = (loss(1e-5, change) - loss(-1e-5, change)) / 2e-5
        assert measured == pytest.approx(float(np.vdot(gradients[layer], change[layer])), rel=1e-7)


def test_kronecker_factors_are_those_of_the_literature():
    """E[ã ãᵀ] over rows ⊗ Σ_t E[g_t g_tᵀ] is the Gauss–Newton matrix itself where derivatives do not hang together.

    So they do not in one convolution of one channel under a squared error at every position: H is 1/P times the
    identity there, for the mean over P positions.
    """
    settings = read_settings({"kind": "convolution", "channels": 1, "stride": 2, "padding": 1})
    layer = settings.build((8, 8), get_activation("identity"))
    network = Network((layer.linear(),), MeanLoss(get_loss("squared", "identity"), layer.steps))
    rng = np.random.default_rng(0)
    batch = Batch(IMAGES[:20], rng.normal(size=(20, layer.size)))
    weights = network.initial_weights(0, np.float64)
    sums = kfac_chunk(network, weights, None, batch, NewtonSettings(), [0])
    lower = sums.input_factors[0]
    inputs = (lower + np.tril(lower, -1).T) / lower[-1, -1]
    outputs = sums.output_factors[0] / len(batch)
    nested = Pass.forward(network, weights, batch)
    for _ in range(3):
        change = (rng.normal(size=layer.weight_shape),)
        moved = nested.directional(change)
        curved = np.vdot(moved, nested.curvature().apply(moved)) / len(batch)
        assert curved == pytest.approx(float(np.vdot(outputs @ change[0] @ inputs, change[0])), rel=1e-12)


# --- planned, described, exported, predicted


def scratch_made(*steps: Callable[[], Any]) -> dict[tuple[str, int, int], int]:
    """The named arrays that a new thread keeps."""
    made: dict[tuple[str, int, int], int] = {}

    def collect() -> None:
        for step in steps:
            step()
        for (name, columns, dtype), array in thread_workspace()._arrays.items():
            made[name, columns, dtype.itemsize] = array.nbytes

    thread = threading.Thread(target=collect)
    thread.start()
    thread.join()
    return made


@pytest.mark.parametrize("task", ["enter", "visit", "kfac", "kfac with finite μ"])
def test_planned_arrays_bound_those_that_are_made(task):
    network, rng = network_of(*LAYERS), np.random.default_rng(0)
    batch, weights = Batch(IMAGES[:100], LABELS[:100]), network.initial_weights(1, "f4")
    mu, settings = (1e-3,) * len(weights), NewtonSettings(newton_steps=2)
    z, l2 = rng.normal(size=(100, sum(network.widths))).astype("f4"), L2(mu)
    run = {
        "enter": lambda: enter_chunk(network, weights, l2, batch),
        "visit": lambda: visit_chunk(network, weights, l2, l2, batch, z, settings, replace_all=False),
        "kfac": lambda: kfac_chunk(network, weights, None, batch, settings, [0]),
        "kfac with finite μ": lambda: kfac_chunk(network, weights, mu, batch, settings, [0]),
    }[task]
    made = scratch_made(run)
    kfac = task.startswith("kfac")
    work = Workload(network, 100, 100, 8 * 64, newton_steps=2, kfac=kfac, relaxed="finite" in task)
    planned = {"enter": enter_task, "visit": visit_task}.get(task, kfac_task)(work).scratch
    assert made.keys() <= planned.keys()
    assert all(size <= planned[key] for key, size in made.items())
    assert ("patches", 16 * 9, 4) in made or task == "enter"


def test_the_plan_has_what_a_run_takes(altmin: Altmin, tmp_path, store):
    np.savez(tmp_path / "x.npz", x=IMAGES[:300].astype("f4"), y=LABELS[:300])
    network = {"hidden_layer_sizes": [100], "dtype": "float32"}
    training = {"schedule": "batch", "max_sweeps": 1}
    write_pipeline(
        tmp_path / "job.toml",
        "x.npz",
        "classifier",
        data={"chunk_rows": 100},
        network=network,
        training=training,
    )
    done = altmin("plan", "job.toml", TOML, "--json")
    assert (done.code, done.err) == (0, "")
    planned = json.loads(done.out)
    assert planned["network"] == [64, 4, 6, 12, 10]
    assert altmin("train", "job.toml", TOML, "--run", "run").code == 0
    z = sum(f.stat().st_size for f in Path("run", "z").rglob("*") if f.is_file() and f.suffix != ".json")
    width = 16 * 4 + 9 * 6 + 12 + 10
    assert planned["sweep_written"] == 300 * width * 4
    # when a run has ended, the next generation of z is gone
    assert planned["z_disk"] / 2 == pytest.approx(z, rel=0.01)


@pytest.fixture(scope="module")
def model(store, tmp_path_factory: pytest.TempPathFactory) -> Model:
    home = tmp_path_factory.mktemp("model")
    train(make(store(), network={"dtype": "float32"}), home / "run")
    return Model.load(RunFolder(home / "run").model)


def test_a_model_file_makes_the_same_network(model):
    assert build_network(json.loads(json.dumps(model.network.describe()))) == model.network
    assert [layer.kind for layer in model.network.layers] == ["convolution", "convolution", "dense", "dense"]


@pytest.mark.slow
def test_torch_gives_the_same_outputs(model):
    torch = pytest.importorskip("torch")
    from altmin_dask import sequential, state_dict

    module, x = sequential(model), IMAGES[:50].astype("f4")
    with torch.no_grad():
        outputs = module(torch.tensor(x)).numpy()
    # softmax outputs of sums of at most 54 products
    np.testing.assert_allclose(outputs, model.predict(x), rtol=0, atol=64 * np.finfo("f4").eps)
    mine, theirs = state_dict(model), module.state_dict()
    assert mine.keys() == theirs.keys()
    for name, values in mine.items():
        np.testing.assert_array_equal(values, theirs[name].numpy())
    assert mine["2.weight"].shape == (6, 4, 2, 2)


def test_onnx_gives_the_same_outputs(model, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    from altmin_dask import write_onnx

    file, x = write_onnx(model, tmp_path / "net.onnx"), IMAGES[:50].astype("f4")
    outputs, labels = runtime.InferenceSession(str(file)).run(["output", "label"], {"x": x})
    wanted = model.predict(x)
    np.testing.assert_allclose(outputs, wanted, rtol=0, atol=64 * np.finfo("f4").eps)
    np.testing.assert_array_equal(labels, wanted.argmax(axis=1))


def test_predictions_are_made_from_files(altmin: Altmin, tmp_path, store):
    pipeline = make(store(), network={"dtype": "float32"})
    train(pipeline, tmp_path / "run")
    samples = store(slice(200, 260), dtype="float32")
    done = altmin("predict", "run", samples, "out.zarr")
    assert (done.code, done.err) == (0, "")


# --- estimators


@pytest.mark.parametrize("way", [np.asarray, lambda x: da.from_array(x, chunks=(60, -1, -1))])
def test_an_estimator_takes_images(way, tmp_path):
    classifier = AltMinClassifier(layers=LAYERS, max_sweeps=10, random_state=0)
    x = way(IMAGES[:300])
    classifier.fit(x, LABELS[:300])
    assert classifier.n_features_in_ == 64
    assert classifier.score(x, LABELS[:300]) > 0.9
    rows = classifier.predict_proba(IMAGES[:40].reshape(40, 64))
    np.testing.assert_array_equal(np.asarray(classifier.predict_proba(x[:40])), rows)
    classifier.save(tmp_path / "saved")
    loaded = AltMinClassifier.load(tmp_path / "saved")
    assert [layer.kind for layer in loaded.model_.network.layers][:2] == ["convolution"] * 2
    np.testing.assert_array_equal(loaded.predict_proba(IMAGES[:40]), rows)


def test_an_estimator_refuses_rows_for_a_convolution():
    classifier = AltMinClassifier(settings={"network.layers": LAYERS}, max_sweeps=1)
    with pytest.raises(DataError, match=r"give x of shape \(samples, height, width\)"):
        classifier.fit(IMAGES[:300].reshape(300, 64), LABELS[:300])


def test_codes_of_a_convolution_are_rows():
    layers = [{"kind": "convolution", "channels": 2, "stride": 2, "padding": 1}]
    autoencoder = AltMinAutoencoder(layers=layers, max_sweeps=10, random_state=0).fit(IMAGES[:200])
    codes = autoencoder.transform(IMAGES[:200])
    assert codes.shape == (200, 16 * 2)
    np.testing.assert_array_equal(autoencoder.transform(da.from_array(IMAGES[:200])).compute(), codes)
    again = autoencoder.inverse_transform(codes)
    np.testing.assert_allclose(again, autoencoder.reconstruct(IMAGES[:200]), rtol=1e-12, atol=1e-12)
    assert autoencoder.score(IMAGES[:200]) > 0.5


# --- what layers settings can name


@pytest.mark.slow
def test_other_kinds_of_problems_take_convolutions(store, tmp_path):
    layers = [{"kind": "convolution", "channels": 5, "stride": 2, "padding": 1}]
    network = {"kind": "autoencoder", "layers": layers, "initialization": "whitened"}
    _, records = train(make(store(y=None), network=network), tmp_path / "whitened")
    assert records[-1].nested_loss < 0.5 * records[0].nested_loss
    first = {}
    for name in ("random", "layerwise"):
        network = {
            "kind": "autoencoder",
            "layers": [*layers, {"kind": "dense", "units": 5}],
            "initialization": name,
        }
        _, records = train(make(store(y=None), network=network), tmp_path / name)
        first[name] = records[0].nested_loss
    assert first["layerwise"] < first["random"]


def test_samples_without_a_shape_are_refused(altmin: Altmin, tmp_path, store):
    flat = store(x=IMAGES.reshape(-1, 64))
    write_pipeline(tmp_path / "job.toml", flat, "classifier", network={"hidden_layer_sizes": [100]})
    refused(altmin("plan", "job.toml", TOML), "give x of shape (samples, height, width)")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (3, "network.layers = 3: "),
        ([3], "network.layers.0 = 3: a layer is a table with a kind, such as"),
        ([{"channels": 3}], "network.layers.0 = {'channels': 3}: a layer is a table with a kind, such as"),
        ([{"kind": "pool"}], "layer 'pool' is unknown; choose one of dense, recurrent, convolution"),
        ([LAYERS[2], {"kind": "dense"}], "network.layers.1 = {'kind': 'dense'}: a dense layer needs units"),
        (
            [{**LAYERS[0], "strides": 2}],
            "strides is not a setting of a convolution layer; it has activation, channels",
        ),
        ([{**LAYERS[0], "channels": 0}], "channels is 0; write a whole number of at least 1"),
        (
            [{**LAYERS[0], "stride": [1, 2, 3]}],
            "stride is [1, 2, 3]; write one number, or two for height and width",
        ),
        ([{**LAYERS[0], "padding": -1}], "padding is -1; write a whole number of at least 0"),
        ([{**LAYERS[0], "kernel_size": True}], "kernel_size is True; write a whole number of at least 1"),
        ([{**LAYERS[0], "activation": "step"}], "activation 'step' is unknown"),
        ([{**LAYERS[2], "reads": "some"}], "reads is 'some'; choose one of all, each, last"),
    ],
)
def test_what_is_wrong_with_a_layer_is_named_with_its_place(layers, message):
    with pytest.raises(ConfigError) as caught:
        make("x", network={"layers": layers})
    assert message in str(caught.value)


def test_layers_and_their_short_form_exclude_each_other():
    with pytest.raises(
        ConfigError, match=r"network.layers names all hidden layers; leave network.hidden_layer_sizes out"
    ):
        make("x", network={"hidden_layer_sizes": [3]})


def test_settings_of_layers_survive_files():
    pipeline = make("x")
    assert Pipeline.model_validate(json.loads(json.dumps(pipeline.model_dump(mode="json")))) == pipeline
    assert Pipeline.model_validate_json(pipeline.model_dump_json()) == pipeline


def test_dense_layers_are_the_short_form(store, tmp_path):
    found = []
    for name, network in (
        ("short", {"layers": None, "hidden_layer_sizes": (7, 5)}),
        ("long", {"layers": [{"kind": "dense", "units": 7}, {"kind": "dense", "units": 5}]}),
    ):
        found.append(train(make(store(), network=network), tmp_path / name)[0].weights)
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
