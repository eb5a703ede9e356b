import hashlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from small_run import TINY, assert_same_training

from stabn.cli.main import main
from stabn.engine import stop_signals
from stabn.engine.stop_signals import STOP_SIGNALS
from stabn.training.module import TrainingModule


def training(tabletop, out):
    words = ["train", "--out", str(out), "--data.annotations", str(tabletop), *TINY, "--engine.accelerator", "cpu"]
    return [*words, "--optimizer.epochs", "2"]


@pytest.fixture(autouse=True)
def handled_by_default():
    """Also where the tests themselves were started with signals ignored, as by nohup or in the background."""
    defaults = {n: signal.default_int_handler if n == signal.SIGINT else signal.SIG_DFL for n in STOP_SIGNALS}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def uninterrupted(tabletop, tmp_path_factory):
    out = tmp_path_factory.mktemp("signals") / "whole"
    main(training(tabletop, out))
    return out


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_training_that_is_told_to_end_saves_its_step_and_goes_on_as_if_nothing_had_happened(
    uninterrupted, tabletop, tmp_path, monkeypatch, capsys, number
):
    step, steps, out = TrainingModule.training_step, [], tmp_path / "run"

    def signalled(self, batch, batch_idx):
        steps.append(self.global_step)
        if len(steps) == 10:
            signal.raise_signal(number)
            os.kill(os.getpid(), number)  # as `timeout` sends it: twice at once
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", signalled)
        before = [signal.getsignal(other) for other in STOP_SIGNALS]
        with pytest.raises(SystemExit) as stopped:
            main(training(tabletop, out))
    assert stopped.value.code == 128 + number
    assert [signal.getsignal(other) for other in STOP_SIGNALS] == before
    assert len(steps) == 10
    (line,) = (line for line in capsys.readouterr().err.splitlines() if number.name in line)
    assert "epoch 2 of 2 is saved up to step 3" in line
    main(training(tabletop, out))
    assert_same_training(out, uninterrupted)


def test_a_signal_sent_twice_at_once_is_one_wish_however_late_it_is_handled(monkeypatch):
    monkeypatch.setattr(stop_signals, "_SAME", 0.2)

    def send_later() -> threading.Timer:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        return timer

    with stop_signals.stop_signals("stabn test"), stop_signals.finish_step():
        stop_signals.begin_work()
        signal.raise_signal(signal.SIGTERM)
        timer, start = send_later(), time.monotonic()
        while time.monotonic() < start + 0.4:  # as a library that computes: no handler runs meanwhile
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000)
        timer.join()
        assert stop_signals.stop_requested() == signal.SIGTERM
        time.sleep(0.5)
        send_later()
        with pytest.raises(stop_signals.StopSignal):
            time.sleep(5)


def test_a_process_that_does_not_stop_is_ended_with_one_line():
    program = """if True:
        import time
        from stabn.engine import stop_signals
        stop_signals.PATIENCE = 0.3
        with stop_signals.stop_signals("stabn test"), stop_signals.finish_step():
            stop_signals.begin_work()
            print(flush=True)
            time.sleep(60)
        """
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.terminate()
    _, errors = process.communicate(timeout=50)
    assert process.returncode == 128 + signal.SIGTERM
    (line,) = errors.decode().splitlines()
    assert line.startswith("stabn test: interrupted by SIGTERM; it did not stop within 0.3 s")


@pytest.mark.parametrize("begin", [stop_signals.begin_work, lambda: stop_signals.finish_step().__enter__()])
def test_a_signal_that_came_too_late_for_a_piece_of_work_stops_the_next_one(begin):
    with stop_signals.stop_signals("stabn test"):
        stop_signals.begin_work()
        with stop_signals.finish_step():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(stop_signals.StopSignal) as stopped:
            begin()
    assert stopped.value.number == signal.SIGTERM
    begin()  # forgotten with the command that it was for


def test_an_unfinished_run_with_other_options_is_told_what_differs_and_nothing_else(
    tabletop, tmp_path, monkeypatch, capsys, one_line
):
    def power_fails(self, batch, batch_idx):
        raise ConnectionAbortedError

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", power_fails)
        with pytest.raises(SystemExit):
            main(training(tabletop, out))
    capsys.readouterr()
    line = one_line(*training(tabletop, out), "--optimizer.learning_rate", "0.5", "--seed", "7")
    assert "optimizer.learning_rate = " in line
    assert ", now 0.5" in line
    assert "seed = 0, now 7" in line
    assert "epochs" not in line
    assert "architecture" not in line
