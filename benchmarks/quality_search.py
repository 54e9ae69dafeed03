"""How the settings of a contestant are chosen: on samples kept back from the training samples, by successive halving.

A search tries settings for a short time, and the neighbours of the best one, until none is better: a rate that is
chosen has a larger and a smaller one tried beside it. The best quarter goes on to a longer time, where the same holds
of rates. What counts is the cost at the end, of the raw weights or of a running mean of them, whichever is lower.

Searches are generators that ask for runs and are sent their results, so that those of all contestants take turns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from quality_clock import AVERAGED, RAW, SPENT
from quality_data import FINAL, SEARCH, Spec
from quality_tasks import BATCHES, OURS, RATES, TASKS, Contestant, Setting

MOST = 24
"""Settings that a search tries for one time, at most."""
GOES_ON = 4
"""One of so many settings is tried for longer."""
BEHIND = 1.5
"""A contestant whose validated cost is this multiple of the best with the same start has one seed in the finals."""

Result = dict[str, Any]
RunAll = Callable[[Sequence[Spec]], list[Result]]
"""Carries out runs in the order given, and returns what came of them in the same order."""
Steps = Generator[list[Spec], list[Result], "Choice"]


@dataclass(frozen=True)
class Choice:
    """What a search has found.

    Attributes
    ----------
    setting : dict
        The best one.
    average : float or None
        The decay with which the running mean of that setting was best; None where there was no choice.
    cost : float
        On the validation samples, at the end of the last rung.
    tried : int
        Settings, those of the searches included from which this one began.
    inside : bool
        Whether the neighbours in rate were tried, too.
    """

    setting: Setting
    average: float | None = None
    cost: float = math.inf
    tried: int = 1
    inside: bool = True


def key_of(value: Any) -> str:
    """The same text for equal settings or specs."""
    return json.dumps(value, sort_keys=True)


def costs_of(result: Result) -> dict[str, float]:
    """The last cost of every curve, lower being better; ∞ for what has diverged."""
    accuracy = TASKS[result["spec"]["task"]].accuracy
    ended = result["status"] == SPENT
    return {
        name: (100 - curve[-1][1] if accuracy else curve[-1][1]) if ended and curve else math.inf
        for name, curve in result["curves"].items()
    }


def neighbours(setting: Setting, moves: Sequence[str]) -> list[Setting]:
    """Settings one step away."""
    found = []
    for name, values in (("rate", RATES), ("batch", BATCHES)):
        if name in moves and setting.get(name) in values:
            at = values.index(setting[name])
            near = values[max(at - 1, 0) : at] + values[at + 1 : at + 2]
            found += [{**setting, name: value} for value in near]
    return found


def search(
    contestant: Contestant, begin: Sequence[Setting], before: int, make: Callable[[Setting, float], Spec]
) -> Steps:
    """Look for the best setting.

    Parameters
    ----------
    contestant : Contestant
        Its rungs and moves.
    begin : sequence of dict
        Settings.
    before : int
        How many were tried to find these.
    make : callable
        The run of a setting for so many seconds.
    """
    settings, seen = list(begin), set[str]()
    costs: dict[str, dict[str, float]] = {}
    known: dict[str, Setting] = {}

    def rank(key: str) -> tuple[float, float]:
        cost = min(costs[key].values(), default=math.inf)
        # where all have diverged, a smaller rate is better
        return cost, 0.0 if math.isfinite(cost) else known[key].get("rate", 0.0)

    for number, seconds in enumerate(contestant.rungs):
        moves = contestant.moves if number == 0 else tuple(m for m in contestant.moves if m == "rate")
        costs.clear()
        waiting = {key_of(setting): setting for setting in settings}
        while waiting:
            results = yield [make(setting, seconds) for setting in waiting.values()]
            costs.update(zip(waiting, map(costs_of, results), strict=True))
            known.update(waiting)
            best = min(costs, key=rank)
            near = {key_of(setting): setting for setting in neighbours(known[best], moves)}
            waiting = {key: near[key] for key in list(near)[: MOST - len(costs)] if key not in costs}
        seen.update(costs)
        ranked = sorted(costs, key=rank)
        settings = [known[key] for key in ranked[: math.ceil(len(ranked) / GOES_ON)]]
    if not costs:
        return Choice(settings[0], tried=before + len(settings))
    best = min(costs, key=rank)
    averaged = {float(name): cost for name, cost in costs[best].items() if name not in (RAW, AVERAGED)}
    return Choice(
        known[best],
        min(averaged, key=lambda decay: averaged[decay], default=None),
        rank(best)[0],
        before + len(seen),
        all(key_of(setting) in costs for setting in neighbours(known[best], ("rate",) * bool(moves))),
    )


def in_turns(groups: Sequence[Sequence[Spec]]) -> list[Spec]:
    """The first of every group, then the second, and so on."""
    return [spec for some in zip_longest(*groups) for spec in some if spec is not None]


def side_by_side(searches: Mapping[tuple[str, str], Steps], run_all: RunAll) -> dict[tuple[str, str], Choice]:
    """Carry out searches, their runs in turns; what each has found."""
    found: dict[tuple[str, str], Choice] = {}
    asked: dict[tuple[str, str], list[Spec]] = {}

    def advance(name: tuple[str, str], results: list[Result] | None) -> None:
        try:
            asked[name] = next(searches[name]) if results is None else searches[name].send(results)
        except StopIteration as end:
            found[name] = end.value
            asked.pop(name, None)

    for name in searches:
        advance(name, None)
    while asked:
        specs = in_turns(list(asked.values()))
        done = dict(zip(map(key_of, specs), run_all(specs), strict=True))
        for name in list(asked):
            advance(name, [done[key_of(spec)] for spec in asked[name]])
    return found


def choose(
    task: str, contestants: Sequence[Contestant], starts: Sequence[str], run_all: RunAll
) -> dict[tuple[str, str], Choice]:
    """The settings of every contestant from every start; contestants that begin where others ended, after those."""
    found: dict[tuple[str, str], Choice] = {}
    left = list(contestants)
    while left:
        names = {name for name, _ in found}
        ready = [c for c in left if not c.after or c.after in names]
        if not ready:
            raise SystemExit(
                f"{left[0].name} begins where {left[0].after} ends, which is not among the contestants"
            )
        searches = {}
        for contestant in ready:
            for start in (start for start in starts if start in contestant.starts):
                before = found.get((contestant.after, start), Choice({}, tried=0))
                begin = [{**before.setting, **setting} for setting in contestant.begin]
                make = spec_maker(task, contestant, start)
                searches[contestant.name, start] = search(contestant, begin, before.tried, make)
        found |= side_by_side(searches, run_all)
        left = [c for c in left if c not in ready]
    return found


def spec_maker(task: str, contestant: Contestant, start: str) -> Callable[[Setting, float], Spec]:
    """Makes the runs of a search."""

    def make(setting: Setting, seconds: float) -> Spec:
        return {
            "task": task,
            "optimizer": contestant.optimizer,
            "cosine": contestant.cosine,
            "start": start,
            "setting": setting,
            "averages": [] if contestant.name in OURS else list(contestant.averages),
            "seconds": seconds,
            "seed": 0,
            "part": SEARCH,
        }

    return make


@dataclass(frozen=True)
class Final:
    """A run of the finals, and the row of the table that it counts for."""

    spec: Spec
    contestant: str
    choice: Choice


def finals(
    task: str,
    contestants: Sequence[Contestant],
    choices: Mapping[tuple[str, str], Choice],
    seeds: int,
    other_seeds: int,
    seconds: float,
) -> list[Final]:
    """The runs on all training samples, seed by seed, in each the longest first.

    There are `seeds` of altmin's default start, and `other_seeds` of another. One seed have: what takes longer than
    `seconds` (and only from the start with the lower validated cost), contestants that are far behind others of the
    same search time, and ours without averaging. Our first default run is as long as the longest of all.
    """
    by_name = {contestant.name: contestant for contestant in contestants}
    longest = max(contestant.seconds for contestant in contestants)
    found = []
    for (name, start), choice in choices.items():
        contestant = by_name[name]
        own = {where: other.cost for (who, where), other in choices.items() if who == name}
        longer = contestant.seconds > seconds
        if longer and start != min(own, key=lambda where: own[where]):
            continue
        rivals = [
            other.cost
            for (who, where), other in choices.items()
            if where == start and who not in OURS and by_name[who].rungs[-1:] == contestant.rungs[-1:]
        ]
        behind = BEHIND * min(rivals, default=math.inf) < choice.cost < math.inf
        default = start == TASKS[task].default_start
        number = 1 if longer or behind or name == "altmin-raw" else seeds if default else other_seeds
        make = spec_maker(task, contestant, start)
        for seed in range(number):
            whole = name == "altmin" and default and seed == 0
            found.append(
                Final(
                    {
                        **make(choice.setting, longest if whole else contestant.seconds),
                        "averages": [] if choice.average is None else [choice.average],
                        "part": FINAL,
                        "seed": seed,
                    },
                    name,
                    choice,
                )
            )
    return sorted(found, key=lambda final: (final.spec["seed"], -final.spec["seconds"]))
