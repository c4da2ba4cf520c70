"""A sweep takes for the rest of a commit only what a commit can have left."""

import pytest

from smolora_core.checkpoints.retention import INDEX
from tests.support.disks import commit, names, store


@pytest.mark.parametrize("role", ["staging", "replaced", "trash"])
@pytest.mark.parametrize("name", [".", "..", "run.yaml", "checkpoint-07", "notes"])
def test_a_sweep_leaves_what_no_commit_leaves(tmp_path, name, role):
    """Though it is a whole checkpoint."""
    planted = commit(store(tmp_path), 7).rename(tmp_path / f".{role}-{name}-0123abcd")
    assert store(tmp_path).recover() == []
    assert names(tmp_path) - {INDEX} == {planted.name}
    commit(store(tmp_path), 8)
    assert names(tmp_path) == {planted.name, "checkpoint-8", INDEX}


def test_a_sweep_removes_a_file_that_was_not_replaced(tmp_path):
    (tmp_path / ".staging-run.yaml-0123abcd").write_text("torn")
    assert store(tmp_path).recover() == ["removed an incomplete run.yaml"]
    assert names(tmp_path) == set()
