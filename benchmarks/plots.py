"""Draw the figures of docs/results.md from the results of benchmarks.human_knowledge and benchmarks.from_start.

python -m benchmarks.plots
"""

from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks.tables import summaries
from stabn.files import atomic_write, read_json

HERE = Path(__file__).parent
SHOWN = {
    "from the start, colours anywhere, 40 epochs": ("from_start", "words-colour-within-48-epochs-40"),
    "from the start, digits anywhere, 40 epochs": ("from_start", "words-digit-within-48-epochs-40"),
    "from the start, Tabletop of 250 clips, 40 epochs": ("from_start", "tabletop-clips-250-epochs-40-folds-2"),
    "from the start, Tabletop of 250 clips, 80 epochs": ("from_start", "tabletop-clips-250-epochs-80-folds-2"),
    "from the start, colours, 20 epochs": ("from_start", "words-colour"),
    "from the start, Tabletop of 770 clips": ("from_start", "tabletop"),
    "fine-tuned, colours": ("human_knowledge", "words-colour"),
    "fine-tuned, Tabletop of 250 clips": ("human_knowledge", "tabletop-clips-250-epochs-40-folds-2"),
    "fine-tuned, Tabletop of 770 clips": ("human_knowledge", "tabletop"),
}
"""What the figure of gains calls an experiment, which script it is of, and its title in that script's results."""
METHODS = {"edited": ("#0b6e99", "o"), "edits of other clips": ("#999999", "s")}
CURVE = ("from_start", "tabletop-clips-250-epochs-40-folds-2, number and noise")
COUNTED = ("control", "5 edits", "10 edits", "25 edits", "50 edits", "100 edits", "edited")


def experiment_of(script: str, title: str) -> dict[str, Any]:
    """One entry of a results.json."""
    return read_json(HERE / script / "results.json", remedy=f"run benchmarks.{script}")[title]


def gains() -> Figure:
    """The gain over the same training without edits, with its 95 % interval over seeds, per experiment."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True, layout="constrained")
    for axis, measure, scale in zip(axes, ("all", "frame AP"), (1, 100), strict=True):
        for row, (script, title) in enumerate(SHOWN.values()):
            summary = summaries(experiment_of(script, title))[""]
            for offset, (method, (colour, marker)) in zip((-0.12, 0.16), METHODS.items(), strict=True):
                if method not in summary:
                    continue
                difference = summary[method][measure]["difference"]
                mean, low, high = (scale * difference[key] for key in ("mean", "low", "high"))
                label = method if row == 1 else None
                errors = [[mean - low], [high - mean]]
                axis.errorbar(mean, row + offset, xerr=errors, fmt=marker, color=colour, label=label, markersize=5)
        axis.axvline(0, color="#444444", linewidth=0.8)
        axis.set_xlabel("points over the control")
    axes[0].set_title("top-1, all validation clips", fontsize=10)
    axes[1].set_title("frame AP x 100", fontsize=10)
    axes[0].set_yticks(range(len(SHOWN)), list(SHOWN), fontsize=8)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def number_of_edits() -> Figure:
    """The gain over the control by the number of edited clips: each seed in grey, their mean in blue."""
    experiment = experiment_of(*CURVE)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for axis, measure, scale in zip(axes, ("all", "frame AP"), (1, 100), strict=True):
        seeds = [curve(result["methods"], measure, scale) for result in experiment["results"]]
        for points in seeds:
            axis.plot(*zip(*points, strict=True), color="#999999", linewidth=0.8, marker=".", markersize=4)
        means = [[fmean(values) for values in zip(*points, strict=True)] for points in zip(*seeds, strict=True)]
        axis.plot(*zip(*means, strict=True), color="#0b6e99", linewidth=2, marker="o")
        axis.axhline(0, color="#444444", linewidth=0.8)
        axis.set_xlabel("edited clips, of 250")
        axis.set_ylabel("points over the control")
    axes[0].set_title("top-1, all validation clips", fontsize=10)
    axes[1].set_title("frame AP x 100", fontsize=10)
    return figure


def curve(methods: dict[str, Any], measure: str, scale: float) -> list[tuple[float, float]]:
    """One seed's (number of edits, points over the control)."""
    control = methods["control"][measure]
    return [(methods[name].get("edits", 0), scale * (methods[name][measure] - control)) for name in COUNTED]


if __name__ == "__main__":
    for name, figure in (("gains", gains()), ("number-of-edits", number_of_edits())):
        with atomic_write(HERE.parent / "docs" / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
