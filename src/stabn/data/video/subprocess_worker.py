"""A process that decodes for this one and can be stopped: a file that hangs or crashes a decoder costs itself alone.

The process is started once, kept, and replaced when it died. It loads no torch, so that it starts in a fraction of a
second and needs 50 MB. Measured: docs/data-faults.md.
"""

import mmap
import os
import pickle
import signal
import subprocess
import sys
import traceback
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from inspect import isgenerator
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

from stabn.errors import UserError
from stabn.memory import KEPT_BY_READERS, keep_freed_memory

_START = "import sys; sys.path[:] = {path!r}; from stabn.data.video.subprocess_worker import _serve; _serve({shared})"
_MOST_SHARED = 2**28  # bytes; more goes through the pipe, for shared memory never shrinks
_ALIGNED = 64
_RETURNED, _YIELDED, _REFUSED, _FAILED = "returned", "yielded", "refused", "failed"


class StoppedError(UserError):
    """Reading a file took too long or crashed its decoder; trying again would, too."""


class Here:
    """Calls the methods of `target` in this process; what `Guard` is where nothing needs to be guarded against."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def call(self, method: str, path: Path | str, *arguments: Any) -> Any:
        """What the method returns."""
        return getattr(self._target, method)(path, *arguments)

    def stream(self, method: str, path: Path | str, *arguments: Any) -> Generator[Any, Any, None]:
        """The generator that the method is."""
        return getattr(self._target, method)(path, *arguments)

    def close(self) -> None:
        """Nothing to do."""


class Guard:
    """Calls the methods of `target` in a process of its own, where a copy of it lives and keeps its state.

    NumPy arrays that it answers with lie in memory that the next answer overwrites: copy what is to be kept.

    One thread at a time may use it. After a fork, and where it is unpickled, it starts a process of its own.

    Args:
        target: an object of a module that needs no torch; like all that goes in and comes out, it is pickled.
        timeout: seconds that a call may work, the time in which it waits for its caller not counted.
    """

    def __init__(self, target: Any, timeout: float) -> None:
        if not 0 < timeout < float("inf"):
            raise ValueError(f"timeout: got {timeout}, expected seconds, more than 0")
        self.timeout = timeout
        self._target = target
        self._process: subprocess.Popen[bytes] | None = None
        self._shared = _Shared(-1)
        self._owner = 0
        self._streaming = False
        self._end: Callable[[], object] = lambda: None

    def call(self, method: str, path: Path | str, *arguments: Any) -> Any:
        """What `target.method(path, *arguments)` returns there.

        Args:
            method: its name.
            path: the file that it is about, for the message when it ends badly.
            arguments: others.

        Raises:
            UserError: as the method; or it took too long, or crashed.
        """
        self._ask(method, path, *arguments)
        return self._answer(path)[1]

    def stream(self, method: str, path: Path | str, *arguments: Any) -> Generator[Any, Any, None]:
        """The generator `target.method(path, *arguments)` as it runs there; close it if it is not used up.

        Raises:
            UserError: as `call`.
        """
        self._ask(method, path, *arguments)
        process, kind, value = self._process, *self._answer(path)
        self._streaming = True
        try:
            while kind == _YIELDED:
                self._send((True, (yield value)))
                kind, value = self._answer(path)
        except GeneratorExit:
            if process is self._process:
                self._send((False, None))
                self._answer(path)
            raise
        finally:
            self._streaming = False

    def close(self) -> None:
        """End the process; the next call starts another."""
        self._end()
        self._process = None
        self._shared = _Shared(-1)

    def _ask(self, method: str, *arguments: Any) -> None:
        if self._streaming:
            raise RuntimeError(f"{method}: asked for before the end of a stream; close it first")
        self._start()
        self._send((method, arguments, self.timeout))

    def _send(self, message: Any) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        # where it has died, reading the answer says how
        with suppress(BrokenPipeError):
            pickle.dump(message, process.stdin, protocol=5)
            process.stdin.flush()

    def _answer(self, path: Path | str) -> tuple[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        try:
            told, sizes = pickle.load(process.stdout)
        except (EOFError, pickle.UnpicklingError):
            status = process.wait()
            self.close()
            if status == -getattr(signal, "SIGALRM", 0):
                raise StoppedError(
                    f"{path}: reading it did not end within {self.timeout:g} s and was stopped; convert it with "
                    "ffmpeg, give another video, or allow more time"
                ) from None
            if status < 0:
                name = signal.Signals(-status).name
                raise StoppedError(
                    f"{path}: reading it crashed the decoder ({name}); convert it with ffmpeg or give another video"
                ) from None
            raise RuntimeError(f"the process that decodes ended with status {status}") from None
        except BaseException:
            self.close()  # interrupted in the middle of an answer: nobody could find the start of the next one
            raise
        kind, value = pickle.loads(told, buffers=self._shared.read(sizes))
        if kind == _REFUSED:
            raise value
        if kind == _FAILED:
            raise RuntimeError(f"in the process that decodes:\n{value}")
        return kind, value

    def _start(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            return
        self.close()  # after a fork
        self._streaming, self._owner = False, os.getpid()
        shared = _file_in_memory()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START.format(path=sys.path, shared=shared)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=() if shared < 0 else (shared,),
            )
        except BaseException:
            if shared >= 0:
                os.close(shared)
            raise
        self._shared = _Shared(shared)
        self._end = weakref.finalize(self, _stop, self._process, self._owner, shared)
        self._send(self._target)

    def __getstate__(self) -> dict[str, Any]:
        return {"target": self._target, "timeout": self.timeout}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)


class _Shared:
    """Bytes that one process writes for another to read.

    Args:
        descriptor: of a file in memory; negative where the system has none.
    """

    def __init__(self, descriptor: int) -> None:
        self.there = descriptor >= 0
        self._descriptor = descriptor
        self._map: mmap.mmap | None = None

    def write(self, blocks: Sequence[memoryview]) -> list[int]:
        """Put blocks in place of those before them, and give their sizes."""
        sizes = [block.nbytes for block in blocks]
        places = _places(sizes)
        if places and os.fstat(self._descriptor).st_size < places[-1].stop:
            os.ftruncate(self._descriptor, places[-1].stop)
        for place, block in zip(places, blocks, strict=True):
            self._open(places[-1].stop)[place] = block
        return sizes

    def read(self, sizes: Sequence[int]) -> list[memoryview]:
        """The blocks of these sizes as they lie there."""
        places = _places(sizes)
        return [self._open(places[-1].stop)[place] for place in places]

    def _open(self, size: int) -> memoryview:
        if self._map is None or len(self._map) < size:
            self._map = mmap.mmap(self._descriptor, size)
        return memoryview(self._map)


def _places(sizes: Sequence[int]) -> list[slice]:
    """Where blocks of these sizes lie, one after the other."""
    starts = accumulate((-(-size // _ALIGNED) * _ALIGNED for size in sizes), initial=0)
    return [slice(start, start + size) for start, size in zip(starts, sizes, strict=False)]


def _file_in_memory() -> int:
    """Its descriptor; negative where the system has no such thing."""
    try:
        return os.memfd_create("stabn")
    except (AttributeError, OSError):
        return -1


def _stop(process: subprocess.Popen[bytes], owner: int, shared: int) -> None:
    if shared >= 0:
        os.close(shared)
    if os.getpid() == owner:
        process.kill()
        process.wait()
    else:
        process.returncode = 0  # not ours to end or to wait for
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _serve(shared: int) -> None:
    """Answer until the other side goes away."""
    keep_freed_memory(KEPT_BY_READERS)
    requests, replies = os.fdopen(os.dup(0), "rb"), _Replies(os.fdopen(os.dup(1), "wb"), _Shared(shared))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # libraries say what they want there, even while they crash
        os.dup2(nowhere, descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other side, which then closes the pipe
    with suppress(EOFError, BrokenPipeError):
        target = pickle.load(requests)
        while True:
            method, arguments, seconds = pickle.load(requests)
            try:
                _work(getattr(target, method), arguments, _Allowance(seconds), requests, replies)
            except UserError as error:
                replies.send(_REFUSED, error)
            except MemoryError:
                told = f"{arguments[0]}: needs more memory than there is; give another video"
                replies.send(_REFUSED, UserError(told))
            except (EOFError, BrokenPipeError):
                raise
            except Exception:  # noqa: BLE001 -- told on the other side
                replies.send(_FAILED, traceback.format_exc())


def _work(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    allowance: "_Allowance",
    requests: IO[bytes],
    replies: "_Replies",
) -> None:
    with allowance:
        value = function(*arguments)
    if isgenerator(value):
        sent: Any = None
        with closing(value):
            while True:
                try:
                    with allowance:
                        item = value.send(sent)
                except StopIteration:
                    break
                replies.send(_YIELDED, item)
                goes_on, sent = pickle.load(requests)
                if not goes_on:
                    break
        value = None
    replies.send(_RETURNED, value)


class _Replies:
    """To the other side: what is told through the pipe, and arrays in the memory that both have."""

    def __init__(self, pipe: IO[bytes], shared: _Shared) -> None:
        self._pipe = pipe
        self._shared = shared

    def send(self, kind: str, value: Any) -> None:
        blocks: list[pickle.PickleBuffer] = []
        told = pickle.dumps((kind, value), protocol=5, buffer_callback=blocks.append if self._shared.there else None)
        if sum(block.raw().nbytes for block in blocks) > _MOST_SHARED:
            told, blocks = pickle.dumps((kind, value), protocol=5), []
        pickle.dump((told, self._shared.write([block.raw() for block in blocks])), self._pipe, protocol=5)
        self._pipe.flush()


class _Allowance:
    """Time for the block: when it is up the system ends this process, whatever a library is doing.

    Several blocks share it. Systems without such an alarm (Windows) wait for ever.
    """

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    def __enter__(self) -> None:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, self.left)

    def __exit__(self, *error: object) -> None:
        if hasattr(signal, "setitimer"):
            self.left = max(signal.setitimer(signal.ITIMER_REAL, 0)[0], 1e-3)
