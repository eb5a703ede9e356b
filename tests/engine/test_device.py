"""What is chosen for a device; devices are made up, so that a machine without bfloat16 tests both."""

import ctypes
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import LightningModule

from stabn.engine import device
from stabn.engine.config import EngineRecipe
from stabn.engine.trainer import build_predictor, build_trainer, silence_lightning
from stabn.memory import keep_freed_memory
from stabn.nn import STABN, PlainNetwork
from stabn.nn.fast_inference import InferenceSTABN, for_inference

CPU = torch.device("cpu")


@pytest.fixture
def with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "bf16_is_faster", lambda _device: True)


@pytest.fixture
def without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "bf16_is_faster", lambda _device: False)


def test_auto_is_bfloat16_where_it_is_faster_and_a_given_precision_is_used(with_bf16):
    cpu = EngineRecipe(accelerator="cpu")
    assert cpu.resolved_precision() == cpu.with_resolved_precision().precision == "bf16-mixed"
    assert cpu.for_measurement().resolved_precision() == "32-true"
    for precision in ("32-true", "bf16-mixed", "16-mixed", "64-true"):
        engine = EngineRecipe(accelerator="cpu", precision=precision)
        assert engine.resolved_precision() == precision
        assert engine.for_measurement() == engine
    with silence_lightning():
        assert build_trainer(EngineRecipe(accelerator="cpu", devices="1")).precision == "bf16-mixed"


def test_auto_is_float32_elsewhere(without_bf16):
    assert EngineRecipe(accelerator="cpu").resolved_precision() == "32-true"


def test_one_flag_gives_plain_float32(with_bf16):
    plain = EngineRecipe(accelerator="cpu", fast=False)
    model = STABN("tiny", 3, 4)
    with silence_lightning():
        predictor, trainer = build_predictor(model, plain)
    assert predictor is model
    assert not model.training
    assert trainer.precision == "32-true"


def test_a_predictor_has_its_precision_in_its_weights_and_no_autocast_on_top(with_bf16):
    with silence_lightning():
        predictor, trainer = build_predictor(STABN("tiny", 3, 4), EngineRecipe(accelerator="cpu"))
    assert isinstance(predictor, InferenceSTABN)
    assert next(predictor.parameters()).dtype == torch.bfloat16
    assert trainer.precision == "32-true"
    clip = torch.randn(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    with trainer.precision_plugin.forward_context():
        assert predictor(clip).logits.dtype == torch.float32


def test_double_precision_and_networks_of_other_classes_stay_themselves():
    class Own(PlainNetwork):
        pass

    for model, precision in ((PlainNetwork("tiny", 3, 4), "64-true"), (Own("tiny", 3, 4), "32-true")):
        assert for_inference(model, precision, CPU) is model


@pytest.mark.parametrize("capabilities", [{"avx2": True, "amx_tile": False}, {"avx512_bf16": True}])
def test_bfloat16_is_not_faster_on_a_processor_without_amx(monkeypatch, capabilities):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert not device.bf16_is_faster(CPU)
    assert not device.bf16_is_faster(torch.device("mps"))


def test_settings_are_logged_once_in_one_line(with_bf16, caplog):
    caplog.set_level("INFO", "stabn")
    device._log_once.cache_clear()
    for _ in range(2):
        EngineRecipe(accelerator="cpu").log_settings()
    EngineRecipe(accelerator="cpu", fast=False).log_settings()
    (line,) = caplog.messages
    assert "bf16-mixed" in line
    assert "Winograd" not in line


def test_every_setting_has_a_reason_and_is_in_the_line(without_bf16):
    settings = device.compute_settings("cpu")
    line = device.describe_settings(settings)
    assert all(part in line for part in ("32-true", "Winograd", "--engine.fast false"))
    for reason in device.explain_settings(settings):
        assert reason.partition(":")[0] in line


def test_the_line_names_folding_and_winograd_for_networks_that_have_them_alone(without_bf16, caplog):
    caplog.set_level("INFO", "stabn")
    device._log_once.cache_clear()
    for can_fold in (True, False):
        EngineRecipe(accelerator="cpu").log_settings(can_fold=can_fold)
    assert [("batch norm" in line, "Winograd" in line) for line in caplog.messages] == [(True, True), (False, False)]


def test_the_reason_of_a_precision_is_the_device_or_the_option(with_bf16):
    assert device.explain_settings(device.compute_settings("cpu"))[0].startswith("bf16-mixed: ")
    assert "--engine.precision" in device.explain_settings(device.compute_settings("cpu", "32-true"))[0]


def faults(steps: str) -> list[int]:
    """What a fresh process that keeps memory prints; `faults()` there counts the page faults of 20 blocks of 16 MB."""
    program = f"""
import resource
from stabn.memory import keep_freed_memory, keep_freed_memory_later
kept = keep_freed_memory()
import torch
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(4_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
{steps}
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    kept, *counts = map(int, done.stdout.split())
    if not kept:
        pytest.skip("not glibc")
    return counts


def test_freed_memory_is_kept_and_used_again():
    (count,) = faults("faults()\nprint(int(kept), faults())")
    assert count < 20 * 4_000_000 * 4 / 4096 / 10


def test_freed_memory_that_is_kept_later_goes_back_until_then():
    steps = "keep_freed_memory_later()\nbefore = faults()\nkeep_freed_memory()\nfaults()"
    before, after = faults(f"{steps}\nprint(int(kept), before, faults())")
    assert after < before / 10


def test_training_keeps_freed_memory_from_the_end_of_its_first_step_on(monkeypatch):
    calls = []
    monkeypatch.setattr("stabn.engine.trainer.keep_freed_memory", lambda: calls.append("kept"))
    monkeypatch.setattr("stabn.engine.trainer.keep_freed_memory_later", lambda: calls.append("later"))

    class Tiny(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch, batch_idx):
            calls.append(f"batch {batch_idx}")
            return self.layer(batch).sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    def train(engine):
        calls.clear()
        with silence_lightning():
            trainer = build_trainer(engine, accumulate_grad_batches=2, max_epochs=1, enable_checkpointing=False)
            trainer.fit(Tiny(), torch.utils.data.DataLoader(torch.ones(6, 1)))
        return calls

    batches = [f"batch {k}" for k in range(6)]
    cpu = EngineRecipe(accelerator="cpu", devices="1")
    assert train(cpu) == ["kept", "later", *batches[:2], "kept", *batches[2:]]
    assert train(replace(cpu, fast=False)) == batches
    assert train(replace(cpu, activation_checkpointing=True)) == batches


def test_an_old_glibc_gets_the_highest_threshold_that_it_takes(monkeypatch):
    taken = {}

    def mallopt(option: int, value: int) -> int:
        if option == -3 and value > 2**25:
            return 0
        taken[option] = value
        return 1

    monkeypatch.setattr("stabn.memory.mallopt", lambda: mallopt)
    assert keep_freed_memory() is True
    assert taken == {-3: 2**25, -1: -1}
    assert keep_freed_memory(2**24) is True
    assert taken == {-3: 2**24, -1: 2**24}


def test_without_glibc_nothing_is_done(monkeypatch):
    monkeypatch.setattr("platform.libc_ver", lambda: ("musl", "1.2"))
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: pytest.fail("the C library was loaded"))
    assert keep_freed_memory() is False
