"""Commands in processes of their own, forked from one that has imported torch and Lightning, which takes seconds."""

import multiprocessing
import os
import signal
from collections.abc import Iterable
from multiprocessing.process import BaseProcess
from pathlib import Path

from stabn.cli.main import main

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["stabn.training.train", "stabn.studio.serve"])


def start(words: Iterable[object], log: Path, **environment: str) -> BaseProcess:
    """`stabn` with these words and variables; its output goes to the end of a file, its exit code is the command's."""
    process = FORKS.Process(target=_run, args=([str(word) for word in words], log, environment))
    process.start()
    return process


def _run(words: list[str], log: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests themselves ignore them, as in nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    main(words)
