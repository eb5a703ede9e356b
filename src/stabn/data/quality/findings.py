"""What the records of a data set's files say about its clips."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stabn.data.dataset import Sample, Table
from stabn.data.ground_truth import ClipTruth
from stabn.data.quality.unreadable import printable_line

FORMAT = "stabn-check/1"
FAULTS = ("missing", "unreadable", "stopped", "altered", "no frame", "too short")
"""Findings that make a clip useless: its file does not exist, cannot be decoded, hangs or crashes a decoder, has other
bytes than before though its size and time are the same; or the clip is no part of it, or has too few frames."""
REMARKS = ("variable rate", "wrong count", "twice", "replaced")
"""Findings that do not: frames are shown for different times; container or table state another number of frames;
another split has the same content; the file has other content than when it was checked first."""

Records = Mapping[str, Mapping[str, Any]]
"""By absolute path what was read of a file: a line of files.jsonl."""


def summarise_findings(table: Table, records: Records, frames: int | None) -> dict[str, Any]:
    """The content of check.json: counts, and a finding {"clip_id", "split", "path", "kind", "told"} for each fault.

    Args:
        table: the clips.
        records: of their files.
        frames: clips with fewer are too short; None for no limit.
    """
    duplicates = _duplicates(table.samples, records)
    findings = [
        {
            "clip_id": sample.clip_id,
            "split": sample.split,
            "path": printable_line(os.path.abspath(sample.path)),
            "kind": kind,
            "told": printable_line(sentence),
        }
        for sample in table.samples
        for kind, sentence in _find(sample, records, frames, duplicates.get(sample.clip_id), table.truth)
    ]
    faulty = {finding["clip_id"] for finding in findings if finding["kind"] in FAULTS}
    splits = sorted({sample.split for sample in table.samples}, key=lambda split: (split != "train", split))
    labels = range(len(table.class_names))
    listed = Counter((sample.label, sample.split) for sample in table.samples)
    usable = Counter((sample.label, sample.split) for sample in table.samples if sample.clip_id not in faulty)
    kinds = Counter((finding["kind"], finding["split"]) for finding in findings)
    return {
        "format": FORMAT,
        "clips": len(table.samples),
        "files": len({os.path.abspath(sample.path) for sample in table.samples}),
        "frames": frames,
        "splits": {
            split: {
                "clips": sum(listed[label, split] for label in labels),
                "usable": sum(usable[label, split] for label in labels),
                "classes": sum(usable[label, split] > 0 for label in labels),
                **{kind: kinds[kind, split] for kind in (*FAULTS, *REMARKS)},
            }
            for split in splits
        },
        "classes": [
            {
                "name": name,
                "clips": {split: listed[label, split] for split in splits},
                "usable": {split: usable[label, split] for split in splits},
            }
            for label, name in enumerate(table.class_names)
        ],
        "empty_classes": {
            split: [name for label, name in enumerate(table.class_names) if not usable[label, split]]
            for split in splits
        },
        "faults": [finding for finding in findings if finding["kind"] in FAULTS],
        "remarks": [finding for finding in findings if finding["kind"] in REMARKS],
        "exclude": [sample.clip_id for sample in table.samples if sample.clip_id in faulty],
    }


def _find(
    sample: Sample, records: Records, frames: int | None, duplicate: str | None, truth: Mapping[str, ClipTruth]
) -> Iterator[tuple[str, str]]:
    """Kind and sentence of all findings about a clip."""
    path = os.path.abspath(sample.path)
    record = records.get(path)
    if record is None or not os.path.exists(path):
        yield "missing", f"{path}: no such file"
        return
    if record["changed"] == "altered":
        yield "altered", f"{path}: has other bytes than before, though its size and its time are the same"
    elif record["changed"] == "replaced":
        yield "replaced", f"{path}: has other content than when it was checked first"
    if record["fault"] is not None:
        yield record["fault"]["kind"], record["fault"]["told"]
        return
    total = record["frames"]
    segment_end = sample.segment.end if sample.segment is not None and sample.segment.unit == "frames" else None
    if segment_end is not None and segment_end > total:
        yield "wrong count", f"{path}: the table speaks of {segment_end:g} frames, but it has {total}"
    count = _frame_count(sample, record)
    if not count:
        yield "no frame", f"{path}: has no frame in {sample.segment}"
        return
    interval = truth[sample.clip_id].interval if sample.clip_id in truth else None
    if interval is not None and interval[0] >= total:
        yield "wrong count", f"{path}: the table says when from frame {interval[0]:g} on, but it has {total}"
    if record["announced"] not in (None, total):
        yield "wrong count", f"{path}: its container speaks of {record['announced']} frames, but {total} are shown"
    if frames is not None and count < frames:
        yield "too short", f"{path}: has {count} frames, fewer than {frames}"
    if record["times"] is not None:
        yield "variable rate", f"{path}: has no steady frame rate"
    if duplicate is not None:
        yield "twice", f"{path}: {duplicate}"


def _frame_count(sample: Sample, record: Mapping[str, Any]) -> int:
    """How many frames of its file a clip has."""
    total: int = record["frames"]
    if sample.segment is None:
        return total
    step = record["seconds"] / max(total - 1, 1)
    return len(sample.segment.frames(record["times"] or [index * step for index in range(total)]))


def _duplicates(samples: Iterable[Sample], records: Records) -> dict[str, str]:
    """By clip id which clip of another split has the same content, as a part of a sentence."""
    groups: dict[tuple[Any, ...], list[Sample]] = defaultdict(list)
    for sample in samples:
        record = records.get(os.path.abspath(sample.path))
        if record is not None and record["fault"] is None:
            groups[record["pictures"], sample.segment].append(sample)
    duplicates = {}
    for group in groups.values():
        for sample in group:
            other = next((other for other in group if other.split != sample.split), None)
            if other is not None:
                first, second = (records[os.path.abspath(s.path)]["bytes"] for s in (sample, other))
                content = "bytes" if first == second else "frames"
                duplicates[sample.clip_id] = f"split {other.split} has the same {content}, as clip {other.clip_id!r}"
    return duplicates
