"""`stabn profile`: the parts of a step add up, and advice follows from what was measured."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_run import COMMAND_SETTINGS, QUICK, SETTINGS

from stabn.cli import machine as profiling_verbs
from stabn.data.annotations.source import DataSource
from stabn.data.dataset import Sample, VideoDataset
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.training import advice
from stabn.training import profile as profiling
from stabn.training.advice import advise
from stabn.training.profile import PARTS, REST, WAITING, WARM_UP, ClipTime, StepTime, _StepProfiler
from stabn.training.recipes import LoaderRecipe, NetworkRecipe

FED = StepTime({WAITING: 0.01, "forward": 0.5, "backward": 0.49}, clips=8, steps=20, peak_gib=4)
HUNGRY = StepTime({WAITING: 1.0, "forward": 0.5, "backward": 0.5}, clips=8, steps=20, peak_gib=4)
CLIP = ClipTime(reading=0.3, fitting=0.1, short_side=1080, num_frames=300, whole_bytes=2**20)
HERE = {"workers": 0, "resize": 256, "clips": 10_000}
ENGINE = EngineRecipe(accelerator="cpu", precision="32-true")


@pytest.fixture
def machine(monkeypatch):
    """Advice for a machine of 8 cores and 64 GiB that is not faster in bfloat16."""
    monkeypatch.setattr(advice, "core_count", lambda: 8)
    monkeypatch.setattr(advice, "_memory_gib", lambda: 64)
    monkeypatch.setattr(advice, "bf16_is_faster", lambda _device: False)


SMALL = replace(CLIP, short_side=256, whole_bytes=2**30)
CACHE, WORKERS = "--loader.cache true --loader.workers 0: ", "--loader.workers {}: "


@pytest.mark.parametrize(
    ("step", "clip", "rates", "change", "expected"),
    [
        (FED, CLIP, {0: 100.0, 1: 200.0}, {}, []),
        (HUNGRY, CLIP, {0: 3.0, 1: 5.0, 2: 9.0, 4: 17.0}, {}, [(WORKERS.format(2), "50%", "8.0 clips/s", "9.0")]),
        (HUNGRY, CLIP, {0: 100.0, 1: 90.0}, {}, [(WORKERS.format(1),)]),
        (HUNGRY, CLIP, {0: 3.0, 2: 9.0}, {"clips": 1000}, [(CACHE, "1.0 of 64 GiB"), (WORKERS.format(2),)]),
        (HUNGRY, CLIP, {0: 1.0, 1: 2.0, 2: 3.0}, {},
         [(CACHE, "9.8 of 64 GiB"), (WORKERS.format(2),), ("store", "1080 pixels", "256", "75%")]),
        (HUNGRY, SMALL, {0: 1.0, 2: 3.0}, {"workers": 2}, [("more or faster cores: ",)]),
    ],
    ids=["fed", "fewest workers", "a worker though alone is fast", "small data", "too few cores", "better machine"],
)  # fmt: skip
def test_the_fewest_workers_that_suffice_or_a_cache_or_other_remedies_are_advised(
    machine, step, clip, rates, change, expected
):
    lines = advise(step, clip, rates, ENGINE, **HERE | change)
    for line, (start, *figures) in zip(lines, expected, strict=True):
        assert line.startswith(start)
        assert all(figure in line for figure in figures)


@pytest.mark.parametrize(
    ("change", "bf16", "options"),
    [
        ({"fast": False}, True, ["--engine.fast true"]),
        ({}, True, ["--engine.precision bf16-mixed"]),
        ({"activation_checkpointing": True}, False, ["--engine.activation_checkpointing false"]),
        ({"precision": "bf16-mixed"}, True, []),
    ],
)
def test_switches_that_are_off_are_named(machine, monkeypatch, change, bf16, options):
    monkeypatch.setattr(advice, "bf16_is_faster", lambda _device: bf16)
    lines = advise(FED, CLIP, {}, replace(ENGINE, **change), **HERE)
    assert [line.partition(":")[0] for line in lines] == options


def test_a_part_counts_without_what_is_inside_it_and_warming_up_does_not_count(monkeypatch):
    clock, now = _StepProfiler(torch.device("cpu"), steps=2), [0.0]
    monkeypatch.setattr("stabn.training.profile.time.perf_counter", lambda: now[0])

    def last(seconds: float) -> None:
        now[0] += seconds

    for number in range(WARM_UP + 3):
        with clock.profile("[_TrainingEpochLoop].train_dataloader_next"):
            last(100 if number in (0, WARM_UP + 2) else 1)
        with clock.profile("run_training_batch"):
            last(2)
            with clock.profile("[LightningModule]Training.optimizer_step"):
                last(4)
                with clock.profile("[Strategy]SingleDeviceStrategy.training_step"):
                    last(8)
                last(16)
    assert clock.batches == 2
    assert clock.seconds == dict.fromkeys(PARTS, 0.0) | {WAITING: 2, "forward": 16, "optimizer": 40}
    assert clock.total == 2 * (1 + 2 + 4 + 8 + 16)


ARGUMENTS = {"network": NetworkRecipe("tiny"), "optimizer": QUICK, **COMMAND_SETTINGS}


@pytest.mark.parametrize("cache", [True, False])
def test_the_parts_of_a_step_add_up_and_nothing_is_written(tabletop, tmp_path, monkeypatch, capsys, cache):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stabn.training.profile._SECONDS", 0.2)
    arguments = ARGUMENTS | {"loader": LoaderRecipe(cache=cache)}
    report = profiling_verbs.profile_command(DataSource(str(tabletop)), steps=3, **arguments)
    assert list(tmp_path.iterdir()) == []
    assert set(report["seconds_of_step"]) == {*PARTS, REST}
    assert min(report["seconds_of_step"].values()) >= 0
    working = sum(spent for part, spent in report["seconds_of_step"].items() if part != WAITING)
    assert report["clips_per_second_wanted"] == pytest.approx(report["clips_per_step"] / working, rel=0.01)
    assert all(report["seconds_of_step"][part] > 0 for part in ("forward", "backward", "optimizer"))
    assert (report["clips_per_second_by_workers"] == {}) == cache
    output = capsys.readouterr().out
    assert all(part in output for part in PARTS)
    assert "GiB" in output


@pytest.mark.parametrize("change", [{"accumulate": 8}, {"epochs": 1, "batch_size": 64}])
def test_data_of_a_batch_or_two_can_be_measured_as_well(tabletop, monkeypatch, change):
    monkeypatch.setattr("stabn.training.profile._SECONDS", 0.1)
    arguments = ARGUMENTS | {"optimizer": replace(QUICK, **change)}
    report = profiling_verbs.profile_command(DataSource(str(tabletop)), steps=2, **arguments)
    assert report["steps"] == 2


def test_several_devices_and_no_steps_are_refused(tabletop):
    arguments = ARGUMENTS | {"engine": EngineRecipe(accelerator="cpu", devices="2")}
    with pytest.raises(UserError, match=r"--engine\.devices: got 2"):
        profiling_verbs.profile_command(DataSource(str(tabletop)), **arguments)
    with pytest.raises(UserError, match="--steps: got 0"):
        profiling_verbs.profile_command(DataSource(str(tabletop)), steps=0, **ARGUMENTS)


def test_whole_turns_of_all_workers_are_counted(monkeypatch):
    now, given = [0.0], [0]

    class Batch:
        clip_ids = ("a",) * 8

    def batches():
        while True:
            if given[0] % 4 == 0:
                now[0] += 10.0  # four workers are ready at once, every ten seconds
            given[0] += 1
            yield Batch()

    monkeypatch.setattr("stabn.training.profile.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("stabn.training.profile.DataLoader", lambda *_, **__: batches())
    sample = Sample("a", Path("none.mp4"), 0, "train")
    dataset = VideoDataset([sample], SETTINGS["preprocessing"], class_names=["b"])
    assert profiling._clips_per_second(dataset, 8, 4) == pytest.approx(3.2)
