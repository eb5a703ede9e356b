"""`stabn prepare` on one small data set in the form of each format: whatever the form, the table says the same."""

import csv
import json
import os
import re
from pathlib import Path

import pytest
from messages import names
from PIL import Image
from pyarrow import parquet
from pyarrow import table as arrow_table

from stabn.cli.data import prepare_command
from stabn.cli.main import main
from stabn.data.annotations.columns import Columns
from stabn.data.annotations.detect import FORMATS, detect_format, read_detected
from stabn.data.annotations.something_something import read_something_something
from stabn.data.annotations.source import DataSource
from stabn.data.annotations.text_lists import DESCRIPTIONS
from stabn.data.dataset import VideoDataset
from stabn.data.sampling import Sampling, uniform
from stabn.data.segments import Segment
from stabn.data.transforms import Preprocessing
from stabn.errors import UserError
from stabn.explain.explain_video import explain_video
from stabn.runs import network_class_names, network_preprocessing, open_run
from stabn.studio.catalogue import CatalogueClip
from stabn.studio.viewer import Viewer

TINY = ["--network.backbone", "tiny", "--preprocessing.sampling.frames", "8", "--preprocessing.resize", "36",
        "--preprocessing.crop", "32", "--optimizer.epochs", "1", "--optimizer.batch_size", "8",
        "--engine.accelerator", "cpu"]  # fmt: skip


@pytest.fixture
def prepared(tmp_path, capsys):
    """Prepares and gives the report, what was printed, and the table as the verbs read it."""

    def call(*sources, **options):
        out = tmp_path / "out" / "table.csv"
        report = json.loads(json.dumps(prepare_command(list(sources), out, **options), allow_nan=False))
        return report, capsys.readouterr().out, DataSource(str(out)).table()

    return call


@pytest.fixture
def refused(tmp_path):
    """Prepares, which ends with one line that names some values."""

    def call(*values, sources, out=tmp_path / "out" / "table.csv", **options):
        with pytest.raises(UserError, match=names(*values)) as caught:
            prepare_command(sources, out, **options)
        assert "\n" not in str(caught.value)

    return call


@pytest.fixture(scope="session")
def truth(tabletop):
    """The data set that all forms are made of."""
    return read_something_something(tabletop, tabletop / "videos")


def link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)


def write(file: Path, lines, end="\r\n") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(("\ufeff" + "".join(f"{line}{end}" for line in lines)).encode())
    return file


def put_frames(folder: Path, count: int, first: int = 1) -> None:
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        Image.new("RGB", (48, 48), (number * 5 % 255, 0, 0)).save(folder / f"img_{number:05}.jpg")


def something_v1(root, truth):
    for split in ("train", "validation"):
        rows = [f"{s.clip_id};{truth.class_names[s.label]}" for s in truth.of_split(split)]
        write(root / f"something-something-v1-{split}.csv", rows, "\n")
    write(root / "something-something-v1-labels.csv", truth.class_names)
    for sample in truth.samples:
        put_frames(root / "20bn-something-something-v1" / sample.clip_id, 12)
    return [root], {}


def something_v2(root, truth):
    root.mkdir()
    for file in truth.samples[0].path.parent.parent.glob("something*.json"):
        link(file, root / file.name)
    link(truth.samples[0].path.parent, root / "videos")
    return [root], {}


def frames_list(root, truth):
    for split in ("train", "val"):
        samples = truth.of_split("train" if split == "train" else "validation")
        write(root / f"{split}_videofolder.txt", [f"clips/take {s.clip_id} 12 {s.label}" for s in samples])
    for sample in truth.samples:
        put_frames(root / "clips" / f"take {sample.clip_id}", 12, first=0)
    write(root / "category.txt", truth.class_names)
    return [root], {}


def segments_list(root, truth):
    starts = {s.clip_id: 12 * number for number, s in enumerate(truth.samples)}
    put_frames(root / "one long recording", 12 * len(starts))
    for split in ("train", "validation"):
        rows = [f"one long recording {starts[s.clip_id]} 12 {s.label}" for s in truth.of_split(split)]
        write(root / f"{split}.txt", rows)
    write(root / "category.txt", truth.class_names)
    return [root], {}


def videos_list(root, truth):
    for split in ("train", "validation"):
        write(root / f"{split}.txt", [f"my videos/{s.clip_id} .mp4 {s.label}" for s in truth.of_split(split)])
    for sample in truth.samples:
        link(sample.path, root / "my videos" / f"{sample.clip_id} .mp4")
    (root / "classes.json").write_text(json.dumps({name: str(i) for i, name in enumerate(truth.class_names)}))
    return [root / "train.txt", root / "validation.txt"], {"classes": root / "classes.json"}


def pyslowfast(root, truth):
    for split in ("train", "val"):
        samples = truth.of_split("train" if split == "train" else "validation")
        write(root / f"{split}.csv", [f"{s.path} {s.label}" for s in samples])
    write(root / "elsewhere" / "names.txt", [f"{name} {label}" for label, name in enumerate(truth.class_names)])
    return [root], {"classes": root / "elsewhere" / "names.txt"}


def kinetics(root, truth):
    for split in ("train", "validation"):
        rows = [f'"{truth.class_names[s.label]}",id-_{s.clip_id},0,10,{split[:5]},0' for s in truth.of_split(split)]
        write(root / "annotations" / f"{split}.csv", ["label,youtube_id,time_start,time_end,split,is_cc", *rows])
    for sample in truth.samples:
        name = truth.class_names[sample.label]
        link(sample.path, root / sample.split / name / f"id-_{sample.clip_id}_000000_000010.mp4")
    return [root], {}


def class_folders(root, truth):
    for sample in truth.samples:
        split = "train" if sample.split == "train" else "val"
        link(sample.path, root / split / truth.class_names[sample.label] / f"{sample.clip_id}, x.mp4")
    return [root], {}


def json_lines(root, truth):
    rows = [
        {"file": f"v/{s.clip_id}.mp4", "class": truth.class_names[s.label], "subset": s.split[:5]}
        for s in truth.samples
    ]
    for sample in truth.samples:
        link(sample.path, root / "v" / f"{sample.clip_id}.mp4")
    return [write(root / "clips.jsonl", map(json.dumps, rows))], {}


def semicolons(root, truth):
    rows = [f'{s.clip_id};"{truth.class_names[s.label]}";{s.split};0,5;1,25' for s in truth.samples]
    columns = Columns(
        path="{nr}.mp4", label="word", split="part", id="nr",
        segment_start="from", segment_end="to", segment_unit="seconds",
    )  # fmt: skip
    file = write(root / "clips.csv", ["nr;word;part;from;to", *rows])
    return [file], {"videos": truth.samples[0].path.parent, "columns": columns}


FORMS = {
    "Something-Something v1": something_v1,
    "Something-Something v2": something_v2,
    "folder num_frames class": frames_list,
    "folder start num_frames class": segments_list,
    "path label": videos_list,
    "path label (MMAction2, PySlowFast)": pyslowfast,
    "Kinetics": kinetics,
    "a folder per class in a folder per split": class_folders,
    "table with named columns": json_lines,
    "table": semicolons,
}
NUMBERED = (something_v1, something_v2, frames_list, segments_list, videos_list, pyslowfast)


@pytest.mark.parametrize("words", list(FORMS))
def test_every_format_becomes_the_same_table(words, truth, tmp_path, prepared):
    form = FORMS[words]
    sources, options = form(tmp_path / "source", truth)
    report, printed, table = prepared(*sources, **options)
    assert words in report["format"]
    assert words in printed
    assert report["splits"] == {"train": 28, "validation": 14}
    assert report["left_out"] == {}
    names = truth.class_names
    assert table.class_names == (names if form in NUMBERED else tuple(sorted(names)))
    expected = [(names[s.label], s.split) for s in truth.samples]
    order = {s.path.resolve(): i for i, s in enumerate(truth.samples)}
    samples = sorted(table.samples, key=lambda s: order[s.path.resolve()]) if form is class_folders else table.samples
    assert [(table.class_names[s.label], s.split) for s in samples] == expected
    assert len({s.clip_id for s in table.samples}) == 42


@pytest.mark.parametrize("form", [something_v1, segments_list, semicolons])
def test_clips_of_the_table_are_read_from_their_folder_or_segment(form, truth, tmp_path, prepared):
    sources, options = form(tmp_path / "source", truth)
    _, _, table = prepared(*sources, **options)
    preprocessing = Preprocessing(Sampling("uniform", 4), resize=36, crop=32)
    item = VideoDataset(table.samples, preprocessing, class_names=table.class_names)[2]
    first, count = {something_v1: (0, 12), segments_list: (24, 12), semicolons: (6, 9)}[form]
    assert item.frame_indices.tolist() == [[first + i for i in uniform(count, 4)]]


def test_training_explaining_and_collecting_see_the_segment_alone(truth, tmp_path, prepared):
    sources, _ = segments_list(tmp_path / "source", truth)
    prepared(*sources)
    run = tmp_path / "run"
    main(["train", "--out", str(run), "--data.annotations", str(tmp_path / "out" / "table.csv"), *TINY])
    model = open_run(run).model()
    preprocessing = network_preprocessing(model, str(run))
    sample = open_run(run).table(model).samples[3]
    assert sample.segment == Segment(36, 48, "frames")
    expected = [36 + i for i in preprocessing.sampling.for_testing(12, 1)[0]]
    record, clip = explain_video(model, preprocessing, sample.path, network_class_names(model), segment=sample.segment)
    assert record.frame_indices.tolist() == expected == clip.frame_indices.tolist()
    viewer = Viewer(model, preprocessing)
    try:
        clip = CatalogueClip("x", "x", sample.path, None, None, "data", sample.segment)
        assert viewer.open(clip).prediction.frame_indices.tolist() == expected
    finally:
        viewer.close()
    main(["collect", str(run), "--out", str(tmp_path / "edits"), "--bound", "1.0"])
    clips = [json.loads(line) for line in (tmp_path / "edits" / "clips.jsonl").read_text().splitlines()]
    for clip in clips:
        start = int(clip["clip_id"].split("#")[1].split("-")[0])
        assert all(start <= index < start + 12 for index in clip["frame_indices"])


def test_the_command_line_takes_every_option(truth, tmp_path, capsys):
    (file,), _ = semicolons(tmp_path / "source", truth)
    words = ["--videos", truth.samples[0].path.parent, "--format", "table", "--columns.path", "{nr}.mp4",
             "--columns.label", "word", "--columns.split", "part", "--columns.id", "nr", "--columns.segment-start",
             "from", "--columns.segment_end", "to", "--columns.segment_unit", "seconds", "--missing", "skip", "--seed",
             "3", "--out", tmp_path / "t.csv", "--json", tmp_path / "r.json"]  # fmt: skip
    main(["prepare", str(file), *map(str, words)])
    assert json.loads((tmp_path / "r.json").read_text())["segments"] == 42
    assert f"stabn train --out run --data.annotations {tmp_path / 't.csv'}" in capsys.readouterr().out


def test_paths_are_relative_near_the_tables_folder_and_absolute_elsewhere(truth, tmp_path, monkeypatch):
    videos_list(tmp_path / "a", truth)
    monkeypatch.chdir(tmp_path)
    places = (
        ("a/table.csv", "my videos/"),
        ("b/table.csv", "../a/my videos/"),
        ("b/c/t.csv", f"{tmp_path}/a/my videos/"),
    )
    for out, start in places:
        prepare_command([Path("a/train.txt"), Path("a/validation.txt")], Path(out))
        with open(out, newline="") as content:
            rows = list(csv.DictReader(content))
        assert list(rows[0]) == ["path", "label", "split", "id"]
        assert all(row["path"].startswith(start) for row in rows)
        assert all(row["id"].startswith("my videos/") for row in rows)
        monkeypatch.chdir("/")
        assert len(DataSource(str(tmp_path / out)).table().samples) == 42
        monkeypatch.chdir(tmp_path)
    os.rename(tmp_path / "a", tmp_path / "moved")
    assert len(DataSource("moved/table.csv").table().samples) == 42


def test_what_cannot_be_used_fails_unless_it_is_to_be_left_out_and_named(truth, tmp_path, prepared, refused):
    root = tmp_path / "source"
    videos_list(root, truth)
    (root / "my videos" / "1 .mp4").unlink()
    with (root / "validation.txt").open("a") as file:
        file.write("my videos/2 .mp4\nmy videos/none.mp4 3\nmy videos/3 .mp4 77\n")
    missing = "2 missing video (my videos/1 .mp4, my videos/none.mp4)"
    refused("4 of 45", missing, "1 no class", "1 unknown class (my videos/3 .mp4)", "--missing skip", sources=[root])
    assert not (tmp_path / "out").exists()
    report, printed, table = prepared(root, missing="skip")
    assert report["left_out"] == {"missing video": 2, "no class": 1, "unknown class": 1}
    assert len(table.samples) == 41
    assert "validation.txt, line 16: my videos/none.mp4" in printed
    with (tmp_path / "out" / "table.csv.left-out.csv").open(newline="") as content:
        left_out = list(csv.DictReader(content))
    assert [(row["clip"], row["problem"]) for row in left_out] == [
        ("my videos/1 .mp4", "missing video"),
        ("my videos/2 .mp4", "no class"),
        ("my videos/none.mp4", "missing video"),
        ("my videos/3 .mp4", "unknown class"),
    ]


def test_a_second_run_takes_the_place_of_the_first(truth, tmp_path, monkeypatch, capsys):
    root = tmp_path / "source"
    class_folders(root, truth)
    monkeypatch.chdir(root)
    broken = root / "train" / truth.class_names[0] / "broken"
    put_frames(broken, 0)
    (broken / "a1.jpg").touch()
    (broken / "b1.jpg").touch()
    prepare_command([Path()], missing="skip")
    assert sorted(path.name for path in root.iterdir()) == ["table.csv", "table.csv.left-out.csv", "train", "val"]
    (broken / "a1.jpg").unlink()
    (broken / "b1.jpg").unlink()
    prepare_command([Path()])
    assert sorted(path.name for path in root.iterdir()) == ["table.csv", "train", "val"]
    assert "a folder per class in a folder per split" in capsys.readouterr().out
    prepare_command([Path("table.csv")], Path("again.csv"))
    assert DataSource("again.csv").table().samples == DataSource("table.csv").table().samples


def test_nothing_of_the_users_is_overwritten(truth, tmp_path, refused):
    root = tmp_path / "source"
    videos_list(root, truth)
    (root / "mine.csv").write_text("path,label,split\na,b,c\n")
    refused("--out", "mine.csv", sources=[root], out=root / "mine.csv")
    pyslowfast(tmp_path / "p", truth)
    lists = [tmp_path / "p" / "train.csv", tmp_path / "p" / "val.csv"]
    refused("--out", lists[0], sources=lists, out=lists[0])
    refused("--out", "table.txt", ".csv", sources=[root], out=root / "table.txt")
    refused("--out", "d.csv", sources=[root], out=write(root / "d.csv" / "x", [""]).parent)


def test_a_source_without_splits_needs_one_word(truth, tmp_path, prepared, refused):
    root = tmp_path / "source"
    for sample in truth.samples:
        link(sample.path, root / truth.class_names[sample.label] / f"{sample.clip_id}.mp4")
    refused("42 of 42", "--validation-share", "--split", sources=[root])
    report, _, table = prepared(root, validation_share=0.3)
    assert report["splits"] == {"train": 28, "validation": 14}
    assert {s.label for s in table.of_split("validation")} == set(range(14))
    assert prepared(root, split="val")[0]["splits"] == {"validation": 42}
    refused("--validation-share", "got 1", sources=[root], validation_share=1)
    videos_list(tmp_path / "split", truth)
    refused("--validation-share", sources=[tmp_path / "split"], validation_share=0.1)


def test_missing_videos_altogether_mean_another_folder(truth, tmp_path, prepared, refused):
    root = tmp_path / "source"
    frames_list(root, truth)
    os.rename(root / "clips", tmp_path / "clips")
    refused("none of the 42", "--videos", sources=[root])
    refused("none of the 42", "--videos", sources=[root], videos=tmp_path / "nowhere", missing="skip")
    assert len(prepared(root, videos=tmp_path)[2].samples) == 42


def test_ambiguous_and_unknown_sources_are_one_line_with_the_option_that_decides(truth, tmp_path, refused):
    odd, both, two, half = (tmp_path / name for name in ("odd", "both", "two", "half"))
    table = write(odd / "x.csv", ["video_name,kind", "a.mp4,waving"])
    refused("video_name, kind", "--columns.path", "--columns.label", sources=[table])
    refused(odd, sources=[odd])
    refused("text.txt", "--format", sources=[write(odd / "text.txt", ["dear reader, this is a text", "of two lines"])])
    clips, train = (
        write(both / "clips.csv", ["path,label,split", "a.mp4,x,train"]),
        write(both / "train.txt", ["a.mp4 1"]),
    )
    refused("table: clips.csv", "list: train.txt", "--format", sources=[both])
    refused("clips.csv (table)", "train.txt (list)", "--format", sources=[clips, train])
    refused(both, sources=[both, train])
    refused("--classes", "table", sources=[clips], classes=train)
    refused("--first-frame", "table", sources=[clips], first_frame=1)
    refused("--columns", "list", sources=[train], columns=Columns(label="x"))
    refused("kinetics", "--format", sources=[both], format="kinetics")
    for name in ("train_split_1.txt", "train_split_2.txt"):
        write(two / name, ["a.mp4 1"])
    refused("train_split_1.txt", "train_split_2.txt", "of train", sources=[two])
    write(half / "train.txt", ["a.mp4 1"])
    write(half / "val.txt", ["these are", "words"])
    refused("val.txt", "train.txt", sources=[half])


def test_suspicions_are_told(tmp_path, truth, prepared):
    root = tmp_path / "source"
    names = ("Waving", "waving", "air_drumming", "bowing")
    rows = ["path,label,split"]
    for number, name in enumerate(names):
        link(truth.samples[number].path, root / f"{number}.mp4")
        rows.append(f"{number}.mp4,{name},{'test' if name == 'bowing' else 'train'}")
    report, printed, _ = prepared(write(root / "clips.csv", rows))
    for named in (
        "--validation-share",
        "1 classes have no clip to learn from: bowing",
        "'Waving' (1 clip) and 'waving'",
    ):
        assert any(named in note for note in report["notes"])
    assert all(f"note: {note}" in printed for note in report["notes"])


def test_parquet_is_read(tmp_path, truth, prepared, refused):
    file = tmp_path / "clips.parquet"
    columns = {
        "path": [str(s.path) for s in truth.samples],
        "label": [s.label if i else None for i, s in enumerate(truth.samples)],
        "split": [s.split for s in truth.samples],
        "segment_start_frames": [None, *[2.0] * 41],
        "segment_end_frames": [None, *[9.0] * 41],
        "content": [b"x"] * 42,
        "boxes": [[1, 2]] * 42,
    }
    parquet.write_table(arrow_table(columns), file)
    report, _, table = prepared(file, missing="skip")
    assert report["left_out"] == {"no class": 1}
    assert table.class_names == tuple(sorted({str(s.label) for s in truth.samples[1:]}))
    assert str(table.samples[0].segment) == "frames 2 to 9"
    with pytest.raises(UserError, match=names("clips.parquet, row 1", "label")):
        DataSource(str(file)).table()
    file.write_bytes(file.read_bytes()[:-30])
    refused("clips.parquet", "Parquet", sources=[file])


TEXT = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()


@pytest.mark.parametrize("format", FORMATS)
def test_the_examples_in_the_documentation_are_read_as_they_say(format, tmp_path):
    (example,) = re.findall(rf"```{format}\n(.*?)```", TEXT, re.DOTALL)
    lines = [line for line in example.splitlines() if line]
    if format == "class-folders":
        for line in lines:
            write(tmp_path / line, ["x"])
    elif format.startswith("something"):
        name, suffix = f"something-{format}", "csv" if format == "something-v1" else "json"
        text = {"train": lines, "validation": [] if suffix == "csv" else ["[]"]}
        classes = ["Something falling like a feather or paper", "Unfolding something", "Holding something"]
        templates = {"Moving something up": "0", "Spinning something": "1", "Pushing something": "2"}
        text["labels"] = classes if suffix == "csv" else [json.dumps(templates)]
        for part, content in text.items():
            write(tmp_path / f"{name}-{part}.{suffix}", content)
    else:
        write(tmp_path / {"table": "train.jsonl", "kinetics": "train.csv"}.get(format, "train.txt"), lines)
    source = detect_format([tmp_path], Columns())
    assert source.format == ("list" if "list" in format else format)
    listing = read_detected(source, None, Columns())
    assert format not in DESCRIPTIONS or DESCRIPTIONS[format] in listing.format
    assert {problem.problem_kind for problem in listing.problems} <= {"missing video"}
    assert len(listing.table.samples) + len(listing.problems) == 3 - (format == "kinetics")
