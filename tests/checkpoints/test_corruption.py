"""Nothing that happens to a checkpoint on the disk goes unnoticed: an older one is taken, and the reason said."""

import hashlib
import json
import os
from random import Random

import attrs
import pytest

from smolora_core.checkpoints.manifest import MANIFEST, read, surplus, verify
from smolora_core.checkpoints.store import Store
from smolora_core.errors import CheckpointError
from tests.support.disks import HookedDisk, checkpoint, store, writing

FILES = {"adapter_model.safetensors": bytes(range(256)) * 8, "adapter_config.json": b'{"r": 8}', "deep/rng.bin": b"\x00" * 300}


@pytest.fixture
def run(tmp_path):
    for step in (1, 2):
        store(tmp_path).commit(checkpoint(step, loss=0.5), [("one", writing(FILES))])
    return tmp_path


def reasons(run):
    """Find the checkpoint before, and say why the newest is not it."""
    newest = store(run).newest_valid()
    assert newest.committed.manifest.step == 1
    return [str(problem).removeprefix(f"{run / 'checkpoint-2'}") for problem in newest.skipped]


def test_a_checkpoint_that_nobody_touched_is_the_newest(run):
    newest = store(run).newest_valid()
    assert (newest.committed.manifest.step, newest.skipped) == (2, ())


def flipped(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.slow
def test_a_flipped_bit_is_found(run):
    place, random = run / "checkpoint-2", Random(0)
    files = sorted(path for path in place.rglob("*") if path.is_file())
    flips = [(file, random.randrange(8 * file.stat().st_size)) for file in random.choices(files, k=2000)]
    assert {file for file, _ in flips} == {place / name for name in (*FILES, MANIFEST)}
    for file, bit in flips:
        content = file.read_bytes()
        file.write_bytes(flipped(content, bit))
        with pytest.raises(CheckpointError):
            verify(place)
        file.write_bytes(content)
    assert verify(place)


def test_no_bit_of_a_manifest_may_change(run):
    content = (run / "checkpoint-2" / MANIFEST).read_bytes()
    for bit in range(8 * len(content)):
        changed = flipped(content, bit)
        disk = HookedDisk(lambda operation, _, perform, changed=changed: changed if operation == "read" else perform())
        with pytest.raises(CheckpointError):
            read(run / "checkpoint-2", disk)


def cut(file):
    file.write_bytes(file.read_bytes()[:-1])


def zero(file):
    file.write_bytes(bytes(file.stat().st_size) if any(file.read_bytes()) else b"\x01" * file.stat().st_size)


def link(file):
    file.rename(file.with_name("moved"))
    file.symlink_to("moved")


def swap(file):
    other = file.parent / "other"
    others = [path for path in file.parents[file.parent.name == "deep"].rglob("*") if path.is_file() and path != file]
    others[0].rename(other)
    file.rename(others[0])
    other.rename(file)


def folder(file):
    file.unlink()
    file.mkdir()


def pipe(file):
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("harm", [os.unlink, cut, zero, link, swap, folder, pipe], ids=lambda harm: harm.__name__)
def test_every_other_harm_is_found(run, harm, name):
    harm(run / "checkpoint-2" / name)
    assert reasons(run)


def test_the_reason_names_the_file(run):
    place = run / "checkpoint-2"
    (place / "adapter_config.json").write_bytes(b'{"r": 9}')
    (place / "deep" / "rng.bin").unlink()
    cut(place / "adapter_model.safetensors")
    assert sorted(reasons(run)) == [
        "/adapter_config.json does not match its checksum",
        "/adapter_model.safetensors has 2047 bytes, expected 2048",
        "/deep/rng.bin is missing",
    ]


def test_a_folder_that_leads_elsewhere_is_found(run):
    """Though the file at its end is what was written."""
    deep = run / "checkpoint-2" / "deep"
    deep.rename(run / "elsewhere")
    deep.symlink_to(run / "elsewhere")
    assert reasons(run) == ["/deep/rng.bin is not a regular file"]


def test_a_checkpoint_that_is_a_link_is_none(run):
    (run / "checkpoint-2").rename(run / "elsewhere")
    (run / "checkpoint-2").symlink_to("elsewhere")
    assert reasons(run) == [" is not a regular folder"]


def test_a_checkpoint_under_another_name_is_none(run):
    (run / "checkpoint-2").rename(run / "checkpoint-3")
    newest = store(run).newest_valid()
    assert newest.committed.manifest.step == 1
    assert [problem.what for problem in newest.skipped] == ["was committed as checkpoint-2"]


def test_a_checkpoint_of_another_run_is_none(run):
    Store(folder=run, run_id="run-2").commit(checkpoint(3), [("one", writing(FILES))])
    newest = store(run).newest_valid()
    assert newest.committed.manifest.step == 2
    assert [problem.what for problem in newest.skipped] == ["belongs to another run, 'run-2'"]


def test_the_order_is_that_of_the_commits(run):
    store(run).commit(checkpoint(1), [("one", writing(FILES))])
    os.utime(run / "checkpoint-1", (0, 0))
    assert store(run).newest_valid().committed.manifest.step == 1


def test_without_a_valid_one_there_is_none(run):
    for step in (1, 2):
        cut(run / f"checkpoint-{step}" / "adapter_config.json")
    newest = store(run).newest_valid()
    assert (newest.committed, len(newest.skipped)) == (None, 2)
    assert store(run / "nowhere").newest_valid().committed is None


@pytest.mark.parametrize(
    "name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "C:out.txt", "a\\..\\out.txt", "", ".", "a//b", "a\0b", "\ud800"]
)
def test_a_name_that_leads_outside_is_damage(run, name):
    """Even in a manifest that is otherwise in order."""
    manifest = verify(run / "checkpoint-2")
    forged = attrs.evolve(manifest, files={**manifest.files, name: manifest.files["adapter_config.json"]})
    (run / "checkpoint-2" / MANIFEST).write_bytes(forged.encode())
    assert reasons(run) == ["/manifest.json is damaged"]


def test_an_unknown_schema_is_refused(run):
    file = run / "checkpoint-2" / MANIFEST
    file.write_text(file.read_text().replace('"schema": 1', '"schema": 2'))
    assert reasons(run) == ["/manifest.json has schema 2, but this version of SmoLoRA reads schema 1"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"schema": 1, "files": 3}'])
def test_what_is_no_manifest_is_said(run, content):
    (run / "checkpoint-2" / MANIFEST).write_bytes(content)
    assert len(reasons(run)) == 1


def test_what_is_not_known_yet_is_kept_as_a_fact(run):
    assert verify(run / "checkpoint-2").facts == {"device": "cpu"}


def test_further_files_are_named_and_do_no_harm(run):
    place = run / "checkpoint-2"
    (place / "deep" / "notes.txt").write_text("mine")
    (place / ".DS_Store").write_text("")
    assert surplus(place, verify(place)) == ["deep/notes.txt"]


def test_a_manifest_says_its_own_keys_itself(tmp_path):
    forged = type(checkpoint())(step=1, model=None, tokenizer=None, metrics={}, config={}, facts={"seq": 9})
    with pytest.raises(ValueError, match="'seq' is a manifest field and cannot be a fact"):
        store(tmp_path).commit(forged, [("one", writing(FILES))])
    assert not list(tmp_path.iterdir())


WRONG = {
    "run_id": 1,
    "step": "2",
    "seq": "x",
    "created_utc": None,
    "files": [],
    "metrics": [],
    "config": [1],
    "versions": [1],
    "fingerprints": "x",
    "overrides": 3,
}


def forge(folder, **values):
    """Write other values into a manifest, with a digest that is right."""
    file = folder / MANIFEST
    said = {**json.loads(file.read_text()), **values}
    del said["sha256"]

    def canonical():
        return (json.dumps(said, indent=1, sort_keys=True) + "\n").encode()

    said["sha256"] = hashlib.sha256(canonical()).hexdigest()
    file.write_bytes(canonical())


@pytest.mark.parametrize("key", WRONG)
def test_a_value_of_another_kind_is_damage(run, key):
    forge(run / "checkpoint-2", **{key: WRONG[key]})
    assert reasons(run) == ["/manifest.json is damaged"]


@pytest.mark.parametrize(
    "values",
    [
        {"seq": True},
        {"seq": -1},
        {"seq": 10**30},
        {"metrics": {"eval_loss": "0.5"}},
        {"metrics": {"eval_loss": 10**400}},
        {"overrides": [1]},
        {"files": {"a": 1}},
        {"files": {"a": {"size": "1", "sha256": "x"}}},
        {"files": {"a": {"size": 1, "sha256": 1}}},
    ],
    ids=str,
)
def test_so_is_one_further_inside(run, values):
    forge(run / "checkpoint-2", **values)
    assert reasons(run) == ["/manifest.json is damaged"]


def test_a_forgery_of_the_same_values_is_none(run):
    """Or the two above would prove nothing."""
    forge(run / "checkpoint-2", versions={"torch": "2"}, overrides=["seed"])
    assert store(run).newest_valid().skipped == ()


def test_numbers_of_another_library_come_back(tmp_path):
    import numpy

    store(tmp_path).commit(checkpoint(numpy.int64(1), loss=numpy.float32(0.5)), [("one", writing(FILES))])
    manifest = verify(tmp_path / "checkpoint-1")
    assert (manifest.step, manifest.metrics) == (1, {"loss": 0.5})
