"""One fine-tuning job in a process of its own: `python -m stabn.studio.jobs.process JOB`, started by `manager.py`.

JOB/job.json                 what was asked for (`Task`)
JOB/project/                 the edits as they were then: an edit project
JOB/state.json               which stage is at work, and how it ended (`State`)
JOB/lock                     held by the process while it lives, whatever becomes of the server
JOB/cancel                   somebody asked it to stop
JOB/log.txt                  what it printed
JOB/fine-tuned/, control/    the runs
JOB/outcome.json, attention.safetensors    what changed (`stabn.studio.jobs.outcome`)

A stage whose result is there is passed over, and training goes on from its checkpoint, so the same command resumes.
"""

import math
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stabn.data.annotations.source import DataSource
from stabn.edits.project import Project, open_project
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.files import read_json, write_json
from stabn.records import now
from stabn.runs import Run, finished, open_run
from stabn.studio.jobs.outcome import measure, measured
from stabn.training.config import GAMMA, SMALL_AUGMENTATION, SMALL_FINETUNING, LoaderRecipe
from stabn.training.finetune import finetune

JOB_FORMAT = "stabn-job/1"
REMEDY = "remove the job's folder and start it anew"
RUNS = {"fine-tune": "fine-tuned", "control": "control"}
"""Stages that train, and the folders of their runs."""
ONE_DEVICE = EngineRecipe(devices="1")
"""For every further device Lightning would start the job's process once more."""
PATIENCE = 10.0
"""Seconds that a cancelled job has to stop by itself before it is made to."""


@dataclass(frozen=True)
class Task:
    """What was asked for.

    Attributes:
        run: the folder of the run to start from.
        data: its labelled videos.
        edits: how many clips have an edit to learn from.
        use: what is made of several people's edits of a clip, as in `stabn.edits.merge.merged`.
        control: whether to train the control, too.
        author: who asked.
        started: when, ISO 8601 with time zone.
        epochs: passes over the training clips.
        gamma: weight of the agreement with the edits.
    """

    run: str
    data: DataSource
    edits: int
    use: str
    control: bool
    author: str
    started: str
    epochs: int = SMALL_FINETUNING.epochs
    gamma: float = GAMMA

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UserError(f"epochs: got {self.epochs}, expected at least 1")
        if not 0 < self.gamma < math.inf:
            raise UserError(f"gamma: got {self.gamma}, expected a number above 0")

    @property
    def stages(self) -> tuple[str, ...]:
        """What is done, one after the other."""
        return ("fine-tune", "control", "measure") if self.control else ("fine-tune", "measure")

    def command(self, folder: Path) -> str:
        """The command line that does the same as the first stage."""
        options = {
            "edits": folder / "project",
            "out": folder / RUNS["fine-tune"],
            "use": self.use,
            "gamma": f"{self.gamma:g}",
            "optimizer.epochs": self.epochs,
            "engine.devices": ONE_DEVICE.devices,
            **self.data.options(),
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return shlex.join(["stabn", "finetune", self.run, *words])

    def write(self, folder: Path) -> None:
        """Write job.json, which makes the folder a job."""
        write_json(folder / "job.json", {"format": JOB_FORMAT, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> "Task":
        """What job.json says.

        Raises:
            UserError: it is missing or damaged.
        """
        return _read(folder / "job.json", lambda data, **rest: cls(data=DataSource.from_json(data), **rest))


@dataclass(frozen=True)
class State:
    """How far a job is.

    Attributes:
        stage: at work, or where it stopped; None before the first and after the last one.
        ended: when it stopped, ISO 8601 with time zone; None while it is at work, and if it was killed.
        error: one line if it failed.
    """

    stage: str | None = None
    ended: str | None = None
    error: str | None = None

    def write(self, folder: Path) -> None:
        """Write state.json."""
        write_json(folder / "state.json", {"format": JOB_FORMAT, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> "State":
        """What state.json says.

        Raises:
            UserError: it is missing or damaged.
        """
        return _read(folder / "state.json", cls)


def _read(file: Path, make: Callable[..., Any]) -> Any:
    """What `make` makes of the fields of a JSON object."""
    value = read_json(file, remedy=REMEDY)
    if not isinstance(value, dict) or value.pop("format", None) != JOB_FORMAT:
        raise UserError(f"{file}: is not of format {JOB_FORMAT!r}; {REMEDY}")
    try:
        return make(**value)
    except TypeError as error:
        raise UserError(f"{file}: lacks or misnames a field ({error}); {REMEDY}") from None


def lock(folder: Path) -> FileLock:
    """What the process of a job holds while it lives."""
    return FileLock(folder / "lock")


def cancel_marker(folder: Path) -> Path:
    """The file that asks a job to stop; it stays, so that one sees why the job ended."""
    return folder / "cancel"


def work(folder: Path) -> None:
    """Do the stages that are not done yet; state.json tells how it ended."""
    stage = None
    try:
        task = Task.read(folder)
        run = open_run(task.run, task.data)
        project = open_project(folder / "project")
        for stage in task.stages:
            State(stage).write(folder)
            print(f"{now()}  {stage}", flush=True)
            if stage in RUNS:
                _train(run, project, folder / RUNS[stage], task, control=stage == "control")
            elif not measured(folder):
                trained = {RUNS[s]: open_run(folder / RUNS[s]) for s in reversed(task.stages) if s in RUNS}
                measure(folder, {"before": run, **trained}, project.edits(task.use))
        State(ended=now()).write(folder)
    except KeyboardInterrupt:
        State(stage, ended=now()).write(folder)
        print("stopped", flush=True)
    except UserError as error:
        State(stage, ended=now(), error=str(error)).write(folder)
        print(f"error: {error}", flush=True)
    except Exception as error:
        told = traceback.format_exception_only(error)[-1].strip()
        State(stage, ended=now(), error=told.splitlines()[-1]).write(folder)
        raise


def _train(run: Run, project: Project, out: Path, task: Task, *, control: bool) -> None:
    if finished(out):
        return
    finetune(
        run,
        project,
        out,
        use=task.use,
        gamma=task.gamma,
        control=control,
        augmentation=SMALL_AUGMENTATION,
        optimizer=replace(SMALL_FINETUNING, epochs=task.epochs),
        loader=LoaderRecipe(),
        engine=ONE_DEVICE,
        seed=0,
    )


def _heed(cancel: Path) -> None:
    """Stop this process and its children when asked: politely, then firmly."""
    while not cancel.exists():
        time.sleep(0.2)
    for word in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        os.killpg(0, word)
        time.sleep(PATIENCE)


def main() -> None:
    """Work on the job whose folder is the only argument; status 0 if nobody needs to read a traceback."""
    folder = Path(sys.argv[1])
    # A server that a script started in the background ignores Ctrl-C, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with lock(folder).acquire(timeout=PATIENCE):
            threading.Thread(target=_heed, args=(cancel_marker(folder),), daemon=True).start()
            work(folder)
    except Timeout:
        raise SystemExit(f"{folder}: another process works on this job") from None


if __name__ == "__main__":
    main()
