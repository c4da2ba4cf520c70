"""Which checkpoints may go: a rule over what their manifests say."""

from pathlib import Path

import pytest

from smolora_core.checkpoints.manifest import Manifest
from smolora_core.checkpoints.retention import Committed, Keep, best, expendable


def committed(*losses, metric="eval_loss"):
    return [
        Committed(
            Path(f"checkpoint-{seq}"),
            Manifest(run_id="run-1", step=seq, seq=seq, created_utc="", files={}, metrics={metric: loss}, config={}),
        )
        for seq, loss in enumerate(losses, start=1)
    ]


RULES = {
    "the latest two stay": ((3, 2, 1), Keep(), {1}),
    "no fewer than two stay": ((3, 2, 1), Keep(latest=1), {1}),
    "more stay if asked": ((3, 2, 1), Keep(latest=3), set()),
    "the best stays": ((1, 2, 3, 4), Keep(), {2}),
    "of equals the earlier is the best": ((1, 1, 3, 4), Keep(), {2}),
    "what is not finite is not the best": ((None, 5, float("nan"), float("-inf"), 7, 8), Keep(), {1, 3, 4}),
    "the best may be the greatest": ((1, 9, 3, 4), Keep(greater=True), {1}),
    "no best": ((1, 2, 3, 4), Keep(metric=None), {1, 2}),
    "another metric than there is": ((1, 2, 3, 4), Keep(metric="accuracy"), {1, 2}),
    "names stay": ((5, 4, 3, 2), Keep(names=["checkpoint-1"]), {2}),
    "one is all": ((1,), Keep(), set()),
    "none is none": ((), Keep(), set()),
}


@pytest.mark.parametrize("rule", RULES)
def test_what_may_go(rule):
    losses, keep, gone = RULES[rule]
    assert {each.manifest.seq for each in expendable(committed(*losses), keep, lambda each: True)} == gone


def test_nothing_goes_unless_the_latest_is_valid():
    assert expendable(committed(1, 2, 3, 4), Keep(), lambda each: each.manifest.seq != 4) == []


def test_what_is_not_valid_does_not_count():
    gone = expendable(committed(1, 6, 5, 4, 3), Keep(), lambda each: each.manifest.seq not in (1, 4))
    assert [each.manifest.seq for each in gone] == [1, 2]


def test_only_those_that_decide_are_read_back():
    asked = []
    expendable(committed(1, 6, 5, 4, 3), Keep(), lambda each: bool(asked.append(each.manifest.seq)) or True)
    assert asked == [5, 4, 1]


def test_the_best_is_found():
    assert best(committed(3, 1, 2), Keep()).manifest.seq == 2
    assert best(committed(None), Keep()) is None


def test_what_was_not_evaluated_is_not_the_best():
    evaluated, others = committed(2, 1), committed(None, None, 0, 0, 0, metric="loss")[2:]
    assert best([*evaluated, *others], Keep()).manifest.seq == 2
    assert [each.manifest.seq for each in expendable([*evaluated, *others], Keep(), lambda each: True)] == [1, 3]
