"""Draw the figures of docs/results.md from the results of benchmarks.human_knowledge and benchmarks.from_start.

python -m benchmarks.plots
"""

from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks.settings import CURVES
from stabn.files import read_json, replacing

HERE = Path(__file__).parent
matplotlib.rcParams["svg.hashsalt"] = "stabn"  # the same results give the same file
ENOUGH = 3
"""So many seeds are drawn; the interval of two is twelve standard errors wide."""
COUNTED = tuple(name for name, (_, simulation) in CURVES.items() if "count" in simulation)
MEASURES = {
    "edited classes": "top-1 of edited classes",
    "other classes": "top-1 of other classes",
    "all": "top-1 of all",
    "frame AP": "frame AP",
}


def draw(name: str, summary: dict[str, Any], axes: Any) -> None:
    """One row of panels: every method's difference to what it is judged against."""
    methods = [m for m, found in summary.items() if m != "before" and "difference" in found.get("all", {})]
    for axis, (measure, title) in zip(axes, MEASURES.items(), strict=True):
        scale = 100 if measure == "frame AP" else 1
        for row, method in enumerate(methods):
            difference = summary[method].get(measure, {}).get("difference")
            if difference is None:
                continue
            mean, low, high = (scale * difference[key] for key in ("mean", "low", "high"))
            sure = low > 0 or high < 0
            axis.errorbar(
                mean,
                row,
                xerr=[[mean - low], [high - mean]],
                fmt="o",
                color="#0b6e99" if sure else "#888888",
                capsize=3,
                markersize=5,
            )
        axis.axvline(0, color="#444444", linewidth=0.8)
        axis.set_yticks(range(len(methods)), [f"{m}\nagainst {summary[m]['against']}" for m in methods], fontsize=7)
        axis.set_ylim(len(methods) - 0.5, -0.5)
        axis.set_title(f"{fill(name, 45)}:\n{title}", fontsize=7)
        axis.set_xlabel("points", fontsize=8)
        axis.tick_params(axis="x", labelsize=7)


def differences() -> Figure:
    """Every method of every data set against its control."""
    results = {
        name if script == "human_knowledge" else f"{name}, from the start": found
        for script in ("human_knowledge", "from_start")
        for name, found in read_json(HERE / script / "results.json", remedy=f"run benchmarks.{script}").items()
        if not name.endswith((", plain", ", number and noise")) and ", against" not in name  # networks of another row
        if len(found["results"]) >= ENOUGH
    }
    figure, axes = plt.subplots(len(results), 4, figsize=(14, 3.4 * len(results)), squeeze=False, sharey="row")
    for (name, found), row in zip(results.items(), axes, strict=True):
        draw(name, found["summary"], row)
    return figure


def number_of_edits() -> Figure | None:
    """What so many edits from the first step gained over the control, seed by seed and on average; None if unknown."""
    known = read_json(HERE / "from_start" / "results.json", remedy="run benchmarks.from_start --curve")
    known = {
        name: found
        for name, found in known.items()
        if len(found["results"]) >= ENOUGH and not found["summary"].keys().isdisjoint(COUNTED)
    }
    if not known:
        return None
    figure, axes = plt.subplots(len(known), 2, figsize=(10, 3.6 * len(known)), squeeze=False)
    for (name, found), row in zip(known.items(), axes, strict=True):
        for axis, measure in zip(row, ("all", "frame AP"), strict=True):
            seeds = [gains(result["methods"], measure) for result in found["results"]]
            for points in seeds:
                axis.plot(*zip(*points.values(), strict=True), color="#888888", linewidth=0.8, marker=".", markersize=4)
            of_method = ([points[m] for points in seeds if m in points] for m in ("control", *COUNTED, "edited"))
            means = [[fmean(values) for values in zip(*points, strict=True)] for points in of_method if points]
            axis.plot(*zip(*means, strict=True), color="#0b6e99", linewidth=2, marker="o")
            axis.axhline(0, color="#444444", linewidth=0.8)
            axis.set_xlabel("clips that were edited", fontsize=8)
            axis.set_ylabel("points over the control", fontsize=8)
            axis.set_title(f"{name}: {MEASURES[measure]}", fontsize=9)
    return figure


def gains(methods: dict[str, Any], measure: str) -> dict[str, tuple[float, float]]:
    """One seed's (number of edits, points over the control) of every method it has, from none to all."""
    scale = 100 if measure == "frame AP" else 1
    points = {"control": (0.0, 0.0)}
    for method in (*COUNTED, "edited"):
        if method in methods:
            gain = methods[method][measure] - methods["control"][measure]
            points[method] = (methods[method]["edits"], scale * gain)
    return points


if __name__ == "__main__":
    for name, figure in (("human-knowledge", differences()), ("number-of-edits", number_of_edits())):
        if figure is None:
            print(f"{name}: nothing to draw; run benchmarks.from_start with --arms edited '50 edits' and so on")
            continue
        figure.tight_layout()
        with replacing(HERE.parent / "docs" / f"{name}.svg") as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
