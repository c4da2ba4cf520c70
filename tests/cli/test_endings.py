"""How a command ends when something goes wrong that no one foresaw: with a line, and a status that tells."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smolora_core.cli import main

MODULE = [sys.executable, "-m", "smolora_core"]
FAILING = (
    "from smolora_core import hookimpl\n"
    "@hookimpl\n"
    "def smolora_check_config(config):\n"
    "    raise FileExistsError('out is there\\nalready')\n"
)


def test_an_error_that_nobody_foresaw_is_a_line_with_its_notes(place: Path, smolora) -> None:
    (place / "mine.py").write_text(FAILING)
    status, out, err = smolora("check", "run.yaml", "--plugin", "mine.py")
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        "error: FileExistsError: out is there already",
        "raised by plugin 'mine' (mine.py) while calling smolora_check_config",
        "run again with --debug for the traceback",
    ]


def test_debug_shows_the_traceback(place: Path) -> None:
    (place / "mine.py").write_text(FAILING)
    with pytest.raises(FileExistsError):
        main(["check", "run.yaml", "--plugin", "mine.py", "--debug"])


def test_an_interrupt_is_a_line(place: Path, smolora) -> None:
    (place / "mine.py").write_text("raise KeyboardInterrupt\n")
    assert smolora("check", "run.yaml", "--plugin", "mine.py") == (130, "", "interrupted\n")


def test_ctrl_c_ends_a_command(place: Path) -> None:
    (place / "mine.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)\n")
    command = [*MODULE, "check", "run.yaml", "--plugin", "mine.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "here\n"
        time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        assert running.communicate(timeout=30)[1] == "interrupted\n"
    assert running.returncode == 130


@pytest.mark.parametrize("arguments", [["check", "run.yaml"], ["demo", "--rows"], ["--help"], ["components"]])
def test_a_reader_that_has_had_enough_is_no_error(place: Path, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*MODULE, *arguments], stdout=writing, stderr=subprocess.PIPE, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_output_that_cannot_be_written_is_an_error(place: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*MODULE, "check", "run.yaml"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "error: the output was cut short ([Errno 28] No space left on device)\n")


def test_a_training_outlives_its_reader(place: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*MODULE, "train", "run.yaml"], stdout=writing, stderr=subprocess.PIPE, timeout=120)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (place / "out" / "adapter" / "manifest.json").is_file()


def test_a_training_without_a_stdout_ends_well(place: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *MODULE, "train", "run.yaml"], stderr=subprocess.PIPE, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_old_encoding_replaces_characters(place: Path) -> None:
    (place / "größer.yaml").write_text((place / "run.yaml").read_text())
    done = subprocess.run(
        [*MODULE, "check", "größer.yaml"], env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines()[-1] == b"ok       next: smolora train 'gr??er.yaml'"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere OpenMP knows no such number")
@pytest.mark.parametrize(
    ("given", "taken"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "9"}, "9"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
    ids=["nothing said", "a number said", "a policy said"],
)
def test_threads_wait_briefly_unless_told_otherwise(
    smolora, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], taken: str | None
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        # So that it is taken away again too.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    smolora("--version")
    assert os.environ.get("GOMP_SPINCOUNT") == taken
