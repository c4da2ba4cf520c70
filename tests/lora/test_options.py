"""LoRA's options reach the saved adapter, PEFT and transformers load it, and invalid options are rejected."""

import json
import warnings

import pytest
import torch
import transformers
from peft import AutoPeftModelForCausalLM

from smolora_core import LoRAConfig, Task
from smolora_core.config import resolve
from smolora_core.config.document import Document
from smolora_core.errors import ConfigError, ModelLoadError
from smolora_core.lora.attach import adaptable_modules, attach
from smolora_core.lora.options import resolve_targets, unknown_options
from smolora_core.model.header import read_header
from smolora_core.plugins import PluginChoice, PluginManager

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

REGISTRY = PluginManager.create(PluginChoice(third_party=False)).registry
CAUSAL = REGISTRY.resolve(Task, "causal-lm").component
IDS = torch.arange(3, 20)[None]


def adapter(folder, dtype="float32", **options):
    base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    lora = LoRAConfig(**{"r": 4, "dropout": 0.0, **options})
    targets = resolve_targets(lora, base.config.model_type, adaptable_modules(base), REGISTRY)
    return attach(base, lora, targets, CAUSAL, str(folder), seed=1)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def message(folder, **options):
    header = read_header(folder)
    with pytest.raises(ConfigError) as error:
        resolve_targets(
            LoRAConfig(**options), header.model_type, header.modules, REGISTRY, lambda key: f"{key}:", tied=header.tied
        )
    return str(error.value)


OPTIONS = [
    ({"use_rslora": True}, {"use_rslora": True}),
    ({"use_dora": True}, {"use_dora": True}),
    ({"init": "gaussian"}, {"init_lora_weights": "gaussian"}),
    ({"init": "orthogonal"}, {"init_lora_weights": "orthogonal"}),
    ({"init": "mica"}, {"init_lora_weights": "mica"}),
    ({"rank_pattern": {"q_proj|c_attn": 2}}, {"rank_pattern": {"q_proj|c_attn": 2}}),
    ({"alpha_pattern": {r"\w+\.\w+\.1\..*": 4.0}}, {"alpha_pattern": {r"\w+\.\w+\.1\..*": 4}}),
    ({"layers_to_transform": (1,)}, {"layers_to_transform": [1]}),
    ({"layers_to_transform": (1,), "target_modules": ".*proj"}, {"layers_to_transform": [1]}),
    ({"exclude_modules": r".*\.0\..*"}, {"exclude_modules": r".*\.0\..*"}),
    ({"bias": "all"}, {"bias": "all"}),
    ({"bias": "lora_only"}, {"bias": "lora_only"}),
    ({"target_modules": "all-linear"}, {}),
    ({"target_modules": "attention"}, {}),
    ({"target_modules": r".*\.1\..*proj"}, {}),
    ({"extra": {"lora_bias": True}}, {"lora_bias": True}),
]


@pytest.mark.parametrize("base", ["llama", "gpt2"])
@pytest.mark.parametrize(("options", "saved"), OPTIONS, ids=lambda value: " ".join(map(str, value)))
def test_an_option_is_saved_and_loaded_back(request, tmp_path, base, options, saved):
    folder = request.getfixturevalue(base)
    if base == "gpt2":
        options = {name: r".*c_proj" if value == ".*proj" else value for name, value in options.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # lora_bias on layers without one cannot be merged, PEFT says.
        warnings.filterwarnings("ignore", message="`lora_bias=True`")
        adapted = adapter(folder, **options)
    before = logits(transformers.AutoModelForCausalLM.from_pretrained(folder))
    torch.testing.assert_close(logits(adapted.model), before, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for each in adapted.model.parameters():
            if each.requires_grad:
                each.add_(torch.randn(each.shape, generator=torch.Generator().manual_seed(each.numel())) * 0.1)
    adapted.model.save_pretrained(tmp_path, save_embedding_layers=False)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert {name: config[name] for name in saved} == saved
    assert isinstance(config["target_modules"], list)
    # transformers 5.23 forgets DoRA's magnitudes when it loads an adapter by itself.
    others = () if "use_dora" in options else (transformers.AutoModelForCausalLM,)
    for load in (AutoPeftModelForCausalLM, *others):
        loaded = load.from_pretrained(tmp_path)
        torch.testing.assert_close(logits(loaded), logits(adapted.model), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before, logits(adapted.model), atol=1e-3)


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"init": "orthogonal"}, {"init": "mica"}])
def test_everything_is_trained_in_float32_on_a_bfloat16_base(llama, options):
    model = adapter(llama, dtype="bfloat16", **options).model
    assert {each.dtype for each in model.parameters() if each.requires_grad} == {torch.float32}
    assert logits(model).isfinite().all()


def test_biases_are_not_trained_in_low_precision(gpt2):
    with pytest.raises(ModelLoadError) as error:
        adapter(gpt2, dtype="bfloat16", bias="lora_only")
    assert str(error.value) == (
        "4 tensors would be trained in bfloat16, which loses small updates "
        "(first: 'base_model.model.transformer.h.0.attn.c_attn.base_layer.bias'); set model.dtype to float32"
    )


def test_only_some_blocks_are_adapted(llama):
    names = adapter(llama, layers_to_transform=(1,), target_modules=("q_proj",)).targets.modules
    assert names == ("model.layers.1.self_attn.q_proj",)


def test_exclusion_narrows_what_a_record_says(llama):
    targets = adapter(llama, exclude_modules=("k_proj", "layers.0.self_attn.v_proj")).targets
    assert targets.patterns == ("q_proj", "v_proj", "o_proj")
    assert len(targets.modules) == 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"target_modules": "self_atn.*"},
            "lora.target_modules: no layer's full name matches 'self_atn.*'; set lora.target_modules; the model has: "
            "down_proj (2), gate_proj (2), up_proj (2), k_proj (2), o_proj (2), q_proj (2), v_proj (2)",
        ),
        (
            {"target_modules": ".*(q_proj"},
            "lora.target_modules: lora.target_modules '.*(q_proj' is not a valid regular expression: "
            "missing ), unterminated subpattern at position 2",
        ),
        ({"target_modules": "atention"}, "lora.target_modules: no layer is named 'atention'; did you mean 'attention'?"),
        (
            {"target_modules": ("lm_head",)},
            "lora.target_modules: 'lm_head' is a head or an embedding, which cannot be adapted; remove it",
        ),
        ({"exclude_modules": ("k_porj",)}, "lora.exclude_modules: no layer is named 'k_porj'; did you mean 'k_proj'?"),
        (
            {"exclude_modules": ".*proj"},
            "lora.target_modules: every target module is excluded",
        ),
        (
            {"layers_to_transform": (1, 2, 9)},
            "lora.layers_to_transform: lora.layers_to_transform has 2, 9, but the model has blocks 0 to 1",
        ),
        (
            {"rank_pattern": {"q_porj": 4}},
            "lora.rank_pattern: 'q_porj' in lora.rank_pattern matches no adapted module; did you mean 'q_proj'?",
        ),
        (
            {"alpha_pattern": {"(q": 4}},
            "lora.alpha_pattern: '(q' in lora.alpha_pattern is not a valid regular expression: "
            "missing ), unterminated subpattern at position 0",
        ),
        (
            {"alpha_pattern": {"up_proj": 4}},
            "lora.alpha_pattern: 'up_proj' in lora.alpha_pattern matches no adapted module; did you mean 'v_proj'?",
        ),
        (
            {"target_modules": ("q_porj",), "exclude_modules": "k_porj"},
            "lora.exclude_modules: no layer is named 'k_porj'; did you mean 'k_proj'?\n"
            "lora.target_modules: no layer is named 'q_porj'; did you mean 'q_proj'?",
        ),
    ],
)
def test_what_fits_nothing_is_refused(llama, options, said):
    assert message(llama, **options) == said


def test_a_tied_head_is_refused_with_the_reason(gpt2):
    assert message(gpt2, target_modules=("lm_head",)) == (
        "lora.target_modules: 'lm_head' is a head or an embedding, which cannot be adapted: they are tied, "
        "and the adapter would be merged into both; remove it"
    )


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        (
            {"init": "pissa"},
            "lora.init pissa changes the base weights, so the saved adapter would not match the base model; "
            "choose one of default, gaussian, orthogonal, mica",
        ),
        ({"init": "gausian"}, "lora.init must be one of default, gaussian, orthogonal, mica, got 'gausian'"),
        ({"rank_pattern": {"q_proj": 0}}, "lora.rank_pattern must contain only numbers above 0, got q_proj: 0"),
        ({"bias": "yes"}, "lora.bias must be one of none, all, lora_only, got 'yes'"),
    ],
)
def test_a_value_out_of_range_is_refused(lora, said):
    with pytest.raises(ConfigError) as error:
        resolve(Document({"model": "m", "data": {"train": "t"}, "lora": lora}, {}))
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lora_alpha", "lora.extra: 'lora_alpha' has its own config key; set lora.alpha"),
        ("lora_bais", "lora.extra: peft.LoraConfig has no 'lora_bais'; did you mean 'lora_bias'?"),
        (
            "corda_config",
            "lora.extra: 'corda_config' cannot be used here; it changes the base weights, "
            "so the saved adapter would not match the base model",
        ),
        ("fan_in_fan_out", "lora.extra: 'fan_in_fan_out' cannot be used here; it is derived from the model's layers"),
    ],
)
def test_further_arguments_are_checked(name, said):
    assert [str(problem) for problem in unknown_options({name: 1, "lora_bias": True}, "lora.extra:")] == [said]


def test_each_argument_of_peft_is_ours_refused_or_passed_on():
    import attrs
    from peft import LoraConfig

    passed = [name for name in LoraConfig.__dataclass_fields__ if not unknown_options({name: 1}, "")]
    assert sorted(passed) == [
        *("alora_invocation_tokens", "arrow_config", "ensure_weight_tying", "lora_bias", "megatron_config", "megatron_core"),
        *("monteclora_config", "qalora_group_size", "target_parameters", "trainable_token_indices", "use_bdlora"),
        *("use_qalora", "velora_config"),
    ]
    assert not {field.name for field in attrs.fields(LoRAConfig)} & set(passed)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"init": "orthogonal", "r": 3},
            "lora: PEFT rejects these options (Orthogonal initialization requires the LoRA rank to be even, got 3 instead.)",
        ),
        (
            {"extra": {"lora_bias": True}, "use_dora": True},
            "lora: peft.LoraConfig rejects these options (The argument lora_bias=True is not supported for DoRA, "
            "please pass use_dora=False)",
        ),
    ],
)
def test_what_peft_refuses_is_said_in_a_line(llama, options, said):
    with pytest.raises(ConfigError) as error:
        adapter(llama, **options)
    assert str(error.value) == said
