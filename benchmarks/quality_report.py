"""Curves of held-out quality over CPU seconds as a table; `time_to_quality.py` makes the curves of one commit.

A curve counts with its cost, lower being better: the loss, or the error 100 − accuracy. Between two evaluations it is
linear in the logarithm of time. A number for several seeds is their median. A row is a contestant with one start and
raw or averaged weights, with the setting that validation has chosen. Only which row is the best of the others is seen
from the test curves, column by column, which favours them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

from measuring import spread
from quality_clock import AVERAGED, RAW, SPENT
from quality_data import SEARCH
from quality_tasks import OURS, TASKS

Point = Sequence[float]
"""CPU seconds, cost, and whatever else."""
ORDER = "altmin", "altmin-tuned", "altmin-raw", "adam", "adamw", "adam-cosine", "sgd", "lbfgs", "sklearn"
UNTUNED = "altmin", "altmin-raw"


def seconds_to(curve: Sequence[Point], cost: float) -> float:
    """CPU seconds at which a cost is reached first; ∞ if it is not."""
    for number, (seconds, reached, *_) in enumerate(curve):
        if reached <= cost:
            if number == 0:
                return seconds
            before, above, *_ = curve[number - 1]
            share = (above - cost) / (above - reached)
            return math.exp((1 - share) * math.log(before) + share * math.log(seconds))
    return math.inf


def cost_at(curve: Sequence[Point], moment: float) -> float:
    """The cost at a moment; ∞ before the first evaluation, and more than 2 % after the last one."""
    for (before, above, *_), (after, below, *_) in pairwise(curve):
        if before <= moment <= after:
            share = math.log(moment / before) / math.log(after / before)
            return (1 - share) * above + share * below
    near = [cost for seconds, cost, *_ in curve[-1:] if seconds <= moment <= 1.02 * seconds]
    return near[0] if near else math.inf


@dataclass(frozen=True)
class Row:
    """The runs of one contestant with one start, raw or averaged, in one setting: a curve for each seed."""

    contestant: str
    start: str
    weights: str
    """Raw or averaged."""
    label: str
    """The setting."""
    about: dict[str, Any]
    """How it was chosen."""
    curves: list[list[Point]]
    budgets: list[float]

    @property
    def ours(self) -> bool:
        """Whether it is altmin."""
        return self.contestant in OURS

    @property
    def name(self) -> str:
        """In sentences."""
        return f"{self.contestant}, {self.start}, {self.weights}"

    def to(self, cost: float) -> list[float]:
        """CPU seconds to a cost by seed."""
        return [seconds_to(curve, cost) for curve in self.curves]

    def at(self, moment: float) -> list[float]:
        """Costs at a moment, by those seeds that ran so long."""
        pairs = zip(self.curves, self.budgets, strict=True)
        return [cost_at(curve, moment) for curve, budget in pairs if budget >= moment]


def rows_of(task: str, lines: Sequence[dict[str, Any]]) -> list[Row]:
    """The rows of the finals among the lines of a file."""
    accuracy, rows = TASKS[task].accuracy, dict[tuple[str, ...], Row]()
    for line in sorted((line for line in lines if "row" in line), key=lambda line: line["spec"]["seed"]):
        spec, about = line["spec"], line["row"]
        for name, curve in line["curves"].items():
            weights = name if name in (RAW, AVERAGED) else AVERAGED
            label = label_of(spec, name)
            row = rows.setdefault(
                (about["contestant"], spec["start"], weights, label),
                Row(about["contestant"], spec["start"], weights, label, about, [], []),
            )
            row.curves.append([(s, 100 - q if accuracy else q) for s, q, *_ in curve])
            row.budgets.append(spec["seconds"])
    return sorted(rows.values(), key=order_of)


def order_of(row: Row) -> tuple[int, float, str, str]:
    """Where a row stands."""
    family, _, horizon = (
        row.contestant.rpartition("-") if row.contestant[-1].isdigit() else (row.contestant, "", 0)
    )
    return ORDER.index(family), float(horizon), row.start, row.weights


def label_of(spec: dict[str, Any], name: str) -> str:
    """A setting in words."""
    words = [
        f"{key.replace('_', ' ')} {value:g}" for key, value in spec["setting"].items() if value is not None
    ]
    if name not in (RAW, AVERAGED):
        words.append(f"mean {name}")
    return ", ".join(words)


@dataclass(frozen=True)
class Column:
    """A column of the table: what is measured, and how it is written."""

    title: str
    measure: Callable[[Row], list[float]]
    write: Callable[[float], str]
    is_threshold: bool

    def middle(self, row: Row) -> float:
        """The median; ∞ if there is none."""
        return median(self.measure(row) or [math.inf])

    def best_of(self, rows: Sequence[Row]) -> Row | None:
        """The row with the best median, if any gets there."""
        reached = [row for row in rows if math.isfinite(self.middle(row))]
        return min(reached, key=self.middle, default=None)

    def cell(self, row: Row) -> str:
        """Median and range over seeds; how many, if they are fewer than in the row."""
        found = self.measure(row)
        if not found or not math.isfinite(median(found)):
            return "–"
        text = spread(sorted(found), lambda value: self.write(value) if math.isfinite(value) else "never")
        return text + (f" (of {len(found)})" if len(found) < len(row.curves) else "")


def columns(task: str, longest: float) -> list[Column]:
    """Of a task's table."""
    known, deep = TASKS[task], task == "deep"

    def quality(cost: float) -> str:
        if known.accuracy:
            return f"{100 - cost:.2f} %"
        return f"{cost:.3f} (SE {2 * cost:.2f})" if deep else f"{cost:.3f}"

    def written(threshold: float) -> str:
        if known.accuracy:
            return f"{threshold:.1f} %"
        return f"{threshold:g}" + (f" (SE {2 * threshold:g})" if deep else "")

    def of_threshold(threshold: float) -> Column:
        cost = 100 - threshold if known.accuracy else threshold
        return Column(f"s to {written(threshold)}", partial(Row.to, cost=cost), "{:.3g}".format, True)

    def of_moment(moment: float) -> Column:
        return Column(f"at {moment:g} s", partial(Row.at, moment=moment), quality, False)

    found = [of_threshold(threshold) for threshold in known.thresholds]
    return found + [of_moment(moment) for moment in known.moments if moment <= longest]


def table(task: str, commit: str, lines: Sequence[dict[str, Any]]) -> str:
    """The Markdown of a task."""
    rows = rows_of(task, lines)
    heads = columns(task, max(budget for row in rows for budget in row.budgets))
    parts = [
        f"## {task}: {'-'.join(map(str, TASKS[task].sizes))}",
        "",
        caption(task, commit, lines),
        "",
        *equal_terms(task, rows, [head for head in heads if head.is_threshold]),
        "",
        *every_row(task, rows, heads),
        "",
        verdict(task, rows, heads),
    ]
    return "\n".join([*parts, *alone(lines), *troubles(lines)]) + "\n"


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body)]


def equal_terms(task: str, rows: Sequence[Row], heads: Sequence[Column]) -> list[str]:
    """Ours beside the best of the others with the same start and weights, and by defaults beside any of them."""
    body, default = [], TASKS[task].default_start
    terms = [
        (
            f"{ours.start}, {ours.weights}",
            ours,
            [r for r in rows if (r.start, r.weights) == (ours.start, ours.weights)],
        )
        for ours in rows
        if ours.contestant in UNTUNED
    ]
    terms += [
        (f"{ours.contestant} against any start and weights", ours, list(rows))
        for ours in rows
        if ours.ours and ours.weights == AVERAGED and ours.start == default
    ]
    for title, ours, of in terms:
        others = [row for row in of if not row.ours]
        mine, theirs, ratios = [], [], []
        for head in heads:
            best = head.best_of(others)
            mine.append(head.cell(ours))
            theirs.append("–" if best is None else f"{head.cell(best)}<br>{best.contestant}")
            ratios.append(ratio(head.middle(ours), math.inf if best is None else head.middle(best)))
        body += [[title, ours.contestant, *mine], ["", "best other", *theirs], ["", "other ÷ ours", *ratios]]
    return ["On equal terms, CPU seconds:", "", *markdown(["", "", *(head.title for head in heads)], body)]


def ratio(ours: float, theirs: float) -> str:
    """How many times as long the others take."""
    if math.isfinite(ours):
        return f"{theirs / ours:.2f} ×" if math.isfinite(theirs) else "no other gets there"
    return "ours does not" if math.isfinite(theirs) else "–"


def every_row(task: str, rows: Sequence[Row], heads: Sequence[Column]) -> list[str]:
    """The full list."""
    default = TASKS[task].default_start
    body = []
    for row in rows:
        tried = f"{row.about['tried']}" + ("" if row.about["inside"] else " (rate at the edge)")
        mark = " (default)" if row.contestant == "altmin" and row.start == default else ""
        if row.contestant in UNTUNED:
            tried = "none"
        body.append(
            [
                row.contestant,
                row.start + mark,
                row.weights,
                row.label or "defaults",
                tried,
                str(len(row.curves)),
            ]
            + [head.cell(row) for head in heads]
        )
    titles = ["", "start", "weights", "setting", "settings tried", "seeds", *(head.title for head in heads)]
    return ["All:", "", *markdown(titles, body)]


def verdict(task: str, rows: Sequence[Row], heads: Sequence[Column]) -> str:
    """Where another row is better than our defaults."""
    default = TASKS[task].default_start
    [ours] = [r for r in rows if (r.contestant, r.start, r.weights) == ("altmin", default, AVERAGED)] or [
        None
    ]
    if ours is None:
        return "altmin has not run by its defaults."
    lost = []
    for head in heads:
        best = head.best_of([row for row in rows if not row.ours])
        if best is not None and head.middle(best) < head.middle(ours):
            lost.append(f"{head.title}: {best.name} with {head.cell(best)} against {head.cell(ours)}")
    if lost:
        return f"**Others are better than our defaults**: {'; '.join(lost)}."
    return "No other is better than our defaults in any column."


def caption(task: str, commit: str, lines: Sequence[dict[str, Any]]) -> str:
    """What the numbers are and where they come from."""
    known = TASKS[task]
    machines = [line["machine"] for line in lines if "machine" in line]
    final, searched = (
        [r for r in lines if "row" in r],
        [r for r in lines if r.get("spec", {}).get("part") == SEARCH],
    )
    quality = "Accuracy of the network" if known.accuracy else "Mean ½‖x̂−x‖²"
    where = sorted({f"{m['cpu']}, {m['cores']} cores, BLAS {'; '.join(m['blas'])}" for m in machines})
    versions = sorted({f"{name} {version}" for m in machines for name, version in m["versions"].items()})
    starts: dict[str, list[float]] = {}
    for line in final:
        starts.setdefault(line["spec"]["start"], []).append(line["start_seconds"])
    shares = [line["averaging_share"] for line in final if line.get("averaging_share")]
    sentences = [
        f"{quality} on the 10,000 test digits after training on 60,000. CPU seconds of training on one thread; for "
        "several seeds, which took turns, median [range]. Settings were chosen once for each row, on 10,000 digits "
        "kept back from the training samples, by the cost at the end of runs of "
        f"{', '.join(f'{s:.3g}' for s in sorted({r['spec']['seconds'] for r in searched}))} s "
        f"({len(searched)} runs, each with running means of several decays beside the weights; where a row "
        "began at the choice of another, its count has that one's). The test digits have chosen nothing but the best "
        "of the others for each column, which favours them. The making of the initial weights is on every clock: "
        + ", ".join(f"{start} {median(seconds):.2g} s" for start, seconds in starts.items())
        + " (medians). Fewer seeds have runs for longer than others, contestants far behind in the search, altmin-raw, "
        "and the start that is not altmin's default."
    ]
    if shares:
        sentences.append(
            f"A running mean of the weights takes {100 * min(shares):.1f}–{100 * max(shares):.1f} % more, on the "
            "clock of averaged rows only; raw and averaged rows of the others are from the same runs, those of altmin "
            "from runs of their own."
        )
    sentences += [
        "The rate of adam-cosine-T decays over T s; SGD has momentum 0.9; L-BFGS strong Wolfe."
        + ("" if known.accuracy else " scikit-learn's MLPRegressor has no sigmoid output."),
        f"{' and '.join(where)}; {', '.join(versions)}; commit {commit}. Load average before and after runs up to "
        f"{max((max(line['load']) for line in final), default=0):.1f}, of which ours are "
        f"{' or '.join(sorted({str(m['jobs']) for m in lines if 'machine' in m}))}; other processes kept at most "
        f"{max((line['others'] for line in final), default=0):.2f} cores busy, and disturbed "
        f"{sum(bool(line.get('disturbed')) for line in final)} of {len(final)} runs.",
    ]
    return " ".join(sentences)


def alone(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Where ours would have stopped by themselves, and what they would have kept."""
    found = []
    for line in lines:
        if "row" in line and line["row"]["contestant"] in ("altmin", "altmin-tuned"):
            stop, spec = line.get("alone"), line["spec"]
            who = f"- {line['row']['contestant']}, {spec['start']}, seed {spec['seed']}, of {spec['seconds']:g} s: "
            found.append(
                who + "would not have stopped"
                if stop is None
                else who
                + f"after {stop['seconds']:g} s, with the model of {stop['kept_seconds']:g} s, whose "
                f"held-out quality is {stop['quality']:g}"
            )
    head = "Ours would have stopped by themselves, by the loss of 10,000 training samples alone (`n_iter_no_change`):"
    return ["", head, "", *sorted(found)] if found else []


def troubles(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Runs of the finals that ended before their budget."""
    found = [
        f"- {line['row']['contestant']}, {line['spec']['start']}, {label_of(line['spec'], RAW)}, seed "
        f"{line['spec']['seed']}: {line['status']}"
        for line in lines
        if "row" in line and line["status"] != SPENT
    ]
    return ["", "Ended early:", "", *sorted(found)] if found else []
