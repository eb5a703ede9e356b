"""Two processes that train and evaluate as one; they talk over gloo, on CPUs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import other_process
import pytest
import torch
from safetensors.torch import load_file

from stabn.cli.main import main

TRAIN = [
    "--preprocessing.sampling.mode=uniform",
    "--preprocessing.sampling.frames=8",
    "--preprocessing.resize=36",
    "--preprocessing.crop=32",
    "--network.backbone=tiny",
    "--optimizer.name=sgd",
    "--optimizer.learning_rate=0.02",
    "--optimizer.batch_size=5",
    "--optimizer.epochs=3",
    "--loader.cache=true",
    "--engine.accelerator=cpu",
    "--seed=3",
]


def train(data: Path, out: Path, processes: int) -> list[str]:
    words = ["train", "--data.annotations", str(data), "--out", str(out), *TRAIN]
    return [*words, f"--engine.devices={processes}", "--engine.precision=64-true"]


def run_two(words: list[str], log: Path) -> str:
    """The output of two processes of one command, with the variables that torchrun sets; it must end well."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "OMP_NUM_THREADS": "1"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
    ranks = [other_process.start(words, log, **shared, RANK=rank, LOCAL_RANK=rank) for rank in "01"]
    for process in ranks:
        process.join(300)
    assert [process.exitcode for process in ranks] == [0, 0], log.read_text()[-3000:]
    assert "FutureWarning" not in log.read_text()
    return log.read_text()


def workers_of(launcher: int) -> list[int]:
    stats = [(int(p.name), (p / "stat").read_text()) for p in Path("/proc").iterdir() if p.name.isdecimal()]
    return sorted(pid for pid, stat in stats if int(stat.rpartition(")")[2].split()[1]) == launcher)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def runs(tabletop, tmp_path_factory) -> dict[int, Path]:
    """Number of processes -> their run."""
    outs = {count: tmp_path_factory.mktemp("runs") / str(count) for count in (1, 2)}
    main(train(tabletop, outs[1], 1))
    run_two(train(tabletop, outs[2], 2), outs[2].with_suffix(".log"))
    return outs


def test_two_processes_learn_the_weights_that_one_does_with_the_same_batches_and_dropout(runs):
    expected, actual = weights(runs[1]), weights(runs[2])
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-6, atol=1e-7)
    curves = [json.loads((out / "curves.json").read_text())["epochs"] for out in runs.values()]
    for one, two in zip(*curves, strict=True):
        assert two == pytest.approx(one, abs=1e-5)


def test_in_evaluation_each_clip_counts_once(runs, tmp_path, capsys):
    words = ["evaluate", str(runs[1]), "--engine.accelerator=cpu", "--json"]
    files = [tmp_path / "1.json", tmp_path / "2.json"]
    main([*words, str(files[0]), "--engine.devices=1"])
    table = "\n".join(capsys.readouterr().out.splitlines()[-3:])
    output = run_two([*words, str(files[1]), "--engine.devices=2"], tmp_path / "log")
    one, two = (json.loads(file.read_text()) for file in files)
    assert one == two
    assert output.count(table) == 1, "one process speaks for both"


def test_one_of_two_processes_killed_and_all_started_again_end_with_the_same_weights(runs, tabletop, tmp_path):
    out = tmp_path / "killed"
    words = train(tabletop, out, 2)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "stabn.cli"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        started = subprocess.Popen([*launcher, *words], env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        while not (out / "checkpoints" / "last.ckpt").exists():
            assert started.poll() is None, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.02)
        os.kill(workers_of(started.pid)[-1], signal.SIGKILL)
        assert started.wait(timeout=120) != 0
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
    assert not json.loads((out / "run.json").read_text())["complete"]
    run_two(words, tmp_path / "log")
    expected, actual = weights(runs[2]), weights(out)
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_more_processes_than_clips_of_a_batch_are_refused(tabletop, tmp_path, monkeypatch, one_line):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "tests"}.items():
        monkeypatch.setenv(name, value)
    words = [w.replace("batch_size=5", "batch_size=1") for w in train(tabletop, tmp_path / "out", 2)]
    assert "engine.devices: got 2 processes" in one_line(*words)
