"""What decoders do to a process, for tests of its end; no torch, so that a process that decodes can load it."""

import ctypes
import os
import re
import time
from collections.abc import Generator

import numpy as np

from stabn.errors import UserError


class Stubborn:
    """Methods that hang, crash and refuse."""

    def __init__(self) -> None:
        self.asked = 0

    def count(self, path: str) -> int:
        self.asked += 1
        return self.asked

    def echo(self, path: str, value: object) -> object:
        return value

    def process(self, path: str) -> int:
        return os.getpid()

    def sleep(self, path: str) -> None:
        time.sleep(3600)

    def spin(self, path: str) -> None:
        while True:
            pass

    def spin_in_c(self, path: str) -> None:
        re.fullmatch("(a|a)*", "a" * 60 + "b")  # exponential time, in C, with the interpreter locked

    def crash(self, path: str) -> None:
        ctypes.string_at(0)

    def abort(self, path: str) -> None:
        os.abort()

    def refuse(self, path: str) -> None:
        raise UserError(f"{path}: no; give another")

    def mistake(self, path: str) -> None:
        raise KeyError("a mistake of ours")

    def hoard(self, path: str) -> None:
        raise MemoryError

    def grown(self, path: str, size: int) -> np.ndarray:
        return np.full(size, self.count(path), dtype=np.uint8)

    def print_much(self, path: str) -> str:
        print("x" * 100_000, flush=True)
        return "printed"

    def numbers(self, path: str, count: int) -> Generator[int, int, None]:
        for number in range(count):
            sent = yield number
            if sent is not None:
                yield -sent

    def numbers_and_then_hang(self, path: str) -> Generator[int]:
        yield 0
        time.sleep(3600)

    def numbers_without_end(self, path: str) -> Generator[int]:
        number = 0
        while True:
            yield number
            number += 1
