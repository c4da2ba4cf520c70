"""Several ranks save, resume, stop and skip together."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, llama):
    folder = tmp_path_factory.mktemp("ranks")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
    command = [*launcher, "-m", "tests.support.two_ranks_resumed", llama, folder]
    ended = subprocess.run(command, timeout=300, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]


@pytest.mark.parametrize("order", ["shuffled", "grouped", "streamed"])
def test_every_step_is_one_to_go_on_from_on_each_rank(ranks, order):
    assert [rank[order] for rank in ranks] == [[], []]


def test_a_signal_to_one_rank_ends_all_after_the_same_step(ranks):
    """After the last exchange of a step, a signal is for the next exchange: of an evaluation, or of the next step."""
    assert [rank["stopped"] for rank in ranks] == [[["SIGTERM", 3], ["SIGTERM", 2]]] * 2


def test_what_goes_wrong_on_one_rank_stops_all_and_names_everybodys_rows(ranks):
    trained = sorted(round((weight - 0.5) * 4) for rank in ranks for weights in rank["wrong"][1] for weight in weights)
    for rank in ranks:
        what, rows = rank["wrong"][0].split(";")[0].split(", on training rows ")
        assert what == "the loss is nan at step 5, after skipping 3 steps in a row"
        assert sorted(map(int, rows.split(", "))) == trained


def test_one_rank_leads_also_after_a_resume(ranks):
    """So that a tracker's callback writes once."""
    assert [rank["leads"] for rank in ranks] == [[[True, True]] * 2, [[False, False]] * 2]


def test_a_step_in_half_precision_is_skipped_also_by_a_rank_without_rows(ranks):
    assert [rank["skipped"] for rank in ranks] == [["the loss is nan at step 2; skipping this step"]] * 2
