"""Fine-tuning from the page: jobs run in processes of their own (`process.py`), which outlive the server."""

import builtins
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import Timeout

from stabn.edits.merge import merge_edits
from stabn.edits.project import Project, write_snapshot
from stabn.errors import UserError, describe_os_error
from stabn.files import read_json
from stabn.records import Edit, utc_now
from stabn.runs import Run, is_finished_run
from stabn.studio.jobs.outcome import has_outcome
from stabn.studio.jobs.process import STAGE_RUNS, JobSpec, JobState, cancel_marker, job_lock
from stabn.studio.not_found import NotFoundError
from stabn.training.correction import choose_finetuning
from stabn.training.finetune import is_own_control
from stabn.training.recipes import CorrectionRecipe
from stabn.training.train import PROGRESS

LOG_LINES = 30
START_TIMEOUT = 60.0
"""Seconds for which a job that another server has launched counts as running before it takes its lock."""


class JobManager:
    """The fine-tuning jobs of an edit project; one runs at a time.

    A job's state is read from its folder and its lock, so that it is also known after a restart of the server.

    Args:
        folder: of all jobs; need not exist.
        run: the run to fine-tune.
    """

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder = folder.absolute()
        self.run = run
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.RLock()

    def start(
        self,
        project: Project,
        edits: Sequence[Edit],
        *,
        use: str,
        control: bool,
        author: str,
        init: Literal["auto", "checkpoint", "scratch"] = "auto",
        epochs: int | None = None,
        gamma: float | None = None,
    ) -> str:
        """Start a job on the edits as they are now.

        Args:
            project: whose clips were edited.
            edits: of any people.
            use: what to make of several people's edits of a clip, as in `stabn.edits.merge.merge_edits`.
            control: train the control too, unless the run itself is it; without one the effect of the edits cannot be
                measured.
            author: who starts the job.
            init: as `CorrectionRecipe.init`.
            epochs: in place of those that `choose_finetuning` gives.
            gamma: likewise.

        Returns:
            The job's id.

        Raises:
            UserError: a job is running, there is no edit to learn from, or the disk is full.
        """
        count = len(merge_edits(edits, use))
        if count == 0:
            raise UserError("edits: got none, expected at least one; correct some clips first")
        how = choose_finetuning(self.run, CorrectionRecipe(init=init), gamma)
        spec = JobSpec(
            run=str(self.run.folder.absolute()),
            data=self.run.source,
            edits=count,
            use=use,
            control=control,
            author=author,
            started=utc_now(),
            init=init,
            epochs=epochs,
            gamma=gamma,
            how=how.as_json(),
        )
        spec = replace(spec, own_control=control and is_own_control(self.run, spec.finetuning()))
        with self._lock:
            self._check_idle()
            folder = self.folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
            try:
                write_snapshot(folder / "project", project, edits)
                self._launch(folder, spec)
            except OSError as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise UserError(f"{describe_os_error(error, folder)}, and start again") from None
        return folder.name

    def cancel(self, job_id: str) -> None:
        """Tell a job to stop; it does within seconds, and can be resumed.

        Raises:
            NotFoundError: there is no such job.
            UserError: it is not running.
        """
        folder = self._find(job_id)
        with self._lock:
            if not self._is_running(folder):
                raise UserError(f"job {job_id}: is not running, so there is nothing to cancel")
            cancel_marker(folder).touch()

    def resume(self, job_id: str) -> None:
        """Continue a job that was cancelled or interrupted, or try again what failed.

        Raises:
            NotFoundError: there is no such job.
            UserError: it is done, a job is running, or the disk is full.
        """
        folder = self._find(job_id)
        with self._lock:
            self._check_idle()
            if has_outcome(folder):
                raise UserError(f"job {job_id}: is done; start a new one")
            try:
                cancel_marker(folder).unlink(missing_ok=True)
                self._launch(folder, JobSpec.read(folder))
            except OSError as error:
                raise UserError(f"{describe_os_error(error, folder)}, and resume again") from None

    def get(self, job_id: str) -> dict[str, Any]:
        """A job for the page.

        Returns:
            {"id", "state": running, done, cancelled, failed or interrupted (killed), "stage", "stages", "progress":
            that of `stabn.training.train` or None, "curves": entries of curves.json by network, "use", "edits": number
            of clips, "control", "own_control": whether the run itself is it, "author", "started", "ended", "command",
            "log": its last lines, "error": one line or None, "run": folder of the fine-tuned run once it is complete}.

        Raises:
            NotFoundError: there is no such job.
            UserError: a file of it is damaged.
        """
        return self._describe(self._find(job_id))

    def find_done(self, job_id: str) -> Path:
        """The folder of a finished job, whose outcome `stabn.studio.jobs.outcome` reads.

        Raises:
            NotFoundError: there is no such job.
            UserError: it is not done.
        """
        folder = self._find(job_id)
        if not has_outcome(folder):
            raise UserError(f"job {job_id}: has no outcome yet; wait until it is done, or resume it")
        return folder

    def list(self) -> builtins.list[dict[str, Any]]:
        """All jobs as in `get`, the newest first, without those whose files are damaged."""
        jobs = []
        for folder in sorted(self._folders(), reverse=True):
            with suppress(UserError):
                jobs.append(self._describe(folder))
        return jobs

    def _describe(self, folder: Path) -> dict[str, Any]:
        spec = JobSpec.read(folder)
        with self._lock:
            running, state = self._is_running(folder), JobState.read(folder)
        if running:
            name = "running"
        elif has_outcome(folder):
            name = "done"
        elif state.error is not None:
            name = "failed"
        else:
            name = "cancelled" if cancel_marker(folder).exists() else "interrupted"
        runs = {"before": Path(spec.run), **spec.runs(folder)}
        fine_tuned = runs["fine-tuned"]
        progress = _read_if_present(folder / STAGE_RUNS[state.stage] / PROGRESS) if state.stage in STAGE_RUNS else None
        curves = {name: _read_if_present(run / "curves.json") or {} for name, run in runs.items()}
        log_file = folder / "log.txt"
        log = log_file.read_text(encoding="utf-8", errors="replace") if log_file.exists() else ""
        return {
            "id": folder.name,
            "state": name,
            "stage": state.stage,
            "stages": list(spec.stages),
            "progress": progress,
            "curves": {name: value.get("epochs", []) for name, value in curves.items()},
            **{key: getattr(spec, key) for key in ("use", "edits", "control", "own_control", "author", "started")},
            "ended": state.ended,
            "command": spec.command(folder),
            "log": "\n".join(log.splitlines()[-LOG_LINES:]),
            "error": state.error,
            "run": str(fine_tuned) if is_finished_run(fine_tuned) else None,
        }

    def _folders(self) -> builtins.list[Path]:
        return [file.parent for file in self.folder.glob("*/job.json")]

    def _find(self, job_id: str) -> Path:
        """The existing folder of that name; an id from a request never becomes a path."""
        for folder in self._folders():
            if folder.name == job_id:
                return folder
        raise NotFoundError("There is no such job.")

    def _launch(self, folder: Path, spec: JobSpec) -> None:
        JobState().write(folder)
        spec.write(folder)
        with (folder / "log.txt").open("ab") as log:
            self._children[folder.name] = subprocess.Popen(
                # -P: modules in the current folder, such as a user's random.py, must not be imported.
                [sys.executable, "-P", "-u", "-m", "stabn.studio.jobs.process", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def is_busy(self) -> bool:
        """Whether a job is running."""
        try:
            self._check_idle()
        except UserError:
            return True
        return False

    def _check_idle(self) -> None:
        for folder in self._folders():
            try:
                running = self._is_running(folder)
            except UserError:
                continue  # a job with damaged files must not block all others
            if running:
                raise UserError(f"job {folder.name}: is running; wait until it is done, or cancel it")

    def _is_running(self, folder: Path) -> bool:
        """Whether the job's process runs: our own child is polled, which also reaps it; else its lock file decides."""
        child = self._children.get(folder.name)
        if child is not None and child.poll() is None:
            return True
        state = JobState.read(folder)
        if state.ended is not None:
            return False
        try:
            with job_lock(folder):
                # A process takes its lock only after it has loaded its libraries.
                age = time.time() - (folder / "state.json").stat().st_mtime
                return child is None and state.stage is None and age < START_TIMEOUT
        except Timeout:
            return True


def _read_if_present(file: Path) -> Any:
    """The JSON value of a file; None if it does not exist or cannot be read."""
    try:
        return read_json(file, remedy="")
    except UserError:
        return None
