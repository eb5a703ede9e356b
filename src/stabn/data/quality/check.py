"""Every file of a data set read from beginning to end, and what that says about its clips.

FOLDER/files.jsonl   a line per file as soon as it was read; an interrupted check goes on from it
FOLDER/check.json    what was found
FOLDER/exclude.txt   the ids of the clips that cannot be learnt from, for --data.exclude
"""

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from tqdm import tqdm

from stabn.data.dataset import Sample, Table
from stabn.data.ground_truth import ClipTruth
from stabn.data.quality.inspect_video import Inspector
from stabn.data.quality.unreadable import legible
from stabn.data.video import clip as video
from stabn.data.video.frame_folder import FPS, frame_numbers
from stabn.data.video.subprocess_worker import Guard, StoppedError
from stabn.errors import UserError
from stabn.files import write_json, write_text

FORMAT = "stabn-check/1"
FAULTS = ("missing", "unreadable", "stopped", "altered", "no frame", "too short")
"""What makes a clip useless: its file is not there, cannot be decoded, hangs or crashes a decoder, has other bytes than
before though its size and time are the same; or the clip is no part of it, or has fewer frames than are wanted."""
REMARKS = ("variable rate", "wrong count", "twice", "replaced")
"""What somebody should know: frames are on show for unlike times; container or table speak of another number of frames;
another split has the same content; the file is another one than when it was checked first."""


@dataclass(frozen=True)
class Remark:
    """One thing that was found out about one clip.

    Attributes:
        clip_id: which.
        split: of the table.
        path: its file.
        kind: of `FAULTS` or `REMARKS`.
        told: one sentence.
    """

    clip_id: str
    split: str
    path: str
    kind: str
    told: str

    def as_json(self) -> dict[str, str]:
        """All of it."""
        return {"clip_id": self.clip_id, "split": self.split, "path": self.path, "kind": self.kind, "told": self.told}


def check(
    table: Table,
    out: Path,
    *,
    frames: int | None = None,
    workers: int = 1,
    timeout: float = 60.0,
    verify: bool = False,
) -> dict[str, Any]:
    """Read every file of a table that was not read before, and write what is to be said of its clips.

    Args:
        table: the clips.
        out: the folder; that of an interrupted or an earlier check is gone on with, files that changed are read anew.
        frames: clips with fewer are too short; None if none is.
        workers: processes that decode.
        timeout: seconds after which a file counts as one that stops the decoder.
        verify: read all bytes of the files that seem unchanged, too, and compare them with what they were.

    Returns:
        What check.json holds, see docs/data-faults.md, and "read": how many files were read this time.

    Raises:
        UserError: the folder cannot be written.
    """
    paths = list(dict.fromkeys(os.path.abspath(sample.path) for sample in table.samples))
    known = _read_records(out / "files.jsonl")
    waiting = [path for path in paths if os.path.exists(path) and (verify or _outdated(path, known.get(path), timeout))]
    read = 0
    with (
        _appending(out / "files.jsonl") as append,
        closing(_inspected(waiting, known, workers, timeout)) as records,
        tqdm(total=len(paths), initial=len(paths) - len(waiting), desc="check", unit="file", disable=None) as bar,
    ):
        for record in records:
            if record != known.get(record["path"]):
                append(record)
                known[record["path"]] = record
                read += 1
            bar.update()
    found = _found(table, known, frames)
    write_json(out / "check.json", found)
    write_text(out / "exclude.txt", "".join(f"{clip_id}\n" for clip_id in found["exclude"]))
    return found | {"read": read}


def _outdated(path: str, record: Mapping[str, Any] | None, timeout: float) -> bool:
    """Whether a file has to be read: it is unknown or another one, or has more time now than when it was stopped."""
    if record is None or record["fingerprint"] != _fingerprint(path):
        return True
    stopped = record["fault"] is not None and record["fault"]["kind"] == "stopped"
    return stopped and record["fault"]["timeout"] < timeout


def _fingerprint(path: str) -> list[int]:
    """Size and time of a file; of a folder how many images there are, and the time of the folder."""
    try:
        status = os.stat(path)
        return [len(frame_numbers(path)) if os.path.isdir(path) else status.st_size, status.st_mtime_ns]
    except (OSError, UserError):
        return [0, 0]


def _read_records(file: Path) -> dict[str, dict[str, Any]]:
    """By path the last record; a line that was cut off when the check was killed is none."""
    records = {}
    if file.exists():
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                    records[record["path"]] = record
                except (ValueError, TypeError, KeyError):
                    continue
    return records


@contextmanager
def _appending(file: Path) -> Iterator[Any]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab+") as lines:
        if lines.tell():
            lines.seek(-1, os.SEEK_END)
            if lines.read(1) != b"\n":
                lines.write(b"\n")

        def append(record: Mapping[str, Any]) -> None:
            lines.write(json.dumps(record).encode() + b"\n")
            lines.flush()

        yield append


def _inspected(
    paths: Iterable[str], known: Mapping[str, Mapping[str, Any]], workers: int, timeout: float
) -> Generator[dict[str, Any]]:
    """The records of files, in the order in which they are finished."""
    waiting = list(paths)[::-1]
    done: SimpleQueue[dict[str, Any] | BaseException | None] = SimpleQueue()
    guards = [Guard(Inspector(), timeout) for _ in range(min(workers, len(waiting)))]

    def work(guard: Guard) -> None:
        try:
            while waiting:
                path = waiting.pop()
                done.put(_record(guard, path, known.get(path)))
        except IndexError:  # another one took the last
            pass
        except BaseException as error:  # noqa: BLE001 -- raised where somebody waits
            done.put(error)
        done.put(None)

    threads = [Thread(target=work, args=(guard,), daemon=True) for guard in guards]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            item = done.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                running -= 1
            else:
                yield item
    finally:
        waiting.clear()
        for guard in guards:
            guard.close()


def _record(guard: Guard, path: str, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is known of a file after reading it; what was known before if its bytes are the same."""
    fingerprint = _fingerprint(path)
    folder = os.path.isdir(path)
    record: dict[str, Any] = {"path": path, "fingerprint": fingerprint, "bytes": None, "fault": None, "changed": None}
    record["first"] = None if before is None else before["first"]
    try:
        record["bytes"] = _folder_digest(path) if folder else guard.call("digest", path)
        record["first"] = record["first"] or record["bytes"]
        if before is not None and before["bytes"] == record["bytes"]:
            record["changed"] = before["changed"]
            if before["fault"] is None or before["fault"]["kind"] == "unreadable":
                return {**before, "fingerprint": fingerprint}
        elif before is not None and record["first"] != record["bytes"]:
            record["changed"] = "altered" if before["fingerprint"] == fingerprint else "replaced"
        record |= _inspected_folder(path) if folder else guard.call("inspect", path)
    except StoppedError as error:
        record["fault"] = {"kind": "stopped", "told": str(error), "timeout": guard.timeout}
    except UserError as error:
        record["fault"] = {"kind": "unreadable", "told": str(error)}
    return record


def _folder_digest(path: str) -> str:
    digest = hashlib.sha256()
    for name in frame_numbers(path).values():
        digest.update((Path(path) / name).read_bytes())
    return digest.hexdigest()


def _inspected_folder(path: str) -> dict[str, Any]:
    """As `Inspector.inspect`, of a folder of images; their pixels are compared as they are."""
    pictures, count = hashlib.sha256(), 0
    for chunk in video.read_chunks(path):
        pictures.update(chunk.frames.numpy().tobytes())
        count += len(chunk.frames)
    height, width = chunk.frames.shape[-2:]
    return {
        "pictures": pictures.hexdigest(),
        "frames": count,
        "announced": None,
        "width": width,
        "height": height,
        "seconds": round((count - 1) / FPS, 6),
        "times": None,
    }


def _found(table: Table, records: Mapping[str, Mapping[str, Any]], frames: int | None) -> dict[str, Any]:
    """What check.json says."""
    twice = _twice(table.samples, records)
    of = {sample.clip_id: list(_remarks(sample, records, frames, twice, table.truth)) for sample in table.samples}
    faulty = {clip_id for clip_id, remarks in of.items() if any(remark.kind in FAULTS for remark in remarks)}
    splits = sorted({sample.split for sample in table.samples}, key=lambda split: (split != "train", split))
    listed = Counter((sample.label, sample.split) for sample in table.samples)
    usable = Counter((sample.label, sample.split) for sample in table.samples if sample.clip_id not in faulty)
    told = [remark for remarks in of.values() for remark in remarks]
    return {
        "format": FORMAT,
        "clips": len(table.samples),
        "files": len({os.path.abspath(sample.path) for sample in table.samples}),
        "frames": frames,
        "splits": {
            split: {
                "clips": sum(listed[k, split] for k in range(len(table.class_names))),
                "usable": sum(usable[k, split] for k in range(len(table.class_names))),
                "classes": sum(usable[k, split] > 0 for k in range(len(table.class_names))),
                **{kind: sum(r.kind == kind and r.split == split for r in told) for kind in (*FAULTS, *REMARKS)},
            }
            for split in splits
        },
        "classes": [
            {"name": name, "clips": {split: listed[k, split] for split in splits}}
            | {"usable": {split: usable[k, split] for split in splits}}
            for k, name in enumerate(table.class_names)
        ],
        "empty_classes": {
            split: [name for k, name in enumerate(table.class_names) if not usable[k, split]] for split in splits
        },
        "faults": [remark.as_json() for remark in told if remark.kind in FAULTS],
        "remarks": [remark.as_json() for remark in told if remark.kind in REMARKS],
        "exclude": [sample.clip_id for sample in table.samples if sample.clip_id in faulty],
    }


def _remarks(
    sample: Sample,
    records: Mapping[str, Mapping[str, Any]],
    frames: int | None,
    twice: Mapping[str, str],
    truth: Mapping[str, ClipTruth],
) -> Iterator[Remark]:
    path = os.path.abspath(sample.path)
    record = records.get(path)

    def remark(kind: str, told: str) -> Remark:
        return Remark(sample.clip_id, sample.split, legible(path), kind, legible(told))

    if record is None or not os.path.exists(path):
        yield remark("missing", f"{path}: no such file")
        return
    if record["changed"] == "altered":
        yield remark("altered", f"{path}: has other bytes than before, though its size and its time are the same")
    elif record["changed"] == "replaced":
        yield remark("replaced", f"{path}: has other content than when it was checked first")
    if record["fault"] is not None:
        yield remark(record["fault"]["kind"], record["fault"]["told"])
        return
    count, segment = record["frames"], sample.segment
    if segment is not None:
        if segment.unit == "frames":
            if segment.end is not None and segment.end > count:
                yield remark("wrong count", f"{path}: the table speaks of {segment.end:g} frames, but it has {count}")
            length = max(0, min(count, count if segment.end is None else int(segment.end)) - int(segment.start))
        else:
            step = record["seconds"] / max(count - 1, 1)
            length = len(segment.frames(record["times"] or [index * step for index in range(count)]))
        if not length:
            yield remark("no frame", f"{path}: has no frame in {segment}")
            return
        count = length
    interval = truth[sample.clip_id].interval if sample.clip_id in truth else None
    if interval is not None and interval[0] >= record["frames"]:
        told = f"{path}: the table says when from frame {interval[0]:g} on, but it has {record['frames']}"
        yield remark("wrong count", told)
    if record["announced"] not in (None, record["frames"]):
        told = f"{path}: its container speaks of {record['announced']} frames, but {record['frames']} are shown"
        yield remark("wrong count", told)
    if frames is not None and count < frames:
        yield remark("too short", f"{path}: has {count} frames, fewer than {frames}")
    if record["times"] is not None:
        yield remark("variable rate", f"{path}: has no steady frame rate")
    if sample.clip_id in twice:
        yield remark("twice", f"{path}: {twice[sample.clip_id]}")


def _twice(samples: Iterable[Sample], records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """By clip id, in which other split the same content is."""
    groups: dict[tuple[Any, ...], list[Sample]] = defaultdict(list)
    for sample in samples:
        record = records.get(os.path.abspath(sample.path))
        if record is not None and record["fault"] is None:
            groups[record["pictures"], sample.segment].append(sample)
    told = {}
    for group in groups.values():
        for sample in group:
            others = [other for other in group if other.split != sample.split]
            if others:
                same = [records[os.path.abspath(s.path)]["bytes"] for s in (sample, others[0])]
                what = "bytes" if same[0] == same[1] else "frames"
                told[sample.clip_id] = f"split {others[0].split} has the same {what}, as clip {others[0].clip_id!r}"
    return told
