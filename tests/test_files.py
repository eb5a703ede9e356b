import json

import pytest

from stabn.errors import UserError
from stabn.files import atomic_write, read_json, write_json


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "value.json"
    write_json(file, {"a": 1})
    with pytest.raises(UnicodeEncodeError), atomic_write(file) as temporary:
        temporary.write_text("half \ud800", encoding="utf-8")
    assert json.loads(file.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_what_other_programs_cannot_read_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "value.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, b"{", b"\xff"])
def test_an_unreadable_json_file_is_named_with_a_remedy(tmp_path, content):
    if content is not None:
        (tmp_path / "v.json").write_bytes(content)
    with pytest.raises(UserError, match=r"v.json: .*; do this"):
        read_json(tmp_path / "v.json", remedy="do this")
