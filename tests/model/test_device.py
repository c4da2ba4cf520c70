"""Where to compute, and in which number format."""

import pytest
import torch

from smolora_core.errors import ConfigError
from smolora_core.model.device import choose_dtype, free_memory, pick_device

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_format_that_is_named_is_taken(name):
    precision = choose_dtype(name, CPU, 32, 64)
    assert (precision.dtype, precision.reason) == (getattr(torch, name), "as configured")


def test_the_faster_format_is_measured():
    precision = choose_dtype("auto", CPU, 32, 64)
    assert precision.dtype in (torch.float32, torch.bfloat16)
    assert "measured" in precision.reason


def test_the_processor_is_always_there():
    assert pick_device("cpu") == CPU


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="has an accelerator")
@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_an_error(name):
    assert pick_device("auto") == CPU
    with pytest.raises(ConfigError) as error:
        pick_device(name, "run.yaml:2")
    assert str(error.value) == f"run.yaml:2 no {name} device available; available: cpu"


def test_free_memory_is_what_the_tightest_limit_leaves(tmp_path):
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    write("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    write("proc/self/status", "VmRSS: 300 kB\nRssAnon: 200 kB\n")
    assert free_memory(CPU, tmp_path) == 8200 * 1024
    write("proc/self/cgroup", "0::/jobs/mine\n")
    write("sys/fs/cgroup/jobs/mine/memory.max", "max\n")
    write("sys/fs/cgroup/jobs/memory.max", "4096000\n")
    write("sys/fs/cgroup/jobs/memory.current", "2048000\n")
    write("sys/fs/cgroup/jobs/memory.stat", "anon 5\ninactive_file 1024\n")
    assert free_memory(CPU, tmp_path) == 2048000 + 1024 + 200 * 1024
