"""Commands on real files: what they print, what they leave behind, what they import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "numpy")


def modules_after(code: str, folder: Path) -> list[str]:
    probe = f"import sys\n{code}\nprint(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", probe], cwd=folder, capture_output=True, text=True, timeout=60)
    return json.loads(done.stderr.strip().splitlines()[-1].replace("'", '"'))


@pytest.mark.parametrize(
    "code",
    [
        "import smolora_core",
        "import smolora_core.cli as c; c.main(['--help'])",
        "import smolora_core.cli as c; c.main(['train', '--help'])",
        "import smolora_core.cli as c; c.main(['generate', '--help'])",
        "import smolora_core.cli as c; c.main(['demo', '--help'])",
        "import smolora_core.cli as c; c.main(['demo', '--rows'])",
        "import smolora_core.cli as c; c.main(['plugins', 'list'])",
        "import smolora_core.cli as c; c.main(['plugins', 'info', 'losses'])",
        "import smolora_core.cli as c; c.main(['components'])",
        "import smolora_core.cli as c; assert c.main(['check', 'run.yaml']) == 0",
        "from smolora_core import LoRAConfig, SmoLoRA; SmoLoRA('./tiny', 'reviews.jsonl', lora=LoRAConfig(r=4))",
    ],
)
def test_nothing_heavy_is_imported(place: Path, code: str) -> None:
    assert modules_after(code, place) == []


def test_check_says_what_would_run(place: Path, smolora) -> None:
    status, out, err = smolora("check", "run.yaml")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "model    ./tiny  llama",
        "targets  q_proj k_proj v_proj o_proj in 8 modules  [llama, smolora 0.1.0]",
        "task     causal-lm (smolora 0.1.0)  config.json lists LlamaForCausalLM",
        "loss     cross-entropy (smolora 0.1.0)",
        "data     reviews.jsonl  text: text",
        "ok       next: smolora train run.yaml",
    ]


def test_check_prints_json_for_programs(place: Path, smolora) -> None:
    _, out, _ = smolora("check", "run.yaml", "--json", "--lora.r", "0")
    assert json.loads(out) == {
        "ok": False,
        "problems": [{"where": "--lora.r", "what": "lora.r must be above 0, got 0", "hint": ""}],
    }


def test_train_leaves_a_run_that_can_be_read_back(place: Path, smolora) -> None:
    status, out, err = smolora("train", "run.yaml", "--data.eval", "0.3", "--checkpoints.save_steps=2")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == '  next     smolora generate out/adapter "..."'
    found = {path.relative_to(place / "out").as_posix() for path in (place / "out").rglob("*") if path.is_file()}
    assert {
        "run.yaml",
        "events.jsonl",
        "ledger.json",
        "report.html",
        "adapter/adapter_model.safetensors",
        "adapter/adapter_config.json",
        "adapter/tokenizer.json",
        "adapter/manifest.json",
        "checkpoint-2/manifest.json",
    } <= found
    assert not any(".staging" in name or ".trash" in name or name.endswith((".bin", ".pt", ".pkl")) for name in found)


def test_every_figure_shown_is_an_event(place: Path, smolora) -> None:
    _, out, _ = smolora("train", "run.yaml")
    events = [json.loads(line) for line in (place / "out" / "events.jsonl").read_text().splitlines()]
    losses = [f"loss {event['loss']:.4f}" for event in events if event["event"] == "log"]
    assert len(losses) == 3
    assert all(loss in out for loss in losses)


def test_the_ledger_adds_up(place: Path, smolora) -> None:
    with (place / "reviews.jsonl").open("a") as stream:
        stream.write('{"text": null}\nnot json\n[1]\n')
    smolora("train", "run.yaml", "--data.on_bad_row", "drop")
    ledger = json.loads((place / "out" / "ledger.json").read_text())["train"]
    assert (ledger["read"], ledger["kept"]) == (27, 24)
    assert sum(entry["rows"] for entry in ledger["dropped"]) == 3
    assert {entry["samples"][0] for entry in ledger["dropped"]} == {
        "reviews.jsonl:25",
        "reviews.jsonl:26:1",
        "reviews.jsonl:27",
    }


def test_the_written_config_runs_again_and_names_its_sources(place: Path, smolora) -> None:
    smolora("train", "run.yaml", "--lora.r", "4")
    written = (place / "out" / "run.yaml").read_text()
    assert "  r: 4  # --lora.r" in written
    assert "  max_steps: 3  # run.yaml:5" in written
    assert "seed: 42  # default" in written
    assert 'task: "causal-lm"  # auto: causal-lm (smolora 0.1.0)' in written
    assert 'loss: "cross-entropy"  # default of causal-lm (smolora 0.1.0)' in written
    status, _, err = smolora("train", "out/run.yaml", "--output_dir", "again")
    assert (status, err) == (0, "")
    again = (place / "again" / "adapter" / "adapter_model.safetensors").read_bytes()
    assert again == (place / "out" / "adapter" / "adapter_model.safetensors").read_bytes()


def test_generate_continues_a_prompt(place: Path, smolora) -> None:
    smolora("train", "run.yaml")
    status, out, err = smolora("generate", "out/adapter", "the film", "--max-new-tokens", "5", "--json")
    assert (status, err) == (0, "")
    assert set(json.loads(out)) == {"prompt", "text"}


def test_generate_names_the_adapter_inside_a_run(place: Path, smolora) -> None:
    smolora("train", "run.yaml")
    status, _, err = smolora("generate", "out", "the film")
    assert (status, err.strip()) == (2, "no adapter_config.json in 'out'; did you mean 'out/adapter'?")


def test_quiet_prints_nothing(place: Path, smolora) -> None:
    assert smolora("train", "run.yaml", "--quiet") == (0, "", "")


def test_a_loss_in_a_file_trains_with_its_option(place: Path, smolora) -> None:
    (place / "my_losses.py").write_text(
        "import attrs\n"
        "from smolora_core import Loss, hookimpl\n"
        "@attrs.frozen(kw_only=True)\n"
        "class Focal:\n    gamma: float = 2.0\n"
        "def focal(logits, targets, *, gamma):\n"
        "    import torch.nn.functional as F\n"
        "    nll = F.cross_entropy(logits, targets, reduction='none')\n"
        "    return (1 - (-nll).exp()) ** gamma * nll\n"
        "@hookimpl\n"
        "def smolora_losses():\n"
        "    yield Loss(name='focal', summary='looks at hard tokens', implementation=focal, options=Focal)\n"
    )
    plain = smolora("train", "run.yaml", "--output_dir", "a")[1]
    zero = smolora(
        "train", "run.yaml", "--output_dir", "b", "--plugin", "my_losses.py", "--loss", "focal", "--loss.gamma", "0"
    )[1]
    two = smolora("train", "run.yaml", "--output_dir", "c", "--plugin", "my_losses.py", "--loss", "focal")[1]

    def losses(out: str) -> list[str]:
        return [line.split("loss ")[1].split()[0] for line in out.splitlines() if "  train " in line]

    assert losses(plain) == losses(zero) != losses(two)


def test_a_misspelt_option_of_a_loss_is_found_before_torch(place: Path, smolora) -> None:
    (place / "mine.py").write_text(
        "import attrs\n"
        "from smolora_core import Loss, hookimpl\n"
        "@attrs.frozen(kw_only=True)\n"
        "class Options:\n    gamma: float = 2.0\n"
        "@hookimpl\n"
        "def smolora_losses():\n"
        "    yield Loss(name='mine', summary='mine', implementation='mine:loss', options=Options)\n"
    )
    status, _, err = smolora("check", "run.yaml", "--plugin", "mine.py", "--loss", "mine", "--loss.gama", "2")
    assert status == 2
    assert err.strip() == "--loss.gama unknown key 'gama' in loss 'mine' (mine.py); did you mean 'gamma'?"


def test_components_list_options_and_origins(smolora) -> None:
    _, out, _ = smolora("components", "losses", "--json")
    assert json.loads(out)[0] == {
        "kind": "losses",
        "name": "cross-entropy",
        "summary": "negative log-likelihood of the target token or class",
        "from": "smolora 0.1.0",
        "chosen_by": "cross-entropy",
        "options": [],
    }


def test_plugins_info_names_what_it_offers(smolora) -> None:
    status, out, _ = smolora("plugins", "info", "losses")
    assert status == 0
    assert "losses  smolora 0.1.0  built-in  loaded" in out
    assert "losses: cross-entropy" in out
