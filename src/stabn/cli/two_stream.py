"""The verbs of two-stream recognition: flow writes the second stream's videos, fuse averages both streams."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stabn.cli.printing import print_accuracy
from stabn.data.annotations.source import DataSource
from stabn.data.annotations.table import write_table
from stabn.data.flow import flow_table, write_flow
from stabn.data.video.reader import TIMEOUT, Reader
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.evaluation.accuracy import accuracy
from stabn.evaluation.predict import fused, predict_split
from stabn.files import write_json
from stabn.runs import open_run

TABLE = "clips.csv"


def flow_command(
    out: Path,
    data: DataSource = DataSource(),  # noqa: B008
    timeout: float = TIMEOUT,
) -> dict[str, Any]:
    """Compute the optical flow of all clips and write it as images, with a table that `train` reads like any other.

    Each clip becomes a folder of PNG files: red and green are the horizontal and the vertical way of a pixel to the
    next frame, 128 is none. OUT/clips.csv has the clips with the same names, classes and splits. Clips whose flow is
    there are left as they are, so the same command goes on where it was interrupted. Networks such as
    trn_flow_bninception read it.

    Args:
        out: the folder to write, for instance beside the runs.
        data: the labelled videos.
        timeout: seconds after which a video that is still being decoded counts as broken.
    """
    if not data.annotations:
        raise UserError("--data.annotations: got none; give a table of clips")
    table, reader = data.table(), Reader(timeout)
    skipped, kept = [], []
    for sample, of_flow in tqdm(list(flow_table(table, out)), desc="flow", unit="clip", disable=None, leave=False):
        try:
            if not of_flow.path.is_dir():
                write_flow(sample, of_flow.path, reader)
        except UserError as error:
            if "OpenCV" in str(error):
                raise
            skipped.append({"clip_id": sample.clip_id, "path": str(sample.path), "reason": str(error)})
            continue
        kept.append(of_flow)
    if not kept:
        raise UserError(f"{data.annotations}: has no clip that can be read; the first: {skipped[0]['reason']}")
    out.mkdir(parents=True, exist_ok=True)
    write_table(out / TABLE, replace(table, samples=tuple(kept), truth={}), ordered=True)
    print(f"{out / TABLE}: flow of {len(kept)} clips" + (f", {len(skipped)} could not be read" if skipped else ""))
    return {"table": str(out / TABLE), "clips": len(kept), "skipped": skipped}


def fuse_command(
    run: Path,
    other: Path,
    split: str = "validation",
    clips: int = 1,
    data: DataSource = DataSource(),  # noqa: B008
    other_data: DataSource = DataSource(),  # noqa: B008
    batch_size: int = 16,
    workers: int = 0,
    engine: EngineRecipe = EngineRecipe(devices="1"),  # noqa: B008
) -> dict[str, Any]:
    """Accuracy of two runs together, such as one of frames and one of flow: the mean of both's probabilities.

    The clips are matched by name; those that one run lacks are left out and counted.

    Args:
        run: a finished run.
        other: another one, with the same classes.
        split: train, validation, or another split of the tables of clips.
        clips: evenly placed windows per video, whose softmax scores are averaged.
        data: other labelled videos for the first run.
        other_data: likewise for the other one.
        batch_size: videos per batch.
        workers: processes that decode.
        engine: device, precision and number of processes.
    """
    options: dict[str, Any] = {"clips": clips, "batch_size": batch_size, "workers": workers, "engine": engine}
    first, names = predict_split(open_run(run, data), split, **options)
    second, other_names = predict_split(open_run(other, other_data), split, **options)
    predictions, left_out = fused(first, names, second, other_names)
    evaluation = accuracy(predictions, names, split=split) | {"left_out": left_out}
    print_accuracy(evaluation)
    if left_out:
        print(f"left out, as only one run has them: {len(left_out)} clips")
    write_json(run / f"fused-{other.resolve().name}-{split}.json", evaluation)
    return evaluation
