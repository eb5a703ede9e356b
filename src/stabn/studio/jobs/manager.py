"""Fine-tuning from the page: jobs run in processes of their own (`process.py`), which outlive the server."""

import builtins
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import Timeout

from stabn.edits.merge import merged
from stabn.edits.project import Project, write_snapshot
from stabn.errors import UserError
from stabn.files import read_json
from stabn.records import Edit, now
from stabn.runs import Run, finished
from stabn.studio.jobs.outcome import measured, read_clip, read_outcome
from stabn.studio.jobs.process import RUNS, State, Task, cancel_marker, lock
from stabn.training.train import PROGRESS

LOG_LINES = 30
STARTING = 60.0
"""Seconds for which a job that was started by another server, and has not begun yet, is believed to be coming."""


class Jobs:
    """The fine-tuning jobs of an edit project; one works at a time.

    What a job is doing is read from its folder and its lock, so that a server that was started anew knows as much.

    Args:
        folder: of all jobs; need not exist.
        run: what to fine-tune.
    """

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder = folder.absolute()
        self.run = run
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._alone = threading.RLock()

    def start(
        self,
        project: Project,
        edits: Sequence[Edit],
        *,
        use: str,
        control: bool,
        options: Mapping[str, Any],
        author: str,
    ) -> str:
        """Start a job on the edits as they are now.

        Args:
            project: whose clips were edited.
            edits: of any people.
            use: what to make of several people's edits of a clip, as in `stabn.edits.merge.merged`.
            control: train the control too; without it nobody can say what the edits did.
            options: "epochs" and "gamma", where they are not the defaults of `stabn finetune`.
            author: who asks.

        Returns:
            The job's id.

        Raises:
            UserError: a job is at work, there is no edit to learn from, an option is wrong, or the disk is full.
        """
        count = len(merged(edits, use))
        if count == 0:
            raise UserError("edits: there are none to learn from; correct some clips first")
        unknown = sorted(set(options) - {"epochs", "gamma"})
        if unknown:
            raise UserError(f"options: got {unknown[0]!r}, expected epochs or gamma")
        task = Task(
            run=str(self.run.folder.absolute()),
            data=self.run.source,
            edits=count,
            use=use,
            control=control,
            author=author,
            started=now(),
            **options,
        )
        with self._alone:
            self._check_idle()
            folder = self.folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
            try:
                write_snapshot(folder / "project", project, edits)
                self._launch(folder, task)
            except OSError as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise UserError(f"{folder}: {error.strerror}; make room there and start again") from None
        return folder.name

    def cancel(self, job_id: str) -> None:
        """Ask a job to stop; it does within seconds, and can be resumed.

        Raises:
            KeyError: there is no such job.
            UserError: it is not at work.
        """
        folder = self._find(job_id)
        with self._alone:
            if not self._alive(folder):
                raise UserError(f"job {job_id}: is not at work, so there is nothing to cancel")
            cancel_marker(folder).touch()

    def resume(self, job_id: str) -> None:
        """Let a job go on where it was cancelled or interrupted, or try again what failed.

        Raises:
            KeyError: there is no such job.
            UserError: it is done, a job is at work, or the disk is full.
        """
        folder = self._find(job_id)
        with self._alone:
            self._check_idle()
            if measured(folder):
                raise UserError(f"job {job_id}: is done; start a new one")
            try:
                cancel_marker(folder).unlink(missing_ok=True)
                self._launch(folder, Task.read(folder))
            except OSError as error:
                raise UserError(f"{folder}: {error.strerror}; make room there and resume again") from None

    def get(self, job_id: str) -> dict[str, Any]:
        """A job for the page.

        Returns:
            {"id", "state": running, done, cancelled, failed or interrupted (gone without a word), "stage", "stages",
            "progress": that of `stabn.training.train` or None, "curves": entries of curves.json by network, "use",
            "edits": number of clips, "control", "author", "started", "ended", "command", "log": its last lines,
            "error": one line or None, "run": folder of the fine-tuned run once it is complete}.

        Raises:
            KeyError: there is no such job.
            UserError: a file of it is damaged.
        """
        return self._described(self._find(job_id))

    def outcome(self, job_id: str) -> dict[str, Any]:
        """What a finished job changed; see `stabn.studio.jobs.outcome.read_outcome`.

        Raises:
            KeyError: there is no such job.
            UserError: it is not done.
        """
        return read_outcome(self._done(job_id))

    def clip(self, job_id: str, clip_id: str) -> dict[str, Any]:
        """One clip before and after; see `stabn.studio.jobs.outcome.read_clip`.

        Raises:
            KeyError: there is no such job, or no such clip in its outcome.
            UserError: it is not done.
        """
        return read_clip(self._done(job_id), clip_id)

    def list(self) -> builtins.list[dict[str, Any]]:
        """All jobs as in `get`, the newest first; one whose files are damaged is left out."""
        described = []
        for folder in sorted(self._folders(), reverse=True):
            with suppress(UserError):
                described.append(self._described(folder))
        return described

    def _described(self, folder: Path) -> dict[str, Any]:
        task = Task.read(folder)
        with self._alone:
            alive, state = self._alive(folder), State.read(folder)
        if alive:
            name = "running"
        elif measured(folder):
            name = "done"
        elif state.error is not None:
            name = "failed"
        else:
            name = "cancelled" if cancel_marker(folder).exists() else "interrupted"
        runs = {"before": Path(task.run)} | {RUNS[s]: folder / RUNS[s] for s in task.stages if s in RUNS}
        after = runs[RUNS["fine-tune"]]
        return {
            "id": folder.name,
            "state": name,
            "stage": state.stage,
            "stages": list(task.stages),
            "progress": _content(folder / RUNS[state.stage] / PROGRESS) if state.stage in RUNS else None,
            "curves": {name: (_content(run / "curves.json") or {}).get("epochs", []) for name, run in runs.items()},
            "use": task.use,
            "edits": task.edits,
            "control": task.control,
            "author": task.author,
            "started": task.started,
            "ended": state.ended,
            "command": task.command(folder),
            "log": _last_lines(folder / "log.txt"),
            "error": state.error,
            "run": str(after) if finished(after) else None,
        }

    def _folders(self) -> builtins.list[Path]:
        return [file.parent for file in self.folder.glob("*/job.json")]

    def _find(self, job_id: str) -> Path:
        """The folder of that name among those that are there; an id from a request never becomes a path."""
        return {folder.name: folder for folder in self._folders()}[job_id]

    def _done(self, job_id: str) -> Path:
        folder = self._find(job_id)
        if not measured(folder):
            raise UserError(f"job {job_id}: has no outcome yet; wait until it is done, or resume it")
        return folder

    def _launch(self, folder: Path, task: Task) -> None:
        State().write(folder)
        task.write(folder)
        with (folder / "log.txt").open("ab") as log:
            self._children[folder.name] = subprocess.Popen(
                # -P: a user's random.py in the current folder is none of ours.
                [sys.executable, "-P", "-u", "-m", "stabn.studio.jobs.process", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _check_idle(self) -> None:
        for folder in self._folders():
            try:
                alive = self._alive(folder)
            except UserError:
                continue  # its files are damaged: whatever it was, it must not stand in the way for ever
            if alive:
                raise UserError(f"job {folder.name}: is at work; wait until it is done, or cancel it")

    def _alive(self, folder: Path) -> bool:
        """Whether the job's process lives; an own child is asked, which also buries it, others hold their lock."""
        child = self._children.get(folder.name)
        if child is not None and child.poll() is None:
            return True
        state = State.read(folder)
        if state.ended is not None:
            return False
        try:
            with lock(folder).acquire(timeout=0):
                # A process takes its lock once it has loaded its libraries.
                age = time.time() - (folder / "state.json").stat().st_mtime
                return child is None and state.stage is None and age < STARTING
        except Timeout:
            return True


def _content(file: Path) -> Any:
    """The JSON value of a file; None if there is none, or not any more."""
    try:
        return read_json(file, remedy="")
    except UserError:
        return None


def _last_lines(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-LOG_LINES:])
