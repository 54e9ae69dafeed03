"""Make the figures of the documentation anew: all, or those that are named.

    python docs/make_figures.py [NAME …] [--out docs/figures]

Runs take place in a temporary folder; nothing else is read but scikit-learn's data sets and what benchmarks wrote.
"""

import argparse
import shutil
import sys
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from altmin_dask import RunFolder, array_source, ingest, train
from altmin_dask.config import Pipeline
from altmin_dask.errors import AltMinWarning
from altmin_dask.report.page import write_report
from altmin_dask.training.record import Record

ROOT = Path(__file__).parents[1]
TRAINING, VALIDATION, RELAXED, QUIET = "#0072b2", "#d55e00", "#009e73", "#667080"
OURS, COMMITS = "602139d692", {"autoencoder": "63dc0ebdf7", "classifier": "7436be5f0f"}
"""Whose runs are drawn beside first-order methods, and those of the others: benchmarks/results/COMMIT/TASK.jsonl."""
DRAWN = {
    "altmin": "altmin, defaults",
    "adam": "Adam",
    "adam-cosine-20": "Adam, cosine decay over 20 s",
    "adam-cosine-60": "Adam, cosine decay over 60 s",
    "adam-cosine-300": "Adam, cosine decay over 300 s",
    "sgd": "SGD",
    "sklearn": "scikit-learn's network",
}
"""What is drawn of each task, where it was measured."""


def run(
    folder: Path, data: dict[str, Any], network: dict[str, Any], **tables: dict[str, Any]
) -> list[Record]:
    """Train in a folder, without a word; gives the records."""
    tables.setdefault("training", {})
    settings = {"data": data, "network": network, "cluster": {"workers": 1}, **tables}
    return train(Pipeline.model_validate(settings), RunFolder(folder), log=lambda line: None)


def store(folder: Path, name: str, x: np.ndarray, y: np.ndarray, **how: Any) -> str:
    """Write samples to a store."""
    return ingest(array_source(np.float32(x), y), folder / f"{name}.zarr", **how).path


def curves(axes: Axes, records: list[Record], **relaxed: Any) -> None:
    """Losses of a run over its sweeps, and the one that is kept."""
    sweeps = np.array([record.sweep for record in records])
    if relaxed:
        axes.plot(sweeps, [record.relaxed_objective for record in records], "--", color=RELAXED, **relaxed)
    axes.plot(sweeps, [record.nested_loss for record in records], color=TRAINING, label="training (nested)")
    held_out = [record.validation_loss for record in records]
    axes.plot(sweeps, held_out, color=VALIDATION, label="validation")
    best = int(np.argmin(held_out))
    axes.plot(sweeps[best], held_out[best], "o", color=VALIDATION, label=f"kept: sweep {sweeps[best]:g}")
    axes.set(xscale="symlog", yscale="log", xlabel="sweeps", xlim=(0, None))
    axes.set_xticks(ticks := [t for t in (0, 1, 2, 5, 10, 20, 50, 100, 200) if t <= sweeps[-1]])
    axes.set_xticklabels([f"{tick}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(alpha=0.3, which="both", axis="y", linewidth=0.5)
    axes.legend(frameon=False, fontsize=8)


def one(title: str, records: list[Record], **relaxed: Any) -> Figure:
    """A figure of one run."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    curves(axes, records, **relaxed)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_ylabel("loss, mean over samples")
    return figure


DIGITS = {"train": "digits:train", "validation": "digits:test", "scale": 16.0}
CLASSIFIER = {"kind": "classifier", "hidden_layer_sizes": [64], "activation": "relu"}


def healthy(folder: Path) -> Figure:
    """All that is default but the ridge."""
    records = run(folder / "run", DIGITS, CLASSIFIER, solver={"ridge": 3.0})
    return one("Healthy: both fall, then lie flat side by side", records)


def overfitting(folder: Path) -> Figure:
    """A wide net on 200 digits, with hardly any ridge and no weight decay."""
    x, y = load_digits(return_X_y=True)
    data = {
        "train": store(folder, "few", x[:200] / 16, y[:200]),
        "validation": store(folder, "others", x[1437:] / 16, y[1437:]),
    }
    records = run(
        folder / "run",
        data,
        {**CLASSIFIER, "hidden_layer_sizes": [300]},
        solver={"ridge": 1e-4, "weight_decay": 0.0},
    )
    return one("Over-fitting: training goes on to fall, validation rises", records)


def stalled(folder: Path) -> Figure:
    """Where z is kept, and μ is small: z gives way, and the network stands still."""
    network = {"kind": "autoencoder", "hidden_layer_sizes": [32]}
    how = {"schedule": "batch", "max_sweeps": 60.0, "n_iter_no_change": None}
    records = run(folder / "run", DIGITS, network, training=how, solver={"mu": 0.01})
    return one("Stalled: the relaxed objective falls, the network does not follow", records, label="relaxed")


def unscaled(folder: Path) -> Figure:
    """Columns between 0.001 and 4,000, as they are and standardized."""
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    scaled = StandardScaler().fit(x[:426]).transform(x)
    for axes, (title, values) in zip(
        panels, {"Unscaled": x, "The same, standardized": scaled}.items(), strict=True
    ):
        name = title.split()[0]
        data = {
            "train": store(folder, f"{name}-train", values[:426], y[:426]),
            "validation": store(folder, f"{name}-test", values[426:], y[426:]),
        }
        curves(axes, run(folder / name, data, {**CLASSIFIER, "standardize": "none"}, solver={"ridge": 1.0}))
        axes.set_title(title, loc="left", fontsize=10)
    panels[0].set_ylabel("loss, mean over samples")
    return figure


def sorted_rows(folder: Path) -> Figure:
    """Digits sorted by label: the last fifth of the rows, or a share drawn at random, is held out."""
    x, y = load_digits(return_X_y=True)
    order = np.argsort(y, kind="stable")
    x, y = x[order] / 16, y[order]
    cut = 1437
    everything = store(folder, "all", x, y)
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    network = {**CLASSIFIER, "classes": 10}
    by_hand = {
        "train": store(folder, "first", x[:cut], y[:cut]),
        "validation": store(folder, "last", x[cut:], y[cut:]),
    }
    both = {
        "Sorted by label, and the last fifth held out": by_hand,
        "The same rows, validation = 0.2": {"train": everything, "validation": 0.2},
    }
    for axes, (title, data) in zip(panels, both.items(), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AltMinWarning)
            curves(axes, run(folder / title[:6], data, network, solver={"ridge": 3.0}))
        axes.set_title(title, loc="left", fontsize=10)
    panels[0].set_ylabel("loss, mean over samples")
    return figure


def two_losses(folder: Path) -> Figure:
    """The relaxed objective and the nested loss where z is kept, for two μ, beside K-FAC steps."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    network = {"kind": "autoencoder", "hidden_layer_sizes": [32]}
    for number, (axes, mu) in enumerate(zip(panels, (0.01, 0.3, None), strict=True)):
        how: dict[str, Any] = {"training": {"max_sweeps": 60.0, "n_iter_no_change": None}}
        if mu is not None:
            how["training"]["schedule"] = "batch"
            how["solver"] = {"mu": mu}
        records = run(folder / f"run{number}", DIGITS, network, **how)
        sweeps = [record.sweep for record in records]
        if mu is not None:
            axes.plot(sweeps, [r.relaxed_objective for r in records], "--", color=RELAXED, label="relaxed F")
        axes.plot(sweeps, [r.nested_loss for r in records], color=TRAINING, label="nested loss")
        axes.set_title("K-FAC, μ → ∞" if mu is None else f"z kept, μ = {mu:g}", loc="left", fontsize=10)
        axes.set(yscale="log", xlabel="sweeps")
        axes.grid(alpha=0.3, axis="y", linewidth=0.5)
        axes.legend(frameon=False, fontsize=8)
    return figure


def constraints(folder: Path) -> Figure:
    """A network with its pre-activations as variables of their own."""
    figure = Figure(figsize=(9, 2.5), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.3, 10.6), ylim=(-0.85, 1.35))
    axes.axis("off")
    names = ["x", "$z_1$", "$z_2$", "$z_3$", r"$\ell(\varphi(z_3), y)$"]
    places = [0.3, 2.7, 5.1, 7.5, 9.7]
    for name, place in zip(names, places, strict=True):
        wide = 0.75 if "ell" in name else 0.4
        colour = "#dbe9f5" if name.startswith("$z") else "#f3f4f6"
        corner = (place - wide, -0.3)
        box = FancyBboxPatch(corner, 2 * wide, 0.6, "round,pad=0.05", facecolor=colour, edgecolor=QUIET)
        axes.add_patch(box)
        axes.text(place, 0, name, ha="center", va="center", fontsize=12)
    for layer, (left, right) in enumerate(pairwise(places[:4]), 1):
        arrow = FancyArrowPatch(
            (left + 0.5, 0), (right - 0.5, 0), arrowstyle="->", mutation_scale=12, color=QUIET
        )
        axes.add_patch(arrow)
        below = "x" if layer == 1 else rf"\varphi(z_{layer - 1})"
        axes.text((left + right) / 2, 0.18, f"$W_{layer}, b_{layer}$", ha="center", fontsize=10)
        term = rf"$r_{layer} = z_{layer} - W_{layer}{below} - b_{layer}$"
        axes.text(right, 0.62, term, ha="center", fontsize=10, color=VALIDATION)
        axes.text(
            right, -0.68, rf"$\mu_{layer}\,\|r_{layer}\|^2$", ha="center", fontsize=10, color=VALIDATION
        )
    axes.add_patch(FancyArrowPatch((8.0, 0), (8.85, 0), arrowstyle="->", mutation_scale=12, color=QUIET))
    axes.set_title(
        "Blue: variables of every sample. Orange: how far a layer is from what the one below it says",
        loc="left",
        fontsize=10,
    )
    return figure


def kronecker(folder: Path) -> Figure:
    """The Gauss–Newton matrix of softmax regression on iris, and its Kronecker factors' product."""
    x, y = load_iris(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    p = LogisticRegression(C=1.0).fit(x, y).predict_proba(x)
    inputs = np.hstack([x, np.ones((len(x), 1))])
    curvature = np.einsum("ki,ij->kij", p, np.eye(3)) - np.einsum("ki,kj->kij", p, p)
    grams = np.einsum("ki,kj->kij", inputs, inputs)
    exact = np.mean([np.kron(s, g) for s, g in zip(curvature, grams, strict=True)], axis=0)
    product = np.kron(curvature.mean(axis=0), grams.mean(axis=0))
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    error = np.linalg.norm(exact - product) / np.linalg.norm(exact)
    print(f"kronecker: relative error of the product {error:.2f}")
    limit = np.abs(exact).max()
    shown = {"E[S ⊗ ããᵀ], exact": exact, "E[S] ⊗ E[ããᵀ], K-FAC": product, "difference": exact - product}
    for axes, (title, matrix) in zip(panels, shown.items(), strict=True):
        image = axes.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(title, loc="left", fontsize=10)
        axes.set(xticks=[], yticks=[])
    figure.colorbar(image, ax=panels, shrink=0.8)
    return figure


def against(folder: Path) -> Figure:
    """Held-out quality over CPU seconds beside first-order methods, as benchmarks/time_to_quality.py measured it."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from quality_figure import end_of, median_curve
    from quality_report import rows_of
    from time_to_quality import read_lines

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    titles = {
        "autoencoder": ("held-out ½‖x̂−x‖²", "Auto-encoder 784-300-784: ahead", (0.3, 0.5, 1, 2, 5, 10)),
        "classifier": ("test error, %", "Classifier 784-256-256-10: ahead by a little", (1.5, 2, 3, 5, 10)),
    }
    for axes, (task, (label, title, ticks)) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        ours, theirs = (
            rows_of(task, read_lines(ROOT / "benchmarks" / "results" / commit / f"{task}.jsonl"))
            for commit in (OURS, COMMITS[task])
        )
        for name, words in DRAWN.items():
            rows = ours if name == "altmin" else theirs
            own = [r for r in rows if r.contestant == name and any(r.curves)]
            if not own:
                continue
            best = min(own, key=end_of)
            axes.plot(*median_curve(best), label=words, linewidth=2.4 if name == "altmin" else 1.2)
        axes.set(xscale="log", yscale="log", xlabel="CPU seconds of training, one thread", ylabel=label)
        axes.set_yticks(ticks)
        axes.minorticks_off()
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(alpha=0.3, which="both", linewidth=0.5)
        axes.legend(frameon=False, fontsize=8)
    return figure


def report(folder: Path) -> dict[str, Path]:
    """The figures of the report of the first command."""
    made = RunFolder(folder / "run")
    run(made.path, DIGITS, {"kind": "autoencoder", "hidden_layer_sizes": [32]})
    write_report(made)
    return {f"start_{file.stem}": file for file in sorted(made.report.glob("*.png"))}


FIGURES: dict[str, Callable[[Path], Figure]] = {
    "healthy": healthy,
    "overfitting": overfitting,
    "stalled": stalled,
    "unscaled": unscaled,
    "sorted": sorted_rows,
    "two_losses": two_losses,
    "constraints": constraints,
    "kronecker": kronecker,
    "against": against,
}
REPORT = ("start_convergence", "start_reconstructions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join([*FIGURES, 'report'])}")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures")
    options = parser.parse_args()
    options.out.mkdir(exist_ok=True)
    for name in options.names or [*FIGURES, "report"]:
        print(f"{name} …", flush=True)
        with TemporaryDirectory() as folder:
            if name == "report":
                for title, file in report(Path(folder)).items():
                    if title in REPORT:
                        shutil.copyfile(file, options.out / f"{title}.png")
            else:
                FIGURES[name](Path(folder)).savefig(options.out / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
