"""`smolora targets`: what is adapted in a model and why, from its files' headers alone."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import transformers

FROM = f"smolora {version('smolora')}"


def test_it_says_who_chose_what_and_what_was_left_out(place: Path, smolora) -> None:
    status, out, err = smolora("targets", "./tiny")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "model     ./tiny  llama",
        f"targets   q_proj k_proj v_proj o_proj  [llama, {FROM}]",
        "why       the built-in record 'llama' covers 'llama'",
        "adapted   8 attention: self_attn.k_proj (2), self_attn.o_proj (2), self_attn.q_proj (2), self_attn.v_proj (2)",
        "left out  1 head: lm_head (1)",
        "left out  1 embedding: model.embed_tokens (1)",
        "left out  6 not matched: mlp.down_proj (2), mlp.gate_proj (2), mlp.up_proj (2)",
        "trains    3,584 of 37,984 parameters, 9.44 %, at r 8",
    ]


def test_json_holds_the_same(place: Path, smolora) -> None:
    _, out, _ = smolora("targets", "./tiny", "--json", "--r", "4", "--target_modules", "[q_proj, up_proj]")
    found = json.loads(out)
    assert found["target_modules"] == ["q_proj", "up_proj"]
    assert found["adapted"] == {"feed-forward": {"mlp.up_proj": 2}, "attention": {"self_attn.q_proj": 2}}
    assert found["record"] is None
    assert found["overruled"] == [{"name": "llama", "from": FROM, "tier": "built-in"}]
    assert found["trainable"] == 4 * 2 * ((32 + 32) + (32 + 64))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_the_parameters_are_those_that_peft_trains(place: Path, smolora, llama: Path) -> None:
    import peft

    model = peft.get_peft_model(
        transformers.AutoModelForCausalLM.from_pretrained(llama),
        peft.LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    _, out, _ = smolora("targets", "./tiny", "--target_modules", "all-linear", "--json")
    found = json.loads(out)
    trainable, total = model.get_nb_trainable_parameters()
    assert (found["trainable"], found["total"]) == (trainable, total - trainable)


def test_a_plugin_s_record_is_named_with_what_it_overrules(place: Path, smolora) -> None:
    (place / "mine.py").write_text(
        "from smolora_core import Targets, hookimpl\n\n\n"
        "@hookimpl\ndef smolora_targets():\n"
        '    yield Targets(name="mine", summary="", model_types=("llama",), modules=("up_proj",))\n'
    )
    _, out, _ = smolora("targets", "./tiny", "--plugin", "mine.py")
    assert out.splitlines()[1:4] == [
        "targets   up_proj  [mine, mine.py]",
        "why       your record 'mine' covers 'llama'",
        f"          not 'llama' ({FROM}, built-in)",
    ]


def test_a_config_is_enough(place: Path, smolora) -> None:
    (place / "tiny" / "model.safetensors").unlink()
    status, out, _ = smolora("targets", "./tiny")
    assert status == 0
    assert out.splitlines()[-1] == "trains    3,584 of 37,984 parameters, 9.44 %, at r 8"


def test_a_config_of_an_unknown_model_is_said_to_be_one(place: Path, smolora) -> None:
    (place / "tiny" / "model.safetensors").unlink()
    (place / "tiny" / "config.json").write_text('{"model_type": "invented"}')
    status, _, err = smolora("targets", "./tiny")
    assert status == 2
    assert err.startswith("the model in 'tiny' has no safetensors, and cannot be built from its config (")
    assert err.count("\n") == 1


def test_a_mistake_is_said_in_a_line(place: Path, smolora) -> None:
    assert smolora("targets", "./tiny", "--target_modules", "q_porj")[2] == (
        "--target_modules no layer is named 'q_porj'; did you mean 'q_proj'?\n"
    )
    assert smolora("targets", "./tinny")[2] == "no folder './tinny' with a config.json; did you mean './tiny'?\n"
    assert smolora("targets", "./tiny", "--r", "0")[2] == "--r r must be above 0, got 0\n"


def test_with_weights_in_the_folder_torch_is_not_imported(place: Path) -> None:
    source = "import sys; from smolora_core.cli import main; main(['targets', './tiny']); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", source], check=True, cwd=place, timeout=60)
