"""The whole loop on data that it generates: train, explain, collect, correct, fine-tune, compare."""

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stabn.cli import data as data_verbs
from stabn.cli import edits as edit_verbs
from stabn.cli import evaluate as measuring_verbs
from stabn.cli import explain as explaining_verbs
from stabn.cli import train as verbs
from stabn.cli.printing import print_comparison
from stabn.data.annotations.source import DataSource
from stabn.errors import UserError
from stabn.files import read_json, write_json
from stabn.runs import is_finished
from stabn.training.recipes import SMALL_OPTIMIZER, LoaderRecipe


@dataclass(frozen=True)
class Stage:
    """One step of the demo.

    Attributes:
        command: what a user would type for it.
        done: whether an earlier run of the demo finished it.
        work: do it.
    """

    command: str
    done: Callable[[], bool]
    work: Callable[[], Any]


def demo_command(
    out: Path = Path("demo"), train: int = 770, validation: int = 280, epochs: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Run the whole loop on generated videos, in minutes on two cores; ends with a table and a report.

    Stages that are done are not repeated: give the same command again to go on after an interruption.

    Args:
        out: folder for everything.
        train: training clips.
        validation: validation clips.
        epochs: of training.
        seed: of all chance.
    """
    settings = {"format": "stabn-demo/1", "train": train, "validation": validation, "epochs": epochs, "seed": seed}
    marker = out / "demo.json"
    if marker.exists():
        before = read_json(marker, remedy="choose another --out")
        if before != settings:
            raise UserError(f"{out}: holds a demo with other settings ({before}); choose another --out or remove it")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is not empty and holds no demo; choose another --out")
    else:
        write_json(marker, settings)
    stages = _stages(out, train, validation, epochs, seed)
    begun = time.monotonic()
    for number, stage in enumerate(stages, start=1):
        state = "done before" if stage.done() else ""
        print(f"[{number}/{len(stages)}] {stage.command}  {state}".rstrip(), file=sys.stderr, flush=True)
        if not state:
            stage.work()
    comparison = read_json(out / "comparison.json", remedy="remove it and run the demo again")
    print(f"\nAfter {(time.monotonic() - begun) / 60:.1f} minutes:\n")
    print_comparison(comparison)
    print(f"\nThe report with curves and films: {out / 'report.html'}")
    print(f"Correct the network's mistakes yourself: {_command('studio', out / 'before')}")
    return {"report": str(out / "report.html"), **comparison}


def _stages(out: Path, train: int, validation: int, epochs: int, seed: int) -> list[Stage]:
    table, before, after, control = out / "tabletop", out / "before", out / "fine-tuned", out / "control"
    edits, truth, report = out / "edits", out / "tabletop" / "truth.jsonl", out / "report.html"
    optimizer = replace(SMALL_OPTIMIZER, epochs=epochs)
    cached = LoaderRecipe(cache=True)

    def finetune(to: Path, *, control: bool) -> Callable[[], Any]:
        return lambda: verbs.finetune_command(before, edits, to, control=control, loader=cached, seed=seed)

    def measured(attention: Any, name: str) -> Stage:
        file = out / name
        return Stage(
            _command("evaluate", before, "--attention", attention, "--json", file),
            file.exists,
            lambda: write_json(file, measuring_verbs.evaluate_command(before, attention=attention)),
        )

    def compared() -> None:
        found = measuring_verbs.report_command(before, after, report, control=control, edits=edits, truth=truth)
        write_json(out / "comparison.json", found)

    videos = [table / "videos" / f"{train + number}.mp4" for number in (1, 2, 3)]
    settings = ("--optimizer.epochs", epochs, "--loader.cache", "true", "--seed", seed)
    recipe = ("--config", "recipes/finetune-small.yaml", "--seed", seed)
    return [
        Stage(
            _command("tabletop", table, "--train", train, "--validation", validation, "--seed", seed),
            lambda: (
                (table / "tabletop.json").exists()
                and read_json(table / "tabletop.json", remedy="remove the folder")["complete"]
            ),
            lambda: data_verbs.tabletop_command(table, train=train, validation=validation, seed=seed),
        ),
        Stage(
            _command("train", "--out", before, "--data.annotations", table, *settings),
            lambda: is_finished(before),
            lambda: verbs.train_command(before, DataSource(str(table)), optimizer=optimizer, loader=cached, seed=seed),
        ),
        measured("as-is", "evaluation.json"),
        measured("inverse-spatial", "evaluation-inverse-spatial.json"),
        Stage(
            _command("explain", before, *videos, "--out", out / "explanations"),
            lambda: all((out / "explanations" / f"{video.stem}.json").exists() for video in videos),
            lambda: explaining_verbs.explain_command(before, videos, out / "explanations"),
        ),
        Stage(
            _command("collect", before, "--out", edits),
            (edits / "project.json").exists,
            lambda: edit_verbs.collect_command(before, edits),
        ),
        Stage(
            _command("simulate-edits", edits, "--truth", truth),
            lambda: False,
            lambda: edit_verbs.simulate_edits_command(edits, truth),
        ),
        Stage(
            _command("finetune", before, "--edits", edits, "--out", after, *recipe),
            lambda: is_finished(after),
            finetune(after, control=False),
        ),
        Stage(
            _command("finetune", before, "--edits", edits, "--out", control, "--control", *recipe),
            lambda: is_finished(control),
            finetune(control, control=True),
        ),
        Stage(
            _command(
                "report", before, after, "--control", control, "--edits", edits, "--truth", truth, "--out", report
            ),
            lambda: report.exists() and (out / "comparison.json").exists(),
            compared,
        ),
    ]


def _command(*words: object) -> str:
    return shlex.join(["stabn", *map(str, words)])
