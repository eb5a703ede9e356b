import random
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from sqlalchemy.event import listen, remove
from store_changes import TIME, at_once, change

from stabn.errors import UserError
from stabn.records import Edit
from stabn.studio.storage.events import EditChange, History, Store, replay
from stabn.studio.storage.schema import Event

A, B, C = (0.0, 0.5), (1.0, 1.0), (0.1, 1 / 3)


def edit(**fields: object) -> Edit:
    return Edit(**{"clip_id": "17", "frame_indices": (0, 4), "timestamps": (0.0, 1 / 3), "scores": A} | fields)


def paint(store: Store, *states: tuple[float, ...], **fields: object) -> None:
    for scores in states:
        store.append(change(f"request-{store.version()}", scores=scores, **fields))


# What is kept


def test_edits_come_back_exactly_and_in_the_order_of_their_last_change(store: Store):
    names = ("'; DROP TABLE x; --", "Zoë 张 🎬", "<script>")
    for number, name in enumerate(names):
        store.append(change(f"request-{number}", author=name, clip_id=f"../{name}", scores=C, comment="ja\n\t\"'%s"))
    store.append(change("request-9", author=names[0], clip_id=f"../{names[0]}", scores=B))
    expected = [
        *(edit(clip_id=f"../{n}", author=n, time=TIME, scores=C, comment="ja\n\t\"'%s") for n in names[1:]),
        edit(clip_id=f"../{names[0]}", author=names[0], time=TIME, scores=B),
    ]
    assert list(store.current()) == expected
    assert store.current(f"../{names[0]}") == (expected[-1],)
    assert store.people() == tuple(sorted(names))


def test_a_withdrawn_edit_is_absent_but_its_author_and_history_are_not(store: Store):
    paint(store, A)
    store.append(change("request-8", kind="clear", scores=None))
    assert store.current() == ()
    assert store.people() == ("Ann",)
    assert store.history("17", "Ann").done == (None, A)
    assert [(e.kind, e.scores) for e in store.events("17")] == [("paint", A), ("clear", None)]


def test_history_survives_reopening(database: str):
    store = Store(database, "project")
    paint(store, A, B)
    store.append(change("request-8", kind="undo", scores=A, comment="no"))
    before = store.history("17", "Ann"), store.current(), store.version()
    store.close()
    store = Store(database, "project")
    assert (store.history("17", "Ann"), store.current(), store.version()) == before
    assert [event.kind for event in store.events("17")] == ["paint", "paint", "undo"]
    assert before[0] == History(A, "no", (None,), (B,), store.version())
    store.close()


def test_projects_in_one_database_do_not_see_each_other(database: str):
    ours, theirs = Store(database, "ours"), Store(database, "theirs")
    first = ours.append(change("request-1", scores=A))
    second = theirs.append(change("request-1", scores=B))
    theirs.set_use("mean", "Bo")
    assert [e.scores for e in ours.current()] == [A]
    assert [e.scores for e in theirs.events("17")] == [B]
    assert ours.use() == "latest"
    assert ours.version() == first < second < theirs.version()
    ours.close()
    theirs.close()


def test_what_changed_since_a_version_is_reported(store: Store):
    assert (store.version(), store.changed_clips(0)) == (0, ())
    first, _, last = store.append_all([change(f"request-{n}", clip_id=clip) for n, clip in enumerate("baa")])
    assert store.version() == last
    assert [store.changed_clips(since) for since in (0, first, last)] == [("a", "b"), ("a",), ()]


def test_a_long_past_is_not_read_to_know_the_present(store: Store):
    store.append_all([change(f"request-{n}", clip_id=clip) for n, clip in enumerate(["17"] * 99 + ["18"])])
    read: list[Event] = []

    def count(row: Event, _: object) -> None:
        read.append(row)

    listen(Event, "load", count)
    try:
        assert len(store.current()) == 2
        assert len(store.current("17")) == 1
        assert store.version() > 0
        assert store.changed_clips(0) == ("17", "18")
    finally:
        remove(Event, "load", count)
    assert len(read) == 3


def test_the_last_choice_of_what_counts_holds_and_makes_a_new_version(store: Store):
    assert store.use() == "latest"
    store.set_use("median", "Ann")
    before = store.version()
    store.set_use("author:Bo", "Zoë")
    assert store.use() == "author:Bo"
    assert store.version() > before
    assert store.changed_clips(0) == store.people() == store.current() == ()
    with pytest.raises(UserError, match="use: got 'best'"):
        store.set_use("best", "Ann")


# Undo and redo


def happened(*steps: tuple[str, tuple[float, ...] | None]) -> History:
    return replay(
        Event(number=n, kind=kind, scores=scores, comment=f"{n}") for n, (kind, scores) in enumerate(steps, start=1)
    )


@pytest.mark.parametrize(
    ("steps", "scores", "done", "undone"),
    [
        ([], None, (), ()),
        ([("paint", A)], A, (None,), ()),
        ([("paint", A), ("paint", B)], B, (None, A), ()),
        ([("paint", A), ("paint", B), ("undo", A)], A, (None,), (B,)),
        ([("paint", A), ("paint", B), ("undo", A), ("undo", None)], None, (), (B, A)),
        ([("paint", A), ("paint", B), ("undo", A), ("undo", None), ("redo", A)], A, (None,), (B,)),
        ([("paint", A), ("undo", None), ("redo", A)], A, (None,), ()),
        ([("paint", A), ("undo", None), ("paint", B)], B, (None,), ()),
        ([("paint", A), ("clear", None)], None, (None, A), ()),
        ([("paint", A), ("clear", None), ("undo", A)], A, (None,), (None,)),
        ([("import", A), ("import", B), ("undo", A)], A, (None,), (B,)),
        # clients that are wrong about the past: another tab, or one that was asleep
        ([("undo", B)], B, (), (None,)),
        ([("redo", B)], B, (None,), ()),
        ([("paint", A), ("undo", C)], C, (), (A,)),
        ([("paint", A), ("redo", C)], C, (None, A), ()),
    ],
)
def test_history_is_what_the_events_amount_to(steps, scores, done, undone):
    history = happened(*steps)
    assert (history.scores, history.done, history.undone) == (scores, done, undone)
    assert (history.event, history.comment) == (len(steps), str(len(steps) or ""))


@pytest.mark.parametrize("seed", range(5))
def test_history_follows_an_editor_through_any_walk(seed: int):
    """Against an editor that keeps all states in one list and a finger on one of them."""
    choose = random.Random(seed)
    states: list[tuple[float, ...] | None] = [None]
    finger = 0
    steps: list[tuple[str, tuple[float, ...] | None]] = []
    for _ in range(200):
        kind = choose.choice(("paint", "paint", "clear", "undo", "undo", "redo"))
        if (kind == "undo" and finger == 0) or (kind == "redo" and finger == len(states) - 1):
            continue
        if kind in ("undo", "redo"):
            finger += 1 if kind == "redo" else -1
        else:
            states[finger + 1 :] = [None if kind == "clear" else (choose.random(),)]
            finger += 1
        steps.append((kind, states[finger]))
    history = happened(*steps)
    assert history.scores == states[finger]
    assert history.done == tuple(states[:finger])
    assert history.undone == tuple(reversed(states[finger + 1 :]))


# Requests that come twice, at once, or not at all


def test_several_changes_are_kept_in_their_order_or_not_at_all(store: Store, monkeypatch: pytest.MonkeyPatch):
    numbers = store.append_all([change("request-1"), change("request-2"), change("request-1")])
    assert numbers[0] == numbers[2] < numbers[1]
    whole = Store._append

    def broken(self: Store, session: object, change: EditChange) -> int:
        number = whole(self, session, change)
        if change.request == "request-4":
            raise OSError("power cut")
        return number

    monkeypatch.setattr(Store, "_append", broken)
    with pytest.raises(OSError, match="power cut"):
        store.append_all([change("request-3"), change("request-4")])
    assert [event.number for event in store.events("17")] == list(numbers[:2])


def test_eight_people_at_once_lose_nothing(store: Store):
    def work(person: int) -> list[int]:
        return [store.append(change(f"request-{person}-{n}", author=f"P{person}")) for n in range(20)]

    numbers = at_once(8, work)
    assert all(row == sorted(row) for row in numbers)
    assert sorted(number for row in numbers for number in row) == [event.number for event in store.events("17")]
    assert len(store.events("17")) == 160
    assert len(store.history("17", "P3").done) == 20


def test_the_same_requests_from_eight_threads_and_two_servers_are_kept_once(database: str):
    stores = Store(database, "project"), Store(database, "project")

    def work(thread: int) -> list[int]:
        return [stores[thread % 2].append(change(f"request-{n}")) for n in range(20)]

    numbers = at_once(8, work)
    assert all(row == numbers[0] for row in numbers)
    assert numbers[0] == [event.number for event in stores[0].events("17")]
    assert len(numbers[0]) == 20
    for store in stores:
        store.close()


APPENDING = """
import itertools, sys
from stabn.studio.storage.events import EditChange, Store

store = Store(sys.argv[1], "project")
for n in itertools.count():
    request = f"request-{n}"
    change = EditChange(request, "paint", "17", (0,), (0.0,), (0.5,), "Ann", sys.argv[2])
    print(request, store.append(change), flush=True)
"""


def test_every_acknowledged_change_is_there_after_a_kill(database: str):
    child = subprocess.Popen(
        [sys.executable, "-c", APPENDING, database, TIME], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert child.stdout is not None
    acknowledged = [child.stdout.readline() for _ in range(60)]
    child.send_signal(signal.SIGKILL)
    acknowledged += child.stdout.readlines()
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    store = Store(database, "project")
    kept = {event.number for event in store.events("17")}
    for line in acknowledged:
        if line.endswith("\n"):
            request, number = line.split()
            assert int(number) in kept
            assert store.append(change(request)) == int(number)  # the client that asks again gets the same answer
    assert len(kept) - len(acknowledged) in (0, 1)  # one may be kept and not yet acknowledged
    store.close()


# Lines of a file


def test_lines_that_are_known_are_not_taken_in_again_nor_any_with_a_wrong_one(store: Store):
    lines = [edit(author="Ann", time=TIME), edit(author="Bo", time=TIME, scores=B, comment="mine")]
    assert store.import_edits(lines) == 2
    assert store.current() == tuple(lines)
    assert store.import_edits(lines) == 0
    assert store.import_edits([lines[0], replace(lines[1], comment="ours")]) == 1
    assert [e.comment for e in store.current("17")] == ["", "ours"]
    assert {event.kind for event in store.events("17")} == {"import"}
    version = store.version()
    with pytest.raises(ValueError, match="author: got ' Ann'"):
        store.import_edits([replace(lines[0], comment="new"), edit(author=" Ann", time=TIME)])
    assert store.version() == version


def test_of_one_persons_lines_the_last_counts_and_the_others_become_history(store: Store):
    lines = [edit(author="Ann", time=TIME, scores=scores) for scores in (A, B, A)]
    assert store.import_edits(lines) == 3
    assert store.history("17", "Ann") == History(A, "", (None, A, B), (), store.version())


@pytest.mark.parametrize("now", [A, None])
def test_a_line_before_a_known_one_does_not_change_what_counts(store: Store, now: tuple[float, ...] | None):
    paint(store, A)
    if now is None:
        store.append(change("request-8", kind="clear", scores=None))
    known = edit(author="Ann", time=TIME, scores=A)
    older = replace(known, scores=B, time="2025-01-31T09:30:00+00:00")
    assert store.import_edits([older, known]) == 1
    assert store.history("17", "Ann").scores == now
    assert B in store.history("17", "Ann").done
    assert store.import_edits([older, known]) == 0


# What is refused


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"scores": None}, "scores: got none"),
        ({"kind": "clear"}, "scores: got some"),
        ({"scores": (0.5,)}, "scores: got 1"),
        ({"scores": (0.5, 1.5)}, "scores: got 1.5"),
        ({"scores": (0.5, float("nan"))}, "scores: got nan"),
        ({"kind": "undo", "scores": None, "timestamps": (0.0,)}, "timestamps: got 1"),
        ({"clip_id": ""}, "clip_id: got"),
        ({"comment": "\0"}, "comment: got"),
        ({"author": ""}, "author: got ''"),
        ({"author": " Ann"}, "author: got ' Ann'"),
        ({"author": "A" * 81}, "author: got 'AAA"),
        ({"author": "Ann\n"}, "author: got"),
        ({"author": "Ann\u202eolleh"}, "author: got"),
        ({"time": "today"}, "time: got 'today'"),
    ],
)
def test_a_wrong_change_is_refused_by_field_and_value(fields, words):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        change(**fields)
    assert words in str(caught.value)
