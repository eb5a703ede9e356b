"""Pictures of records: contact sheets of all frames, and films at true speed.

Temporal attention is always drawn on the absolute scale 0..1, so that bars of different clips can be compared. Spatial
maps are usually almost constant (0.45..0.55); they are stretched over the range of their clip, which is printed.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from stabn.data.video.clip import Clip, write_video
from stabn.explain.drawing import (
    EDGE,
    INK,
    MUTED,
    PAPER,
    RIGHT,
    TRACK,
    WRONG,
    draw_bars,
    draw_scale,
    fit_text,
    font,
    wrap_text,
)
from stabn.explain.heatmap import overlay_record, readable_size, shown_range
from stabn.records import Record

_HOLD = 1 / 3  # seconds that a film shows its last frame
_PAD = 20
_COLUMNS = 8


def contact_sheet(record: Record, clip: Clip) -> Image.Image:
    """One picture of a record: predictions, and all T frames with their heat maps and temporal scores.

    Frames run left to right, eight to a row. Above each stands its temporal score as a bar 0..1 with the number, below
    it the frame's index in the source and its time in seconds.

    Args:
        record: to draw.
        clip: the record's frames.

    Raises:
        ValueError: the clip's frames are not the record's.
    """
    count = len(record.frame_indices)
    columns = min(count, _COLUMNS)
    source_width, source_height = clip.frames.shape[3], clip.frames.shape[2]
    readable = readable_size(source_width, source_height)
    wide = min(readable[0], max(200, 760 // columns))
    if source_height > 1.4 * source_width:  # tall pictures: narrower, but wide enough for their captions
        wide = max(136, round(wide * 1.4 * source_width / source_height))
    size = (wide, max(1, round(wide * source_height / source_width)))
    pictures = overlay_record(record, clip, size)

    gap, bar, above, below = 10, 44, 20, 22
    cell_width, cell_height = size[0], above + bar + 4 + size[1] + below
    grid_width = columns * (cell_width + gap) - gap
    rows = -(-count // columns)
    width = max(grid_width, 920) + 2 * _PAD
    heading = _sheet_heading(record, width - 2 * _PAD)
    image = Image.new("RGB", (width, _PAD + heading.height + 16 + rows * (cell_height + 12) + _PAD - 12), PAPER)
    image.paste(heading, (_PAD, _PAD))
    draw = ImageDraw.Draw(image)
    start = (_PAD, _PAD + heading.height + 16)
    for i, picture in enumerate(pictures):
        x = start[0] + i % columns * (cell_width + gap)
        y = start[1] + i // columns * (cell_height + 12)
        score, middle = float(record.temporal[i]), x + cell_width / 2
        base = y + above + bar
        draw.text((middle, y), f"{score:.2f}", fill=INK, font=font(13, bold=True), anchor="ma")
        draw_bars(draw, (x, y + above, x + cell_width - 1, base), [score])
        image.paste(Image.fromarray(picture), (x, base + 4))
        repeated = i > 0 and record.frame_indices[i] == record.frame_indices[i - 1]
        caption = f"frame {record.frame_indices[i]} · {record.timestamps[i]:.2f} s" + (" · again" if repeated else "")
        face = font(12)
        draw.text((middle, base + 8 + size[1]), fit_text(caption, face, cell_width), fill=MUTED, font=face, anchor="ma")
    return image


def write_explanation(path: Path | str, record: Record, clip: Clip) -> None:
    """Write a film of the record at true speed: the prediction, each frame with its heat map, and the T scores.

    Each source frame appears once at its own time, counted from the first; the last is held for a third of a second,
    by a repeat of it at the end. Frames that a short clip repeats are one picture that marks all their bars.

    Args:
        path: .mp4 or .webm.
        record: to draw; its frames ascend.
        clip: the record's frames.

    Raises:
        ValueError: the clip's frames are not the record's or do not ascend, or another suffix.
    """
    write_comparison(path, [("", record)], clip)


def write_comparison(
    path: Path | str,
    records: Sequence[tuple[str, Record]],
    clip: Clip,
    relevance: Sequence[int | float] | None = None,
    *,
    relevance_name: str = "Marked by people",
) -> None:
    """Write a film like `write_explanation` of several records of one clip, side by side, each map over its own range.

    Args:
        path: .mp4 or .webm.
        records: at least one (name, record), such as before and after an edit, all of the clip's frames.
        clip: the records' frames.
        relevance: T values in 0..1 to draw below each record's temporal attention: edited scores, or the truth.
        relevance_name: their label.

    Raises:
        ValueError: records of other frames, frames that do not ascend, or another suffix.
    """
    size = readable_size(clip.frames.shape[3], clip.frames.shape[2])
    moments = _moments(records[0][1])
    pictures = [overlay_record(record, clip, size) for _, record in records]
    width = max(size[0], 480 if len(records) == 1 else 400)
    lines = max(len(_name_lines(record, width)) for _, record in records)
    marked = None if relevance is None else (relevance_name, relevance)

    def film() -> Iterator[np.ndarray]:
        for positions, _ in (*moments, moments[-1]):
            panels = [
                _panel(record, picture[positions.start], positions, width, lines, name, marked)
                for (name, record), picture in zip(records, pictures, strict=True)
            ]
            height = panels[0].height + 2 * _PAD
            image = Image.new("RGB", (len(panels) * (width + _PAD) + _PAD, height + height % 2), PAPER)
            for i, panel in enumerate(panels):
                image.paste(panel, (_PAD + i * (width + _PAD), _PAD))
            yield np.asarray(image)

    times = [seconds for _, seconds in moments]
    fps = max(Fraction(1), Fraction((len(times) - 1) / times[-1]).limit_denominator(1000)) if times[-1] else Fraction(3)
    write_video(path, film(), fps, timestamps=[*times, times[-1] + _HOLD])


def _moments(record: Record) -> list[tuple[range, float]]:
    """The frames of a film: which of the T positions are this source frame, and the seconds at which it is shown."""
    moments = list[tuple[range, float]]()
    for i, (index, time) in enumerate(zip(record.frame_indices, record.timestamps, strict=True)):
        if i and index == record.frame_indices[i - 1]:
            positions, seconds = moments[-1]
            moments[-1] = (range(positions.start, i + 1), seconds)
        else:
            # Some files give two frames one time, and snippets may overlap; a millisecond apart all can be shown.
            earliest = moments[-1][1] + 0.001 if moments else 0.0
            moments.append((range(i, i + 1), max(float(time - record.timestamps[0]), earliest)))
    return moments


def _name_lines(record: Record, width: int) -> list[str]:
    return wrap_text(record.class_names[record.predicted], font(17, bold=True), width - 72, 2)


def _panel(
    record: Record,
    picture: np.ndarray,
    positions: range,
    width: int,
    lines: int,
    name: str,
    marked: tuple[str, Sequence[int | float]] | None,
) -> Image.Image:
    """Prediction, frame, timeline and legend of one record, below one another."""
    head = (24 if name else 0) + lines * 22 + (0 if record.label is None else 26) + 8
    bars_top = head + len(picture) + 32
    strip = 0 if marked is None else 54
    image = Image.new("RGB", (width, bars_top + 56 + 40 + strip), PAPER)
    draw = ImageDraw.Draw(image)
    y = 0
    if name:
        draw.text((0, y), fit_text(name, font(13), width), fill=MUTED, font=font(13), anchor="la")
        y += 24
    probability = f"{record.probabilities[record.predicted]:.0%}"
    draw.text((width, y), probability, fill=INK, font=font(17, bold=True), anchor="ra")
    for i, line in enumerate(_name_lines(record, width)):
        draw.text((0, y + 22 * i), line, fill=INK, font=font(17, bold=True), anchor="la")
    y += 22 * lines + 4
    if record.label is not None:
        _draw_verdict(draw, (0, y), width, record)

    image.paste(Image.fromarray(picture), ((width - picture.shape[1]) // 2, head))
    scores = record.temporal[positions.start : positions.stop]
    score = f"{scores.min():.2f}" if scores.max() - scores.min() < 0.005 else f"{scores.min():.2f}–{scores.max():.2f}"
    y = bars_top - 12
    draw.text((0, y), "When it looked", fill=MUTED, font=font(12), anchor="ls")
    index, time = record.frame_indices[positions.start], record.timestamps[positions.start]
    right = width - font(12, bold=True).getlength(score)
    draw.text((right, y), f"frame {index} · {time:.2f} s · ", fill=MUTED, font=font(12), anchor="rs")
    draw.text((right, y), score, fill=INK, font=font(12, bold=True), anchor="ls")
    draw_bars(draw, (2, bars_top, width - 3, bars_top + 56), record.temporal, positions)
    y = bars_top + 56 + 20
    if marked is not None:
        draw.text((0, y), fit_text(marked[0], font(12), width), fill=MUTED, font=font(12), anchor="la")
        draw_bars(draw, (2, y + 20, width - 3, y + 42), marked[1], positions, plain=True)
    _draw_legend(image, (0, y + strip + 4), width, record)
    return image


def _draw_verdict(draw: ImageDraw.ImageDraw, at: tuple[int, int], width: int, record: Record) -> None:
    """Draw right or wrong as a sign, a word and a colour; for a wrong prediction also the true class."""
    assert record.label is not None
    right = record.predicted == record.label
    sign = "✓ right" if right else "✗ wrong"
    ink, face = RIGHT if right else WRONG, font(14, bold=True)
    draw.text(at, sign, fill=ink, font=face, anchor="la")
    if not right:
        x = at[0] + face.getlength(sign + "  ")
        truth = f"truth: {record.class_names[record.label]}"
        draw.text((x, at[1]), fit_text(truth, font(14), width - (x - at[0])), fill=INK, font=font(14), anchor="la")


def _draw_legend(image: Image.Image, at: tuple[int, int], width: int, record: Record) -> int:
    """Draw the colour scale of the heat maps with the values at its ends; returns its right edge in pixels."""
    low, high = shown_range(record.spatial)
    digits = 0 if (low, high) == (0.0, 1.0) else 3 if high - low >= 0.01 else 6
    low_text, high_text = f"{low:.{digits}f}", f"{high:.{digits}f}"
    draw, face, (x, y) = ImageDraw.Draw(image), font(12), at
    draw.text((x, y), "Where it looked", fill=MUTED, font=face, anchor="la")
    x += int(face.getlength("Where it looked")) + 10
    draw.text((x, y), low_text, fill=INK, font=face, anchor="la")
    x += int(face.getlength(low_text)) + 7
    draw_scale(image, (x, y + 1, x + 90, y + 12))
    x += 90 + 7
    draw.text((x, y), high_text, fill=INK, font=face, anchor="la")
    x += int(face.getlength(high_text)) + 10
    if (low, high) != (0.0, 1.0):
        whole = "stretched to this clip's range"
        note = whole if face.getlength(whole) <= at[0] + width - x else "stretched"
        draw.text((x, y), note, fill=MUTED, font=face, anchor="la")
        x += int(face.getlength(note))
    return x


def _sheet_heading(record: Record, width: int) -> Image.Image:
    """Name and verdict, the most probable classes, and the legend."""
    top = record.top(min(3, len(record.class_names)))
    image = Image.new("RGB", (width, 62 + 24 * len(top) + 24), PAPER)
    draw = ImageDraw.Draw(image)
    title = font(20, bold=True)
    draw.text((0, 0), fit_text(record.clip_id, title, width), fill=INK, font=title, anchor="la")
    if record.label is not None:
        _draw_verdict(draw, (0, 32), width, record)
    y, bar = 62 if record.label is not None else 36, 150
    for rank, (name, probability) in enumerate(top):
        face = font(14, bold=rank == 0)
        draw.rectangle((0, y + 2, bar, y + 14), fill=TRACK)
        draw.rectangle((0, y + 2, max(1, round(bar * probability)), y + 14), fill=EDGE if rank else INK)
        draw.text((bar + 54, y), f"{probability:.1%}", fill=INK, font=face, anchor="ra")
        is_truth = record.label is not None and name == record.class_names[record.label]
        text = fit_text(name + ("  ✓" if is_truth else ""), face, width - bar - 66)
        draw.text((bar + 66, y), text, fill=INK, font=face, anchor="la")
        y += 24
    x = _draw_legend(image, (0, y + 6), width, record) + 24
    key = "Bars: when it looked, 0 to 1"
    if record.crop != (0.0, 0.0, 1.0, 1.0):
        key += "   ·   Grey: outside the network's view"
    draw.text((x, y + 6), key, fill=MUTED, font=font(12), anchor="la")
    return image.crop((0, 0, width, y + 24))
