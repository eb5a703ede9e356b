"""Check a data set by decoding every file from beginning to end.

FOLDER/files.jsonl   a line per file as soon as it was read; an interrupted check continues from it
FOLDER/check.json    the findings
FOLDER/exclude.txt   the ids of the clips that cannot be used, for --data.exclude
"""

import hashlib
import json
import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tqdm import tqdm

from stabn.data.dataset import Table
from stabn.data.quality.findings import Records, summarise_findings
from stabn.data.quality.inspect_video import Inspector
from stabn.data.video.frame_folder import FPS, frame_numbers
from stabn.data.video.reader import read_chunks
from stabn.data.video.subprocess_worker import StoppedError, WorkerProcess
from stabn.errors import UserError
from stabn.files import write_json, write_text


def check(
    table: Table,
    out: Path,
    *,
    frames: int | None = None,
    workers: int = 1,
    timeout: float = 60.0,
    verify: bool = False,
) -> dict[str, Any]:
    """Read every file of a table that was not read before, and write the findings about its clips.

    Args:
        table: the clips.
        out: the folder; an interrupted or earlier check in it is continued, and changed files are read again.
        frames: clips with fewer are too short; None for no limit.
        workers: processes that decode.
        timeout: seconds after which a file counts as one that stops the decoder.
        verify: also read all bytes of the files that seem unchanged, and compare them with the earlier ones.

    Returns:
        The content of check.json, see docs/data-faults.md, and "read": how many files were read this time.

    Raises:
        UserError: the folder cannot be written.
    """
    paths = list(dict.fromkeys(os.path.abspath(sample.path) for sample in table.samples))
    log = out / "files.jsonl"
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    records = _parse_records(text)
    outdated = [
        path for path in paths if os.path.exists(path) and (verify or _is_outdated(path, records.get(path), timeout))
    ]
    count = 0
    out.mkdir(parents=True, exist_ok=True)
    with (
        log.open("a", encoding="utf-8") as lines,
        closing(_inspect_files(outdated, records, workers, timeout)) as new_records,
        tqdm(total=len(paths), initial=len(paths) - len(outdated), desc="check", unit="file", disable=None) as bar,
    ):
        if text and not text.endswith("\n"):  # the check was killed while it wrote this line
            lines.write("\n")
        for record in new_records:
            if record != records.get(record["path"]):
                lines.write(json.dumps(record) + "\n")
                lines.flush()
                records[record["path"]] = record
                count += 1
            bar.update()
    summary = summarise_findings(table, records, frames)
    write_json(out / "check.json", summary)
    write_text(out / "exclude.txt", "".join(f"{clip_id}\n" for clip_id in summary["exclude"]))
    return summary | {"read": count}


def _is_outdated(path: str, record: dict[str, Any] | None, timeout: float) -> bool:
    """Whether a file has to be read: it is new or has changed, or has more time now than when it was stopped."""
    if record is None or record["fingerprint"] != _fingerprint(path):
        return True
    stopped = record["fault"] is not None and record["fault"]["kind"] == "stopped"
    return stopped and record["fault"]["timeout"] < timeout


def _fingerprint(path: str) -> list[int]:
    """Size and time of a file; number of images and time of a folder."""
    try:
        status = os.stat(path)
        return [len(frame_numbers(path)) if os.path.isdir(path) else status.st_size, status.st_mtime_ns]
    except (OSError, UserError):
        return [0, 0]


def _parse_records(text: str) -> dict[str, dict[str, Any]]:
    """The last record of each path; a line that was cut off when the check was killed is ignored."""
    records = {}
    for line in text.split("\n"):
        with suppress(ValueError, TypeError, KeyError):
            record = json.loads(line)
            records[record["path"]] = record
    return records


def _inspect_files(paths: Sequence[str], records: Records, workers: int, timeout: float) -> Generator[dict[str, Any]]:
    """The new records of files, in the order in which they are finished."""
    processes = [WorkerProcess(Inspector(), timeout) for _ in range(min(workers, len(paths)))]
    idle: SimpleQueue[WorkerProcess] = SimpleQueue()
    for process in processes:
        idle.put(process)

    def inspect(path: str) -> dict[str, Any]:
        process = idle.get()
        try:
            return _inspect_file(process, path, records)
        finally:
            idle.put(process)

    pool = ThreadPoolExecutor(max(len(processes), 1))
    try:
        for record in as_completed([pool.submit(inspect, path) for path in paths]):
            yield record.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.close()


def _inspect_file(process: WorkerProcess, path: str, records: Records) -> dict[str, Any]:
    """The record of a file after reading it; the earlier one with a new fingerprint if its bytes are the same."""
    before = records.get(path)
    fingerprint = _fingerprint(path)
    is_folder = os.path.isdir(path)
    record: dict[str, Any] = {"path": path, "fingerprint": fingerprint, "bytes": None, "fault": None, "changed": None}
    record["first"] = None if before is None else before["first"]
    try:
        record["bytes"] = _folder_digest(path) if is_folder else process.call("digest", path)
        record["first"] = record["first"] or record["bytes"]
        if before is not None and before["bytes"] == record["bytes"]:
            record["changed"] = before["changed"]
            if before["fault"] is None or before["fault"]["kind"] == "unreadable":
                return {**before, "fingerprint": fingerprint}
        elif before is not None and record["first"] != record["bytes"]:
            record["changed"] = "altered" if before["fingerprint"] == fingerprint else "replaced"
        record |= _inspect_folder(path) if is_folder else process.call("inspect", path)
    except StoppedError as error:
        record["fault"] = {"kind": "stopped", "told": str(error), "timeout": process.timeout}
    except UserError as error:
        record["fault"] = {"kind": "unreadable", "told": str(error)}
    return record


def _folder_digest(path: str) -> str:
    digest = hashlib.sha256()
    for name in frame_numbers(path).values():
        digest.update((Path(path) / name).read_bytes())
    return digest.hexdigest()


def _inspect_folder(path: str) -> dict[str, Any]:
    """As `Inspector.inspect`, for a folder of images, whose pixels are compared as they are."""
    digest, count = hashlib.sha256(), 0
    for chunk in read_chunks(path):
        digest.update(chunk.frames.numpy().tobytes())
        count += len(chunk.frames)
    height, width = chunk.frames.shape[-2:]
    return {
        "pictures": digest.hexdigest(),
        "frames": count,
        "announced": None,
        "width": width,
        "height": height,
        "seconds": round((count - 1) / FPS, 6),
        "times": None,
    }
