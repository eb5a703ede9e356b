"""Draw docs/human-knowledge.svg from the results of benchmarks.human_knowledge and benchmarks.from_start.

python -m benchmarks.plots
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from stabn.files import read_json, replacing

HERE = Path(__file__).parent
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
        axis.set_title(f"{name}:\n{title}", fontsize=9)
        axis.set_xlabel("points", fontsize=8)
        axis.tick_params(axis="x", labelsize=7)


if __name__ == "__main__":
    results = {
        name if script == "human_knowledge" else f"{name}, from the start": found
        for script in ("human_knowledge", "from_start")
        for name, found in read_json(HERE / script / "results.json", remedy=f"run benchmarks.{script}").items()
    }
    figure, axes = plt.subplots(len(results), 4, figsize=(14, 3.4 * len(results)), squeeze=False, sharey="row")
    for (name, found), row in zip(results.items(), axes, strict=True):
        draw(name, found["summary"], row)
    figure.tight_layout()
    with replacing(HERE.parent / "docs" / "human-knowledge.svg") as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
