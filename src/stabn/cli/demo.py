"""The demo verb: the whole loop on generated data, as the commands that a user would type."""

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stabn.cli.main import run_verb
from stabn.cli.printing import print_comparison
from stabn.errors import UserError
from stabn.files import read_json, write_json
from stabn.runs import is_finished_run


@dataclass(frozen=True)
class DemoStep:
    """One command of the demo.

    Attributes:
        words: the command without `stabn`.
        done: whether an earlier run of the demo finished it.
    """

    words: tuple[str, ...]
    done: Callable[[], bool]

    def __str__(self) -> str:
        return shlex.join(("stabn", *self.words))


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
            raise UserError(
                f"{out}: holds a demo with other settings ({previous_settings}); choose another --out or remove it"
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is not empty and holds no demo; choose another --out")
    else:
        write_json(marker, settings)
    start = time.monotonic()
    steps = _steps(out, train, validation, epochs, seed)
    for number, step in enumerate(steps, start=1):
        done = step.done()
        note = "  done before" if done else ""
        print(f"[{number}/{len(steps)}] {step}{note}", file=sys.stderr, flush=True)
        if not done:
            run_verb(step.words)
    comparison = read_json(out / "comparison.json", remedy="remove it and run the demo again")
    print(f"\nAfter {(time.monotonic() - start) / 60:.1f} minutes:\n")
    print_comparison(comparison)
    print(f"\nThe report with curves and films: {out / 'report.html'}")
    print(f"Correct the network's mistakes yourself: {shlex.join(('stabn', 'studio', str(out / 'before')))}")
    return {"report": str(out / "report.html"), **comparison}


def _steps(out: Path, train: int, validation: int, epochs: int, seed: int) -> list[DemoStep]:
    table, before, after, control = out / "tabletop", out / "before", out / "fine-tuned", out / "control"
    edits, explanations, truth = out / "edits", out / "explanations", out / "tabletop" / "truth.jsonl"
    evaluation, inverse = out / "evaluation.json", out / "evaluation-inverse-spatial.json"
    report, comparison = out / "report.html", out / "comparison.json"
    videos = [table / "videos" / f"{train + number}.mp4" for number in (1, 2, 3)]
    training = ("--loader.cache", "true", "--seed", seed)
    finetuning = ("finetune", before, "--edits", edits, *training)

    def generated() -> bool:
        marker = table / "tabletop.json"
        return marker.exists() and read_json(marker, remedy="remove the folder")["complete"]

    def written(*files: Path) -> Callable[[], bool]:
        return lambda: all(file.exists() for file in files)

    def trained(run: Path) -> Callable[[], bool]:
        return lambda: is_finished_run(run)

    def step(done: Callable[[], bool], *words: object) -> DemoStep:
        return DemoStep(tuple(map(str, words)), done)

    return [
        step(generated, "tabletop", table, "--train", train, "--validation", validation, "--seed", seed),
        step(
            trained(before),
            *("train", "--out", before, "--data.annotations", table, "--optimizer.epochs", epochs, *training),
        ),
        step(written(evaluation), "evaluate", before, "--json", evaluation),
        step(written(inverse), "evaluate", before, "--attention", "inverse-spatial", "--json", inverse),
        step(
            written(*(explanations / f"{video.stem}.json" for video in videos)),
            *("explain", before, *videos, "--out", explanations),
        ),
        step(written(edits / "project.json"), "collect", before, "--out", edits),
        step(lambda: False, "simulate-edits", edits, "--truth", truth),  # adds nothing where clips have edits
        step(trained(after), *finetuning, "--out", after),
        step(trained(control), *finetuning, "--out", control, "--control"),
        step(
            written(report, comparison),
            *("report", before, after, "--control", control, "--edits", edits, "--truth", truth),
            *("--out", report, "--json", comparison),
        ),
    ]
