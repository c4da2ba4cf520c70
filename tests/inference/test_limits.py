"""What cannot be generated with is refused, with the option's name."""

import math

import pytest
import transformers

from smolora_core.errors import ConfigError
from smolora_core.inference.generate import LoadedAdapter, generate, load_adapter

OPTIONS = [
    ({"max_new_tokens": 0}, "max_new_tokens must be an integer above 0, got 0"),
    ({"max_new_tokens": 1.5}, "max_new_tokens must be an integer above 0, got 1.5"),
    ({"max_new_tokens": True}, "max_new_tokens must be an integer above 0, got True"),
    ({"temperature": -0.1}, "temperature must be a number of at least 0, got -0.1"),
    ({"temperature": math.nan}, "temperature must be a number of at least 0, got nan"),
    ({"temperature": math.inf}, "temperature must be a number of at least 0, got inf"),
    ({"temperature": "hot"}, "temperature must be a number of at least 0, got 'hot'"),
    ({"top_p": 0}, "top_p must be above 0 and at most 1, got 0"),
    ({"top_p": 1.1}, "top_p must be above 0 and at most 1, got 1.1"),
    ({"top_p": math.nan}, "top_p must be above 0 and at most 1, got nan"),
    ({"seed": -1}, "seed must be an integer of at least 0 and below 2^63, got -1"),
    ({"seed": 2**63}, f"seed must be an integer of at least 0 and below 2^63, got {2**63}"),
    (
        {"top_p": 2, "seed": -1},
        "top_p must be above 0 and at most 1, got 2\nseed must be an integer of at least 0 and below 2^63, got -1",
    ),
]


def message(call, *arguments, **options):
    with pytest.raises(ConfigError) as error:
        call(*arguments, **options)
    return str(error.value)


@pytest.mark.parametrize(("options", "line"), OPTIONS)
def test_an_option_out_of_range_is_an_error(options, line):
    assert message(generate, None, None, ["a"], **options) == line


def test_options_at_their_limits_are_taken(llama):
    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    (text,) = generate(model, tokenizer, ["a"], max_new_tokens=1, temperature=1, top_p=1, seed=2**63 - 1)
    assert isinstance(text, str)


@pytest.mark.parametrize(
    ("device", "line"),
    [
        ("cdua", "device must be one of auto, cpu, cuda, mps, got 'cdua'; did you mean 'cuda'?"),
        ("tenstorrent", "device must be one of auto, cpu, cuda, mps, got 'tenstorrent'"),
        (0, "device must be one of auto, cpu, cuda, mps, got 0"),
    ],
)
def test_an_unknown_device_is_an_error(llama, device, line):
    assert message(load_adapter, llama, device=device) == line


@pytest.mark.parametrize(
    ("prompt", "line"),
    [
        (["a", "b"], "a prompt must be a text, got a list; generate_all takes several"),
        (b"a", "a prompt must be a text, got a bytes"),
        ("caf\udce9", "a prompt is not UTF-8 at character 4; pass it as UTF-8"),
    ],
)
def test_a_prompt_is_one_text(prompt, line):
    assert message(LoadedAdapter(None, None).generate, prompt) == line


def test_several_prompts_are_no_single_text():
    assert message(LoadedAdapter(None, None).generate_all, "a cat") == (
        "prompts must be a list of texts, got a single text; put it into a list"
    )
