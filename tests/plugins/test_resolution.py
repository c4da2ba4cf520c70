"""Which component a name means."""

import pytest

from smolora_core import Loss, PluginError, Targets, hookimpl
from smolora_core.plugins import PluginChoice, PluginManager, Tier


class Offering:
    def __init__(self, name, replaces=None):
        self.record = Loss(name=name, summary="", implementation=print, replaces=replaces)

    @hookimpl
    def smolora_losses(self):
        yield self.record


def owner(name, *objects):
    return str(PluginManager.create(PluginChoice(objects=objects)).registry.resolve(Loss, name).origin)


def problems():
    return [str(problem) for problem in PluginManager.create().problems]


def test_a_built_in_is_found_by_its_name():
    assert PluginManager.create().registry.resolve(Loss, "cross-entropy").origin.tier is Tier.BUILT_IN


def test_a_third_party_is_found_by_its_name(site):
    site.add_loss("acme", "hinge")
    assert owner("hinge") == "acme 1.2"


def test_a_third_party_is_found_by_its_qualified_name(site):
    site.add_loss("acme", "hinge")
    assert owner("acme:hinge") == "acme 1.2"


def test_what_the_user_handed_over_wins_over_a_third_party(site):
    site.add_loss("acme", "hinge")
    assert owner("hinge", Offering("hinge")) == "given from Python"


def test_what_the_user_handed_over_wins_over_a_built_in():
    assert owner("cross-entropy", Offering("cross-entropy")) == "given from Python"


def test_what_the_user_handed_over_takes_the_place_that_it_replaces():
    assert owner("cross-entropy", Offering("mine", replaces="cross-entropy")) == "given from Python"


def test_of_two_that_the_user_handed_over_the_last_one_counts():
    manager = PluginManager.create(PluginChoice(objects=(Offering("mine"), last := Offering("mine"))))
    assert manager.registry.resolve(Loss, "mine").component is last.record


def test_a_third_party_that_replaces_a_built_in_takes_its_name(site):
    site.add_loss("acme", "fast", replaces="cross-entropy")
    assert owner("cross-entropy") == owner("fast") == "acme 1.2"


def test_a_built_in_that_was_replaced_is_reached_by_its_qualified_name(site):
    site.add_loss("acme", "cross-entropy", replaces="cross-entropy")
    assert PluginManager.create().registry.resolve(Loss, "smolora:cross-entropy").origin.tier is Tier.BUILT_IN


def test_a_built_in_keeps_its_name_from_a_third_party_that_does_not_say_replaces(site):
    site.add_loss("acme", "cross-entropy")

    assert PluginManager.create().registry.resolve(Loss, "cross-entropy").origin.tier is Tier.BUILT_IN
    assert owner("acme:cross-entropy") == "acme 1.2"


def test_a_third_party_that_does_not_get_its_name_is_warned_about(site):
    site.add_loss("acme", "cross-entropy")
    assert problems() == [
        "plugin 'acme' (acme 1.2): its loss 'cross-entropy' does not replace the built-in of the same name; "
        "select it as 'acme:cross-entropy', or set replaces='cross-entropy' in its record"
    ]


def test_names_of_different_kinds_do_not_clash(site):
    site.add_loss("acme", "llama")
    registry = PluginManager.create().registry
    assert registry.resolve(Loss, "llama").origin.tier is Tier.THIRD_PARTY
    assert registry.resolve(Targets, "llama").origin.tier is Tier.BUILT_IN


def test_replacing_what_is_not_there_is_reported(site):
    site.add_loss("acme", "fast", replaces="cross-entropie")
    assert problems() == [
        "plugin 'acme' (acme 1.2): 'fast' replaces 'cross-entropie', which is not a built-in loss; "
        "did you mean 'cross-entropy'?"
    ]


def test_replacing_what_is_not_there_takes_nobody_elses_name(site):
    site.add_loss("acme", "hinge")
    site.add_loss("zeta", "other", replaces="hinge")
    assert owner("hinge") == "acme 1.2"


def test_two_third_parties_with_one_name_are_no_problem_until_it_is_used(site):
    site.add_loss("acme", "hinge")
    site.add_loss("zeta", "hinge", version="0.3")
    assert problems() == []


def test_two_third_parties_with_one_name_are_an_error_when_it_is_used(site):
    site.add_loss("acme", "hinge")
    site.add_loss("zeta", "hinge", version="0.3")
    with pytest.raises(PluginError) as caught:
        PluginManager.create().registry.resolve(Loss, "hinge", where="run.yaml:7")
    assert str(caught.value) == (
        "run.yaml:7 2 plugins offer the loss 'hinge': acme:hinge (acme 1.2), zeta:hinge (zeta 0.3); "
        "write 'acme:hinge' or 'zeta:hinge'"
    )


def test_two_third_parties_that_replace_one_built_in_are_an_error(site):
    site.add_loss("acme", "fast", replaces="cross-entropy")
    site.add_loss("zeta", "faster", replaces="cross-entropy")
    with pytest.raises(PluginError, match=r"write 'acme:fast' or 'zeta:faster'$"):
        owner("cross-entropy")


def test_of_two_third_parties_each_is_reached_by_its_qualified_name(site):
    site.add_loss("acme", "hinge")
    site.add_loss("zeta", "hinge", version="0.3")
    assert owner("zeta:hinge") == "zeta 0.3"


def test_two_plugins_of_one_distribution_with_one_name_are_told_apart_by_disabling_one(site):
    site.add_loss("acme", "hinge")
    (site.folder / "acme-1.2.dist-info" / "entry_points.txt").write_text("[smolora]\none = acme\ntwo = acme:plugin\n")
    with (site.folder / "acme.py").open("a") as module:
        module.write("\nclass plugin:\n    smolora_losses = smolora_losses\n")
    with pytest.raises(PluginError) as caught:
        owner("hinge")
    assert str(caught.value) == (
        "2 plugins offer the loss 'hinge': acme:hinge (acme 1.2), acme:hinge (acme 1.2); disable 'acme:one' or 'acme:two'"
    )


def test_a_misspelt_name_gets_the_nearest_one():
    with pytest.raises(PluginError) as caught:
        PluginManager.create().registry.resolve(Loss, "cross-entropie", where="run.yaml:7")
    assert str(caught.value) == "run.yaml:7 no loss is named 'cross-entropie'; did you mean 'cross-entropy'?"


def test_a_misspelt_qualified_name_gets_the_nearest_one(site):
    site.add_loss("acme", "hinge")
    with pytest.raises(PluginError, match=r"^no loss is named 'acme:hing'; did you mean 'acme:hinge'\?$"):
        owner("acme:hing")


def test_a_name_like_no_other_gets_all_known_ones(site):
    with pytest.raises(PluginError, match=r"^no targets record is named 'xyz'; known: .*\bgpt2\b.*\bllama\b"):
        PluginManager.create().registry.resolve(Targets, "xyz")


def test_a_name_that_is_not_there_says_which_plugins_did_not_load(site):
    site.add("acme", "import nowhere")
    with pytest.raises(PluginError) as caught:
        owner("cross-entropie")
    assert str(caught.value) == (
        "no loss is named 'cross-entropie'; did you mean 'cross-entropy'?; not loaded: plugin 'acme' (acme 1.2): "
        "cannot be imported (ModuleNotFoundError: No module named 'nowhere')"
    )


def test_a_component_that_is_what_its_name_means_is_default_for_its_name(site):
    site.add_loss("acme", "cross-entropy")
    registry = PluginManager.create().registry
    holders = [found.origin.tier for found in registry.of_kind(Loss) if registry.is_default_for_its_name(found)]
    assert Tier.BUILT_IN in holders
    assert Tier.THIRD_PARTY not in holders


def test_components_know_who_brought_them(site):
    site.add_loss("acme", "hinge")
    registry = PluginManager.create().registry
    assert ("acme:hinge", "acme 1.2") in [(found.qualified_name, str(found.origin)) for found in registry]
