"""Settings are chosen on validation samples, with both neighbours of the best rate tried; finals take turns."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from quality_clock import RAW, SPENT
from quality_data import FINAL, SEARCH
from quality_search import BEHIND, MOST, choose, finals, in_turns, key_of, neighbours
from quality_tasks import BATCHES, RATES, TASKS, contestants_of


def pretending(cost, asked=None):
    """Results of a function of the spec."""

    def run_all(specs):
        found = []
        for spec in specs:
            if asked is not None:
                asked.append(spec)
            value = cost(spec)
            curves = {name: [[spec["seconds"], value, 1.0]] for name in (RAW, *map(str, spec["averages"]))}
            found.append(
                {"spec": spec, "status": SPENT if math.isfinite(value) else "diverged", "curves": curves}
            )
        return found

    return run_all


def some(*names, horizons=(10.0, 25.0), task="autoencoder"):
    known = contestants_of(task, 30.0, horizons, TASKS[task].rungs)
    return [contestant for contestant in known if contestant.name in names]


def log_distance(rate, batch=128):
    def cost(spec):
        far = abs(math.log(spec["setting"]["rate"] / rate)) + abs(math.log(spec["setting"]["batch"] / batch))
        return 1.0 + far

    return cost


@pytest.mark.parametrize("rate", [1e-5, 3e-4, 3e-3, 1e-2, 3.0])
@pytest.mark.parametrize("batch", BATCHES)
def test_rates_are_tried_until_the_best_one_is_inside(rate, batch):
    asked = []
    found = choose("autoencoder", some("adam"), ["random"], pretending(log_distance(rate, batch), asked))
    choice = found["adam", "random"]
    assert (choice.setting, choice.inside) == ({"batch": batch, "rate": rate}, True)
    at = RATES.index(rate)
    for seconds in TASKS["autoencoder"].rungs:  # in every rung
        tried = {(s["setting"]["rate"], s["setting"]["batch"]) for s in asked if s["seconds"] == seconds}
        assert {(RATES[at - 1], batch), (RATES[at + 1], batch)} <= tried
    assert choice.tried == len({key_of(spec["setting"]) for spec in asked})


def test_a_search_ends_where_rates_never_do():
    asked = []
    flat = pretending(lambda spec: spec["setting"]["rate"] + spec["setting"]["batch"], asked)
    choice = choose("autoencoder", some("adam"), ["random"], flat)["adam", "random"]
    assert choice.setting == {"batch": BATCHES[0], "rate": RATES[0]}
    asked.clear()
    few = replace(
        some("adam")[0], begin=tuple({"batch": 128, "rate": rate} for rate in RATES[4:]), rungs=(1.0,)
    )
    many = [replace(few, begin=few.begin * 1 + tuple({**s, "decay": d} for s in few.begin for d in (1, 2)))]
    choice = choose("autoencoder", many, ["random"], pretending(lambda spec: spec["setting"]["rate"], asked))
    assert len(asked) == max(MOST, 3 * len(few.begin))
    assert not choice["adam", "random"].inside


def test_what_diverges_is_never_chosen_and_leads_to_smaller_rates():
    asked = []
    cost = log_distance(1e-4)
    run_all = pretending(lambda s: math.inf if s["setting"]["rate"] > 5e-4 else cost(s), asked)
    assert choose("autoencoder", some("adam"), ["random"], run_all)["adam", "random"].setting["rate"] == 1e-4


def test_only_the_best_quarter_is_tried_for_longer_and_the_longer_time_decides():
    asked = []

    def cost(spec):
        return log_distance(1e-2 if spec["seconds"] < 5 else 3e-3, 200)(spec)

    choice = choose("autoencoder", some("adam"), ["random"], pretending(cost, asked))["adam", "random"]
    short, long = ([s for s in asked if s["seconds"] == seconds] for seconds in TASKS["autoencoder"].rungs)
    ranked = [key_of(spec["setting"]) for spec in sorted(short, key=cost)]
    went_on = ranked[: math.ceil(len(ranked) / 4)]
    assert [key_of(spec["setting"]) for spec in long[: len(went_on)]] == went_on
    assert choice.setting == {"batch": 128, "rate": 3e-3}
    assert (choice.cost, choice.inside) == (pytest.approx(1 + math.log(200 / 128)), True)


def test_a_mean_is_chosen_with_its_setting():
    def run_all(specs):
        found = pretending(log_distance(1e-2))(specs)
        for result in found:
            result["curves"]["0.99"][0][1] -= 0.5
        return found

    choice = choose("autoencoder", some("adam"), ["random"], run_all)["adam", "random"]
    assert (choice.average, choice.cost) == (0.99, 0.5)


def test_who_begins_where_another_ends_counts_its_settings_too():
    asked = []
    who = some("adam", "adamw", "adam-cosine-10", "adam-cosine-25")
    found = choose("autoencoder", who, ["random", "whitened"], pretending(log_distance(0.03), asked))
    for start in ("random", "whitened"):
        adam, adamw, ten = (found[name, start] for name in ("adam", "adamw", "adam-cosine-10"))
        assert adamw.setting["rate"] == ten.setting["rate"] == adam.setting["rate"] == 0.03
        assert adamw.setting["decay"] == 0.001
        own = {key_of(s["setting"]) for s in asked if s["optimizer"] == "adamw" and s["start"] == start}
        assert len(own) == 5  # three decays, and two neighbours in rate
        assert adamw.tried == adam.tried + 5
        assert found["adam-cosine-25", start].tried > ten.tried > adam.tried
    firsts = [s["optimizer"] for s in asked]
    assert "adamw" not in firsts[: firsts.index("adamw")]
    assert {s["seed"] for s in asked} == {0}
    assert {s["part"] for s in asked} == {
        SEARCH
    }  # no run of the finals, which see the test digits, is asked for


def test_the_searches_of_all_contestants_take_turns():
    asked = []
    choose(
        "classifier",
        some("adam", "sgd", "sklearn", task="classifier"),
        ["random", "whitened"],
        pretending(log_distance(0.01), asked),
    )
    who = [(spec["optimizer"], spec["start"]) for spec in asked]
    assert len(set(who[:6])) == 6
    assert in_turns([["a1", "a2", "a3"], ["b1"], ["c1", "c2"]]) == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_neighbours_are_one_step_away():
    near = neighbours({"rate": 1e-2, "batch": 64, "decay": 0.1}, ("rate", "batch"))
    assert [(s["rate"], s["batch"]) for s in near] == [(3e-3, 64), (3e-2, 64), (1e-2, 32), (1e-2, 128)]
    assert {s["decay"] for s in near} == {0.1}
    assert neighbours({"batch": 10_000}, ("rate",)) == []


def test_finals_are_seed_by_seed_and_the_longest_first():
    who = some(
        "altmin", "altmin-raw", "adam", "adam-cosine-10", "adam-cosine-300", "sgd", horizons=(10.0, 300.0)
    )

    def cost(spec):
        worse = 2 * BEHIND if spec["optimizer"] == "sgd" else 1.0
        return worse * log_distance(0.01)(spec) * (1.0 if spec["start"] == "whitened" else 1.01)

    choices = choose("autoencoder", who, ["random", "whitened"], pretending(cost))
    runs = finals("autoencoder", who, choices, seeds=3, other_seeds=2, seconds=30.0)
    seeds = [final.spec["seed"] for final in runs]
    assert seeds == sorted(seeds)
    for seed in range(3):
        lengths = [final.spec["seconds"] for final in runs if final.spec["seed"] == seed]
        assert lengths == sorted(lengths, reverse=True)
    numbers = {}
    for final in runs:
        numbers.setdefault((final.contestant, final.spec["start"]), []).append(final.spec["seconds"])
    assert numbers == {
        ("altmin", "whitened"): [300, 30, 30],
        ("altmin", "random"): [30, 30],
        ("altmin-raw", "whitened"): [30],
        ("altmin-raw", "random"): [30],
        ("adam", "whitened"): [30] * 3,
        ("adam", "random"): [30] * 2,
        ("adam-cosine-10", "whitened"): [10] * 3,
        ("adam-cosine-10", "random"): [10] * 2,
        ("adam-cosine-300", "whitened"): [300],
        ("sgd", "whitened"): [30],
        ("sgd", "random"): [30],
    }
    assert all(final.spec["part"] == FINAL for final in runs)
    assert all(len(final.spec["averages"]) == (not final.contestant.startswith("altmin")) for final in runs)
