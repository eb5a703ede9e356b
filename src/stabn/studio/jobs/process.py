"""One fine-tuning job in a process of its own: `python -m stabn.studio.jobs.process JOB`, started by `manager.py`.

JOB/job.json                 what was requested (`JobSpec`)
JOB/project/                 an edit project with the edits as they were at the start
JOB/state.json               the current stage, and how the job ended (`JobState`)
JOB/lock                     held by the process while it runs, even without the server
JOB/cancel                   present once somebody has cancelled the job
JOB/log.txt                  the process's output
JOB/fine-tuned/, control/    the runs
JOB/outcome.json, attention.safetensors    what changed (`stabn.studio.jobs.outcome`)

A stage whose result exists is skipped, and training continues from its checkpoint, so the same command resumes a job.
"""

import logging
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from filelock import Timeout

from stabn.data.annotations.source import DataSource
from stabn.edits.project import open_project
from stabn.engine.config import EngineRecipe
from stabn.engine.stop_signals import begin_work, stop_signals
from stabn.errors import UserError
from stabn.files import lock_file, read_json, write_json
from stabn.records import utc_now
from stabn.runs import is_finished_run, open_run
from stabn.studio.jobs.outcome import has_outcome, measure_outcome
from stabn.training.correction import Finetuning
from stabn.training.finetune import finetune
from stabn.training.kept_features import loader_of
from stabn.training.recipes import PAPER_CORRECTION, SMALL_AUGMENTATION, SMALL_FINETUNING

JOB_FORMAT = "stabn-job/1"
REMEDY = "remove the job's folder and start it anew"
STAGE_RUNS = {"fine-tune": "fine-tuned", "control": "control"}
"""Stages that train, and the folders of their runs."""
ONE_DEVICE = EngineRecipe(devices="1")
"""With more devices, Lightning would start the job's process again for each of them."""
GRACE_PERIOD = 10.0
"""Seconds that a cancelled job has to stop before it gets the next, stronger signal."""

log = logging.getLogger("stabn.studio.jobs.process")  # __name__ is "__main__" in the job's process


@dataclass(frozen=True)
class _JobFile:
    """A dataclass that is stored as JSON in a job's folder."""

    FILE: ClassVar[str]

    def write(self, folder: Path) -> None:
        """Write the job's file."""
        write_json(folder / self.FILE, {"format": JOB_FORMAT, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> Any:
        """Read the job's file; a UserError if it is missing or damaged."""
        file = folder / cls.FILE
        value = read_json(file, remedy=REMEDY)
        if not isinstance(value, dict) or value.pop("format", None) != JOB_FORMAT:
            raise UserError(f"{file}: is not of format {JOB_FORMAT!r}; {REMEDY}")
        if "data" in value:
            value["data"] = DataSource.from_json(value["data"])
        try:
            return cls(**value)
        except TypeError as error:
            raise UserError(f"{file}: has a missing or unknown field ({error}); {REMEDY}") from None


@dataclass(frozen=True)
class JobSpec(_JobFile):
    """What was requested.

    Attributes:
        run: the folder of the run to fine-tune.
        data: its labelled videos.
        edits: number of clips with an edit to learn from.
        use: what is made of several people's edits of a clip, as in `stabn.edits.merge.merge_edits`.
        control: whether to train the control, too.
        author: who started the job.
        started: when, ISO 8601 with time zone.
        epochs: passes over the training clips, at least 1; None for those of `how`.
        gamma: weight of the loss against the edits, above 0; None for that of `how`.
        how: `Finetuning.as_json` as chosen at the start; None in jobs of earlier versions, which had one for all runs.
        init: `--correction.init` as it was asked for.
        own_control: whether the run itself is the control, so that none is trained.
    """

    FILE = "job.json"
    """Its existence makes a folder a job."""

    run: str
    data: DataSource
    edits: int
    use: str
    control: bool
    author: str
    started: str
    epochs: int | None = None
    gamma: float | None = None
    how: dict[str, Any] | None = None
    init: Literal["auto", "checkpoint", "scratch"] = "auto"
    own_control: bool = False

    def finetuning(self) -> Finetuning:
        """How the job trains."""
        if self.how is None:
            chosen = Finetuning(PAPER_CORRECTION, 5.0, SMALL_AUGMENTATION, SMALL_FINETUNING, 0, "")
        else:
            chosen = Finetuning.from_json(self.how)
        return replace(
            chosen,
            gamma=self.gamma or chosen.gamma,
            optimizer=replace(chosen.optimizer, epochs=self.epochs or chosen.optimizer.epochs),
        )

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages in their order."""
        trained = self.control and not self.own_control
        return ("fine-tune", "control", "measure") if trained else ("fine-tune", "measure")

    def runs(self, folder: Path) -> dict[str, Path]:
        """The folders of the runs that the job in a folder trains, by name, in the order of the stages."""
        return {STAGE_RUNS[stage]: folder / STAGE_RUNS[stage] for stage in self.stages if stage in STAGE_RUNS}

    def command(self, folder: Path) -> str:
        """The command line that does the same as the first stage."""
        options = {
            "edits": folder / "project",
            "out": folder / STAGE_RUNS["fine-tune"],
            "use": self.use,
            **({} if self.init == "auto" else {"correction.init": self.init}),
            **({} if self.gamma is None else {"gamma": f"{self.gamma:g}"}),
            **({} if self.epochs is None else {"optimizer.epochs": self.epochs}),
            "engine.devices": ONE_DEVICE.devices,
            **self.data.options(),
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return shlex.join(["stabn", "finetune", self.run, *words])


@dataclass(frozen=True)
class JobState(_JobFile):
    """How far a job is.

    Attributes:
        stage: the current stage, or the one where it stopped; None before the first and after the last.
        ended: when it stopped, ISO 8601 with time zone; None while it runs, and if it was killed.
        error: one line if it failed.
    """

    FILE = "state.json"

    stage: str | None = None
    ended: str | None = None
    error: str | None = None


@contextmanager
def job_lock(folder: Path, timeout: float = 0.0) -> Iterator[None]:
    """The lock that a job's process holds while it runs; errors as for `lock_file`."""
    with lock_file(folder / "lock", timeout=timeout):
        yield


def cancel_marker(folder: Path) -> Path:
    """The file that tells a job to stop; it stays, to show why the job ended."""
    return folder / "cancel"


def run_stages(folder: Path) -> None:
    """Run a job's unfinished stages, and record in state.json how it ended.

    Raises:
        Exception: any error but a UserError, after it was recorded, so that its traceback reaches the log.
    """
    stage = None
    try:
        spec = JobSpec.read(folder)
        run = open_run(spec.run, spec.data)
        project = open_project(folder / "project")
        for stage in spec.stages:
            JobState(stage).write(folder)
            log.info("%s  %s", utc_now(), stage)
            if stage in STAGE_RUNS:
                if not is_finished_run(folder / STAGE_RUNS[stage]):
                    finetune(
                        run,
                        project,
                        folder / STAGE_RUNS[stage],
                        spec.finetuning(),
                        use=spec.use,
                        control=stage == "control",
                        loader=loader_of(run),
                        engine=ONE_DEVICE,
                    )
            elif not has_outcome(folder):
                trained = {name: open_run(path) for name, path in reversed(spec.runs(folder).items())}
                measure_outcome(
                    folder, {"before": run, **trained}, project.edits(spec.use), own_control=spec.own_control
                )
        JobState(ended=utc_now()).write(folder)
    except KeyboardInterrupt:
        JobState(stage, ended=utc_now()).write(folder)
        log.info("stopped")
    except UserError as error:
        JobState(stage, ended=utc_now(), error=str(error)).write(folder)
        log.info("error: %s", error)
    except Exception as error:
        message = traceback.format_exception_only(error)[-1].strip().splitlines()[-1]
        JobState(stage, ended=utc_now(), error=message).write(folder)
        raise


def _wait_for_cancel(cancel: Path) -> None:
    """Once the marker exists, stop this process and its children, with ever stronger signals."""
    while not cancel.exists():
        time.sleep(0.2)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        os.killpg(0, number)
        time.sleep(GRACE_PERIOD)


def run_job_process() -> None:
    """Run the job whose folder is the only argument; the status is 0 unless there is a traceback to read."""
    folder = Path(sys.argv[1])
    logging.basicConfig(format="%(message)s", stream=sys.stdout)  # stdout is the job's log.txt
    logging.getLogger("stabn").setLevel(logging.INFO)
    # A server that a script started in the background ignores SIGINT, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stop_signals("job"), job_lock(folder, GRACE_PERIOD):
            begin_work()
            threading.Thread(target=_wait_for_cancel, args=(cancel_marker(folder),), daemon=True).start()
            run_stages(folder)
    except Timeout:
        raise SystemExit(f"{folder}: another process is running this job") from None


if __name__ == "__main__":
    run_job_process()
