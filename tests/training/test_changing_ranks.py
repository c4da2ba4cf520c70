"""A run is resumed by one, two, four and again one process, and trains the steps of one process that was never stopped."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.support.changing_ranks import part
from tests.support.small_run import difference

PARTS = [(1, 0, 3), (2, 3, 5), (4, 5, 8), (1, 8, 10)]
"""Processes, and the steps from and to which they train; an epoch of 13 rows has two steps, of eight and of five rows."""


def resumed(base: Path, folder: Path, processes: int, first: int, last: int) -> tuple[dict[int, list[int]], dict[int, float]]:
    """Train a part; return the rows of each step over all ranks, and its loss."""
    if processes == 1:
        kept = part(base, folder, first, last)
        return {step: sorted(rows) for step, rows in kept.rows.items()}, kept.losses
    launcher = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={processes}"]
    command = [sys.executable, *launcher, "-m", "tests.support.changing_ranks", base, folder, str(first), str(last)]
    ended = subprocess.run(command, timeout=240, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    ranks = [json.loads((folder / f"{first}-{rank}.json").read_text(encoding="utf-8")) for rank in range(processes)]
    rows = {int(step): sorted(row for rank in ranks for row in rank["rows"][step]) for step in ranks[0]["rows"]}
    assert all(rank["losses"] == ranks[0]["losses"] for rank in ranks)
    return rows, {int(step): loss for step, loss in ranks[0]["losses"].items()}


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing(llama, tmp_path):
    whole = part(llama, tmp_path / "whole", 0, 10)
    rows, losses = {}, {}
    for processes, first, last in PARTS:
        its_rows, its_losses = resumed(llama, tmp_path / "parts", processes, first, last)
        rows |= its_rows
        losses |= its_losses
    assert rows == {step: sorted(each) for step, each in whole.rows.items()}
    assert sorted(map(len, rows.values())) == [5] * 5 + [8] * 5
    assert losses.keys() == whole.losses.keys() == set(range(1, 11))
    assert [losses[step] for step in range(1, 11)] == pytest.approx([whole.losses[step] for step in range(1, 11)], rel=1e-5)
    ends = [load_file(tmp_path / name / "checkpoint-10" / "adapter_model.safetensors") for name in ("parts", "whole")]
    assert difference(*ends) < 1e-4
