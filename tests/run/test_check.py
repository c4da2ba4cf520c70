"""What is checked before a run: by the library as by the command line, and all of it at once."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smolora_core import ConfigError, DatasetError, SmoLoRA, train
from smolora_core.cli import main
from tests.support.site import Site

POLICY = """
    @hookimpl
    def smolora_check_config(config):
        if config.lora.r > 4:
            yield Problem("lora.r is above 4, which our policy allows", hint="ask the platform team")
"""


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a package that refuses large adapters."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    Site(tmp_path / "site").add("policy", POLICY)
    yield
    sys.modules.pop("policy", None)


@pytest.fixture
def config(tmp_path: Path, llama: Path) -> dict[str, Any]:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "the cat sat"}) + "\n")
    return {
        "model": {"path": str(llama), "dtype": "float32"},
        "output_dir": str(tmp_path / "run"),
        "data": {"train": str(tmp_path / "rows.jsonl"), "max_seq_length": 32},
        "training": {"max_steps": 1},
    }


@pytest.mark.usefixtures("policy")
def test_a_policy_of_an_installed_package_stops_the_library_and_the_command_line(
    config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = "plugin 'policy' (policy 1.2): lora.r is above 4, which our policy allows; ask the platform team"
    with pytest.raises(ConfigError) as by_train:
        train(config)
    with pytest.raises(ConfigError) as by_class:
        SmoLoRA(config["model"]["path"], [{"text": "the cat sat"}], output_dir=config["output_dir"]).train()
    assert str(by_train.value) == str(by_class.value) == refused
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    assert main(["train", str(tmp_path / "run.yaml")]) == 2
    assert capsys.readouterr().err.strip() == refused
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("policy")
def test_what_a_policy_allows_trains(config: dict[str, Any]) -> None:
    assert train({**config, "lora": {"r": 4}}).status == "finished"


@pytest.mark.usefixtures("policy")
def test_the_library_reports_every_problem_at_once(config: dict[str, Any]) -> None:
    config["training"]["extra"] = {"no_such": 1}
    config["data"]["train"] = "missing.jsonl"
    with pytest.raises(ConfigError) as error:
        train(config)
    assert len(error.value.problems) == 3


def test_problems_of_one_kind_keep_their_class(config: dict[str, Any]) -> None:
    config["data"]["train"] = "missing.jsonl"
    with pytest.raises(DatasetError):
        train(config)
