"""Prompts are continued as transformers itself would, and as training has taught."""

import json
from pathlib import Path

import peft
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from smolora_core.errors import ConfigError, ModelLoadError
from smolora_core.inference.generate import generate, load_adapter
from tests.support.models import save_llama, save_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

PROMPTS = ["the film was", "a cat", "why sat the cat on the mat and who liked it", ""]


@pytest.fixture(params=["llama", "gpt2"])
def loaded(request):
    return load_adapter(request.getfixturevalue(request.param))


@pytest.fixture
def adapter(llama, tmp_path):
    """A folder with an adapter that changes what the base says."""
    base = transformers.AutoModelForCausalLM.from_pretrained(llama)
    config = peft.LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    config.base_model_name_or_path = str(llama)
    torch.manual_seed(0)
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    save_tokenizer(tmp_path / "adapter")
    return tmp_path / "adapter"


def ending_with(tokenizer_folder, template):
    """Save a tokenizer that adds its own tokens around a text."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=[("<s>", 0), ("</s>", 1)])
    return tokenizer


@pytest.mark.parametrize("prompt", PROMPTS[:3])
def test_the_likeliest_tokens_are_those_of_transformers(loaded, prompt):
    ids = torch.tensor([loaded.tokenizer(prompt)["input_ids"]])
    expected = loaded.model.generate(input_ids=ids, max_new_tokens=12, do_sample=False, pad_token_id=1)[0, ids.shape[1] :]
    assert loaded.generate(prompt, max_new_tokens=12) == loaded.tokenizer.decode(expected, skip_special_tokens=True) != ""


def test_a_batch_says_what_each_prompt_alone_says(loaded):
    assert loaded.generate_all(PROMPTS, max_new_tokens=12) == [loaded.generate(each, max_new_tokens=12) for each in PROMPTS]


def test_many_prompts_come_back_in_order(loaded):
    words = [f"cat {number}" for number in range(70)]
    assert loaded.generate_all(words, max_new_tokens=2)[69] == loaded.generate(words[69], max_new_tokens=2)


def test_no_prompts_are_no_texts(loaded):
    assert loaded.generate_all([]) == []


def test_an_empty_prompt_starts_from_the_beginning(loaded):
    start = torch.tensor([[0]])
    expected = loaded.model.generate(input_ids=start, max_new_tokens=8, do_sample=False, pad_token_id=1)[0, 1:]
    assert loaded.tokenizer.bos_token_id == 0
    assert loaded.generate("", max_new_tokens=8) == loaded.tokenizer.decode(expected, skip_special_tokens=True)


@pytest.mark.parametrize("template", ["$A </s>", "<s> $A", "<s> $A </s>"])
def test_a_token_that_begins_a_text_stays_and_one_that_ends_it_goes(llama, template):
    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    plain = transformers.AutoTokenizer.from_pretrained(llama)
    begun = torch.tensor([[0] * template.startswith("<s>") + plain("a cat")["input_ids"]])
    expected = model.generate(input_ids=begun, max_new_tokens=8, do_sample=False, pad_token_id=1)[0, begun.shape[1] :]
    made = generate(model, ending_with(llama, template), ["a cat"], max_new_tokens=8)
    assert made == [plain.decode(expected, skip_special_tokens=True)]


def saying(folder, *tokens, end=None):
    """Make a model say tokens in turn, and then the last one for ever, whatever comes before."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config.eos_token_id = end
    model.said = []

    def forward(hidden):
        logits = torch.zeros(*hidden.shape[:-1], model.config.vocab_size)
        logits[..., tokens[min(len(model.said), len(tokens) - 1)]] = 1
        model.said.append(len(hidden))
        return logits

    model.lm_head.forward = forward
    return model


@pytest.fixture
def letters():
    """A tokenizer of three letters without a single special token."""
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate("xyz")}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_a_text_ends_where_training_has_ended_it(llama):
    """The base's own settings may know another end, or none."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    cat, mat = tokenizer(" cat mat")["input_ids"]
    model = saying(llama, cat, tokenizer.eos_token_id, mat)
    assert generate(model, tokenizer, ["a"], max_new_tokens=5) == [" cat"]
    assert len(model.said) == 2


def test_a_text_ends_where_the_models_authors_say(llama, letters):
    assert generate(saying(llama, 0, 1, 2, 0, end=2), letters, ["z", "zyz"], max_new_tokens=5) == ["xy", "xy"]


def test_no_token_of_a_text_is_lost_where_none_is_for_padding(llama, letters):
    """Here token 0 fills a batch up, and it is one of texts like any other."""
    assert generate(saying(llama, 0, 1, 0), letters, ["z", "zyz"], max_new_tokens=4) == ["xyxx", "xyxx"]
    assert letters.pad_token is None


def test_a_seed_repeats_a_sample_and_touches_nothing_else(loaded):
    options = {"temperature": 1.5, "max_new_tokens": 12}
    before = torch.get_rng_state()
    first = loaded.generate("a cat", seed=1, **options)
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.generate("a cat", seed=1, **options) == first != loaded.generate("a cat", seed=2, **options)


def test_sampling_may_draw_any_token(llama):
    """Transformers draws from the 50 likeliest unless told otherwise."""
    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    model.lm_head.forward = lambda hidden: torch.linspace(0, 0.1, 300).expand(*hidden.shape[:-1], 300)
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    (text,) = generate(model, tokenizer, ["a"], temperature=1.0, max_new_tokens=100, seed=0)
    assert len(set(text)) > 50


def test_a_models_settings_for_sampling_cause_no_warning(loaded, caplog, recwarn):
    loaded.model.generation_config.update(do_sample=True, temperature=0.6, top_p=0.9, top_k=20)
    transformers.logging.get_logger("transformers").addHandler(caplog.handler)
    greedy = loaded.generate("a cat", max_new_tokens=4)
    assert greedy == loaded.generate("a cat", max_new_tokens=4)
    assert (caplog.text, len(recwarn)) == ("", 0)


def test_each_layer_keeps_the_mode_it_was_in(loaded):
    layers = list(loaded.model.train().modules())
    layers[-1].eval()
    loaded.generate("a cat", max_new_tokens=1)
    assert [layer.training for layer in layers] == [True] * (len(layers) - 1) + [False]


def test_a_prompt_from_a_chat_template_gets_no_second_start_token(llama):
    model, tokenizer = transformers.AutoModelForCausalLM.from_pretrained(llama), ending_with(llama, "<s> $A")
    written = generate(model, tokenizer, ["<s>a cat"], max_new_tokens=8, special_tokens=False)
    assert written == generate(model, tokenizer, ["a cat"], max_new_tokens=8)


def test_texts_stop_where_the_positions_end(loaded):
    long = "cat " * 120
    width = len(loaded.tokenizer(long)["input_ids"])
    assert 100 < width < 128
    loaded.model.generation_config.eos_token_id = None
    made = loaded.tokenizer(loaded.generate(long, max_new_tokens=1000))["input_ids"]
    assert len(made) <= 128 - width
    with pytest.raises(ConfigError) as error:
        loaded.generate("cat " * 200)
    assert str(error.value) == "a prompt has 201 tokens, but the model only has 128 positions; shorten it"


def test_an_adapter_is_loaded_with_its_base(adapter, llama):
    base, trained = load_adapter(llama), load_adapter(adapter, device="cpu", dtype="float32")
    assert base.generate("a cat", max_new_tokens=8) != trained.generate("a cat", max_new_tokens=8)


def test_an_adapter_without_a_tokenizer_takes_its_bases(adapter, llama):
    expected = load_adapter(adapter).generate("a cat", max_new_tokens=8)
    for file in adapter.glob("tokenizer*"):
        file.unlink()
    assert load_adapter(adapter).generate("a cat", max_new_tokens=8) == expected


def message(folder):
    with pytest.raises(ModelLoadError) as error:
        load_adapter(folder)
    return str(error.value)


def test_a_folder_without_an_adapter_is_an_error(tmp_path, adapter):
    assert message(tmp_path) == f"no adapter_config.json in {str(tmp_path)!r}; did you mean {str(adapter)!r}?"
    assert message(tmp_path / "x") == (f"no adapter_config.json in {str(tmp_path / 'x')!r}; give the adapter's folder")


def test_a_base_that_is_gone_is_an_error(adapter, tmp_path):
    config = json.loads((adapter / "adapter_config.json").read_text())
    gone = tmp_path / "gone"
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(gone)}))
    assert message(adapter) == (
        f"the base model {str(gone)!r} of {str(adapter)!r} is missing; "
        "restore it, or change base_model_name_or_path in adapter_config.json"
    )


def test_damaged_weights_are_an_error(adapter):
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:90])
    assert message(adapter).startswith(f"cannot load {str(adapter)!r} (")


@pytest.mark.parametrize("config", ['{"r": 8, "al', "[]", "{}", '{"base_model_name_or_path": null}', "\udce9"])
def test_an_adapter_that_names_no_base_is_damaged(adapter, config):
    (adapter / "adapter_config.json").write_bytes(config.encode(errors="surrogateescape"))
    assert message(adapter) == f"the adapter in {str(adapter)!r} is damaged (adapter_config.json names no base model)"


def test_a_path_that_no_folder_can_have_is_an_error():
    name = "x" * 5000
    assert message(Path(name)).startswith(f"cannot load {name!r} (")


def test_an_adapter_of_another_base_is_an_error(adapter, tmp_path):
    other = save_llama(tmp_path / "other", hidden_size=16)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(other)}))
    assert message(adapter).startswith(f"cannot load {str(adapter)!r} (")
