import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from archive_folder import BROKEN, OPTIONS, PART, explained, maps_of, rows_of, write_rows
from pyarrow import parquet

from stabn.batch.manifest import ArchiveJob
from stabn.batch.parquet import SCHEMA, quantised_maps
from stabn.data.segments import Segment
from stabn.engine.config import EngineRecipe
from stabn.explain.explain_video import explain_video
from stabn.nn import load_pretrained
from stabn.runs import network_class_names, network_preprocessing

DOCS = (Path(__file__).parents[2] / "docs" / "archive.md").read_text()


def test_every_clip_has_one_row_and_a_broken_one_says_why(answered, archive):
    rows = rows_of(answered)
    with archive.open(newline="", encoding="utf-8") as content:
        assert [row["id"] for row in rows] == [line["id"] for line in csv.DictReader(content)]
    told = {row["id"]: row for row in rows if row["error"] is not None}
    assert set(told) == set(BROKEN)
    for name, reason in BROKEN.items():
        assert reason in told[name]["error"]
        assert "\n" not in told[name]["error"]
        assert told[name]["path"] in told[name]["error"]
        known = {column for column, value in told[name].items() if value is not None}
        assert known <= {"id", "path", "label", "error"}


def test_answers_are_those_of_explaining_each_clip_alone(answered, trained):
    model = load_pretrained(trained)
    preprocessing, names = network_preprocessing(model, "run"), network_class_names(model)
    for row in rows_of(answered):
        if row["error"] is not None:
            continue
        segment = Segment(0.5) if row["id"] == "part" else None
        record, _ = explain_video(model, preprocessing, Path(row["path"]), names, segment=segment)
        assert np.allclose(row["probabilities"], record.probabilities, atol=1e-5)
        assert row["predicted"] == names[row["predicted_index"]] == record.top(1)[0][0]
        assert row["probability"] == pytest.approx(record.probabilities.max(), abs=1e-5)
        branch = record.attention_probabilities
        assert row["attention_branch_predicted"] == names[branch.argmax()]
        assert row["attention_branch_probability"] == pytest.approx(branch.max(), abs=1e-5)
        for column in ("frame_indices", "timestamps", "crop"):
            assert row[column] == list(getattr(record, column))
        assert np.allclose(row["temporal_attention"], record.temporal, atol=1e-5)
        assert np.abs(maps_of(row) - record.spatial).max() <= 1 / 510 + 1e-5


def test_a_map_is_wrong_by_half_a_step_at_most_and_keeps_its_ends():
    maps = np.linspace(0, 1, 2 * 3 * 5, dtype=np.float32).reshape(2, 3, 5)
    found = np.frombuffer(quantised_maps(maps), np.uint8).reshape(2, 3, 5) / 255
    assert np.abs(found - maps).max() <= 1 / 510 + 1e-7
    assert (found.min(), found.max()) == (0, 1)
    assert quantised_maps(maps)[5] == round(255 * float(maps[0, 1, 0]))


def test_the_files_say_what_they_are_and_have_the_documented_columns(answered, trained):
    files = sorted((answered / "clips").iterdir())
    assert [file.name for file in files] == [f"part-0000{n}.parquet" for n in range(4)]
    documented = re.findall(r"^\| (`.*?) \|", DOCS[DOCS.index("| column") :], re.MULTILINE)
    assert [name for cell in documented for name in re.findall(r"`(\w+)`", cell)] == SCHEMA.names
    errors = 0
    for number, file in enumerate(files):
        schema = parquet.read_schema(file)
        assert schema.equals(SCHEMA)
        stamp = json.loads(schema.metadata[b"stabn"])
        assert stamp["part"] == number
        assert stamp["class_names"] == list(load_pretrained(trained).class_names)
        assert parquet.read_metadata(file).row_group(0).column(0).compression == "ZSTD"
        errors += stamp["errors"]
    assert errors == len(BROKEN)


def test_the_summary_counts_what_the_files_hold(answered):
    told, rows = json.loads((answered / "summary.json").read_text()), rows_of(answered)
    assert (told["complete"], told["clips"], told["errors"]) == (True, len(rows), len(BROKEN))
    right = sum(row["predicted"] == row["label"] == "Lifting something" for row in rows)
    assert (told["labelled"], told["right"], told["top1"]) == (3, right, right / 3)
    assert told["mean_class_accuracy"] == right / 3  # all three labels are of one class
    assert sum(told["predicted"].values()) == len(rows) - len(BROKEN)
    assert told["speed"]["clips"] == len(rows)
    assert told["speed"]["clips_per_second"] > 0


@pytest.mark.parametrize("number", [0, 1])
def test_the_programs_of_the_documentation_read_the_files(number, answered, tmp_path, monkeypatch, capsys):
    program = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)[number]
    if "pandas" in program:
        pytest.importorskip("pandas")
    (tmp_path / "FOLDER").symlink_to(answered)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(program, "docs/archive.md", "exec"), names)
    assert np.allclose(names["maps"], maps_of(rows_of(answered)[0]))
    assert capsys.readouterr().out


def test_duckdb_and_polars_read_the_files(answered):
    polars, duckdb = pytest.importorskip("polars"), pytest.importorskip("duckdb")
    pattern, rows = str(answered / "clips" / "*.parquet"), rows_of(answered)
    assert polars.read_parquet(pattern).to_dicts() == rows
    query = re.search(r"`(SELECT .*?)`", DOCS)[1].replace("FOLDER/clips/*.parquet", pattern)
    assert dict(duckdb.sql(query).fetchall()) == {row["id"]: row["error"] for row in rows if row["error"]}


def test_a_plain_network_answers_without_attention(plain, archive, tmp_path):
    explained(plain, archive, tmp_path / "out")
    row = rows_of(tmp_path / "out")[0]
    assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
    absent = ("attention_branch_predicted", "attention_branch_probability", "temporal_attention", "spatial_attention")
    assert all(row[name] is None for name in (*absent, "spatial_shape"))


@pytest.mark.parametrize(("precision", "off"), [("32-true", 1e-5), ("bf16-mixed", 0.05)])
def test_the_engines_precision_is_used_and_nothing_else_changes_an_answer(
    precision, off, answered, trained, archive, tmp_path
):
    options = replace(OPTIONS, engine=EngineRecipe(accelerator="cpu", precision=precision))
    if precision == "32-true":  # as before, but in other batches, processes and parts
        options = replace(options, batch_size=16, workers=1, timeout=0)
    explained(trained, archive, tmp_path / "out", options=options, part_clips=100)
    for one, other in zip(rows_of(answered), rows_of(tmp_path / "out"), strict=True):
        assert (one["error"] is None) == (other["error"] is None)
        if one["error"] is None:
            assert one["predicted"] == other["predicted"] or off > 1e-5
            assert one["probabilities"] != other["probabilities"] or precision == "32-true"
            for column in ("probabilities", "temporal_attention"):
                assert np.allclose(one[column], other[column], atol=off), column


def test_an_answer_that_is_no_number_is_an_error_of_its_clip(trained, tabletop, tmp_path):
    model = load_pretrained(trained)
    model.backbone.fc.weight.data.fill_(3e38)  # a number, but sums of it are not
    model.save_pretrained(tmp_path / "run")
    table = write_rows(tmp_path / "t.csv", ("path",), [(str(tabletop / "videos" / f"{n}.mp4"),) for n in (1, 2)])
    told = explained(tmp_path / "run", table, tmp_path / "out")
    assert told["errors"] == 2
    assert "is not a number" in told["first_errors"][0]["error"]


def test_names_that_are_no_text_can_be_written(trained, tabletop, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    name = b"bad\xff.mp4".decode("utf-8", "surrogateescape")
    (folder / name).write_bytes((tabletop / "videos" / "1.mp4").read_bytes())
    told = explained(trained, folder, tmp_path / "out")
    assert (told["clips"], told["errors"]) == (1, 0)
    assert rows_of(tmp_path / "out")[0]["id"] == r"bad\udcff.mp4"


def test_a_job_is_the_same_wherever_its_folders_lie(trained, tmp_path):
    model = load_pretrained(trained)
    one, other = (ArchiveJob.create(trained, model, "32-true", tmp_path / name, PART) for name in ("a", "b"))
    assert one.id == other.id
    assert one.id != ArchiveJob.create(trained, model, "bf16-mixed", tmp_path / "a", PART).id
