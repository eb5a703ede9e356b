"""A process that decodes and can be stopped: a file that hangs or crashes a decoder fails alone.

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
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
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


class SameProcess:
    """Calls the methods of `target` in the calling process, with the interface of `WorkerProcess`."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def call(self, method: str, path: Path | str, *arguments: Any) -> Any:
        """What the method returns."""
        return getattr(self._target, method)(path, *arguments)

    stream = call

    def close(self) -> None:
        """Do nothing."""


class WorkerProcess:
    """Calls the methods of `target` in a process of its own, where a copy of `target` lives and keeps its state.

    NumPy arrays in a result lie in memory that the next result overwrites: copy what is to be kept.

    One thread at a time may use it. After a fork, and where it is unpickled, it starts a process of its own.

    Args:
        target: an object of a module that needs no torch; it is pickled, as are all arguments and results.
        timeout: seconds that a call may work, the time in which it waits for its caller not counted.
    """

    def __init__(self, target: Any, timeout: float) -> None:
        if not 0 < timeout < float("inf"):
            raise ValueError(f"timeout: got {timeout}, expected seconds, more than 0")
        self.timeout = timeout
        self._target = target
        self._process: subprocess.Popen[bytes] | None = None
        self._memory = _SharedMemory(-1)
        self._owner = 0
        self._streaming = False
        self._stop: Callable[[], object] = lambda: None

    def call(self, method: str, path: Path | str, *arguments: Any) -> Any:
        """What `target.method(path, *arguments)` returns in the process.

        Args:
            method: its name.
            path: the file that it is about, for the message when it ends badly.
            arguments: others.

        Raises:
            UserError: as the method; or it took too long, or crashed.
        """
        self._request(method, path, *arguments)
        return self._receive(path)[1]

    def stream(self, method: str, path: Path | str, *arguments: Any) -> Generator[Any, Any, None]:
        """The generator `target.method(path, *arguments)`, run in the process; close it if it is not used up.

        Raises:
            UserError: as `call`.
        """
        self._request(method, path, *arguments)
        process, kind, value = self._process, *self._receive(path)
        self._streaming = True
        try:
            while kind == _YIELDED:
                self._send((True, (yield value)))
                kind, value = self._receive(path)
        except GeneratorExit:
            if process is self._process:
                self._send((False, None))
                self._receive(path)
            raise
        finally:
            self._streaming = False

    def close(self) -> None:
        """End the process; the next call starts another."""
        self._stop()
        self._process = None
        self._memory = _SharedMemory(-1)

    def _request(self, method: str, *arguments: Any) -> None:
        if self._streaming:
            raise RuntimeError(f"{method}: called before the end of a stream; close it first")
        self._start()
        self._send((method, arguments, self.timeout))

    def _send(self, message: Any) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        # where it has died, reading the reply says how
        with suppress(BrokenPipeError):
            pickle.dump(message, process.stdin, protocol=5)
            process.stdin.flush()

    def _receive(self, path: Path | str) -> tuple[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        try:
            message, sizes = pickle.load(process.stdout)
        except (EOFError, pickle.UnpicklingError):
            status = process.wait()
            self.close()
            raise self._death(path, status) from None
        except BaseException:
            self.close()  # interrupted in the middle of a reply: nobody could find the start of the next one
            raise
        kind, value = pickle.loads(message, buffers=self._memory.read(sizes))
        if kind == _REFUSED:
            raise value
        if kind == _FAILED:
            raise RuntimeError(f"in the process that decodes:\n{value}")
        return kind, value

    def _death(self, path: Path | str, status: int) -> Exception:
        """The error for a process that ended with this status."""
        if status == -getattr(signal, "SIGALRM", 0):
            return StoppedError(
                f"{path}: reading it did not end within {self.timeout:g} s and was stopped; convert it with ffmpeg, "
                "give another video, or allow more time"
            )
        if status < 0:
            name = signal.Signals(-status).name
            return StoppedError(
                f"{path}: reading it crashed the decoder ({name}); convert it with ffmpeg or give another video"
            )
        return RuntimeError(f"the process that decodes ended with status {status}")

    def _start(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            return
        self.close()  # after a fork
        self._streaming, self._owner = False, os.getpid()
        descriptor = _memory_file()
        try:
            with _signals_blocked():
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _START.format(path=sys.path, shared=descriptor)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    pass_fds=() if descriptor < 0 else (descriptor,),
                )
        except BaseException:
            if descriptor >= 0:
                os.close(descriptor)
            raise
        self._memory = _SharedMemory(descriptor)
        self._stop = weakref.finalize(self, _stop_process, self._process, self._owner, descriptor)
        self._send(self._target)

    def __getstate__(self) -> dict[str, Any]:
        return {"target": self._target, "timeout": self.timeout}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)


class _SharedMemory:
    """Blocks of bytes that one process writes for another to read.

    Args:
        descriptor: of a file in memory; negative where the system has none.
    """

    def __init__(self, descriptor: int) -> None:
        self.exists = descriptor >= 0
        self._descriptor = descriptor
        self._map: mmap.mmap | None = None

    def write(self, blocks: Sequence[memoryview]) -> list[int]:
        """Overwrite the blocks that were written before; returns the sizes of the new ones."""
        sizes = [block.nbytes for block in blocks]
        slices = _slices(sizes)
        if slices and os.fstat(self._descriptor).st_size < slices[-1].stop:
            os.ftruncate(self._descriptor, slices[-1].stop)
        for block_slice, block in zip(slices, blocks, strict=True):
            self._open(slices[-1].stop)[block_slice] = block
        return sizes

    def read(self, sizes: Sequence[int]) -> list[memoryview]:
        """The blocks of these sizes, without a copy."""
        slices = _slices(sizes)
        return [self._open(slices[-1].stop)[block_slice] for block_slice in slices]

    def _open(self, size: int) -> memoryview:
        if self._map is None or len(self._map) < size:
            self._map = mmap.mmap(self._descriptor, size)
        return memoryview(self._map)


def _slices(sizes: Sequence[int]) -> list[slice]:
    """The places of blocks of these sizes, one after the other."""
    starts = accumulate((-(-size // _ALIGNED) * _ALIGNED for size in sizes), initial=0)
    return [slice(start, start + size) for start, size in zip(starts, sizes, strict=False)]


def _memory_file() -> int:
    """The descriptor of a new file in memory; negative where the system has none."""
    try:
        return os.memfd_create("stabn")
    except (AttributeError, OSError):
        return -1


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """A process that is started within the block never receives the signals that tell a whole group to end.

    They are for its caller, which then closes the pipe; a reader that ended by them would look like a damaged file.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _stop_process(process: subprocess.Popen[bytes], owner: int, descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)
    if os.getpid() == owner:
        process.kill()
        process.wait()
    else:
        process.returncode = 0  # not ours to end or to wait for
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _serve(descriptor: int) -> None:
    """Reply to requests until the caller closes the pipe."""
    keep_freed_memory(KEPT_BY_READERS)
    requests, replies = os.fdopen(os.dup(0), "rb"), _Replies(os.fdopen(os.dup(1), "wb"), _SharedMemory(descriptor))
    null = os.open(os.devnull, os.O_RDWR)
    for standard_stream in (0, 1, 2):  # libraries print to them, even while they crash
        os.dup2(null, standard_stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where signals cannot be blocked, as in `_signals_blocked`
    with suppress(EOFError, BrokenPipeError):
        target = pickle.load(requests)
        while True:
            method, arguments, seconds = pickle.load(requests)
            try:
                _run(getattr(target, method), arguments, _TimeLimit(seconds), requests, replies)
            except UserError as error:
                replies.send(_REFUSED, error)
            except MemoryError:
                message = f"{arguments[0]}: needs more memory than there is; give another video"
                replies.send(_REFUSED, UserError(message))
            except (EOFError, BrokenPipeError):
                raise
            except Exception:  # noqa: BLE001 -- raised again in the caller
                replies.send(_FAILED, traceback.format_exc())


def _run(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    limit: "_TimeLimit",
    requests: IO[bytes],
    replies: "_Replies",
) -> None:
    with limit:
        value = function(*arguments)
    if isgenerator(value):
        reply: Any = None
        with closing(value):
            while True:
                try:
                    with limit:
                        item = value.send(reply)
                except StopIteration:
                    break
                replies.send(_YIELDED, item)
                goes_on, reply = pickle.load(requests)
                if not goes_on:
                    break
        value = None
    replies.send(_RETURNED, value)


class _Replies:
    """Sends values to the caller through a pipe, and the arrays in them through shared memory."""

    def __init__(self, pipe: IO[bytes], memory: _SharedMemory) -> None:
        self._pipe = pipe
        self._memory = memory

    def send(self, kind: str, value: Any) -> None:
        blocks: list[pickle.PickleBuffer] = []
        keep_block = blocks.append if self._memory.exists else None
        message = pickle.dumps((kind, value), protocol=5, buffer_callback=keep_block)
        if sum(block.raw().nbytes for block in blocks) > _MOST_SHARED:
            message, blocks = pickle.dumps((kind, value), protocol=5), []
        pickle.dump((message, self._memory.write([block.raw() for block in blocks])), self._pipe, protocol=5)
        self._pipe.flush()


class _TimeLimit:
    """Limits the time of a block: when it is up the system ends this process, whatever a library is doing.

    Several blocks share the time. Systems without such an alarm (Windows) have no limit.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds_left = seconds

    def __enter__(self) -> None:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, self.seconds_left)

    def __exit__(self, *error: object) -> None:
        if hasattr(signal, "setitimer"):
            self.seconds_left = max(signal.setitimer(signal.ITIMER_REAL, 0)[0], 1e-3)
