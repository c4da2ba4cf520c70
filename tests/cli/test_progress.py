"""`smolora train` says at once what it is doing, and on a terminal shows its progress in one line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ANNOUNCE_TORCH = """
import sys

class Announce:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "pyarrow"):
            print("importing", name, flush=True)

sys.meta_path.insert(0, Announce())
from smolora_core.cli import main
sys.exit(main(["train", "run.yaml"]))
"""


def test_the_first_status_comes_before_anything_heavy_is_imported(place: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ANNOUNCE_TORCH], capture_output=True, text=True, check=True, timeout=120)
    lines = done.stdout.splitlines()
    assert lines[0] == "  status   loading libraries"
    assert {"importing torch", "importing pyarrow"} <= set(lines[1:])


def test_a_pipe_gets_each_status_once_as_a_line(place: Path, smolora) -> None:
    _, out, _ = smolora("train", "run.yaml", "--data.eval", "0.3")
    found = [line.removeprefix("  status   ") for line in out.splitlines() if line.startswith("  status ")]
    assert found[:3] == ["loading libraries", "reading rows", "checking labels"]
    assert found[3:] == ["loading the model", "preparing the first step"]


def test_progress_leaves_nothing_in_the_log_of_events(place: Path, smolora) -> None:
    smolora("train", "run.yaml", "--data.eval", "0.3")
    events = (place / "out" / "events.jsonl").read_text()
    assert not re.search(r'"event": "(status|step|evaluating)"', events)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_shows_the_status_and_then_the_bar(place: Path) -> None:
    leader, follower = os.openpty()
    command = [sys.executable, "-m", "smolora_core", "train", "run.yaml"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(command, stdout=follower, stderr=follower, stdin=follower, env=environment)
    os.close(follower)
    shown = b""
    try:
        while part := os.read(leader, 1 << 16):
            shown += part
    except OSError:  # on Linux, the end of a terminal is an error
        pass
    os.close(leader)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert process.wait(60) == 0
    statuses = ["loading libraries", "reading rows", "loading the model", "preparing the first step"]
    at = [text.index(status) for status in [*statuses, "  train    "]]
    assert at == sorted(at)
    assert "/3  00:00" in text
    assert "it/s" not in text
