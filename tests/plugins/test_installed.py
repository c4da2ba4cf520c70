"""Two separate distributions, built by hatchling and installed by pip, as a user would have them."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

LOOK = """
import json, sys
from smolora_core import Loss
from smolora_core.plugins import PluginChoice, PluginManager

manager = PluginManager.create(PluginChoice(disable=tuple(sys.argv[1:])))
print(json.dumps({
    "plugins": {found.origin.plugin: [str(found.origin), found.state] for found in manager.plugins},
    "losses": {found.component.name: str(found.origin) for found in manager.registry.of_kind(Loss)},
    "problems": [str(problem) for problem in manager.problems],
    "imported": sorted({"acme_smolora", "broken_smolora", "torch"} & set(sys.modules)),
}))
"""

BUILD = """
import torch
from smolora_core import Loss
from smolora_core.plugins import PluginManager, build

chosen = PluginManager.create().registry.resolve(Loss, "smooth")
loss = build(chosen, chosen.component.options(amount=0.0))
print(loss(torch.zeros(3, 4), torch.tensor([0, 1, 2])).tolist())
"""


def run(python, code, *arguments):
    done = subprocess.run([python, "-P", "-c", code, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_component_of_an_installed_package_is_there_with_its_version(installed_python):
    assert run(installed_python, LOOK)["losses"]["smooth"] == "acme-smolora 1.4"


def test_listing_imports_the_plugin_but_not_its_implementation(installed_python):
    assert run(installed_python, LOOK)["imported"] == ["acme_smolora"]


def test_a_blocked_package_is_not_imported(installed_python):
    seen = run(installed_python, LOOK, "acme-smolora")

    assert seen["plugins"]["acme"] == ["acme-smolora 1.4", "blocked"]
    assert "smooth" not in seen["losses"]
    assert "acme_smolora" not in seen["imported"]


def test_a_package_that_cannot_be_imported_is_one_problem_and_disturbs_nobody(installed_python):
    seen = run(installed_python, LOOK)

    assert seen["problems"] == [
        "plugin 'broken' (broken-smolora 0.9): cannot be imported (ImportError: needs a library that is not installed)"
    ]
    assert seen["plugins"]["broken"] == ["broken-smolora 0.9", "failed"]
    assert seen["plugins"]["acme"] == ["acme-smolora 1.4", "loaded"]


def test_the_loss_of_an_installed_package_computes(installed_python):
    assert run(installed_python, BUILD) == pytest.approx([1.3862943] * 3)


BLOCKED = (
    "warning: plugin 'broken' (broken-smolora 0.9): cannot be imported (ImportError: needs a library that is not installed)"
)


@pytest.fixture
def smolora(installed_python: Path, llama: Path, tmp_path: Path):
    """The command line of that environment, in a folder with a model, rows and a config that uses both components."""
    shutil.copytree(llama, tmp_path / "tiny")
    rows = [{"text": f"the film was good, said {number} of us"} for number in range(8)] + [{"text": "WE LIKED IT"}]
    (tmp_path / "reviews.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "run.yaml").write_text(
        "model: ./tiny\n"
        "output_dir: out\n"
        "data: {train: reviews.jsonl, preprocessors: [no-shouting]}\n"
        "loss: {name: smooth, amount: 0.2}\n"
        "training: {max_steps: 2}\n"
    )

    def run(*arguments: str) -> tuple[int, str, list[str]]:
        done = subprocess.run(
            [installed_python, "-P", "-m", "smolora_core", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout, done.stderr.splitlines()

    return run


def test_a_run_uses_the_package_by_name_and_a_broken_one_costs_a_line(smolora, tmp_path: Path):
    status, _, errors = smolora("train", "run.yaml")

    assert (status, errors) == (0, [BLOCKED])
    ledger = json.loads((tmp_path / "out" / "ledger.json").read_text())["train"]
    assert [(entry["step"], entry["reason"], entry["rows"]) for entry in ledger["dropped"]] == [("no-shouting", "shouted", 1)]
    assert 'loss: {"name": "smooth", "amount": 0.2}  # run.yaml:4' in (tmp_path / "out" / "run.yaml").read_text()


def test_a_run_that_names_a_component_of_the_broken_package_stops(smolora):
    status, _, errors = smolora("train", "run.yaml", "--loss", "needy")

    assert status == 2
    assert errors[-1].startswith("--loss no loss is named 'needy'; ")
    assert "not loaded: plugin 'broken' (broken-smolora 0.9): cannot be imported" in errors[-1]


def test_a_run_that_requires_the_broken_package_stops(smolora):
    status, _, errors = smolora("train", "run.yaml", "--plugins.require", "[broken-smolora]")

    assert status == 2
    assert errors[-1].startswith("plugin 'broken' (broken-smolora 0.9): is required, but cannot be imported")


def test_the_list_shows_the_version_and_what_became_of_each(smolora):
    _, out, _ = smolora("plugins", "list")

    lines = [line.split() for line in out.splitlines()]
    assert ["acme", "acme-smolora", "1.4", "third-party", "loaded", "no-shouting,", "smooth"] in lines
    assert ["broken", "broken-smolora", "0.9", "third-party", "failed"] in [line[:5] for line in lines]


def test_a_blocked_package_is_listed_and_its_names_are_not_found(smolora):
    _, out, errors = smolora("plugins", "list", "--no-plugin", "acme-smolora", "--no-plugin", "broken")
    assert ["acme", "acme-smolora", "1.4", "third-party", "blocked"] in [line.split() for line in out.splitlines()]
    assert errors == []

    status, _, errors = smolora("train", "run.yaml", "--no-plugins")
    assert status == 2
    assert [line.partition(";")[0] for line in errors] == [
        "run.yaml:4 no loss is named 'smooth'",
        "run.yaml:3 no preprocessor is named 'no-shouting'",
    ]


def test_strict_plugins_make_the_broken_package_fatal(smolora):
    status, _, errors = smolora("check", "run.yaml", "--strict-plugins")

    assert (status, errors) == (2, [BLOCKED.removeprefix("warning: ")])
