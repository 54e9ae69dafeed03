"""What the runs of `time_to_quality.py` will take: its searches, gone through without running anything."""

from __future__ import annotations

import math
from itertools import takewhile
from typing import Any

from quality_clock import RAW, SPENT, evaluation_moments
from quality_data import FINAL, Spec
from quality_search import BEHIND
from quality_tasks import TASKS

EVALUATION_SECONDS = {"autoencoder": 0.13, "classifier": 0.06, "deep": 0.55}
"""Of one set of weights on 10,000 samples."""
LOADING_SECONDS = {FINAL: 4.5, "search": 1.0}
"""Of a run: imports and data, which the runs of a search share."""
MEAN_SHARE = 0.06
"""Of a step of Adam's, one running mean of the weights."""


def pretended(spec: Spec) -> dict[str, Any]:
    """A result as searches usually give: the larger of the first rates is best, in batches of 128."""
    setting, task = spec["setting"], TASKS[spec["task"]]
    cost = 1.0 + sum(abs(value) for value in setting.values() if isinstance(value, float)) / 1e6
    if "rate" in setting:
        family = "adam" if spec["optimizer"] == "adamw" else spec["optimizer"]
        cost += abs(math.log(setting["rate"] / task.rates[family][-1])) + abs(
            math.log(setting["batch"] / 128)
        )
    if spec["optimizer"] == "lbfgs" or (spec["optimizer"] == "sgd" and not task.accuracy):
        cost *= 2 * BEHIND
    end = [spec["seconds"], 100 - cost if task.accuracy else cost, 1.0]
    return {
        "spec": spec,
        "status": SPENT,
        "curves": {RAW: [end], **{f"{d:g}": [end] for d in spec["averages"]}},
    }


def process_seconds(spec: Spec) -> float:
    """CPU seconds of a run, with loading and evaluation."""
    seconds, first = spec["seconds"], TASKS[spec["task"]].first_evaluation
    evaluations = 1
    if spec["part"] == FINAL:
        evaluations += sum(1 for _ in takewhile(lambda moment: moment < seconds, evaluation_moments(first)))
    if spec["optimizer"] == "altmin":
        # its records are denser at first, and in finals also of training samples
        evaluations = 2 * (evaluations + 12) if spec["part"] == FINAL else 10
    else:
        evaluations *= 1 + len(spec["averages"])
    trained = seconds * (1 + MEAN_SHARE * len(spec["averages"]))
    return float(trained + evaluations * EVALUATION_SECONDS[spec["task"]] + LOADING_SECONDS[spec["part"]])
