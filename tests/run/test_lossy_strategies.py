"""A memory strategy that changes what is learned stays with a run that is continued; any other may come and go."""

import json
import re
from pathlib import Path

import attrs
import pytest

from smolora_core import ConfigError, MemoryStrategy, hookimpl, train

ROWS = "\n".join(json.dumps({"text": f"the film was good, said {number} of us"}) for number in range(8))


class Coarse:
    """Rounds the frozen weights."""

    def __init__(self, *, digits: int = 1) -> None:
        self._digits = digits

    def model_ready(self, model, run):
        for each in model.parameters():
            if not each.requires_grad:
                each.data = each.data.round(decimals=self._digits)


class Acme:
    """A third party with a strategy that changes what is learned, and one that does not."""

    @hookimpl
    def smolora_memory_strategies(self):
        options = attrs.make_class("Options", {"digits": attrs.field(type=int, default=1)})
        yield MemoryStrategy(name="coarse", summary="", devices=("cpu",), lossy=True, options=options, implementation=Coarse)
        yield MemoryStrategy(name="harmless", summary="", devices=("cpu",), implementation=object)


def go_on(llama: Path, folder: Path, memory: object, steps: int = 4, overrides: tuple[str, ...] = ()) -> int:
    rows = folder.with_name("rows.jsonl")
    rows.write_text(ROWS)
    config = {
        "model": {"path": str(llama), "device": "cpu"},
        "data": {"train": str(rows)},
        "output_dir": str(folder),
        "training": {"max_steps": steps, "gradient_accumulation_steps": 1},
        "checkpoints": {"save_steps": 2},
        "memory": memory,
    }
    return train(config, plugins=[Acme()], resume="auto", overrides=overrides).steps


@pytest.mark.parametrize(
    ("before", "after"),
    [(["coarse"], "none"), ("none", ["coarse"]), (["coarse"], [{"name": "coarse", "digits": 2}])],
    ids=["left out", "begun with", "with another option"],
)
def test_a_lossy_one_cannot_change(llama, tmp_path, before, after):
    go_on(llama, tmp_path / "run", before, steps=2)
    message = (
        "given from Python the model that the memory strategies produce changed since the checkpoint; "
        "this key cannot change on resume; restore it, or pass --override memory"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        go_on(llama, tmp_path / "run", after)
    assert go_on(llama, tmp_path / "run", after, overrides=("memory",)) == 4


def test_another_may_come_beside_a_lossy_one_that_stays(llama, tmp_path):
    go_on(llama, tmp_path / "run", ["coarse"], steps=2)
    assert go_on(llama, tmp_path / "run", ["harmless", {"name": "coarse", "digits": 1}]) == 4
