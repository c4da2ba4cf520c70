"""Where the time of a run, or of any code, goes."""

import json
import pstats
from pathlib import Path

import pytest
import torch

from smolora_core import ConfigError, profile_code
from smolora_core.cli import main
from smolora_core.training.profiling import costs


def busy() -> None:
    for number in range(300_000):
        number * number


def test_a_profile_names_what_was_called(tmp_path):
    with profile_code(tmp_path / "here.pstats"):
        busy()
    called = {name for _, _, name in pstats.Stats(str(tmp_path / "here.pstats")).stats}
    assert "busy" in called


def test_the_dearest_comes_first(tmp_path):
    with profile_code(tmp_path / "here.pstats"):
        busy()
        sorted([3, 1, 2])
    found = costs(tmp_path / "here.pstats")
    assert found[0].what.startswith("tests/training/test_profiling.py:") and found[0].what.endswith(" busy")
    assert found[0].calls == 1 and found[0].seconds > 0
    assert sum(cost.share for cost in found) <= 1.001
    assert [cost.seconds for cost in found] == sorted((cost.seconds for cost in found), reverse=True)


def test_a_json_file_is_a_trace_of_torch(tmp_path):
    with profile_code(tmp_path / "trace.json"):
        torch.ones(64, 64) @ torch.ones(64, 64)
    trace = json.loads((tmp_path / "trace.json").read_text())
    complete = [event for event in trace["traceEvents"] if event.get("ph") == "X"]
    assert "aten::mm" in {event["name"] for event in complete}
    assert all(isinstance(event["ts"], int | float) and event["dur"] >= 0 for event in complete)


@pytest.mark.parametrize("name", ["here.pstats", "trace.json"])
def test_a_block_that_raises_leaves_its_profile(tmp_path, name):
    with pytest.raises(ZeroDivisionError), profile_code(tmp_path / name):
        torch.ones(2) @ torch.ones(2) / (1 // 0)
    assert (tmp_path / name).stat().st_size > 0


def test_a_folder_that_is_not_there_is_named_before_the_block_runs():
    with pytest.raises(ConfigError) as error, profile_code(Path("nowhere") / "here.pstats"):
        pytest.fail("it ran")
    assert str(error.value) == f"profile_code(): the folder of {str(Path('nowhere') / 'here.pstats')!r} does not exist"


def test_train_with_profile_says_what_cost_most(llama, tmp_path, capfd):
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"text": f"the film was good {n}"}) for n in range(8)))
    flags = ["--model", str(llama), "--data.train", str(tmp_path / "rows.jsonl"), "--output_dir", str(tmp_path / "run")]
    assert main(["train", *flags, "--training.max_steps", "2", "--profile"]) == 0
    shown = capfd.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(shown) if line.startswith("  profile"))
    assert shown[at].endswith("profile.pstats")
    costs_shown = shown[at + 1 : at + 11]
    assert len(costs_shown) == 10 and all(" % " in line and " calls  " in line for line in costs_shown)
    assert pstats.Stats(str(tmp_path / "run" / "profile.pstats")).total_calls > 0
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert len(next(event["costs"] for event in events if event["event"] == "profile")) == 10
