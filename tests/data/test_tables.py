import pytest

from stabn.data.tables import read_csv
from stabn.errors import UserError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my videos").mkdir()
    for name in ("a.mp4", "my videos/b, c.mp4"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def table(folder, *rows, heading="path,label,split"):
    (folder / "clips.csv").write_text("\n".join((heading, *rows)) + "\n", encoding="utf-8")
    return read_csv(folder / "clips.csv")


def test_a_csv_file_lists_clips_with_classes_in_alphabetical_order(folder):
    got = table(folder, "a.mp4,waving,train", '"my videos/b, c.mp4",bowing,validation')
    assert got.class_names == ("bowing", "waving")
    assert [s.clip_id for s in got.of_split("train")] == ["a.mp4"]
    assert got.of_split("validation")[0].path == folder / "my videos" / "b, c.mp4"


def test_spreadsheet_exports_with_windows_line_ends_byte_order_mark_and_more_columns_are_read(folder):
    text = "\ufeffid,path,label,split,remark\r\n7,a.mp4,waving,train,good\r\n"
    (folder / "clips.csv").write_bytes(text.encode())
    assert read_csv(folder / "clips.csv").samples[0].clip_id == "7"


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["a.mp4,waving,test"], "line 2: split is 'test'; write train or validation"),
        (["a.mp4,,train"], "line 2: label is empty"),
        (["a.mp4,waving,train", "a.mp4,waving,train"], "line 3: clip 'a.mp4' is there twice"),
        (["z.mp4,waving,train"], "z.mp4: no such video"),
        ([], "holds no clip"),
    ],
)
def test_a_wrong_line_is_named(folder, rows, told):
    with pytest.raises(UserError, match=told):
        table(folder, *rows)


def test_a_missing_column_or_file_is_named(folder):
    with pytest.raises(UserError, match="no column 'split'"):
        table(folder, "a.mp4,waving", heading="path,label")
    with pytest.raises(UserError, match=r"none\.csv: cannot be read"):
        read_csv(folder / "none.csv")
    (folder / "clips.csv").write_bytes(b"path,label,split\n\xff\xfe,b,c\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_csv(folder / "clips.csv")
