"""Changes for the tests of the store, and many of them at once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from stabn.studio.storage.events import EditChange

TIME = "2026-01-31T09:30:00+00:00"


def change(request: str = "request-1", **fields: object) -> EditChange:
    values = {
        "request": request,
        "kind": "paint",
        "clip_id": "17",
        "frame_indices": (0, 4),
        "timestamps": (0.0, 1 / 3),
        "scores": (0.0, 0.5),
        "author": "Ann",
        "time": TIME,
        "comment": "",
    }
    return EditChange(**values | fields)


def at_once(count: int, work: Callable[[int], object]) -> list:
    """What `work` gives for 0..count-1 in threads of their own that start together."""
    together = threading.Barrier(count)

    def wait_and_work(number: int) -> object:
        together.wait()
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(wait_and_work, range(count)))
