"""Choosing target modules, and the errors for names that match nothing."""

from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import transformers

from smolora_core import Targets, hookimpl
from smolora_core.errors import ConfigError
from smolora_core.lora.attach import adaptable_modules
from smolora_core.lora.targets import choose_targets, matches
from smolora_core.model.header import read_header
from smolora_core.plugins import PluginChoice, PluginManager
from tests.support.models import save_llama

LLAMA = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}
LLAMA_MODULES = tuple(f"model.layers.{n}.{part}.{end}" for n in range(2) for part, ends in LLAMA.items() for end in ends)
GPT2_MODULES = tuple(
    f"transformer.h.{n}.{end}" for n in range(2) for end in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
)


@pytest.fixture(scope="module")
def registry():
    return PluginManager.create(PluginChoice(third_party=False)).registry


def registry_with(*records):
    class Plugin:
        @hookimpl
        def smolora_targets(self):
            return records

    return PluginManager.create(PluginChoice(third_party=False, objects=(Plugin(),))).registry


def ends(modules):
    return {module.split(".", 3)[-1] for module in modules}


@pytest.mark.parametrize(
    ("pattern", "module", "meant"),
    [
        ("q_proj", "model.layers.0.self_attn.q_proj", True),
        ("self_attn.q_proj", "model.layers.0.self_attn.q_proj", True),
        ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_proj", True),
        ("proj", "model.layers.0.self_attn.q_proj", False),
        ("attn.q_proj", "model.layers.0.self_attn.q_proj", False),
        ("q_proj.weight", "model.layers.0.self_attn.q_proj", False),
        ("self_attn", "model.layers.0.self_attn.q_proj", False),
    ],
)
def test_a_pattern_is_a_name_or_the_dotted_end_of_one(pattern, module, meant):
    assert matches(pattern, module) is meant


@pytest.mark.parametrize(
    ("model_type", "modules", "wanted", "adapted"),
    [
        ("llama", LLAMA_MODULES, "auto", {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"}),
        ("gpt2", GPT2_MODULES, "auto", {"attn.c_attn", "attn.c_proj"}),
        ("llama", LLAMA_MODULES, "all-linear", ends(LLAMA_MODULES)),
        ("gpt2", GPT2_MODULES, "all-linear", ends(GPT2_MODULES)),
        ("invented", LLAMA_MODULES, "auto", ends(LLAMA_MODULES)),
        ("llama", LLAMA_MODULES, "q_proj", {"self_attn.q_proj"}),
        ("llama", LLAMA_MODULES, ("q_proj", "mlp.up_proj"), {"self_attn.q_proj", "mlp.up_proj"}),
        ("gpt2", GPT2_MODULES, ("c_proj",), {"attn.c_proj", "mlp.c_proj"}),
        ("gpt2", GPT2_MODULES, ("mlp.c_proj",), {"mlp.c_proj"}),
    ],
)
def test_what_is_adapted(registry, model_type, modules, wanted, adapted):
    choice = choose_targets(wanted, model_type, modules, registry)
    assert ends(choice.modules) == adapted
    assert len(choice.modules) == 2 * len(adapted)


@pytest.mark.parametrize(
    ("model_type", "wanted", "reason"),
    [
        ("llama", "auto", f"[llama, smolora {version('smolora')}]"),
        ("invented", "auto", "[by structure: no plugin knows 'invented']"),
        ("llama", "all-linear", "[every linear layer in the blocks]"),
        ("llama", ("q_proj",), "[lora.target_modules]"),
    ],
)
def test_whose_word_it_was(registry, model_type, wanted, reason):
    assert choose_targets(wanted, model_type, LLAMA_MODULES, registry).reason == reason


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (("q_proj", "q_porj"), "run.yaml:3 no layer is named 'q_porj'; did you mean 'q_proj'?"),
        (
            ("q_porj", "vproj"),
            "run.yaml:3 no layer is named 'q_porj'; did you mean 'q_proj'?\n"
            "run.yaml:3 no layer is named 'vproj'; did you mean 'v_proj'?",
        ),
        (("mlp.q_proj",), "run.yaml:3 no layer is named 'mlp.q_proj'; did you mean 'mlp.up_proj'?"),
        (
            ("xyz",),
            "run.yaml:3 no layer is named 'xyz'; known: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj",
        ),
        (("q_proj", "lm_head"), "run.yaml:3 'lm_head' is a head or an embedding, which cannot be adapted; remove it"),
        (("embed_tokens",), "run.yaml:3 'embed_tokens' is a head or an embedding, which cannot be adapted; remove it"),
        ((), "run.yaml:3 lora.target_modules is an empty list; set it to auto or list names"),
    ],
)
def test_a_name_that_fits_nothing_is_an_error(registry, wanted, message):
    with pytest.raises(ConfigError) as error:
        choose_targets(wanted, "llama", LLAMA_MODULES, registry, "run.yaml:3")
    assert str(error.value) == message


def test_a_record_must_fit_whole():
    record = Targets(name="mine", summary="", model_types=("mine",), modules=("q_proj", "qkv"))
    with pytest.raises(ConfigError) as error:
        choose_targets("auto", "mine", LLAMA_MODULES, registry_with(record))
    assert str(error.value).startswith("targets 'mine' (given from Python): no layer is named 'qkv'; ")


def test_what_the_user_hands_over_wins():
    record = Targets(name="mine", summary="", model_types=("llama",), modules=("up_proj",))
    assert ends(choose_targets("auto", "llama", LLAMA_MODULES, registry_with(record)).modules) == {"mlp.up_proj"}


def test_a_model_without_blocks_needs_names(registry):
    with pytest.raises(ConfigError) as error:
        choose_targets("auto", "invented", ["first", "second"], registry, "run.yaml:3")
    assert str(error.value) == (
        "run.yaml:3 no repeated blocks with linear layers were found; set lora.target_modules; "
        "the model has: first (1), second (1)"
    )


def test_layers_outside_the_blocks_are_left_alone_though_their_names_end_alike(registry):
    inside = ["layers.0.ffn.dense", "layers.1.ffn.dense", "layers.0.dense", "layers.1.dense"]
    choice = choose_targets("all-linear", "invented", [*inside, "pooler.dense", "layers.0.ffn.up"], registry)
    assert sorted(choice.modules) == sorted([*inside, "layers.0.ffn.up"])
    assert choice.patterns == ("ffn.dense", "layers.0.dense", "layers.1.dense", "ffn.up")


class Invented(transformers.PreTrainedModel):
    """An architecture that nobody has heard of."""

    config_class = transformers.PretrainedConfig

    def __init__(self, config):
        super().__init__(config)
        linear = torch.nn.Linear
        self.embed_tokens = torch.nn.Embedding(20, 8)
        self.embed_scale = linear(8, 8)
        self.blocks = torch.nn.ModuleList(
            torch.nn.ModuleDict({"mix": linear(8, 8), "norm": torch.nn.LayerNorm(8), "out": linear(8, 8)}) for _ in range(3)
        )
        self.lm_head = linear(8, 20)
        self.post_init()

    def get_output_embeddings(self):
        return self.lm_head


def test_an_invented_architecture_is_understood_by_its_structure(registry):
    choice = choose_targets("auto", "invented", adaptable_modules(Invented(transformers.PretrainedConfig())), registry)
    assert choice.patterns == ("mix", "out")
    assert len(choice.modules) == 6


def blocks(*ends, prefix="blocks"):
    return {f"{prefix}.{number}.{end}": (8, 8) for number in range(2) for end in ends}


ENCODER_DECODER = {
    **blocks("attention.q", "attention.out", "ffn.0", "ffn.2", prefix="encoder"),
    **blocks("attention.q", "cross_attention.q", "ffn.0", prefix="decoder"),
    "proj": (8, 8),
}
SEEING = {
    **blocks("self_attn.q_proj", "mlp.up_proj", prefix="model.vision_tower.layers"),
    **blocks("self_attn.q_proj", "mlp.up_proj", prefix="model.language_model.layers"),
    "model.projector": (8, 8),
}
MIXTURE = blocks("attn.qkv", "moe.router", "moe.gate", "moe.experts.0.up", "moe.shared_expert.up", "moe.shared_expert_gate")
GATED = blocks("attn.qkv", "ffn.gate", "ffn.up", "ffn.down")
FLAT = blocks("q", "k", "v", "out", "fc1", "fc2")


@pytest.mark.parametrize(
    ("modules", "policy", "patterns"),
    [
        (ENCODER_DECODER, "auto", ("attention.q", "attention.out", "ffn.0", "ffn.2", "cross_attention.q")),
        (ENCODER_DECODER, "attention", ("attention.q", "attention.out", "cross_attention.q")),
        (MIXTURE, "all-linear", ("attn.qkv", "moe.shared_expert.up")),
        (GATED, "auto", ("attn.qkv", "ffn.gate", "ffn.up", "ffn.down")),
        (FLAT, "attention", ("q", "k", "v", "out")),
        ({**GATED, "classifier.dense": (8, 8), "head.0.up": (8, 8)}, "auto", ("attn.qkv", "ffn.gate", "ffn.up", "ffn.down")),
        (
            SEEING,
            "attention",
            ("model.language_model.layers.0.self_attn.q_proj", "model.language_model.layers.1.self_attn.q_proj"),
        ),
    ],
)
def test_structure_is_understood_whatever_the_model_is_made_of(registry, modules, policy, patterns):
    assert choose_targets(policy, "invented", modules, registry).patterns == patterns


@pytest.mark.parametrize(
    ("shapes", "attention"),
    [
        ({"mix.a": (24, 8), "mix.b": (8, 8), "grow.c": (32, 8), "grow.d": (8, 32)}, {"mix.a", "mix.b"}),
        ({"mix.a": (8, 24), "mix.b": (8, 8), "grow.c": (8, 32), "grow.d": (32, 8)}, {"mix.a", "mix.b"}),
        ({"s.a": (8, 8), "s.b": (4, 8), "s.c": (4, 8), "s.d": (8, 8), "t.e": (32, 8)}, {"s.a", "s.b", "s.c", "s.d"}),
    ],
)
def test_where_names_say_nothing_attention_is_told_by_its_shape(registry, shapes, attention):
    modules = {f"blocks.{number}.{end}": shape for number in range(2) for end, shape in shapes.items()}
    assert set(choose_targets("attention", "invented", modules, registry).patterns) == attention


def test_a_model_without_attention_is_said_to_have_none(registry):
    with pytest.raises(ConfigError) as error:
        choose_targets("attention", "invented", {"blocks.0.up": (32, 8), "blocks.0.down": (8, 32)}, registry, "run.yaml:3")
    assert str(error.value) == (
        "run.yaml:3 no attention was found in repeated blocks; set lora.target_modules; the model has: up (1), down (1)"
    )


def test_a_record_speaks_of_the_text_beside_the_vision(registry):
    choice = choose_targets(
        "auto",
        "seeing",
        SEEING,
        registry_with(Targets(name="seeing", summary="", model_types=("seeing",), modules=("q_proj",))),
    )
    assert choice.shown == ("self_attn.q_proj",)
    assert all("language_model" in module for module in choice.modules)


def test_a_head_that_ends_like_a_layer_makes_full_names_needed(registry):
    modules = {**blocks("attn.dense"), "classifier.attn.dense": (8, 8)}
    assert choose_targets(("attn.dense",), "invented", modules, registry).patterns == (
        "blocks.0.attn.dense",
        "blocks.1.attn.dense",
    )


@pytest.fixture(params=["llama", "gpt2", "sharded", "untied"])
def folder(request, tmp_path) -> Path:
    if request.param == "untied":
        return save_llama(tmp_path / "untied", tie_word_embeddings=False)
    if request.param == "sharded":
        model = transformers.AutoModelForCausalLM.from_pretrained(request.getfixturevalue("llama"))
        model.save_pretrained(tmp_path / "sharded", max_shard_size="60KB")
        assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
        return tmp_path / "sharded"
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(
    "wanted", ["auto", "attention", "all-linear", ".*proj", ("c_proj", "o_proj"), ("lm_head",), ("embed_tokens",), ("wte",)]
)
def test_the_files_say_what_the_model_says(registry, folder, wanted):
    header = read_header(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)

    def chosen(modules):
        try:
            return set(choose_targets(wanted, header.model_type, modules, registry).modules)
        except ConfigError as error:
            return str(error)

    assert chosen(header.modules) == chosen(adaptable_modules(model))
