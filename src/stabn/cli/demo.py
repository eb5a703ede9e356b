"""The demo verb: the whole loop on generated data, as the commands that a user would type."""

import shlex
import sys
import time
from pathlib import Path
from typing import Any

from stabn.cli.printing import print_comparison
from stabn.cli.verbs import run_verb
from stabn.errors import UserError, list_differences
from stabn.files import read_json, write_json
from stabn.runs import is_finished_run


def demo_command(
    out: Path = Path("demo"), train: int = 770, validation: int = 280, epochs: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Train, explain, correct, fine-tune and compare on generated videos; takes minutes on two cores.

    Prints each command that it runs, and ends with a table and a report. Commands that are done are skipped: after an
    interruption give the same command again to go on.

    Args:
        out: folder for everything.
        train: number of training clips.
        validation: number of validation clips.
        epochs: passes over the training clips.
        seed: for the clips, initialisation, batch order, augmentation and dropout.
    """
    settings = {"format": "stabn-demo/1", "train": train, "validation": validation, "epochs": epochs, "seed": seed}
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
    print(f"\nAfter {(time.monotonic() - start) / 60:.1f} minutes:\n")
    print_comparison(comparison)
    print(f"\nThe report with curves and films: {out / 'report.html'}")
    print(f"Correct the network's mistakes yourself: {shlex.join(('stabn', 'studio', str(out / 'before')))}")
    return {"report": str(out / "report.html"), **comparison}


def _steps(out: Path, train: int, validation: int, epochs: int, seed: int) -> list[tuple[bool, list[str]]]:
    """The commands without `stabn`, each with whether an earlier run of the demo finished it."""
    table, before, after, control = out / "tabletop", out / "before", out / "fine-tuned", out / "control"
    edits, explanations, truth = out / "edits", out / "explanations", out / "tabletop" / "truth.jsonl"
    evaluation, inverse = out / "evaluation.json", out / "evaluation-inverse-spatial.json"
    report, comparison = out / "report.html", out / "comparison.json"
    videos = [table / "videos" / f"{train + number}.mp4" for number in (1, 2, 3)]
    training = ("--loader.cache", "true", "--seed", seed)
    finetuning = ("finetune", before, "--edits", edits, *training)
    marker = table / "tabletop.json"
    generated = marker.exists() and read_json(marker, remedy="remove the folder")["complete"]
    writing = ("--out", report, "--json", comparison)
    explained = all((explanations / f"{video.stem}.json").exists() for video in videos)
    steps: list[tuple[bool, tuple[object, ...]]] = [
        (generated, ("tabletop", table, "--train", train, "--validation", validation, "--seed", seed)),
        (
            is_finished_run(before),
            ("train", "--out", before, "--data.annotations", table, "--optimizer.epochs", epochs, *training),
        ),
        (evaluation.exists(), ("evaluate", before, "--json", evaluation)),
        (inverse.exists(), ("evaluate", before, "--attention", "inverse-spatial", "--json", inverse)),
        (explained, ("explain", before, *videos, "--out", explanations)),
        ((edits / "project.json").exists(), ("collect", before, "--out", edits)),
        (False, ("simulate-edits", edits, "--truth", truth)),  # adds nothing where clips have edits
        (is_finished_run(after), (*finetuning, "--out", after)),
        (is_finished_run(control), (*finetuning, "--out", control, "--control")),
        (
            report.exists() and comparison.exists(),
            ("report", before, after, "--control", control, "--edits", edits, "--truth", truth, *writing),
        ),
    ]
    return [(done, list(map(str, words))) for done, words in steps]
