"""A studio in a process of its own, for the measurements beside this file."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.settings import describe_machine


class StudioServer:
    """A started `stabn studio` and a client with its token."""

    def __init__(self, run: Path, project: Path, *options: str) -> None:
        self.command = [sys.executable, "-m", "stabn.cli", "studio", str(run), "--edits", str(project), *options]
        self.start()

    def start(self) -> None:
        """Start the server and wait for its address."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found = re.search(r"(http://127\.0\.0\.1:\d+)/\?token=(\S+)", line)
            if found:
                self.address, self.token = found.groups()
                break
        else:
            raise SystemExit(f"the studio did not start: status {self.process.wait()}")
        headers = {"Authorization": f"token {self.token}"}
        self.client = httpx.Client(base_url=self.address, headers=headers, timeout=300)
        self.client.get("/api/session").raise_for_status()

    def memory(self) -> int:
        """Bytes that the server holds in memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) * 1024

    def kill(self) -> None:
        """Kill the server process with SIGKILL."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Interrupt the server, as Ctrl-C does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)


@contextmanager
def start_studio(run: Path, project: Path, *options: str) -> Iterator[StudioServer]:
    """Start a studio, and stop it at the end of the block."""
    server = StudioServer(run, project, "--port", "0", *options)
    try:
        yield server
    finally:
        server.stop()


def measure_copy(
    description: str | None, script: str, measure: Callable[[Path, Path], dict[str, Any]]
) -> dict[str, Any]:
    """Measure a run and a copy of an edit project, and write the figures beside the script or where --out says."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--edits", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(script).with_suffix(".json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        figures = measure(arguments.run, Path(shutil.copytree(arguments.edits, Path(temporary) / "copy")))
    arguments.out.write_text(json.dumps({"machine": describe_machine(), "figures": figures}, indent=2) + "\n")
    print(arguments.out.read_text())
    return figures
