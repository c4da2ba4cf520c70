"""A run that is killed at random times loses nothing that it has committed."""

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.slow
# It notices itself that a run gets stuck.
@pytest.mark.timeout(1200)
def test_kills_at_random_times_lose_nothing(llama, rows, tmp_path):
    kills = int(os.environ.get("SMOLORA_KILLS", "50"))
    command = [sys.executable, "-m", "tests.support.kill_at_random", llama, rows, tmp_path / "run", "--kills", str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["lost"], result["left"]) == ([], [])
    # Most runs live long enough to go on from what is there, and some to commit more.
    assert result["resumes"] > 0.5 * kills
    assert result["step"] > 10
