"""What every test gets: no network, and nothing of the settings of the machine it runs on."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")
# Tests share the processors, and tiny models gain nothing from more threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Those that are about threads must not keep the others waiting by waiting actively.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.delenv("SMOLORA_DISABLE_PLUGINS", raising=False)
    monkeypatch.setenv("SMOLORA_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _signals_as_a_person_has_them() -> Iterator[None]:
    """A suite in a shell's background ignores SIGINT, one under nohup SIGHUP, and their children would too."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {each: signal.signal(each, default) for each, default in defaults.items()}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random Llama."""
    from tests.support.models import save_llama

    return save_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random GPT-2."""
    from tests.support.models import save_gpt2

    return save_gpt2(tmp_path_factory.mktemp("models") / "gpt2")


@pytest.fixture
def place(tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a newcomer has it: a model, some rows and a config, with the shell standing in it."""
    shutil.copytree(llama, tmp_path / "tiny")
    rows = [
        {"text": f"the film was {word} and long, {number} of us said"}
        for number in range(6)
        for word in ("good", "bad", "short", "fine")
    ]
    (tmp_path / "reviews.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (tmp_path / "run.yaml").write_text(
        "model: ./tiny\n"
        "output_dir: out\n"
        "data:\n"
        "  train: reviews.jsonl\n"
        "training: {max_steps: 3, logging_steps: 1, gradient_accumulation_steps: 1}\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def smolora(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line: status, output, errors."""
    from smolora_core.cli import main

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main(arguments)
        return status, *capfd.readouterr()

    return run
