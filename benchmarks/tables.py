"""Print the results of all experiments as Markdown tables, as docs/results.md has them.

python -m benchmarks.tables
"""

from pathlib import Path
from typing import Any

from stabn.files import read_json

HERE = Path(__file__).parent


def cell(entry: Any, digits: int) -> str:
    """A mean over seeds and its paired difference with half of the interval; ** where the interval excludes zero."""
    if not isinstance(entry, dict):
        return ""
    shown = f"{entry['mean']:.{digits}f}"
    difference = entry.get("difference")
    if difference is None:
        return shown
    half = (difference["high"] - difference["low"]) / 2
    change = f"{difference['mean']:+.{digits}f} ± {half:.{digits}f}"
    sure = difference["low"] > 0 or difference["high"] < 0
    return f"{shown} (**{change}**)" if sure else f"{shown} ({change})"


def table(summary: dict[str, Any]) -> str:
    """One row per method, one column per measure."""
    measures = list(dict.fromkeys(m for found in summary.values() for m in found if m != "against"))
    lines = ["| | against | " + " | ".join(measures) + " |", "|---" * (len(measures) + 2) + "|"]
    for method, found in summary.items():
        cells = [
            cell(found.get(m), 3 if "AP" in m or "insertion" in m or "deletion" in m or "pointing" in m else 1)
            for m in measures
        ]
        lines.append(f"| {method} | {found['against'] or ''} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    for file in sorted(HERE.glob("*/results.json")):
        results = read_json(file, remedy="run the experiment")
        for name, found in results.items():
            if not isinstance(found, dict) or "summary" not in found or "command" not in found:
                continue
            print(f"\n## {file.parent.name}, {name}: {len(found['results'])} seeds\n\n    {found['command']}\n")
            parts = found["summary"]
            if all("against" in part for part in parts.values()):
                print(table(parts))
                continue
            for title, part in parts.items():
                print(f"{title}\n\n{table(part)}\n")
