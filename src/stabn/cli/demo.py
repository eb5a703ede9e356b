"""The demo verb: the whole loop on generated data, as the commands that a user would type."""

import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stabn.cli.printing import print_comparison
from stabn.cli.verbs import run_verb
from stabn.errors import UserError, list_differences
from stabn.files import read_json, write_json
from stabn.nn.backbones.timm_frames import LITE0
from stabn.runs import is_finished_run, open_run

EDITED_SHARE, LEFT = 0.25, 10
"""Share of the training clips that are corrected, and how many mistakes are left for the visitor."""


def demo_command(
    out: Path = Path("demo"), train: int = 250, validation: int = 280, epochs: int = 30, seed: int = 0
) -> dict[str, Any]:
    """Train, explain, correct, train with the corrections and compare, on generated videos; minutes on two cores.

    Prints each command that it runs, and ends with a table and a report. Commands that are done are skipped: after an
    interruption give the same command again to go on.

    Args:
        out: folder for everything.
        train: number of training clips.
        validation: number of validation clips.
        epochs: passes over the training clips.
        seed: for the clips, initialisation, batch order, augmentation and dropout.
    """
    settings = {"format": "stabn-demo/2", "train": train, "validation": validation, "epochs": epochs, "seed": seed}
    marker = out / "demo.json"
    if marker.exists():
        previous_settings = read_json(marker, remedy="choose another --out")
        if previous_settings != settings:
            differences = "; ".join(list_differences(previous_settings, settings))
            raise UserError(
                f"{out}: holds a demo with other options: {differences}; give its options, choose another --out, or "
                "remove it"
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is not empty and holds no demo; choose another --out")
    else:
        write_json(marker, settings)
    start = time.monotonic()
    steps = _steps(out, train, validation, epochs, seed)
    for number, (done, words) in enumerate(steps, start=1):
        command = shlex.join(("stabn", *words))
        print(f"[{number}/{len(steps)}] {command}{'  done before' if done else ''}", file=sys.stderr, flush=True)
        if not done:
            run_verb(words)
    comparison = read_json(out / "comparison.json", remedy="remove it and run the demo again")
    half = read_json(out / "comparison-half.json", remedy="remove it and run the demo again")
    print(f"\nAfter {(time.monotonic() - start) / 60:.1f} minutes:\n")
    print_comparison(comparison)
    print(_ten_more(out, half, comparison))
    print(f"\nThe report with curves and films: {out / 'report.html'}")
    studio = shlex.join(("stabn", "studio", str(out / "before"), "--edits", str(out / "edits")))
    print(f"{LEFT} of the network's mistakes are left for you to correct: {studio}")
    print("The same with your own videos: docs/your-videos.md")
    return {"report": str(out / "report.html"), **comparison}


def _ten_more(out: Path, half: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """What ten more edits would bring, if they brought what the second half of the edits did."""
    gains = [comparison["difference"]["all"]["points"] for comparison in (half, whole)]
    counts = [len(open_run(out / name).edited) for name in ("corrected-half", "corrected")]
    points = 1000 * (gains[1] - gains[0]) / (counts[1] - counts[0])
    return (
        f"{counts[0]} edits brought {100 * gains[0]:+.1f} points, {counts[1]} edits {100 * gains[1]:+.1f}: at that "
        f"rate ten more would bring {points:+.1f}."
    )


def _steps(out: Path, train: int, validation: int, epochs: int, seed: int) -> list[tuple[bool, list[str]]]:
    """The commands without `stabn`, each with whether an earlier run of the demo finished it."""
    table, before = out / "tabletop", out / "before"
    half, corrected, edits = out / "corrected-half", out / "corrected", out / "edits"
    explanations, truth = out / "explanations", out / "tabletop" / "truth.jsonl"
    evaluation, inverse = out / "evaluation.json", out / "evaluation-inverse-temporal.json"
    report, comparison, comparison_half = out / "report.html", out / "comparison.json", out / "comparison-half.json"
    videos = [table / "videos" / f"{train + number}.mp4" for number in (1, 2, 3)]
    count = max(2, round(EDITED_SHARE * train))
    marker = table / "tabletop.json"
    generated = marker.exists() and read_json(marker, remedy="remove the folder")["complete"]
    explained = all((explanations / f"{video.stem}.json").exists() for video in videos)
    network = (
        *("--network.backbone", LITE0, "--network.weights", "lite0", "--network.freeze", "extractor"),
        *("--preprocessing.crop", 128, "--loader.views", 2),
        *("--optimizer.learning_rate", 0.003, "--optimizer.epochs", epochs, "--seed", seed),
    )
    simulate = ("simulate-edits", edits, "--truth", truth, "--count")
    steps: list[tuple[bool, tuple[object, ...]]] = [
        (generated, ("tabletop", table, "--train", train, "--validation", validation, "--seed", seed)),
        (is_finished_run(before), ("train", table, "--out", before, *network)),
        (evaluation.exists(), ("evaluate", before, "--json", evaluation)),
        (inverse.exists(), ("evaluate", before, "--attention", "inverse-temporal", "--json", inverse)),
        (explained, ("explain", before, *videos, "--out", explanations)),
        (
            (edits / "project.json").exists(),
            ("collect", before, "--out", edits, "--folds", 2, "--bound", 1, "--max-clips", count + LEFT),
        ),
        (is_finished_run(half), (*simulate, count // 2)),
        (is_finished_run(half), ("finetune", before, "--edits", edits, "--out", half)),
        (is_finished_run(corrected), (*simulate, count)),
        (is_finished_run(corrected), ("finetune", before, "--edits", edits, "--out", corrected)),
        (
            comparison_half.exists(),
            ("compare", before, half, "--truth", truth, "--json", comparison_half),
        ),
        (
            report.exists() and comparison.exists(),
            ("report", before, corrected, "--edits", edits, "--truth", truth, "--out", report, "--json", comparison),
        ),
    ]
    return [(done, list(map(str, words))) for done, words in steps]
