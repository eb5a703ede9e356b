"""SIGINT, SIGTERM and SIGHUP: work stops where it can go on later, and the status says so (128 + the signal's number).

`stop_signals` turns a signal into a `StopSignal` in the main thread. Within `finish_step` the work itself looks at
`stop_requested` and raises it at a point where nothing is lost. Loads no torch, so that it is there from the first
moment.
"""

import os
import signal
import sys
import threading
import time
from _thread import interrupt_main
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""SIGHUP is what a terminal sends that is closed; Windows has none."""
PATIENCE = 30.0
"""Seconds after which a process ends at once that has not stopped by itself; schedulers wait about as long."""
_SAME = 1.0
"""Seconds within which a second signal is the same wish: `timeout` and service managers send it twice."""


class StopSignal(KeyboardInterrupt):
    """The process was told to end.

    Attributes:
        number: the signal's.
        kept: what is kept and how to go on, for the message; "" where the command knows better.
    """

    def __init__(self, number: int, kept: str = "") -> None:
        super().__init__(number)
        self.number = number
        self.kept = kept


@dataclass
class _State:
    program: str = "stabn"
    working: bool = False  # before that nothing has begun, and the process can end at once
    finishing: int = 0  # blocks of `finish_step`
    number: int | None = None
    since: float = 0.0
    seen: bool = False  # the first signal has arrived, if not been handled
    repeated: bool = False  # a second wish has arrived
    raised: bool = False
    ended: threading.Event = field(default_factory=threading.Event)


_state = _State()
_installed = False


@contextmanager
def stop_signals(program: str) -> Iterator[None]:
    """Within the block the signals raise `StopSignal`; a signal that was ignored before (nohup, &) stays ignored.

    Args:
        program: how lines on stderr begin.
    """
    global _state, _installed
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and receives signals
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    _state, _installed = _State(program), True
    watched, woken = os.pipe()
    os.set_blocking(woken, False)
    previous = signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(watched, _state), daemon=True, name="stop signals")
    watch.start()
    try:
        take_stop_signals()
        yield
    finally:
        _installed = False
        _state.ended.set()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(previous)
        os.close(woken)  # ends the thread
        _state = _State()


def take_stop_signals() -> None:
    """Take the signals again from a library that has installed handlers of its own."""
    if _installed and threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, _handle)


def begin_work() -> None:
    """From now on a signal raises `StopSignal`; before, it ends the process, which has nothing to leave in order.

    Raises:
        StopSignal: one has come, which the work before this one has only noted.
    """
    _state.working = True
    _raise_noted()


def stop_requested() -> int | None:
    """The number of the signal that told this process to end."""
    return _state.number


def seconds_since_request() -> float:
    """Seconds since the first signal; 0 before."""
    return 0.0 if _state.number is None else time.monotonic() - _state.since


@contextmanager
def finish_step() -> Iterator[None]:
    """Within the block the first signal is only noted, for work that stops by itself; a later one raises.

    Raises:
        StopSignal: one was noted before, and the work that noted it had come to its end.
    """
    state = _state
    if not state.finishing:
        _raise_noted()
    state.finishing += 1
    try:
        yield
    finally:
        state.finishing -= 1


def stop_line(program: str, number: int, kept: str) -> str:
    """The line on stderr of a process that was told to end."""
    return f"{program}: interrupted by {signal.Signals(number).name}; {kept}"


def end_children() -> None:
    """Kill this process's children: readers and the other processes of a training, but not a studio's jobs.

    Jobs have sessions of their own. Only on systems with /proc; elsewhere children see that their pipe is closed.
    """
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises where a reader ends
    killed = []
    for tasks in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, tasks.read_text().split()):
                with suppress(OSError):
                    if os.getsid(child) == os.getsid(0):
                        os.kill(child, signal.SIGKILL)
                        killed.append(child)
    for child in killed:
        with suppress(OSError):  # somebody else may have waited for it
            _wait_briefly(child)


def _raise_noted() -> None:
    state = _state
    if state.number is not None and not state.raised:
        state.raised = True
        raise StopSignal(state.number)


def _wait_briefly(child: int) -> None:
    deadline = time.monotonic() + 1.0  # one that hangs in a network disk cannot be killed
    while os.waitpid(child, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)


def _is_launched() -> bool:
    """Whether Lightning has started this process beside the first one, which decides for all."""
    return "RANK" not in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"


def _handle(number: int, frame: FrameType | None) -> None:
    state = _state
    if _is_launched():
        os.kill(os.getppid(), number)
        return
    if state.number is None:
        state.number, state.since = number, time.monotonic()
        if not state.working:
            _end_now(state, "it had not begun")
        if state.finishing:
            return
    elif state.raised or not state.repeated:
        return
    state.raised = True
    raise StopSignal(state.number)


def _watch(watched: int, state: _State) -> None:
    """Tell by when signals arrive whether they are one wish or a second one; end a process that hangs.

    The main thread cannot: it runs its handlers late where a library is computing.
    """
    while received := os.read(watched, 1):
        number = received[0]
        if number not in STOP_SIGNALS or _is_launched():
            continue
        if not state.seen:
            state.seen = True
            threading.Thread(target=_end_late, args=(number, state), daemon=True, name="end late").start()
            state.ended.wait(_SAME)
            _read_all(watched)
        elif not state.repeated:
            state.repeated = True
            interrupt_main(signal.Signals(number))  # calls `_handle`, and comes here again
    os.close(watched)


def _read_all(watched: int) -> None:
    os.set_blocking(watched, False)
    with suppress(BlockingIOError):
        while os.read(watched, 64):
            pass
    os.set_blocking(watched, True)


def _end_late(number: int, state: _State) -> None:
    """End the process that cannot run its handlers, or does not come to an end."""
    if not state.ended.wait(PATIENCE):
        state.number = state.number or number
        _end_now(state, f"it did not stop within {PATIENCE:g} s; what was saved before is kept")


def _end_now(state: _State, reason: str) -> None:
    assert state.number is not None
    with suppress(OSError):
        os.write(2, f"{stop_line(state.program, state.number, reason)}; give the same command again\n".encode())
    end_children()
    os._exit(128 + state.number)


def _forget_in_child() -> None:
    """A forked child ends with its parent, which receives the signals of the terminal too."""
    global _installed
    if _installed:
        _installed = False
        signal.set_wakeup_fd(-1)
        for number in STOP_SIGNALS:
            # SIGTERM is how pools end their processes
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_in_child)
