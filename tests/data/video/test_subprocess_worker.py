import os
from contextlib import closing
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest
from stubborn import Stubborn

from stabn.data.video.subprocess_worker import SameProcess, StoppedError, WorkerProcess
from stabn.errors import UserError


@pytest.fixture
def worker():
    with closing(WorkerProcess(Stubborn(), 20)) as made:
        yield made


@pytest.fixture
def impatient():
    with closing(WorkerProcess(Stubborn(), 0.3)) as made:
        yield made


def test_what_is_called_elsewhere_keeps_its_state_there(worker):
    assert [worker.call("count", "a") for _ in range(3)] == [1, 2, 3]
    assert worker.call("process", "a") != os.getpid()
    assert worker.call("echo", "a", {"b": [1.5, None]}) == {"b": [1.5, None]}


@pytest.mark.parametrize(
    "make", [lambda: WorkerProcess(Stubborn(), 20), lambda: SameProcess(Stubborn())], ids=["guarded", "here"]
)
def test_generators_run_elsewhere_as_they_do_here(make):
    with closing(make()) as asked:
        assert list(asked.stream("numbers", "a", 4)) == [0, 1, 2, 3]
        assert list(asked.stream("numbers", "a", 0)) == []
        numbers = asked.stream("numbers", "a", 2)
        assert (next(numbers), numbers.send(7), next(numbers)) == (0, -7, 1)
        numbers.close()
        endless = asked.stream("numbers_without_end", "a")
        assert [next(endless) for _ in range(3)] == [0, 1, 2]
        endless.close()
        assert asked.call("echo", "a", "goes on") == "goes on"


@pytest.mark.parametrize("method", ["sleep", "spin", "spin_in_c"])
def test_what_hangs_is_stopped_and_named_and_the_next_call_works(impatient, method):
    with pytest.raises(StoppedError, match=r"^clip\.mp4: .*0\.3 s") as told:
        impatient.call(method, "clip.mp4")
    assert "\n" not in str(told.value)
    assert impatient.call("echo", "a", 1) == 1


def test_a_generator_that_hangs_is_stopped_too(impatient):
    numbers = impatient.stream("numbers_and_then_hang", Path("clip.mp4"))
    assert next(numbers) == 0
    with pytest.raises(StoppedError, match=r"^clip\.mp4: .*0\.3 s"):
        next(numbers)
    assert list(impatient.stream("numbers", "a", 2)) == [0, 1]


@pytest.mark.parametrize(("method", "signal"), [("crash", "SIGSEGV"), ("abort", "SIGABRT")])
def test_what_crashes_is_named_and_the_next_call_works(worker, method, signal, capfd):
    with pytest.raises(StoppedError, match=rf"^clip\.mp4: .*{signal}"):
        worker.call(method, "clip.mp4")
    assert worker.call("echo", "a", 1) == 1
    assert capfd.readouterr() == ("", "")


def test_refusals_arrive_as_they_were_said_and_mistakes_of_ours_as_such(worker):
    with pytest.raises(UserError, match=r"^clip\.mp4: no; give another$"):
        worker.call("refuse", "clip.mp4")
    with pytest.raises(UserError, match=r"^clip\.mp4: "):
        worker.call("hoard", "clip.mp4")
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        worker.call("mistake", "clip.mp4")
    assert worker.call("count", "a") == 1


@pytest.mark.parametrize("there", [True, False])
def test_arrays_of_any_size_arrive(monkeypatch, there):
    if not there:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    with closing(WorkerProcess(Stubborn(), 20)) as worker:
        for number, size in enumerate((7, 3_000_000, 1, 0, 5_000_000), start=1):
            array = worker.call("grown", "a", size)
            assert (array.dtype, array.shape) == (np.uint8, (size,))
            assert (array == number).all()
        several = [np.arange(3.0), np.zeros((2, 3), dtype=np.int16), np.asfortranarray(np.ones((3, 4)))[::2]]
        for got, sent in zip(worker.call("echo", "a", several), several, strict=True):
            np.testing.assert_array_equal(got, sent)
            assert got.dtype == sent.dtype


def test_what_is_printed_there_disturbs_nothing(worker, capfd):
    assert worker.call("print_much", "a") == "printed"
    assert worker.call("echo", "a", 2) == 2
    assert capfd.readouterr() == ("", "")


def test_one_thing_at_a_time(worker):
    numbers = worker.stream("numbers", "a", 3)
    next(numbers)
    with pytest.raises(RuntimeError, match="count"):
        worker.call("count", "a")
    numbers.close()
    assert worker.call("count", "a") == 1


def test_the_process_ends_with_its_object():
    worker = WorkerProcess(Stubborn(), 20)
    numbers = [worker.call("process", "a")]
    worker.close()
    numbers.append(worker.call("process", "a"))
    del worker
    for number in numbers:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_after_a_fork_each_side_has_its_own(worker):
    ours = worker.call("process", "a")
    here, there = Pipe()
    child = os.fork()
    if not child:
        try:
            there.send([worker.call("process", "a"), worker.call("count", "a")])
            worker.close()
        finally:
            os._exit(0)
    theirs, counted = here.recv()
    os.waitpid(child, 0)
    assert theirs != ours
    assert counted == 1
    assert worker.call("process", "a") == ours


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_process_without_a_time_is_a_mistake(timeout):
    with pytest.raises(ValueError, match=f"timeout: got {timeout}"):
        WorkerProcess(Stubborn(), timeout)
