"""Edits as JSON Lines, CSV and Label Studio tasks; docs/formats.md describes the files."""

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import unquote

from stabn.errors import UserError
from stabn.records import Edit, check_edit_frames, format_edits, parse_edits


@runtime_checkable
class EditableClip(Protocol):
    """A clip whose edits can be written and read, such as `stabn.edits.project.ProjectClip`."""

    @property
    def path(self) -> str:
        """The video file."""

    @property
    def label(self) -> str:
        """The true class."""

    @property
    def frame_indices(self) -> tuple[int, ...]:
        """T source frames, the network's input."""

    @property
    def timestamps(self) -> tuple[float, ...]:
        """Their T times in seconds."""


EditableClips = Mapping[str, EditableClip]


@dataclass(frozen=True)
class EditFormat:
    """A text format of edits, which are read back exactly as they were written.

    Attributes:
        suffix: of its files.
        media_type: for a web server.
        write: (edits, clips by id) -> text, with at most one edit per clip, author and time.
        read: (text, name of its source for messages, clips by id) -> edits in the order of the text. A byte order mark
            and any line ends are accepted. Errors are UserErrors that name source, place, value and remedy.
    """

    suffix: str
    media_type: str
    write: Callable[[Iterable[Edit], EditableClips], str]
    read: Callable[[str, str, EditableClips], tuple[Edit, ...]]


def choose_format(path: Path, name: str | None = None) -> EditFormat:
    """The format of this name, or by default of the file's suffix.

    Raises:
        UserError: there is none.
    """
    if name is not None:
        if name not in FORMATS:
            raise UserError(f"--format: got {name!r}, expected one of {', '.join(FORMATS)}")
        return FORMATS[name]
    for edit_format in FORMATS.values():
        if path.suffix.lower() == edit_format.suffix:
            return edit_format
    suffixes = ", ".join(f"{edit_format.suffix} ({name})" for name, edit_format in FORMATS.items())
    raise UserError(f"{path}: ends in none of {suffixes}; rename it or give --format")


def _frames(clips: EditableClips) -> dict[str, tuple[int, ...]]:
    return {clip_id: clip.frame_indices for clip_id, clip in clips.items()}


# CSV: one row per frame; the rows of one clip, author and time are one edit

COLUMNS = ("clip_id", "author", "time", "frame_index", "timestamp", "score", "comment")

FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
"""Beginning of a cell that a spreadsheet would run as a formula, also behind the apostrophes that prevent it."""


def _cell(text: str) -> str:
    return f"'{text}" if FORMULA.match(text) else text


def _text(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def _write_csv(edits: Iterable[Edit], clips: EditableClips) -> str:
    target = io.StringIO(newline="")
    writer = csv.writer(target)
    writer.writerow(COLUMNS)
    for edit in edits:
        key, comment = [_cell(edit.clip_id), _cell(edit.author), edit.time], _cell(edit.comment)
        for frame, time, score in zip(edit.frame_indices, edit.timestamps, edit.scores, strict=True):
            writer.writerow([*key, frame, time, score, comment])
    return target.getvalue()


def _read_csv(text: str, source: str, clips: EditableClips) -> tuple[Edit, ...]:
    frames_of = _frames(clips)
    text = text.removeprefix("\ufeff")
    # Spreadsheets in countries with a decimal comma separate columns by semicolons.
    delimiter = ";" if "," not in text.partition("\n")[0] else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    groups: dict[tuple[str, ...], list[tuple[int, float, float, str, int]]] = defaultdict(list)
    line = 1
    try:
        if sorted(reader.fieldnames or ()) != sorted(COLUMNS):
            raise ValueError(
                f"got columns {reader.fieldnames}, expected {', '.join(COLUMNS)}, separated by commas or semicolons"
            )
        for row in reader:
            line = reader.line_num
            if None in row or None in row.values():
                raise ValueError(f"has another number of cells than the {len(COLUMNS)} columns")
            key = tuple(_text(row[name]) for name in ("clip_id", "author", "time"))
            frame, time = _number(row, "frame_index", int), _number(row, "timestamp", float)
            score = _number(row, "score", float)
            if not 0 <= score <= 1:
                raise ValueError(f"score: got {row['score']!r}, expected a number in 0..1")
            groups[key].append((frame, time, score, _text(row["comment"]), line))
        edits = []
        for (clip_id, author, when), rows in groups.items():
            line = rows[0][-1]
            rows.sort(key=lambda row: row[0])  # a spreadsheet may have sorted them otherwise
            frames, times, scores, comments, _ = zip(*rows, strict=True)
            if len(set(comments)) > 1:
                raise ValueError(f"comment: got {comments[0]!r} and others in one edit, expected the same in its rows")
            edits.append(Edit(clip_id, frames, times, scores, author, when, comments[0]))
            check_edit_frames(edits[-1], frames_of)
    except csv.Error as error:
        raise UserError(
            f"{source}, line {reader.reader.line_num}: is not CSV ({error}); correct or remove this row"
        ) from None
    except ValueError as error:
        raise UserError(f"{source}, line {line}: {error}; correct or remove this row") from None
    return tuple(edits)


def _number(row: Mapping[str, str], name: str, kind: Callable[[str], Any]) -> Any:
    try:
        return kind(row[name])
    except ValueError:
        raise ValueError(f"{name}: got {row[name]!r}, expected a number") from None


# Label Studio: one task per clip, one annotation per edit, ranges of source frames from 1, both ends inside

LEVELS = {"irrelevant": 0.0, "may matter": 0.5, "certainly matters": 1.0}
"""Label -> score; any other score is its own label, like "0.25"."""

Span = tuple[int, int, float]
"""First and last source frame, counted from 0, and their score."""


def _write_label_studio(edits: Iterable[Edit], clips: EditableClips) -> str:
    tasks: dict[str, dict[str, Any]] = {}
    for edit in edits:
        clip = clips[edit.clip_id]
        seconds = clip.timestamps[-1] - clip.timestamps[0]
        # by which Label Studio computes frame numbers; None for a single time
        fps = round((clip.frame_indices[-1] - clip.frame_indices[0]) / seconds, 3) if seconds else None
        data = {"clip_id": edit.clip_id, "video": clip.path, "label": clip.label, "fps": fps}
        task = tasks.setdefault(edit.clip_id, {"data": {**data, "edits": []}, "annotations": []})
        number = len(task["annotations"])
        task["data"]["edits"].append(edit.as_json())
        regions = [_region(f"{number}-{i}", span, number) for i, span in enumerate(_spans(edit))]
        task["annotations"].append({"result": regions})
    return json.dumps(list(tasks.values()), indent=1, ensure_ascii=False) + "\n"


def _region(name: str, span: Span, edit: int) -> dict[str, Any]:
    first, last, score = span
    label = next((label for label, level in LEVELS.items() if level == score), str(score))
    return {
        "id": name,
        "from_name": "relevance",
        "to_name": "video",
        "type": "timelinelabels",
        "origin": "manual",
        "value": {"ranges": [{"start": first + 1, "end": last + 1}], "timelinelabels": [label]},
        "meta": {"edit": edit},
    }


def _spans(edit: Edit) -> list[Span]:
    """Spans of equal scores, each of which holds until the next sampled frame."""
    spans: list[Span] = []
    frames = edit.frame_indices
    for first, following, score in zip(frames, (*frames[1:], frames[-1] + 1), edit.scores, strict=True):
        if first == following:
            continue  # a short clip repeats its last frame
        if spans and spans[-1][2] == score:
            first = spans.pop()[0]
        spans.append((first, following - 1, score))
    return spans


def _scores(frames: Sequence[int], spans: Sequence[Span]) -> tuple[float, ...]:
    """The score of each frame: the highest where spans overlap, and 0 outside of all spans."""
    return tuple(max((s for first, last, s in spans if first <= frame <= last), default=0.0) for frame in frames)


def _read_label_studio(text: str, source: str, clips: EditableClips) -> tuple[Edit, ...]:
    place, edits, remedy = source, [], "export the project from Label Studio as JSON"
    by_name: dict[str, list[str]] = defaultdict(list)
    for clip_id, clip in clips.items():
        by_name[Path(clip.path).name].append(clip_id)
    try:
        tasks = json.loads(text.removeprefix("\ufeff"))
        for number, task in enumerate(_expect(list, tasks, "tasks"), start=1):
            place, remedy = f"{source}, task {number}", "correct or remove this task"
            data = _expect(dict, _expect(dict, task, "task").get("data"), "data")
            clip_id = _clip_id(data, clips, by_name)
            for count, annotation in enumerate(_expect(list, task.get("annotations"), "annotations"), start=1):
                place = f"{source}, task {number}, annotation {count}"
                edit = _annotated(_expect(dict, annotation, "annotation"), data, clip_id, clips)
                if edit is not None:
                    edits.append(edit)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: {error}; {remedy}") from None
    return tuple(edits)


_JSON_NAMES: dict[Any, str] = {list: "a list", dict: "an object", str: "a string"}


def _expect(kind: type, value: Any, name: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{name}: got {str(value)[:80]!r}, expected {_JSON_NAMES[kind]}")
    return value


def _clip_id(data: Mapping[str, Any], clips: EditableClips, by_name: Mapping[str, Sequence[str]]) -> str:
    """The id of a task's clip, from `clip_id` or else from the video's file name."""
    if "clip_id" in data:
        clip_id = _expect(str, data["clip_id"], "data.clip_id")
        if clip_id not in clips:
            raise ValueError(f"data.clip_id: got {clip_id!r}, which is not a clip of this edit project")
        return clip_id
    video = _expect(str, data.get("video"), "data.video")
    name = re.split(r"[/\\=]", unquote(video))[-1]
    uploaded = re.sub(r"^[0-9a-f]{8}-", "", name)  # Label Studio puts this before the names of uploaded files
    for candidates in (by_name.get(name, ()), by_name.get(uploaded, ())):
        if len(candidates) == 1:
            return candidates[0]
    raise ValueError(f"data.video: got {video!r}, which is not the file of one clip; give its id as data.clip_id")


def _annotated(
    annotation: Mapping[str, Any], data: Mapping[str, Any], clip_id: str, clips: EditableClips
) -> Edit | None:
    """The edit of an annotation; None if it was skipped or left empty.

    Ranges decide. If they are still those that we wrote for an edit, that edit is returned, with all digits and with
    the scores of repeated frames, which ranges cannot express.
    """
    spans: list[Span] = []
    number: Any = None
    for result in _expect(list, annotation.get("result"), "result"):
        value = _expect(dict, result, "result").get("value")
        if isinstance(value, dict) and "timelinelabels" in value:
            spans += _spans_of(value)
            number = _expect(dict, result.get("meta") or {}, "meta").get("edit", number)
    if annotation.get("was_cancelled") or not spans:
        return None
    clip = clips[clip_id]
    scores = _scores(clip.frame_indices, spans)
    when = annotation.get("updated_at") or annotation.get("created_at")
    # A copy of an annotation belongs to the person who copied it.
    if number is None or annotation.get("parent_annotation") is not None:
        person = annotation.get("completed_by")
        if isinstance(person, dict):
            author = str(person.get("email") or person.get("id"))
        else:
            author = "Label Studio" if person is None else f"Label Studio user {person}"
        when = _expect(str, when, "updated_at")
        edit = Edit(clip_id, clip.frame_indices, clip.timestamps, scores, author, when)
    else:
        edits = _expect(list, data.get("edits"), "data.edits")
        if type(number) is not int or not 0 <= number < len(edits):
            raise ValueError(f"meta.edit: got {number!r}, which is none of the {len(edits)} data.edits")
        edit = Edit.from_json(edits[number])
        if scores != _scores(edit.frame_indices, _spans(edit)):
            edit = replace(edit, scores=scores, time=_expect(str, when or edit.time, "updated_at"))
    check_edit_frames(edit, {clip_id: clip.frame_indices})
    return edit


def _spans_of(value: Mapping[str, Any]) -> list[Span]:
    spans = []
    for label in _expect(list, value["timelinelabels"], "timelinelabels"):
        for bounds in _expect(list, value.get("ranges"), "ranges"):
            start, end = (_expect(dict, bounds, "ranges").get(name) for name in ("start", "end"))
            if type(start) is not int or type(end) is not int or not 1 <= start <= end:
                raise ValueError(f"ranges: got {bounds}, expected whole frames from 1 with start up to end")
            spans.append((start - 1, end - 1, _score(_expect(str, label, "timelinelabels"))))
    return spans


def _score(label: str) -> float:
    name = label.strip().lower()
    try:
        score = LEVELS[name] if name in LEVELS else float(name)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise ValueError(f"timelinelabels: got {label!r}, expected {', '.join(LEVELS)} or a number in 0..1")
    return score


FORMATS = {
    "jsonl": EditFormat(
        ".jsonl",
        "application/x-ndjson",
        write=lambda edits, clips: format_edits(edits),
        read=lambda text, source, clips: parse_edits(text, source, _frames(clips)),
    ),
    "csv": EditFormat(".csv", "text/csv", _write_csv, _read_csv),
    "label-studio": EditFormat(".json", "application/json", _write_label_studio, _read_label_studio),
}
"""Format by name, as in --format and in the studio's URLs."""
