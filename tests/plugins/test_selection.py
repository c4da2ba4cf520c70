"""From the names in a config to components with their options."""

import pytest

from smolora_core import PluginError
from smolora_core.config import parse_flags, resolve
from smolora_core.config.document import Document
from smolora_core.plugins import PluginManager
from smolora_core.plugins.selection import choose_components

ACME = """
    from __future__ import annotations

    @attrs.frozen
    class Words:
        size: int = 200
        by: str | None = None

    @hookimpl
    def smolora_preprocessors():
        yield Preprocessor(name="words", summary="", implementation="acme:words", options=Words)
        yield Preprocessor(name="bare", summary="", implementation="acme:words")

    @hookimpl
    def smolora_losses():
        yield Loss(name="hinge", summary="", implementation="acme:words")

    def words(row, **options):
        return options
"""


@pytest.fixture
def choose(site):
    site.add("acme", ACME.replace("    from __future__ import annotations\n", ""))
    path = site.folder / "acme.py"
    path.write_text("from __future__ import annotations\n" + path.read_text())

    def choose(*flags, **values):
        document = Document({"model": "tiny", "data": {"train": "rows.jsonl"}, "task": "causal-lm", **values}, {"": "run.yaml"})
        return choose_components(resolve(document, parse_flags(flags)[1]), PluginManager.create().registry, None)

    return choose


PREPROCESSORS = {"train": "rows.jsonl", "preprocessors": ["bare", {"name": "words", "size": 100}]}


def test_components_are_chosen_in_the_users_order_with_their_origin(choose):
    assert list(map(str, choose(data=PREPROCESSORS).preprocessors)) == ["bare (acme 1.2)", "words (acme 1.2)"]


def test_options_are_bound_when_the_component_is_built(choose):
    assert choose(data=PREPROCESSORS).preprocessors[1].build()({}) == {"size": 100, "by": None}


def test_options_are_reached_by_flags(choose):
    words = choose("--data.preprocessors.words.by", "line", data=PREPROCESSORS).preprocessors[1]
    assert (words.options.size, words.options.by) == (100, "line")


def test_the_task_gives_the_loss_when_the_config_names_none(choose):
    assert choose().loss.name == "cross-entropy"


def test_a_loss_in_the_config_takes_the_place_of_the_tasks(choose):
    assert str(choose(loss="hinge").loss) == "hinge (acme 1.2)"


def test_unknown_names_and_unusable_options_are_told_together(choose):
    with pytest.raises(PluginError) as caught:
        choose("--data.preprocessors.words.size", "many", "--loss=focl", data=PREPROCESSORS, memory=[{"name": "clear-cash"}])
    assert str(caught.value).split("\n") == [
        "--loss no loss is named 'focl'; did you mean 'focal'?",
        "--data.preprocessors.words.size data.preprocessors.1.size must be an integer, got 'many'",
        "run.yaml no memory strategy is named 'clear-cash'; did you mean 'clear-cache'?",
    ]


def test_an_option_that_a_component_does_not_have_is_refused(choose):
    with pytest.raises(PluginError) as caught:
        choose("--data.preprocessors.words.sise", "3", data=PREPROCESSORS)
    assert str(caught.value) == (
        "--data.preprocessors.words.sise unknown key 'sise' in data.preprocessors.1 'words' (acme 1.2); did you mean 'size'?"
    )


def test_an_option_for_a_component_without_options_is_refused(choose):
    with pytest.raises(PluginError) as caught:
        choose("--data.preprocessors.bare.size", "3", data=PREPROCESSORS)
    assert str(caught.value) == "--data.preprocessors.bare.size 'bare' (acme 1.2) takes no options, got 'size'"
