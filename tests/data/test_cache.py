"""The cache: found again when nothing changed, prepared anew when anything did, and never trusted blindly."""

import json
import multiprocessing
import os
import runpy
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import transformers

from smolora_core.config import resolve
from smolora_core.config.document import Document
from smolora_core.data.cache import cache_folder, read_entry, write_entry
from smolora_core.data.encode import EncodedBatch
from smolora_core.data.ledger import Ledger
from smolora_core.data.prepare import cache_places, recipe_for
from smolora_core.data.sources import open_source
from smolora_core.errors import DatasetError
from smolora_core.plugins import PluginChoice, PluginManager
from smolora_core.plugins.selection import choose_components
from smolora_core.plugins.source_digest import environment

PROGRAM = """
import json, os, sys
from smolora_core import train
values = json.load(open("config.json"))
if len(sys.argv) > 1:
    values["data"]["preprocessors"] = [dict(values["data"]["preprocessors"][0], **json.loads(sys.argv[1]))]

def listen(event):
    if event.kind == "data":
        print(json.dumps(event.values["cached"]), flush=True)
        # The rows are there, and nothing else is of interest.
        os._exit(0)

train(values, listener=listen)
"""

PLUGIN = """
from collections.abc import Iterable
import attrs
from smolora_core import Preprocessor, hookimpl

@attrs.frozen(kw_only=True)
class Options:
    times: int = 1

@hookimpl
def smolora_preprocessors() -> Iterable[Preprocessor]:
    yield Preprocessor(name="shout", summary="", implementation="shouting.rows:shout", options=Options)
"""

ROWS = """
from shouting.helper import louder

def shout(row, *, times):
    with open("calls.txt", "a") as file:
        file.write("called\\n")
    return {**row, "text": louder(row["text"]) * times}
"""


@pytest.fixture
def project(tmp_path: Path, llama: Path) -> Path:
    """A folder with an installed-looking plugin package, some rows, a config and a program that trains."""
    package = tmp_path / "site" / "shouting"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PLUGIN)
    (package / "rows.py").write_text(ROWS)
    (package / "helper.py").write_text("def louder(text):\n    return text + '!'\n")
    install(tmp_path, "1.0")
    rows = [json.dumps({"text": f"the cat {number}"}) for number in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    config = {
        "model": {"path": str(llama), "dtype": "float32"},
        "data": {"train": "rows.jsonl", "preprocessors": [{"name": "shout"}], "max_seq_length": 32},
        "training": {"max_steps": 1},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


def install(project: Path, version: str) -> None:
    for old in (project / "site").glob("*.dist-info"):
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    folder = project / "site" / f"shouting-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: shouting\nVersion: {version}\n")
    (folder / "entry_points.txt").write_text("[smolora]\nshouting = shouting\n")


def run_program(project: Path, arguments: list[str]) -> None:
    """Be a process that was started in the project's folder, with its packages installed."""
    os.chdir(project)
    os.environ["SMOLORA_CACHE"] = str(project / "cache")
    sys.path.insert(0, str(project / "site"))
    sys.dont_write_bytecode, sys.argv = True, ["program.py", *arguments]
    for name, stream in (("out.txt", sys.stdout), ("err.txt", sys.stderr)):
        with (project / name).open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    runpy.run_path("program.py", run_name="__main__")


def runs(project: Path, **options: Any) -> bool:
    """Train in a process of its own; return whether the preprocessor ran."""
    calls = project / "calls.txt"
    calls.unlink(missing_ok=True)
    arguments = [json.dumps(options)] if options else []
    # It imports what every one of these processes begins with, and nothing of the project's.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["smolora_core.run.execute", "transformers.models.llama", __name__])
    process = context.Process(target=run_program, args=(project, arguments))
    process.start()
    process.join()
    assert process.exitcode == 0, (project / "err.txt").read_text()
    cached = json.loads((project / "out.txt").read_text().splitlines()[-1])
    assert cached != calls.exists()
    return calls.exists()


@pytest.mark.slow
def test_another_process_finds_prepared_rows_until_the_code_of_a_step_changes(project: Path) -> None:
    assert runs(project)
    assert not runs(project)
    (project / "site" / "shouting" / "helper.py").write_text("def louder(text):\n    return text + '!!'\n")
    assert runs(project), "a changed function of another module of the package"


CHANGES: dict[str, tuple[Callable[[Path, dict[str, Any]], object], bool]] = {
    "nothing": (lambda project, config: None, False),
    "the body of a function": (
        lambda project, config: edit(project / "site/shouting/rows.py", "* times", "* times + '?'"),
        True,
    ),
    "another module of its package": (lambda project, config: edit(project / "site/shouting/helper.py", "'!'", "'!!'"), True),
    "an option": (lambda project, config: config["data"]["preprocessors"][0].update(times=2), True),
    "the version of its distribution": (lambda project, config: install(project, "1.1"), True),
    "the rows": (lambda project, config: edit(project / "rows.jsonl", "the cat 7", "the dog 7"), True),
    "the length of sequences": (lambda project, config: config["data"].update(max_seq_length=16), True),
    "what to do with bad rows": (lambda project, config: config["data"].update(on_bad_row="drop"), True),
    "the seed": (lambda project, config: config.update(seed=7), True),
    "training and the adapter": (lambda project, config: config.update(training={"max_steps": 2}, lora={"r": 4}), False),
    "the number of processes": (lambda project, config: config["data"].update(num_proc=2), False),
}


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def places(project: Path, config: dict[str, Any]) -> dict[str, Path]:
    """Name where the rows of a config are kept, as a run would."""
    environment.cache_clear()
    registry = PluginManager.create(PluginChoice()).registry
    resolved = resolve(Document(config, {}))
    choices = choose_components(resolved, registry, ["LlamaForCausalLM"])
    assert choices is not None
    for each in choices.preprocessors:
        each.build()
    tokenizer = transformers.AutoTokenizer.from_pretrained(config["model"]["path"])
    recipe = recipe_for(resolved, choices, tokenizer, 100)
    return dict(cache_places({"data.train": open_source(str(project / "rows.jsonl"))}, choices, recipe))


@pytest.mark.parametrize("change", CHANGES)
def test_rows_are_prepared_again_when_what_made_them_changes(
    project: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.syspath_prepend(str(project / "site"))
    for module in [name for name in sys.modules if name.partition(".")[0] == "shouting"]:
        monkeypatch.delitem(sys.modules, module)
    config = json.loads((project / "config.json").read_text())
    before = places(project, config)
    make, changes = CHANGES[change]
    make(project, config)
    assert (places(project, config) != before) is changes


def part(*rows: int) -> EncodedBatch:
    from pyarrow.lib import Table

    return EncodedBatch(Table.from_pydict({"input_ids": [[row] for row in rows]}), Ledger(read=len(rows)), rows, {})


def test_an_entry_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    written = write_entry(tmp_path / "entry", iter([part(1, 2), part(3)]), lambda: {"shape": "text"})
    for kept in (written, read_entry(tmp_path / "entry")):
        assert kept is not None
        assert kept.dataset["input_ids"][:] == [[1], [2], [3]]
        assert list(kept.digests) == [1, 2, 3]
        assert kept.account["shape"] == "text"


@pytest.mark.parametrize("file", ["rows.arrow", "digests.bin", "account.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_a_damaged_entry_is_no_entry_and_is_written_anew(tmp_path: Path, file: str, damage: str) -> None:
    place = tmp_path / "entry"
    write_entry(place, iter([part(1, 2)]), dict)
    held = (place / file).read_bytes()
    if damage == "remove":
        (place / file).unlink()
    else:
        (place / file).write_bytes(held[:-5] if damage == "cut" else bytes([held[0] ^ 1]) + held[1:])
    assert read_entry(place) is None
    assert write_entry(place, iter([part(1, 2)]), dict).dataset["input_ids"][:] == [[1], [2]]


def test_parts_that_fail_leave_nothing(tmp_path: Path) -> None:
    def parts() -> Any:
        yield part(1)
        raise FileNotFoundError(2, "a preprocessor's own file is missing")

    with pytest.raises(FileNotFoundError):
        write_entry(tmp_path / "cache" / "entry", parts(), dict)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError) as caught:
        write_entry(tmp_path / "file" / "entry", iter([part(1)]), dict)
    assert str(caught.value) == (
        f"{tmp_path / 'file'} prepared rows cannot be cached (File exists); "
        "set SMOLORA_CACHE to a folder with free space, or data.cache to false"
    )


def test_what_nobody_used_for_a_month_and_what_a_crash_left_is_removed(tmp_path: Path) -> None:
    entries = {"a" * 40: 20, "b" * 40: 31, f".staging-{'c' * 40}-01234567": 0.5, f".staging-{'d' * 40}-01234567": 2}
    for name, days in {**entries, "thesis": 400}.items():
        write_entry(tmp_path / name, iter([part(1)]), dict)
        then = time.time() - days * 24 * 3600
        os.utime(tmp_path / name, (then, then))
    write_entry(tmp_path / "fresh", iter([part(1)]), dict)
    left = {"a" * 40, f".staging-{'c' * 40}-01234567", "thesis", "fresh"}
    assert {entry.name for entry in tmp_path.iterdir()} == left


def test_of_two_runs_that_write_one_entry_each_gets_it(tmp_path: Path) -> None:
    def writes(at: int) -> list[int]:
        barrier.wait()
        return write_entry(tmp_path / f"{at:040x}", iter([part(1, 2)]), dict).dataset["input_ids"][:]

    barrier = threading.Barrier(3)
    with ThreadPoolExecutor(3) as pool:
        for at in range(20):
            assert list(pool.map(writes, [at] * 3)) == [[[1], [2]]] * 3


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SMOLORA_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine" / "rows"
    monkeypatch.delenv("SMOLORA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "smolora" / "rows"
