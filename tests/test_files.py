import errno
import json
import os
import threading

import pytest

from stabn.errors import UserError, describe_os_error, list_differences
from stabn.files import atomic_write, lock_folder, read_json, short_name, write_json


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


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_folder_on_a_file_system_without_locks_can_be_used_and_a_line_names_it(tmp_path, monkeypatch, caplog, number):
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    for _ in range(2):
        with lock_folder(tmp_path, remedy="wait"):
            pass
    assert [str(tmp_path) in message for message in caplog.messages] == [True]


def test_a_locked_folder_is_refused(tmp_path):
    refused = []

    def use():
        try:
            with lock_folder(tmp_path, remedy="wait"):
                pass
        except UserError as error:
            refused.append(str(error))

    with lock_folder(tmp_path, remedy="wait"):
        other = threading.Thread(target=use)
        other.start()
        other.join()
    assert [str(tmp_path) in message for message in refused] == [True]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "room"),
        (errno.EACCES, "accessible"),
        (errno.EROFS, "written"),
        (errno.ENAMETOOLONG, "shorter"),
        (errno.EMFILE, "ulimit"),
        (errno.ESTALE, "network"),
        (errno.EIO, "disk"),
    ],
)
def test_an_error_of_the_system_names_its_file_and_what_helps_against_it(number, remedy):
    reason = os.strerror(number)
    for error, name in ((OSError(number, reason, "a.mp4"), "a.mp4"), (OSError(number, reason), "b.mp4")):
        line = describe_os_error(error, "b.mp4")
        assert line.startswith(f"{name}: {reason}; ")
        assert remedy in line
        assert ("room" in line) == (number == errno.ENOSPC)
    assert "None" not in describe_os_error(OSError(number, reason)) + describe_os_error(OSError("odd"))


def test_writing_that_fails_names_the_file_and_not_the_temporary_one(tmp_path):
    with pytest.raises(OSError, match="full") as caught, atomic_write(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, "full")
    assert caught.value.filename == str(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("letter", ["x", "é", "漢"])
def test_long_names_are_shortened_between_letters_always_alike_and_stay_distinct(tmp_path, letter):
    long = [letter * 240 + end for end in ("a", "b")]
    short = [short_name(name) for name in long]
    assert short == [short_name(name) for name in long]
    assert len(set(short)) == 2
    assert all(len(os.fsencode(name)) <= 200 and name.startswith(letter * 20) for name in short)
    assert short_name("clip") == "clip"
    write_json(tmp_path / f"{short[0]}.json", 1)


def test_bytes_of_a_file_name_that_are_no_text_survive_json(tmp_path):
    name = os.fsdecode(b"caf\xe9.mp4")
    write_json(tmp_path / "v.json", {"path": name})
    assert read_json(tmp_path / "v.json", remedy="") == {"path": name}


def test_only_options_that_differ_are_listed():
    before, now = {"a": {"b": 1, "c": [2]}, "d": None}, {"a": {"b": 3, "c": [2]}, "e": 4}
    assert list_differences(before, now) == ["a.b = 1, now 3", "e = None, now 4"]
