"""The verb that shows when and where a network looked; as in `stabn.cli.train`, its parameters are its options.

It is asked about single videos and has to answer at once, so that its module loads little.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from stabn.batch.clips import ArchiveSource
from stabn.batch.manifest import PART_CLIPS, clips_folder
from stabn.data.video.clip import probe
from stabn.data.video.reader import TIMEOUT
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.explain.explain_video import distinct_file_names, explain_video, write_record_files
from stabn.memory import keep_freed_memory
from stabn.nn import STABN, load_pretrained
from stabn.nn.fast_inference import for_inference
from stabn.runs import network_class_names, network_preprocessing


def explain_command(
    run: Path,
    videos: list[Path] | None,
    out: Path,
    clips: int = 1,
    batch: Path | None = None,
    data: ArchiveSource = ArchiveSource(),  # noqa: B008
    split: str | None = None,
    batch_size: int = 16,
    workers: int | None = None,
    timeout: float = TIMEOUT,
    part_clips: int = PART_CLIPS,
    retry_errors: bool = False,
    ray: bool = False,
    ray_address: str | None = None,
    price_per_hour: float | None = None,
    engine: EngineRecipe = EngineRecipe(),  # noqa: B008
) -> dict[str, Any]:
    """Show what a network recognises in videos, and when and where it looked.

    Writes per video NAME.json and NAME.npz for programs, NAME.mp4 and NAME.png (a contact sheet) for people; with
    several windows NAME-1, NAME-2, ...

    stabn explain RUN --batch TABLE --out FOLDER does it for a whole archive and writes Parquet: predictions, temporal
    attention and compressed maps of every clip. A file that cannot be read becomes a row with the reason. Stopped
    anywhere, by whatever, the same command goes on. docs/archive.md tells more. All options but --clips are for it.

    Args:
        run: a run, or any folder with config.json and model.safetensors.
        videos: video files; none with --batch.
        out: folder for the explanations.
        clips: evenly placed windows per video.
        batch: a table of clips (CSV, JSON Lines or Parquet with a column for the path; labels and splits may be
            missing), a folder with the annotations of Something-Something v2, or any other folder of videos.
        data: what the table does not say itself.
        split: only the clips of this split.
        batch_size: clips that the network sees at once.
        workers: processes that decode, for each network; by default one per core.
        timeout: seconds that reading a clip may take; 0 for as long as it takes.
        part_clips: clips in a file, which is what a killed process has to do again.
        retry_errors: try again the clips that could not be read the last time.
        ray: work on all GPUs and machines of a Ray cluster (pip install 'stabn[ray]').
        ray_address: the cluster, such as auto; by default one is started on this machine.
        price_per_hour: of everything that works, in any currency; tells what a million clips cost.
        engine: on what it runs.
    """
    if batch is not None:
        if videos or clips != 1:
            raise UserError(f"--batch: got {batch} beside {'videos' if videos else '--clips'}; leave one of them out")
        # Lightning and Parquet, which explaining a video would otherwise wait for
        from stabn.batch.explain_batch import explain_archive
        from stabn.batch.worker import BatchOptions
        from stabn.cli.printing import print_summary

        told = explain_archive(
            run,
            batch,
            out,
            source=data,
            split=split,
            part_clips=part_clips,
            means=BatchOptions(batch_size, workers, timeout, engine, again=retry_errors),
            ray=ray,
            ray_address=ray_address,
            price_per_hour=price_per_hour,
        )
        print_summary(told)
        files = -(-told["clips"] // part_clips)
        print(f"{clips_folder(out.absolute())}: {files} Parquet files; docs/archive.md says how to read them")
        return told
    if not videos:
        raise UserError("videos: got none; give video files, or an archive with --batch TABLE")
    if clips < 1:
        raise UserError(f"--clips: got {clips}, expected at least 1")
    model = load_pretrained(run)
    if not isinstance(model, STABN):
        raise UserError(
            f"{run}: is the plain network, which has no attention to show; train with network.attention true"
        )
    names, preprocessing = network_class_names(model), network_preprocessing(model, str(run))
    for video in videos:
        probe(video)  # every mistake is found before the first file is written
    here = replace(engine, accelerator="cpu")
    here.announce()
    if here.keeps_memory():
        keep_freed_memory()
    precision = here.chosen_precision()
    if precision == "64-true":
        model.double()
    model = for_inference(model, precision, torch.device("cpu"), fast=engine.fast)
    records = []
    for name, video in distinct_file_names(videos).items():
        for window in range(clips):
            stem = out / (name if clips == 1 else f"{name}-{window + 1}")
            record, clip = explain_video(model, preprocessing, video, names, window=window, windows=clips)
            write_record_files(stem, record, clip)
            records.append({"files": str(stem), **record.as_json()})
            print(f"{video}: {record.top(1)[0][0]} ({record.top(1)[0][1]:.0%}) -> {stem}.mp4, .png, .json, .npz")
    return {"format": "stabn-explanations/1", "run": str(run), "records": records}
