"""What a pipeline leaves open is resolved once: nothing is "auto" any more, and what is run is what is recorded."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from altmin_dask.config import Pipeline, make_pipeline
from altmin_dask.execution.resources import Resources, rounded_latency
from altmin_dask.networks.builders import dense_network, recurrent_network
from altmin_dask.networks.network import Network
from altmin_dask.solvers.penalties import PENALTIES
from altmin_dask.solvers.schedules import Geometric
from altmin_dask.training.algorithms import ALGORITHMS
from altmin_dask.training.defaults import PLACES, Settings, left_open, resolve
from altmin_dask.training.step_sizes import (
    FLOPS,
    LEAST_STEPS,
    MOST_ROWS,
    NOISE_ROWS,
    ROW_SECONDS,
    group_rows,
)

NETWORKS: dict[str, Network] = {
    "autoencoder": dense_network([12, 5, 12], "sigmoid", "squared", "sigmoid"),
    "classifier": dense_network([12, 8, 7, 4], "relu", "cross_entropy"),
    "recurrent_classifier": recurrent_network(3, 7, (6,), 4, (5,), "tanh", "cross_entropy", every=False),
}


def pipeline_of(kind: str, **tables: dict[str, Any]) -> Pipeline:
    network = {"kind": kind, "hidden_layer_sizes": [5], **tables.pop("network", {})}
    return make_pipeline({"data": {"train": "somewhere"}, "network": network, **tables})


def resolved(kind: str, rows: int = 1000, chunk_rows: int = 100, **tables: dict[str, Any]) -> Settings:
    return resolve(pipeline_of(kind, **tables), NETWORKS[kind], rows, chunk_rows)


def test_a_run_that_goes_on_is_damped_as_it_began():
    """Also one that is older than a rule; what is given counts."""
    network, now = NETWORKS["classifier"], resolved("classifier")
    assert now.weight_decay > 0
    begun = {**now.to_dict(), "proximal": 0.7, "output_damping": 0.2}
    del begun["weight_decay"]
    found = resolve(pipeline_of("classifier"), network, 1000, 100, begun=begun)
    assert (found.proximal, found.output_damping, found.weight_decay) == (0.7, 0.2, 0.0)
    given = pipeline_of("classifier", solver={"proximal": 0.3, "weight_decay": 0.1})
    found = resolve(given, network, 1000, 100, begun=begun)
    assert (found.proximal, found.output_damping, found.weight_decay) == (0.3, 0.2, 0.1)
    assert resolve(pipeline_of("classifier"), network, 1000, 100, begun=now.to_dict()) == now


@pytest.mark.parametrize(
    ("kind", "now", "older"),
    [
        ("autoencoder", (0.5, 0.0), (0.0, 0.0)),
        ("regressor", (1.0, 1.6), (1.0, 1.0)),
        ("classifier", (0.0, 0.0), (0.0, 0.0)),
    ],
)
def test_damping_falls_in_a_run_that_goes_on_as_it_did_when_it_began(kind, now, older):
    network = dense_network([9, 5, 9], "relu", "cross_entropy" if kind == "classifier" else "squared")

    def powers(begun=None):
        settings = resolve(pipeline_of(kind), network, 1000, 100, begun=begun)
        return settings, settings.loss_powers

    settings, found = powers()
    assert found == now
    begun = settings.to_dict()
    assert powers(begun) == (settings, now)
    del begun["loss_powers"]
    assert powers(begun)[1] == older


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("schedule", ["auto", *ALGORITHMS])
def test_nothing_is_left_open(kind, penalty, schedule):
    if schedule not in ("auto", *PENALTIES[penalty].schedules):
        return  # refused by the pipeline
    settings = resolved(kind, solver={"penalty": penalty}, training={"schedule": schedule})
    values = settings.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert "auto" not in json.dumps(values)
    assert set(values) == {name for names in PLACES.values() for name in names}
    kfac = settings.schedule == "kfac"
    missing = {name for name, value in values.items() if value is None}
    allowed = {"standardize"}  # samples have to be looked at
    allowed |= {"loss_at"} if not kind.startswith("recurrent") else set()
    allowed |= (
        {"mu", "rho", "first_window"}
        if kfac
        else {"output_damping", "weight_decay", "loss_powers", "model_every", "pieces", "chunk_steps"}
    )
    allowed |= {"rho"} if penalty == "l2" else set()
    allowed |= {"first_window"} if settings.schedule != "windows" else set()
    assert missing == allowed


def test_kfac_steps():
    settings = resolved("classifier", 10_000, 300)
    assert (settings.schedule, settings.mu, settings.mu_in_pass(3, 5)) == ("kfac", None, None)
    assert settings.group_chunks == math.ceil(2000 / 300)
    assert settings.model_every == 2100 // 300
    assert settings.max_sweeps == math.ceil(300 / math.ceil(34 / 7))
    assert settings.proximal == pytest.approx(0.2 * 199 / (2100 * 4))
    assert settings.output_damping == 0.003
    assert settings.activation == ("relu", "relu")
    small = resolved("classifier", 300, 100)
    assert (small.group_chunks, small.model_every, small.max_sweeps) == (20, 1, 300)
    sequences = resolved("recurrent_classifier", 10_000, 300)
    assert (sequences.group_chunks, sequences.model_every, sequences.output_damping) == (4, 8, 0.03)
    assert sequences.loss_at == "last"


@pytest.mark.parametrize(("rows", "decay"), [(10_000, 0.15 * math.sqrt(199 / 40_000)), (10, 0.2)])
def test_weight_decay_goes_by_the_unknowns_for_each_target_number(rows, decay):
    assert resolved("classifier", rows).weight_decay == pytest.approx(decay)
    assert resolved("classifier", rows, solver={"weight_decay": 0.0}).weight_decay == 0.0
    assert resolved("recurrent_classifier", rows).weight_decay == 0.0
    stream = resolve(pipeline_of("classifier"), NETWORKS["classifier"], 10, 10, samples=rows)
    assert stream.weight_decay == pytest.approx(decay)


@pytest.mark.parametrize(("rows", "decay"), [(10_000, 0.05 * math.sqrt(104 / 90_000)), (1, 0.2)])
def test_weight_decay_of_auto_encoders(rows, decay):
    network = (
        dense_network([9, 5, 9], "sigmoid", "squared")
        if rows > 1
        else dense_network([9, 9, 9, 9], "tanh", "squared")
    )
    settings = resolve(pipeline_of("autoencoder"), network, rows, 100)
    assert settings.weight_decay == pytest.approx(decay)
    entropy = dense_network(network.sizes, "sigmoid", "binary_cross_entropy")
    other = resolve(pipeline_of("autoencoder"), entropy, rows, 100)
    assert (other.weight_decay, other.output_damping, other.loss_powers) == (
        settings.weight_decay,
        0.003,
        (0.0, 0.0),
    )
    given = pipeline_of("autoencoder", solver={"weight_decay": 0.0, "output_damping": 0.5})
    found = resolve(given, network, rows, 100)
    assert (found.weight_decay, found.output_damping, found.loss_powers) == (0.0, 0.5, (0.5, 0.0))


@pytest.mark.parametrize(("rows", "share"), [(4, 1 / 6), (20, 1.5 / (199 / 80)), (40, 1.0)])
def test_output_damping_of_labels_is_less_where_numbers_are_few(rows, share):
    settings = resolve(pipeline_of("classifier"), NETWORKS["classifier"], rows, 2000)
    assert settings.output_damping == pytest.approx(0.003 * share)


def test_output_damping_of_auto_encoders_goes_by_their_depth():
    for sizes, sigma in (([9, 5, 9], 0.01), ([9, 6, 3, 9], 0.1)):
        network = dense_network(sizes, "relu", "squared")
        assert resolve(pipeline_of("autoencoder"), network, 500, 100).output_damping == pytest.approx(sigma)
        assert resolve(pipeline_of("regressor"), network, 500, 100).output_damping == 0.03
        given = pipeline_of("autoencoder", solver={"output_damping": 0.5})
        assert resolve(given, network, 500, 100).output_damping == 0.5


def test_a_group_has_rows_of_every_class():
    for kind, classes, rows in [
        ("cross_entropy", 900, 2000),
        ("cross_entropy", 3000, 6000),
        ("squared", 3000, 2000),
    ]:
        network = dense_network([12, 8, classes], "relu", kind)
        settings = resolve(pipeline_of("classifier"), network, 50_000, 100)
        assert settings.group_chunks == rows // 100


def test_where_z_persists():
    settings = resolved("autoencoder", 1000, 10, training={"schedule": "windows"})
    assert (settings.group_chunks, settings.first_window, settings.max_sweeps) == (1, 13, 10.0)
    assert settings.mu_in_pass(2, 0) == (0.03, 0.03)
    assert settings.proximal == 0.0
    assert settings.initialization == "whitened"
    batch = resolved("classifier", 1000, 99, training={"schedule": "batch"})
    assert (batch.group_chunks, batch.first_window, batch.initialization) == (11, None, "random")
    multipliers = resolved("recurrent_classifier", solver={"penalty": "multipliers"})
    assert (multipliers.schedule, multipliers.rho, multipliers.max_sweeps) == ("windows", (10.0,) * 3, 80.0)
    l1 = resolved("autoencoder", solver={"penalty": "l1", "augmentation": 0.7})
    assert (l1.rho, l1.mu_in_pass(2, 0)) == ((0.7, 0.7), (0.1, 0.1))


def test_what_is_given_stays():
    solver = {"mu": {"start": 1.0, "factor": 0.5, "stop": 0.25}, "proximal": 0.3}
    training = {"schedule": "windows", "group_chunks": 3, "first_window": 2, "max_sweeps": 7.0}
    settings = resolved("autoencoder", solver=solver, training=training)
    assert settings.mu == Geometric(1.0, 0.5, 0.25)
    assert settings.mu_in_pass(2, 1) == (0.5, 0.5)
    given = (settings.proximal, settings.group_chunks, settings.first_window, settings.max_sweeps)
    assert given == (0.3, 3, 2, 7.0)
    pipeline = pipeline_of("autoencoder", solver=solver, training=training)
    names = {name for _, name, _ in left_open(pipeline.model_dump(mode="json"), settings.to_dict())}
    assert names.isdisjoint({"mu", "proximal", "group_chunks", "first_window", "max_sweeps", "schedule"})
    assert {"activation", "initialization", "chunk_rows"} <= names


def test_they_are_recorded_planned_and_reported(altmin, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("p.toml").write_text(
        '[data]\ntrain = "digits:train"\nscale = 16\n[network]\nkind = "classifier"\nhidden_layer_sizes = [8]\n'
        "[training]\nmax_sweeps = 1\n[output]\nreport = true\n"
    )
    plan = json.loads(altmin("plan", "p.toml", "--json").out)["settings"]
    assert altmin("train", "p.toml", "--run", "run").code == 0
    recorded = json.loads(Path("run/pipeline.json").read_text())["resolved"]
    assert recorded["schedule"] == plan["training.schedule"] == "kfac"
    assert recorded["group_chunks"] == plan["training.group_chunks"]
    assert recorded["max_sweeps"] == 1.0
    assert "training.max_sweeps" not in plan
    assert plan["solver.mu"] == "∞"
    assert "kfac (by default)" in Path("run/report/report.html").read_text()


@pytest.mark.parametrize(("workers", "latency"), [(1, 0.016), (8, 0.016), (64, 0.064)])
def test_groups_grow_with_workers_and_latency(workers, latency):
    """The time to a given loss, S (1 + G*/G) (t + c G/K), is least at G; the default is never gone below."""
    network = dense_network([784, 300, 784], "sigmoid", "squared")
    place = Resources(workers, 1, None, in_process=False, latency=latency)
    found, noise = group_rows(network, 10**7, place), NOISE_ROWS * 2000
    cost = 6 * sum(d * (k - 1) for d, k in network.shapes) / FLOPS + ROW_SECONDS
    solve = sum(2 * d * k * (d + k) for d, k in network.shapes) / FLOPS
    rows = np.arange(2000, MOST_ROWS * noise + 1)
    seconds = (1 + noise / rows) * (latency + solve + cost * rows / workers)
    assert found == pytest.approx(rows[seconds.argmin()], rel=0.01)


def test_groups_stay_small_where_they_must():
    network = dense_network([20, 10, 20], "sigmoid", "squared")
    many = Resources(100, 4, None, in_process=False, latency=0.1)
    assert group_rows(network, 10**7, many) == MOST_ROWS * NOISE_ROWS * 2000
    assert group_rows(network, 40_000, many) == 40_000 // LEAST_STEPS
    assert group_rows(network, 1000, many) == 2000
    assert group_rows(network, 10**7, replace(many, in_process=True)) == 2000


def test_a_run_that_goes_on_keeps_its_groups():
    pipeline, network = pipeline_of("autoencoder"), NETWORKS["autoencoder"]
    many = Resources(64, 1, None, in_process=False, latency=0.1)
    begun = resolve(pipeline, network, 10**6, 1000, place=many)
    assert begun.group_chunks > 2
    elsewhere = resolve(pipeline, network, 10**6, 1000, begun=begun.to_dict())
    assert elsewhere == begun


@pytest.mark.parametrize(
    ("seconds", "rounded"), [(0.0, 0.001), (0.001, 0.001), (0.0011, 0.002), (0.015, 0.016), (0.1, 0.128)]
)
def test_latency_is_a_power_of_two(seconds, rounded):
    assert rounded_latency(seconds) == pytest.approx(rounded)
