"""The caches of a device are cleared by exactly the functions that do it, when it is time, and nowhere else."""

import gc
from types import SimpleNamespace

import pytest
import torch

from smolora_core import PluginError, SmoLoRA, TrainingConfig
from smolora_plugins.memory.clear_cache import ClearDeviceCache

ROWS = [{"text": f"the film was good, said {number} of us"} for number in range(8)]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is called of modules that stand in for those of torch, and of the garbage collector."""
    calls: list[str] = []

    def fake(*names: str) -> SimpleNamespace:
        module, *functions = names
        return SimpleNamespace(**{name: lambda name=name: calls.append(f"{module}.{name}") for name in functions})

    monkeypatch.setattr(torch, "cuda", fake("cuda", "empty_cache", "is_available", "synchronize", "reset_peak_memory_stats"))
    monkeypatch.setattr(torch, "mps", fake("mps", "empty_cache", "clear_graph_cache", "synchronize"))
    monkeypatch.setattr(gc, "collect", lambda *generation: calls.append("gc.collect"))
    return calls


def run_on(device: str) -> SimpleNamespace:
    return SimpleNamespace(device=torch.device(device))


CLEARED = {
    "cuda": ["gc.collect", "cuda.empty_cache"],
    "mps": ["gc.collect", "mps.clear_graph_cache", "mps.empty_cache"],
}


@pytest.mark.parametrize("device", CLEARED)
def test_it_clears_when_the_interval_is_over(called, device):
    strategy = ClearDeviceCache(interval=3)
    for step in (1, 2):
        strategy.step_finished(step, run_on(device))
    assert called == []
    strategy.step_finished(3, run_on(device))
    assert called == CLEARED[device]


@pytest.mark.parametrize("device", CLEARED)
def test_it_clears_at_the_end(called, device):
    ClearDeviceCache(interval=3).run_finished(run_on(device))
    assert called == CLEARED[device]


@pytest.mark.parametrize("device", CLEARED)
def test_it_clears_when_memory_has_run_out(called, device):
    assert ClearDeviceCache(interval=3).out_of_memory(torch.OutOfMemoryError(), run_on(device))
    assert called == CLEARED[device]


def test_a_torch_without_a_graph_cache_has_none_cleared(called, monkeypatch):
    monkeypatch.delattr(torch.mps, "clear_graph_cache")
    ClearDeviceCache(interval=1).step_finished(1, run_on("mps"))
    assert called == ["gc.collect", "mps.empty_cache"]


def test_a_run_on_a_processor_does_not_even_make_the_strategy(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(ClearDeviceCache, "__init__", lambda *arguments, **named: pytest.fail("was made"))
    told = []
    lora = SmoLoRA(
        str(llama),
        ROWS,
        output_dir=str(tmp_path / "run"),
        training=TrainingConfig(max_steps=1, max_seq_length=64),
        listener=told.append,
    )
    lora.train()
    assert "memory" not in {event.kind for event in told}


def test_an_interval_below_one_is_refused(llama, tmp_path):
    memory = [{"name": "clear-cache", "interval": 0}]
    with pytest.raises(PluginError) as error:
        SmoLoRA(str(llama), ROWS, output_dir=str(tmp_path / "run"), memory=memory).train()
    assert str(error.value) == "given from Python memory.0.interval must be above 0, got 0"
