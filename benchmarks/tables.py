"""What the results of all experiments come to over seeds, as the Markdown tables that docs/results.md has.

python -m benchmarks.tables

A results.json holds, per experiment, the command, the machine, and for every seed one line per method with what was
measured. Means, paired differences and intervals are computed from these lines whenever they are needed.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stabn.evaluation.intervals import seed_interval
from stabn.files import read_json, write_text

HERE = Path(__file__).parent
WIDTH = 118
BEYOND_RANDOM = ", each beyond random"
"""Ends the title of a table that has what methods are worth beyond random frames in the same network."""


def write_rows(path: Path | str, value: Any) -> None:
    """Write JSON with one row per line: containers whose members are numbers, words or lists of these, or that fit."""
    write_text(path, _layout(value) + "\n")


def _layout(value: Any, indent: str = "") -> str:
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if _is_row(value) or len(line) <= WIDTH - len(indent):
        return line
    is_dict = isinstance(value, dict)
    members = value.items() if is_dict else (("", member) for member in value)
    lines: list[str] = []
    open_line = False  # the last line is short and holds no rows, so that the next member may join it
    for key, member in members:
        name = f"{json.dumps(key, ensure_ascii=False)}: " if is_dict else ""
        text = name + _layout(member, indent + " ")
        joins = not isinstance(member, dict) and "\n" not in text
        if open_line and joins and len(indent + lines[-1] + text) < WIDTH:
            lines[-1] += f", {text}"
        else:
            lines.append(text)
        open_line = joins
    inside = f",\n{indent} ".join(lines)
    return f"{{{inside}}}" if is_dict else f"[{inside}]"


def _is_row(value: Any) -> bool:
    if not isinstance(value, dict | list | tuple):
        return True
    members = value.values() if isinstance(value, dict) else value
    nested = [m for m in members if isinstance(m, dict | list | tuple)]
    return all(not isinstance(m, dict) and all(not isinstance(x, dict | list | tuple) for x in m) for m in nested)


def over_seeds(results: Sequence[Mapping[str, Mapping[str, float]]], control: Mapping[str, str]) -> dict[str, Any]:
    """Per method and measure the mean over seeds, and the paired difference to its control, with 95 % t intervals.

    Args:
        results: per seed, method -> measure -> value.
        control: per method, the one it is judged against.
    """
    found: dict[str, Any] = {}
    for method in dict.fromkeys(method for result in results for method in result):
        found[method] = {"against": control.get(method)}
        first = next(result[method] for result in results if method in result)
        for measure in first:
            rows = [r for r in results if measure in r.get(method, {})]
            entry: dict[str, Any] = {"mean": float(np.mean([r[method][measure] for r in rows]))}
            against = control.get(method, "")
            pairs = [r[method][measure] - r[against][measure] for r in rows if measure in r.get(against, {})]
            if len(pairs) > 1:
                entry["difference"] = {k: float(v) for k, v in vars(seed_interval(pairs)).items()}
            found[method][measure] = entry
    return found


def beyond_random(methods: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """What "NETWORK, METHOD" has beyond "NETWORK, random": areas of two networks differ by how sure each is anyway."""
    chance = {name: methods[f"{name.rpartition(', ')[0]}, random"] for name in methods}
    return {name: {m: value - chance[name][m] for m, value in values.items()} for name, values in methods.items()}


def summaries(experiment: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The tables of one experiment by title, each as `over_seeds` has it.

    Args:
        experiment: an entry of a results.json: "results", per seed with its "methods", and "against". That is method ->
            control, which makes one table of all methods, whose title is empty; or title -> method -> control, which
            makes a table of these methods for each title.
    """
    seeds = [result["methods"] for result in experiment["results"]]
    against: dict[str, Any] = experiment["against"]
    if not any(isinstance(controls, dict) for controls in against.values()):
        return {"": over_seeds(seeds, against)}
    found = {}
    for title, controls in against.items():
        rows = over_seeds([beyond_random(m) for m in seeds] if title.endswith(BEYOND_RANDOM) else seeds, controls)
        found[title] = {method: rows[method] for method in controls}
    return found


def cell(entry: Any, digits: int) -> str:
    """A mean over seeds and its paired difference with half of the interval; ** where the interval excludes zero."""
    if not isinstance(entry, dict):
        return ""
    mean = f"{entry['mean']:.{digits}f}"
    difference = entry.get("difference")
    if difference is None:
        return mean
    half = (difference["high"] - difference["low"]) / 2
    change = f"{difference['mean']:+.{digits}f} ± {half:.{digits}f}"
    excludes_zero = difference["low"] > 0 or difference["high"] < 0
    return f"{mean} (**{change}**)" if excludes_zero else f"{mean} ({change})"


def table(summary: Mapping[str, Any]) -> str:
    """One row per method, one column per measure."""
    measures = list(dict.fromkeys(m for row in summary.values() for m in row if m != "against"))
    lines = ["| | against | " + " | ".join(measures) + " |", "|---" * (len(measures) + 2) + "|"]
    for method, row in summary.items():
        cells = [
            cell(row.get(m), 3 if "AP" in m or "insertion" in m or "deletion" in m or "pointing" in m else 1)
            for m in measures
        ]
        lines.append(f"| {method} | {row['against'] or ''} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    for file in sorted(HERE.glob("*/results.json")):
        for name, experiment in read_json(file, remedy="run the experiment").items():
            if not isinstance(experiment, dict) or "against" not in experiment:
                continue
            print(
                f"\n## {file.parent.name}, {name}: {len(experiment['results'])} seeds\n\n    {experiment['command']}\n"
            )
            for title, summary in summaries(experiment).items():
                print(f"{title}\n\n{table(summary)}\n" if title else table(summary))
