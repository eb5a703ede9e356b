import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stabn.edits.formats import COLUMNS, FORMATS, choose_format
from stabn.edits.project import ProjectClip
from stabn.errors import UserError
from stabn.records import Edit

TIME = "2026-01-31T09:30:00+00:00"
CROP = (0.0, 0.0, 1.0, 1.0)


def clip(clip_id, frames, path=None):
    times = tuple(frame / 12 for frame in frames)
    return ProjectClip(
        clip_id, path or f"/videos/{clip_id}.mp4", "up", "down", frames, times, (0.5,) * len(frames), CROP
    )


CLIPS = {
    c.clip_id: c
    for c in (clip("17", (1, 4, 7, 10)), clip("takes/=1+1.mp4", (0, 2, 4, 4), "/videos/=1+1.mp4"), clip("-2", (5,)))
}
HOSTILE = ("=H(1)", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", "'", "'=1", "''-", "'tis", "＝1", 'a;b,c"d', "")


def edits():
    """Edits with everything that makes an exchange hard."""
    rng = np.random.default_rng(0)
    for number, text in enumerate(HOSTILE):
        for one in CLIPS.values():
            scores = rng.choice([0.0, 0.5, 1.0, 0.1 + 0.2, 1e-7, float(rng.random())], len(one.frame_indices)).tolist()
            yield one.edit(scores, author=f"{text}{number}", time=TIME, comment=f"{text} Zoë\r\nsays\u2028{text}")


@pytest.mark.parametrize("name", FORMATS)
def test_edits_come_back_from_every_format_exactly_and_from_a_table_with_semicolons(name):
    given = tuple(edits())
    text = FORMATS[name].write(given, CLIPS)
    versions = [text, "\ufeff" + text]
    if name == "csv":
        other = io.StringIO(newline="")
        csv.writer(other, delimiter=";").writerows(csv.reader(io.StringIO(text, newline="")))
        versions.append(other.getvalue())
    for written in versions:
        assert set(FORMATS[name].read(written, "file", CLIPS)) == set(given)
    assert FORMATS[name].read(FORMATS[name].write((), CLIPS), "file", CLIPS) == ()


def test_a_format_is_chosen_by_name_or_by_suffix():
    assert [choose_format(Path(f"x{f.suffix}")) for f in FORMATS.values()] == list(FORMATS.values())
    assert choose_format(Path("x.CSV")) is FORMATS["csv"]
    assert choose_format(Path("x.txt"), "csv") is FORMATS["csv"]
    with pytest.raises(UserError, match=r"x\.txt"):
        choose_format(Path("x.txt"))
    with pytest.raises(UserError, match="--format: got 'xls'"):
        choose_format(Path("x.csv"), "xls")


@pytest.mark.parametrize(
    ("name", "text"),
    [("jsonl", "{"), ("csv", "a,b\r\n1,2\r\n"), ("csv", ""), ("label-studio", "{}"), ("label-studio", "[1"),
     ("jsonl", "[" * 100_000), ("label-studio", "[" * 100_000)],
)  # fmt: skip
def test_a_file_that_is_something_else_is_refused_in_one_line(name, text):
    with pytest.raises(UserError, match=r"^my file\b") as caught:
        FORMATS[name].read(text, "my file", CLIPS)
    assert "\n" not in str(caught.value)


class TestCsv:
    def rows(self, text):
        return list(csv.DictReader(io.StringIO(text, newline="")))

    def text(self, *changes, rows=4):
        """A table of one edit, with changes (row, column, value)."""
        table = [dict(zip(COLUMNS, ("17", "Ann", TIME, 3 * i + 1, i / 4, 0.5, "ok"), strict=True)) for i in range(rows)]
        for row, column, value in changes:
            table[row][column] = value
        target = io.StringIO(newline="")
        writer = csv.DictWriter(target, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        return target.getvalue()

    def test_there_is_one_row_per_frame_and_no_cell_begins_like_a_formula(self):
        for row in self.rows(FORMATS["csv"].write(edits(), CLIPS)):
            assert not [cell for cell in row.values() if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))]
        given = CLIPS["17"].edit((0.0, 0.5, 1.0, 0.25), author="Ann", time=TIME, comment="ok")
        rows = self.rows(FORMATS["csv"].write([given], CLIPS))
        assert [float(row["score"]) for row in rows] == [0.0, 0.5, 1.0, 0.25]
        assert [int(row["frame_index"]) for row in rows] == [1, 4, 7, 10]
        assert tuple(rows[0]) == ("clip_id", "author", "time", "frame_index", "timestamp", "score", "comment")

    def test_rows_may_be_sorted_otherwise_and_end_in_any_way(self):
        text = self.text((0, "score", 1), (3, "score", 0))
        head, *rows = text.splitlines()
        for mixed in (text, "\r\n".join([head, *rows[::-1]]), "\n".join([head, *rows[::-1]]) + "\n\n"):
            (edit,) = FORMATS["csv"].read(mixed, "file", CLIPS)
            assert edit.scores == (1.0, 0.5, 0.5, 0.0)
            assert edit.frame_indices == CLIPS["17"].frame_indices

    @pytest.mark.parametrize(
        ("change", "line", "pattern"),
        [
            ((2, "score", "high"), 4, "score: got 'high', expected a number"),
            ((2, "score", "1.2"), 4, "score: got '1.2', expected a number in 0..1"),
            ((2, "score", "nan"), 4, "score: got 'nan'"),
            ((2, "score", ""), 4, "score: got ''"),
            ((1, "frame_index", "4.5"), 3, "frame_index: got '4.5'"),
            ((1, "frame_index", "5"), 2, "frame_indices: got [1, 5, 7, 10] for clip '17', expected [1, 4, 7, 10]"),
            ((1, "timestamp", "-3"), 2, "timestamps: got -3.0"),
            ((1, "timestamp", "inf"), 2, "timestamps: got inf"),
            ((3, "clip_id", "18"), 2, "scores: got 3 for clip '17', expected 4"),
            ((3, "comment", "other"), 2, "comment: got 'ok' and others in one edit"),
            ((0, "time", "noon"), 2, "time: got 'noon'"),
        ],
    )
    def test_a_wrong_row_is_refused_by_line_and_value(self, change, line, pattern):
        with pytest.raises(UserError) as caught:
            FORMATS["csv"].read(self.text(change), "my.csv", CLIPS)
        assert str(caught.value).startswith(f"my.csv, line {line}: {pattern}")
        assert "correct or remove this row" in str(caught.value)

    @pytest.mark.parametrize("row", ["17,Ann", "17,Ann,t,1,2,3,4,5", '17,"Ann'])
    def test_a_torn_row_is_refused_by_its_line(self, row):
        with pytest.raises(UserError, match=r"my\.csv, line 6: "):
            FORMATS["csv"].read(self.text() + row, "my.csv", CLIPS)


class TestLabelStudio:
    """What Label Studio writes: docs/source/tags/timelinelabels.md and docs/source/includes/task_format.md there."""

    def region(self, start, end, *labels, **more):
        value = {"ranges": [{"start": start, "end": end}], "timelinelabels": list(labels)}
        return {"id": "f3Kx", "from_name": "videoLabels", "to_name": "video", "type": "timelinelabels",
                "origin": "manual", "value": value, **more}  # fmt: skip

    def task(self, *regions, data=None, **more):
        annotation = {"id": 9, "completed_by": 3, "was_cancelled": False, "ground_truth": False, "lead_time": 4.288,
                      "created_at": "2026-02-01T21:52:49.513742Z", "updated_at": "2026-02-01T22:16:08.746926Z",
                      "parent_annotation": None, "result": list(regions)}  # fmt: skip
        data = data or {"video": "/data/upload/4/1a2b3c4d-17.mp4"}
        return {"id": 1, "data": data, "annotations": [annotation | more], "predictions": [], "drafts": []}

    def read(self, *tasks):
        return FORMATS["label-studio"].read(json.dumps(tasks), "ls.json", CLIPS)

    def test_labels_of_its_own_projects_are_read_by_name_and_by_number(self):
        # Label Studio counts frames from 1 and both ends belong to the range: ours are 1, 4, 7, 10 from 0.
        (edit,) = self.read(
            self.task(
                self.region(2, 4, "May Matter"), self.region(5, 8, "certainly matters"), self.region(11, 11, "0.2")
            )
        )
        assert edit == Edit("17", (1, 4, 7, 10), CLIPS["17"].timestamps, (0.5, 1.0, 1.0, 0.2),
                             "Label Studio user 3", "2026-02-01T22:16:08.746926Z")  # fmt: skip

    @pytest.mark.parametrize(("start", "end", "inside"), [(5, 5, True), (4, 4, False), (6, 9, False), (1, 5, True)])
    def test_a_range_holds_both_of_its_ends(self, start, end, inside):
        (edit,) = self.read(self.task(self.region(start, end, "1")))
        assert (edit.scores[1] == 1.0) is inside

    def test_where_ranges_overlap_the_higher_score_counts_and_what_has_none_is_irrelevant(self):
        regions = [self.region(1, 8, "0.5"), self.region(8, 9, "irrelevant"), self.region(5, 6, "certainly matters")]
        for order in (regions, regions[::-1]):
            assert self.read(self.task(*order))[0].scores == (0.5, 1.0, 0.5, 0.0)

    def test_skipped_and_empty_annotations_and_other_controls_are_no_edits(self):
        other = {"id": "x", "type": "choices", "from_name": "c", "to_name": "video", "value": {"choices": ["good"]}}
        skipped = self.task(self.region(1, 5, "1"), was_cancelled=True)
        assert self.read(skipped, self.task(), self.task(other)) == ()

    @pytest.mark.parametrize(
        ("completed_by", "author"),
        [({"id": 3, "email": "a@example.org"}, "a@example.org"), (3, "Label Studio user 3"), (None, "Label Studio")],
    )
    def test_the_author_is_who_completed_the_annotation(self, completed_by, author):
        assert self.read(self.task(self.region(1, 5, "1"), completed_by=completed_by))[0].author == author

    @pytest.mark.parametrize(
        "data",
        [{"video": "/data/local-files/?d=videos/17.mp4"}, {"video": "http://here/17.mp4"}, {"clip_id": "17"},
         {"video": "s3://bucket/a/17.mp4"}],
    )  # fmt: skip
    def test_a_task_is_matched_to_its_clip(self, data):
        assert self.read(self.task(self.region(1, 5, "1"), data=data))[0].clip_id == "17"

    def test_what_we_write_is_what_its_documentation_describes(self):
        given = CLIPS["17"].edit((0.0, 0.5, 0.5, 0.25), author="Ann", time=TIME)
        (task,) = json.loads(FORMATS["label-studio"].write([given], CLIPS))
        assert task["data"]["video"] == "/videos/17.mp4"
        assert task["data"]["fps"] == 12
        (annotation,) = task["annotations"]
        assert "completed_by" not in annotation  # Label Studio refuses to import people whom it does not know
        values = [result["value"] for result in annotation["result"]]
        assert values == [
            {"ranges": [{"start": 2, "end": 4}], "timelinelabels": ["irrelevant"]},
            {"ranges": [{"start": 5, "end": 10}], "timelinelabels": ["may matter"]},
            {"ranges": [{"start": 11, "end": 11}], "timelinelabels": ["0.25"]},
        ]
        assert {result["type"] for result in annotation["result"]} == {"timelinelabels"}

    def test_ranges_that_a_person_changed_win_over_what_we_wrote(self):
        short = CLIPS["takes/=1+1.mp4"]
        given = [
            short.edit((0.0, 1.0, 0.3, 0.7), author="Ann", time=TIME, comment="ok"),
            short.edit((0.0, 0.0, 0.0, 0.0), author="Bo", time=TIME),
        ]
        (task,) = json.loads(FORMATS["label-studio"].write(given, CLIPS))
        # Taken in by Label Studio and given out again, with a time of its own: still the same edits.
        for annotation in task["annotations"]:
            annotation |= {"updated_at": "2026-02-01T22:16:08.746926Z", "completed_by": 1, "parent_annotation": None}
        assert self.read(task) == tuple(given)
        task["annotations"][1]["result"].append(self.region(3, 3, "certainly matters"))
        ann, bo = self.read(task)
        assert ann == given[0]
        assert bo == replace(given[1], scores=(0.0, 1.0, 0.0, 0.0), time="2026-02-01T22:16:08.746926Z")
        task["annotations"][1]["parent_annotation"] = 7
        assert self.read(task)[1].author == "Label Studio user 1"

    @pytest.mark.parametrize(
        ("task", "pattern"),
        [
            (lambda s: s.task(s.region(1, 5, "Kickflip")), "task 1, annotation 1: timelinelabels: got 'Kickflip'"),
            (lambda s: s.task(s.region(1, 5, "1.5")), "timelinelabels: got '1.5', expected irrelevant, may matter"),
            (lambda s: s.task(s.region(0, 5, "1")), "ranges: got {'start': 0, 'end': 5}, expected whole frames from 1"),
            (lambda s: s.task(s.region(5, 4, "1")), "ranges: got {'start': 5, 'end': 4}"),
            (lambda s: s.task(s.region(1, None, "1")), "ranges: got {'start': 1, 'end': None}"),
            (lambda s: s.task(s.region(1, 2, 3)), "timelinelabels: got '3', expected a string"),
            (lambda s: s.task(s.region(1, 2, "1"), data={"video": "x.mp4"}), "task 1: data.video: got 'x.mp4'"),
            (lambda s: s.task(s.region(1, 2, "1"), data={"clip_id": "99"}), "data.clip_id: got '99'"),
            (lambda s: s.task(s.region(1, 2, "1"), data={"image": "x"}), "data.video: got 'None', expected a string"),
            (lambda s: s.task(s.region(1, 2, "1"), updated_at=3), "updated_at: got '3'"),
            (lambda s: s.task(s.region(1, 2, "1", meta={"edit": 0})), "data.edits: got 'None', expected a list"),
            (lambda s: s.task(s.region(1, 2, "1", meta=[1])), "meta: got '[1]', expected an object"),
            (lambda s: s.task(7), "result: got '7', expected an object"),
            (lambda s: {"video": "17.mp4", "videoLabels": []}, "task 1: data: got 'None', expected an object"),
            (lambda s: 3, "task 1: task: got '3', expected an object"),
        ],
    )
    def test_what_cannot_be_understood_is_refused_by_task_annotation_and_value(self, task, pattern):
        with pytest.raises(UserError, match=r"^ls\.json, task 1") as caught:
            self.read(task(self))
        assert pattern in str(caught.value)

    @pytest.mark.parametrize("number", [1, -1, True, "0", 0.0])
    def test_a_reference_to_an_edit_that_is_not_there_is_refused(self, number):
        (task,) = json.loads(FORMATS["label-studio"].write([next(edits())], CLIPS))
        task["annotations"][0]["result"][0]["meta"]["edit"] = number
        task["annotations"][0]["result"] = task["annotations"][0]["result"][:1]
        with pytest.raises(UserError, match=r"meta\.edit: got"):
            self.read(task)
