import errno
import json
import os
import shlex
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_run import FRAMES, NO_TRAINING

from stabn.cli import train
from stabn.cli.main import main
from stabn.data.annotations.source import DataSource
from stabn.data.dataset import VideoDataset
from stabn.edits.project import open_project
from stabn.errors import UserError
from stabn.evaluation.collect import collect_project
from stabn.records import Edit
from stabn.runs import network_preprocessing, open_run
from stabn.studio.jobs import manager, process
from stabn.studio.jobs.manager import JobManager
from stabn.studio.jobs.outcome import read_clip_outcome, read_outcome
from stabn.studio.jobs.process import JobSpec, cancel_marker, job_lock, run_stages
from stabn.studio.not_found import NotFoundError

OPTIONS = {"use": "mean", "control": False, "epochs": 4, "author": "Ann"}


@pytest.fixture(scope="module")
def project(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs") / "project"
    collect_project(open_run(trained), folder, bound=1.0, max_clips=6)
    return open_project(folder)


@pytest.fixture(scope="module")
def edits(project):
    """Two people on the first clip, one on the others."""

    def by(author: str, clip) -> Edit:
        level = 1.0 if author == "Ann" else 0.5
        return clip.edit([level] * 2 + [0.0] * (FRAMES - 2), author=author, time="2026-01-31T09:30:00+00:00")

    return [by("Ann", clip) for clip in project.clips] + [by("Bo", project.clips[0])]


@pytest.fixture(scope="module")
def jobs(trained, project):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")  # the promise of equal bits is for CPUs
        patch.setenv("OMP_NUM_THREADS", "1")  # for so small a network, threads on a busy machine wait for each other
        yield JobManager(project.folder / "jobs", open_run(trained))


def wait(jobs: JobManager, job_id: str, what) -> dict:
    """The job as soon as `what` is true of it."""
    deadline = time.monotonic() + 120
    while not what(job := jobs.get(job_id)):
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    return job


def ended(job: dict) -> bool:
    return job["state"] != "running"


@pytest.fixture(scope="module")
def finished_job(jobs, project, edits):
    """A job with a control that nobody disturbed."""
    return wait(jobs, jobs.start(project, edits, **OPTIONS | {"control": True}), ended)


def test_a_job_fine_tunes_trains_the_control_and_measures(jobs, project, finished_job):
    assert finished_job["state"] == "done", finished_job["log"]
    assert finished_job["stages"] == ["fine-tune", "control", "measure"]
    assert finished_job["stage"] is finished_job["error"] is finished_job["progress"] is None
    assert finished_job["edits"] == 6
    assert finished_job["ended"] >= finished_job["started"]
    assert {name: len(entries) for name, entries in finished_job["curves"].items()} == {
        "before": 2, "fine-tuned": 4, "control": 4,
    }  # fmt: skip
    assert "train_temporal_loss" in finished_job["curves"]["fine-tuned"][0]
    assert "train_temporal_loss" not in finished_job["curves"]["control"][0]
    assert "epoch 4/4" in finished_job["log"]
    after = open_run(finished_job["run"])
    assert set(after.edited) == {clip.clip_id for clip in project.clips}
    assert jobs.list() == [finished_job]


def test_the_command_of_a_job_is_one_that_stabn_understands(finished_job, monkeypatch):
    options = {}

    def record_options(run, project, out, how, **keywords):
        options.update(keywords, gamma=how.gamma, seed=how.seed)
        options.update(optimizer=how.optimizer, augmentation=how.augmentation)
        return NO_TRAINING

    monkeypatch.setattr(train, "finetune", record_options)
    main(shlex.split(finished_job["command"])[1:])
    recipe = open_run(finished_job["run"]).recipe
    assert options["optimizer"].epochs == recipe["optimizer"]["epochs"] == 4
    assert {name: options[name] for name in ("gamma", "control", "seed", "use")}.items() <= recipe.items()
    for name in ("augmentation", "loader", "engine"):
        assert vars(options[name]) == recipe[name], name


def test_the_outcome_is_what_the_networks_themselves_answer(jobs, trained, project, finished_job):
    runs = {"before": trained, "control": f"{finished_job['run']}/../control", "fine-tuned": finished_job["run"]}
    run = open_run(trained)
    models = {name: open_run(folder).model() for name, folder in runs.items()}
    table = run.table(models["before"])
    samples = {sample.clip_id: sample for sample in table.samples}

    def answers(clip_id: str):
        preprocessing = network_preprocessing(models["before"], "run")
        item = VideoDataset([samples[clip_id]], preprocessing, class_names=table.class_names)[0]
        with torch.inference_mode():
            return {name: model(item.clips) for name, model in models.items()}

    right: dict[str, set[str]] = {name: set() for name in models}
    measured = table.of_split("validation")
    for sample in measured:
        for name, output in answers(sample.clip_id).items():
            if int(output.logits.argmax()) == sample.label:
                right[name].add(sample.clip_id)

    folder = jobs.find_done(finished_job["id"])
    outcome_json = read_outcome(folder)
    assert outcome_json["split"] == "validation"
    assert [m["name"] for m in outcome_json["methods"]] == ["before", "control", "fine-tuned"]
    for method in outcome_json["methods"]:
        assert method["top1"] == pytest.approx(len(right[method["name"]]) / len(measured), abs=1e-6)
        assert method["low"] <= method["top1"] <= method["high"]
        assert method["edited"]["count"] + method["other"]["count"] == method["count"] == len(measured)
    points = (len(right["fine-tuned"]) - len(right["control"])) / len(measured)
    assert outcome_json["difference"]["points"] == pytest.approx(points, abs=1e-6)
    assert outcome_json["difference"]["against"] == "control"
    assert "control" in outcome_json["difference"]["verdict"]
    assert {row["id"] for row in outcome_json["mended"]} == right["fine-tuned"] - right["before"]
    assert {row["id"] for row in outcome_json["newly_wrong"]} == right["before"] - right["fine-tuned"]
    assert [row["id"] for row in outcome_json["edited_clips"]] == [clip.clip_id for clip in project.clips]

    for row in [*outcome_json["mended"], *outcome_json["newly_wrong"], outcome_json["edited_clips"][0]]:
        clip, outputs = read_clip_outcome(folder, row["id"]), answers(row["id"])
        for side, name in (("before", "before"), ("after", "fine-tuned"), ("control", "control")):
            probabilities = outputs[name].logits[0].softmax(0).numpy()
            np.testing.assert_allclose(clip[side]["probabilities"], probabilities, atol=1e-5)
            assert row[side] == {
                "predicted": table.class_names[probabilities.argmax()],
                "confidence": pytest.approx(probabilities.max(), abs=1e-5),
            }
            attention = outputs[name].attention
            np.testing.assert_allclose(clip[side]["temporal"], attention.temporal[0], atol=1e-5)
            spatial = clip[side]["spatial"]
            shape = tuple(spatial[name] for name in ("frames", "height", "width"))
            np.testing.assert_allclose(np.reshape(spatial["values"], shape), attention.spatial[0], atol=3e-4)
    first = project.clips[0]
    assert clip["label"] == first.label
    assert clip["frame_indices"] == list(first.frame_indices)
    assert clip["timestamps"] == pytest.approx(first.timestamps, abs=1e-6)
    assert clip["crop"] == pytest.approx(first.crop, abs=1e-6)
    assert clip["edited"] == [0.75] * 2 + [0.0] * (FRAMES - 2)  # the mean of 1.0 and 0.5
    with pytest.raises(NotFoundError):
        read_clip_outcome(folder, "nobody")


def test_a_killed_and_a_cancelled_job_go_on_and_end_as_if_nothing_had_happened(
    jobs, trained, project, edits, finished_job
):
    job_id = jobs.start(project, edits, **OPTIONS)
    with pytest.raises(UserError, match=job_id):
        jobs.start(project, edits, **OPTIONS)
    with pytest.raises(UserError, match=job_id):
        jobs.find_done(job_id)
    learning = wait(jobs, job_id, lambda job: job["curves"]["fine-tuned"])
    assert learning["state"] == "running"
    assert learning["stage"] == "fine-tune"
    assert learning["progress"]["epochs"] == 4

    restarted = JobManager(jobs.folder, open_run(trained))  # knows no child, as after a restart of the server
    assert restarted.get(job_id)["state"] == "running"
    with pytest.raises(UserError, match=job_id):
        restarted.resume(job_id)
    os.kill(jobs._children[job_id].pid, signal.SIGKILL)
    killed = wait(jobs, job_id, ended)
    assert killed["state"] == restarted.get(job_id)["state"] == "interrupted"
    assert killed["ended"] is killed["error"] is killed["run"] is None

    done = len(killed["curves"]["fine-tuned"])
    jobs.resume(job_id)
    wait(jobs, job_id, lambda job: len(job["curves"]["fine-tuned"]) > done)
    restarted.cancel(job_id)
    cancelled = wait(jobs, job_id, ended)
    assert cancelled["state"] == "cancelled"
    assert cancelled["ended"] is not None
    assert "Traceback" not in cancelled["log"]
    with pytest.raises(UserError, match=job_id):
        jobs.cancel(job_id)

    jobs.resume(job_id)
    resumed = wait(jobs, job_id, ended)
    assert resumed["state"] == "done", resumed["log"]
    assert resumed["curves"]["fine-tuned"] == finished_job["curves"]["fine-tuned"]
    weights = [(open_run(job["run"]).folder / "model.safetensors").read_bytes() for job in (resumed, finished_job)]
    assert weights[0] == weights[1]
    outcome_json = read_outcome(jobs.find_done(job_id))
    assert outcome_json["difference"] is None  # without a control nothing is claimed
    assert all(row["control"] is None for row in outcome_json["edited_clips"])
    with pytest.raises(UserError, match=job_id):
        jobs.resume(job_id)
    assert [job["id"] for job in jobs.list()] == [job_id, finished_job["id"]]


@pytest.mark.parametrize("job_id", ["", ".", "..", "../x", "20260131-093000-abcd", "/", "project\0"])
def test_ids_are_looked_up_and_never_become_paths(idle, a_job, job_id):
    (idle.folder.parent / "x").mkdir()
    (idle.folder.parent / "job.json").write_text("{}")
    for method in (idle.get, idle.cancel, idle.resume, idle.find_done):
        with pytest.raises(NotFoundError):
            method(job_id)


@pytest.fixture
def idle(trained, tmp_path):
    return JobManager(tmp_path / "jobs", open_run(trained))


@pytest.fixture
def a_job(trained, project, edits, idle, monkeypatch):
    """The folder of a job whose process never came to life."""
    monkeypatch.setattr(manager.subprocess, "Popen", lambda *arguments, **options: _Gone())
    return idle.folder / idle.start(project, edits, **OPTIONS)


class _Gone:
    def poll(self) -> int:
        return 1


def test_a_process_that_never_started_is_noticed_at_once_by_its_server_and_later_by_another(idle, a_job):
    job = idle.get(a_job.name)
    assert (job["state"], job["stage"], job["progress"], job["log"]) == ("interrupted", None, None, "")
    other_server = JobManager(idle.folder, idle.run)
    assert other_server.get(a_job.name)["state"] == "running"
    os.utime(a_job / "state.json", (0, 0))
    assert other_server.get(a_job.name)["state"] == "interrupted"
    with job_lock(a_job):  # whoever holds it is at work
        assert idle.get(a_job.name)["state"] == "running"
        idle.cancel(a_job.name)
    assert idle.get(a_job.name)["state"] == "cancelled"


def fail(monkeypatch, error: BaseException) -> None:
    def failing(*arguments, **options):
        raise error

    monkeypatch.setattr(process, "finetune", failing)


def test_mistakes_end_a_job_with_one_line(idle, a_job, monkeypatch, caplog):
    caplog.set_level("INFO", "stabn")
    fail(monkeypatch, UserError("clip 5: no such video; give it"))
    run_stages(a_job)
    job = idle.get(a_job.name)
    assert (job["state"], job["stage"], job["error"]) == ("failed", "fine-tune", "clip 5: no such video; give it")
    assert "clip 5" in caplog.text
    for error, line in (
        (OSError(28, "No space left", "last.ckpt"), "OSError: [Errno 28] No space left: 'last.ckpt'"),
        (RuntimeError("first\nCUDA out of memory"), "CUDA out of memory"),
    ):
        fail(monkeypatch, error)
        with pytest.raises(type(error)):
            run_stages(a_job)
        assert idle.get(a_job.name)["error"] == line
    idle.resume(a_job.name)
    assert idle.get(a_job.name)["error"] is None


def test_an_interrupt_that_nobody_asked_for_is_no_cancelling(idle, a_job, monkeypatch):
    fail(monkeypatch, KeyboardInterrupt())
    run_stages(a_job)
    job = idle.get(a_job.name)
    assert (job["state"], job["ended"] is None) == ("interrupted", False)
    cancel_marker(a_job).touch()
    assert idle.get(a_job.name)["state"] == "cancelled"


def test_a_job_that_does_not_stop_when_asked_is_made_to(a_job, monkeypatch):
    sent = []
    monkeypatch.setattr(process.os, "killpg", lambda group, number: sent.append((group, number)))
    monkeypatch.setattr(process, "GRACE_PERIOD", 0)
    cancel_marker(a_job).touch()
    process._wait_for_cancel(cancel_marker(a_job))
    assert sent == [(0, number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)]


def test_a_run_that_is_gone_fails_with_a_remedy(idle, a_job, tmp_path):
    replace(JobSpec.read(a_job), run=str(tmp_path / "gone")).write(a_job)
    run_stages(a_job)
    job = idle.get(a_job.name)
    assert (job["state"], job["curves"]["before"]) == ("failed", [])
    assert str(tmp_path / "gone") in job["error"]


def test_what_cannot_be_learnt_is_refused_before_anything_is_written(idle, project, edits):
    for use in ("author:Cy", "best"):
        with pytest.raises(UserError, match=f"use: got '{use}'"):
            idle.start(project, edits, **OPTIONS | {"use": use})
    with pytest.raises(UserError, match="edits: got none"):
        idle.start(project, [], **OPTIONS)
    assert not idle.folder.exists()


def test_a_full_disk_leaves_no_half_a_job(idle, project, edits, monkeypatch):
    def full(folder, *arguments):
        folder.mkdir(parents=True)
        (folder / "clips.jsonl").write_text("")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(manager, "write_snapshot", full)
    with pytest.raises(UserError, match="No space left on device"):
        idle.start(project, edits, **OPTIONS)
    assert list(idle.folder.iterdir()) == []
    assert idle.list() == []


@pytest.mark.parametrize("content", ["{", '{"format": "stabn-job/1", "x": 1}'])
def test_a_damaged_job_stands_in_nobodys_way(idle, a_job, project, edits, content):
    (a_job / "job.json").write_text(content)
    (a_job / "state.json").write_text(content)
    assert idle.list() == []
    with pytest.raises(UserError, match=r"job\.json"):
        idle.get(a_job.name)
    assert idle.start(project, edits, **OPTIONS) != a_job.name


def test_job_files_of_another_format_are_refused(idle, a_job):
    assert JobSpec.read(a_job).data == DataSource(idle.run.source.annotations)
    (a_job / "state.json").write_text(json.dumps({"format": "stabn-job/9"}))
    with pytest.raises(UserError, match=r"state\.json.*'stabn-job/1'"):
        idle.get(a_job.name)
