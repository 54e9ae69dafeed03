"""Curves of held-out quality over CPU seconds as a table and a figure; `time_to_quality.py` makes the curves.

A curve counts with its cost, lower being better: the loss, or the error 100 − accuracy. Between two evaluations it is
linear in the logarithm of time. A number for several seeds is their median; the best setting of a contestant is chosen
for every column anew, by looking at the same held-out samples, which favours contestants with many settings.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from contestants import SPENT, STOPPED
from quality_tasks import TASKS, Task

OURS = ("altmin", "altmin-tuned")
Point = Sequence[float]
"""CPU seconds, cost, and whatever else."""


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


def best(curve: Sequence[Point]) -> float:
    """The lowest cost."""
    return min((cost for _, cost, *_ in curve), default=math.inf)


@dataclass(frozen=True)
class Group:
    """The runs of one contestant with one setting: a curve for each seed."""

    contestant: str
    label: str
    seconds: float
    """The budget."""
    curves: list[list[Point]]

    def measure(self, number: Callable[[list[Point]], float]) -> tuple[float, float, float]:
        """Median, minimum and maximum over the seeds."""
        found = [number(curve) for curve in self.curves]
        return median(found), min(found), max(found)


def group_runs(task: Task, results: Sequence[dict[str, Any]], seconds: float) -> list[Group]:
    """By contestant, setting and budget, which is a part of the setting where the rate decays over it."""
    groups: dict[tuple[str, str, float], list[list[Point]]] = {}
    for result in sorted(results, key=lambda result: (-result["seconds"], result["seed"])):
        curve: list[Point] = [(s, 100 - q if task.accuracy else q) for s, q, *_ in result["curve"]]
        if result["status"] == STOPPED and curve:
            curve.append((result["seconds"], curve[-1][1]))  # its network stays what it is
        label = " ".join(f"{name} {value:g}" for name, value in result["setting"].items())
        if result["contestant"] == "adam-cosine" and result["seconds"] < seconds:
            label += f" over {result['seconds']:g} s"
        groups.setdefault((result["contestant"], label, result["seconds"]), []).append(curve)
    return [Group(*key, curves) for key, curves in groups.items()]


@dataclass(frozen=True)
class Column:
    """A column of the table: what is measured, and how it is written."""

    title: str
    short: str
    measure: Callable[[list[Point]], float]
    write: Callable[[float], str]
    is_threshold: bool
    descends: bool = False
    """Whether what is written falls where the measure rises, as accuracy does."""

    def best_of(self, groups: Sequence[Group]) -> tuple[Group, tuple[float, float, float]] | None:
        """The group with the best median, if any gets there."""
        measured = [(group, group.measure(self.measure)) for group in groups]
        reached = [pair for pair in measured if math.isfinite(pair[1][0])]
        return min(reached, key=lambda pair: pair[1][0]) if reached else None


def columns(name: str, seconds: float) -> list[Column]:
    """Of a task's table."""
    task = TASKS[name]
    deep = name == "deep"

    def quality(cost: float) -> str:
        if task.accuracy:
            return f"{100 - cost:.2f} %"
        return f"{cost:.3f} (SE {2 * cost:.2f})" if deep else f"{cost:.3f}"

    def written(threshold: float) -> str:
        if task.accuracy:
            return f"{threshold:.1f} %"
        return f"{threshold:g}" + (f" (SE {2 * threshold:g})" if deep else "")

    def of_threshold(threshold: float) -> Column:
        name, cost = written(threshold), 100 - threshold if task.accuracy else threshold
        return Column(f"s to {name}", f"to {name}", partial(seconds_to, cost=cost), "{:.3g}".format, True)

    def of_moment(moment: float) -> Column:
        name = f"at {moment:g} s"
        return Column(name, name, partial(cost_at, moment=moment), quality, False, task.accuracy)

    found = [of_threshold(threshold) for threshold in task.thresholds]
    found += [of_moment(moment) for moment in task.moments if moment <= seconds]
    last = Column(f"best in {seconds:g} s", "best in the budget", best, quality, False, task.accuracy)
    return [*found, last]


def cell(column: Column, groups: Sequence[Group]) -> str:
    """The median of the best setting, the range over seeds, and the setting."""
    chosen = column.best_of(groups)
    if chosen is None:
        return "–"
    group, (middle, low, high) = chosen
    text = column.write(middle)
    if len(group.curves) > 1:
        ends = (high, low) if column.descends else (low, high)
        text += " [{}–{}]".format(*(column.write(e) if math.isfinite(e) else "never" for e in ends))
    return f"{text}<br>{group.label}" if group.label else text


def table(name: str, results: Sequence[dict[str, Any]], seconds: float, notes: Sequence[str]) -> str:
    """The Markdown of a task."""
    task = TASKS[name]
    groups = group_runs(task, results, seconds)
    present = [c for c in ORDER if any(group.contestant == c for group in groups)]
    heads = columns(name, seconds)
    lines = [
        f"## {name}: {'-'.join(map(str, task.sizes))}",
        "",
        caption(task, groups, results, seconds, notes),
        "",
        "| | " + " | ".join(column.title for column in heads) + " |",
        "|---" * (len(heads) + 1) + "|",
    ]
    for contestant in present:
        own = [group for group in groups if group.contestant == contestant]
        lines.append(f"| {contestant} | " + " | ".join(cell(column, own) for column in heads) + " |")
    baselines = [group for group in groups if group.contestant not in OURS]
    verdicts = []
    for contestant in OURS:
        own = [group for group in groups if group.contestant == contestant]
        if own and baselines:
            ratios, verdict = compare(contestant, heads, own, baselines)
            lines.append(f"| best baseline ÷ {contestant} | " + " | ".join(ratios) + " |")
            verdicts += ["", verdict]
    return "\n".join([*lines, *verdicts, *troubles(results)]) + "\n"


def compare(
    ours: str, heads: Sequence[Column], own: Sequence[Group], baselines: Sequence[Group]
) -> tuple[list[str], str]:
    """Ratios of seconds, and a sentence that says where a baseline wins."""
    ratios, lost = [], []
    for column in heads:
        we, they = column.best_of(own), column.best_of(baselines)
        ratio = ""
        if column.is_threshold and they is not None:
            ratio = "never reached by ours" if we is None else f"{they[1][0] / we[1][0]:.2f} ×"
        elif column.is_threshold:
            ratio = "–" if we is None else "no baseline gets there"
        ratios.append(ratio)
        if they is not None and (we is None or they[1][0] < we[1][0]):
            unit = " s" if column.is_threshold else ""
            mine = "not reached" if we is None else column.write(we[1][0]) + unit
            who = f"{they[0].contestant} {they[0].label}".strip()
            lost.append(f"{column.short}: {who} with {column.write(they[1][0])}{unit} against {mine}")
    if lost:
        return ratios, f"**A baseline wins** against {ours} {'; '.join(lost)}."
    return ratios, f"No baseline wins against {ours} in any column."


def caption(
    task: Task,
    groups: Sequence[Group],
    results: Sequence[dict[str, Any]],
    seconds: float,
    notes: Sequence[str],
) -> str:
    """What the numbers are and where they come from."""
    quality = "accuracy of the network" if task.accuracy else "mean ½‖x̂−x‖²"
    seeds = {len(group.curves) for group in groups}
    several = " or ".join(map(str, sorted(seeds)))
    versions = {f"{name} {v}" for result in results for name, v in result["versions"].items()}
    commits = sorted({result["commit"] for result in results})
    sentences = [
        f"Held-out {quality} on 10,000 digits, training on 60,000. CPU seconds of training on one thread; "
        f"budget {seconds:g} s; {several} seed{'' if several == '1' else 's'}"
        + ("" if several == "1" else ", median [range]")
        + ". Under a number: the setting it is from, the best one for that column, as chosen on the same held-out "
        "digits.",
        "Baselines: batch 128, SGD with momentum 0.9, the rate of adam-cosine decays to 0 over the budget; "
        "L-BFGS with strong Wolfe; PyTorch starts from altmin's initial weights."
        + ("" if task.accuracy else " scikit-learn's MLPRegressor has no sigmoid output."),
        *notes,
        f"{cpu_name()}, {os.cpu_count()} cores; load of the machine during the runs up to "
        f"{max((max(result['machine_load']) for result in results), default=0):.1f}; {', '.join(sorted(versions))}; "
        f"commit {', '.join(commits)}.",
    ]
    return " ".join(sentences)


def troubles(results: Sequence[dict[str, Any]]) -> list[str]:
    """Runs that ended before their budget."""
    found = [
        f"- {result['contestant']} {result['setting'] or ''} seed {result['seed']}: {result['status']}"
        for result in results
        if result["status"] != SPENT
    ]
    return ["", "Ended early:", "", *sorted(found)] if found else []


def cpu_name() -> str:
    """As Linux tells it."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


STYLES: dict[str, dict[str, Any]] = {
    # told apart without colour: dashes and markers, and lightness
    "altmin": {"color": "#000000", "linestyle": "-", "marker": "o"},
    "altmin-tuned": {"color": "#08519c", "linestyle": "-", "marker": "s"},
    "adam": {"color": "#cb181d", "linestyle": "--", "marker": "^"},
    "adam-cosine": {"color": "#ef6548", "linestyle": "-.", "marker": "v"},
    "sgd": {"color": "#238b45", "linestyle": ":", "marker": "D"},
    "lbfgs": {"color": "#8c6bb1", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "x"},
    "sklearn": {"color": "#969696", "linestyle": (0, (8, 3)), "marker": "+"},
}
ORDER = tuple(STYLES)


def median_curve(group: Group) -> tuple[Any, Any]:
    """Seconds and costs: the median over seeds at common moments, as long as all curves last."""
    curves = [np.array(curve) for curve in group.curves if curve]
    if not curves:
        return np.array([]), np.array([])
    logs = np.log(curves[0][:, 0])
    low, high = (f([np.log(c[i, 0]) for c in curves]) for f, i in ((max, 0), (min, -1)))
    logs = np.unique(np.clip(logs, low, high)) if low < high else np.array([low])
    return np.exp(logs), np.median([np.interp(logs, np.log(c[:, 0]), c[:, 1]) for c in curves], axis=0)


def figure(name: str, results: Sequence[dict[str, Any]], seconds: float, file: Path) -> None:
    """The curves, log-log: every contestant's setting with the best end bold, the others thin."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    task = TASKS[name]
    groups = group_runs(task, results, seconds)
    last = columns(name, seconds)[-1]
    figure, axes = pyplot.subplots(figsize=(8, 5.5), layout="constrained")
    costs = [100 - threshold if task.accuracy else threshold for threshold in task.thresholds]
    for contestant in ORDER:
        own = [group for group in groups if group.contestant == contestant]
        chosen = last.best_of(own)
        for group in own:
            bold = chosen is not None and group is chosen[0]
            style = {**STYLES[contestant], "markersize": 5, "markevery": 2}
            if not bold:
                style |= {"marker": "", "alpha": 0.5}
            axes.plot(
                *median_curve(group), **style, linewidth=2 if bold else 0.8, zorder=3 if bold else 2,
                label=f"{contestant} {group.label}".strip() if bold else None,
            )  # fmt: skip
    for cost, threshold in zip(costs, task.thresholds, strict=True):
        axes.axhline(cost, color="0.6", linewidth=0.6, zorder=1)
        text = f"{threshold:g} %" if task.accuracy else f"{threshold:g}"
        axes.annotate(
            text, (1.0, cost), xycoords=("axes fraction", "data"), fontsize=7, va="bottom", ha="right"
        )
    lowest = min([*costs, *(best(curve) for group in groups for curve in group.curves)])
    axes.set(
        xscale="log", yscale="log", ylim=(0.9 * lowest, 12 * max(costs)), xlabel="CPU seconds of training",
        ylabel="test error, %" if task.accuracy else "held-out ½‖x̂−x‖²",
        title=f"{name}: {'-'.join(map(str, task.sizes))}",
    )  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3, which="major")
    axes.legend(fontsize=8, handlelength=4)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)
