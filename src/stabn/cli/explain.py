"""The explain verb: when and where a network looked, in single videos or a whole archive.

Explaining a single video should start at once, so this module loads neither Lightning nor Parquet.
"""

import logging
from pathlib import Path
from typing import Any

from stabn.batch.clips import ArchiveSource
from stabn.batch.manifest import PART_CLIPS, clips_folder
from stabn.data.video.reader import TIMEOUT
from stabn.engine.config import EngineRecipe
from stabn.errors import IncompleteError, UserError, describe_os_error
from stabn.explain.explain_video import distinct_file_names, write_record_files
from stabn.explain.recogniser import load

log = logging.getLogger(__name__)


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

    Writes NAME.json and NAME.npz for programs, NAME.mp4 and NAME.png (a contact sheet) for people; with several windows
    NAME-1, NAME-2, ... A video that cannot be explained is named at the end; the others are explained.

    For a whole archive, stabn explain RUN --batch TABLE --out FOLDER writes predictions, temporal attention and
    compressed maps of every clip to Parquet files (docs/archive.md). An unreadable file becomes a row with the reason.
    Repeat the command to resume. All options but --clips are for archives.

    Args:
        run: a run, or any folder with config.json and model.safetensors.
        videos: video files or folders of frames; none with --batch.
        out: folder for the explanations.
        clips: evenly placed windows per video.
        batch: a table of clips (CSV, JSON Lines or Parquet with a column for the path; labels and splits may be
            missing), a folder with the annotations of Something-Something v2, or any other folder of videos. It may
            also be given as --data.annotations.
        data: where the videos are, and the columns of the table.
        split: only the clips of this split.
        batch_size: clips per batch.
        workers: processes that decode, for each network; by default one per core.
        timeout: seconds after which reading a clip is given up; 0 for no limit.
        part_clips: clips per file, which a killed process has to do again.
        retry_errors: try unreadable clips of the last time again.
        ray: work on all GPUs and machines of a Ray cluster (pip install 'stabn[ray]').
        ray_address: address of the cluster, such as auto; by default one is started on this machine.
        price_per_hour: of all machines, in any currency, to compute the price of a million clips.
        engine: device, precision and number of processes; single videos are explained on the CPU.
    """
    if data.annotations is not None:
        if batch is not None:
            raise UserError(f"--data.annotations, --batch: got {data.annotations} and {batch}; leave one of them out")
        batch = Path(data.annotations)
    if batch is not None:
        if videos or clips != 1:
            raise UserError(f"--batch: got {batch} beside {'videos' if videos else '--clips'}; leave one of them out")
        # Lightning and Parquet, which single videos do not need
        from stabn.batch.explain_batch import explain_archive
        from stabn.batch.worker import BatchOptions
        from stabn.cli.printing import print_archive_summary

        summary = explain_archive(
            run,
            batch,
            out,
            source=data,
            split=split,
            part_clips=part_clips,
            options=BatchOptions(batch_size, workers, timeout, engine, retry_errors),
            ray=ray,
            ray_address=ray_address,
            price_per_hour=price_per_hour,
        )
        print_archive_summary(summary)
        files = -(-summary["clips"] // part_clips)
        print(f"{clips_folder(out.absolute())}: {files} Parquet files; docs/archive.md says how to read them")
        return summary
    if not videos:
        raise UserError("videos: got none; give video files, or an archive with --batch TABLE")
    if clips < 1:
        raise UserError(f"--clips: got {clips}, expected at least 1")
    network = load(run, engine)
    network.check_attention()
    records, failures = [], []
    for name, video in distinct_file_names(videos).items():
        try:
            for window in range(clips):
                stem = out / (name if clips == 1 else f"{name}-{window + 1}")
                explanation = network.explain(video, window=window, windows=clips)
                write_record_files(stem, explanation.record, explanation.clip)
                records.append({"files": str(stem), **explanation.record.as_json()})
                ((label, probability),) = explanation.top(1)
                print(f"{video}: {label} ({probability:.0%}) -> {stem}.mp4, .png, .json, .npz", flush=True)
        except UserError as error:
            failures.append({"video": str(video), "error": str(error)})
        except OSError as error:
            failures.append({"video": str(video), "error": describe_os_error(error, video)})
    report = {"format": "stabn-explanations/1", "run": str(run), "records": records, "failed": failures}
    if failures:
        *others, last = (failure["error"] for failure in failures)
        for line in others:
            log.warning("error: %s", " ".join(line.split()))
        raise IncompleteError(last, report)
    return report
