"""What is trained, against texts written by hand: the labels hold it to the letter, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from smolora_core.components import Drop, Encoded
from smolora_core.config import DataConfig
from smolora_core.data.chat.templates import choose_template
from smolora_core.data.formats import peek_shape
from smolora_core.data.formats.shapes import Example
from smolora_core.data.sources.located import Located
from smolora_plugins.tasks.causal_lm import CausalLM

SPECIALS = [
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "[INST]",
    "[/INST]",
    "<start_of_turn>",
    "<end_of_turn>",
]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content + '<|im_end|>\n' }}{% endgeneration %}"
    "{% else %}{{ message.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{% if message.role == 'user' %}{{ '[INST] ' + message.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + message.content + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' }}"
    "{{ message.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# Thoughts are written in the last turn only, as by Qwen 3; and a last turn without any has an empty one.
THINKING = (
    "{% for message in messages %}{% set content = message.content %}{% set thought = '' %}"
    "{% if '</think>' in content %}{% set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.role == 'assistant' and loop.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}"
    "{{ content }}"
    "{% for call in message.tool_calls or [] %}{{ '<tool_call>' + (call.function | tojson) + '</tool_call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
TOOLS = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}{{ '<tool_call>' + (call.function | tojson) + '</tool_call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_tokenizer(folder: Path, template: str | None = None, **changes: Any) -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **changes)
    tokenizer.add_special_tokens({"extra_special_tokens": SPECIALS})
    tokenizer.chat_template = template
    return tokenizer


def example_of(row: dict[str, Any], **config: Any) -> Example:
    shape = peek_shape(DataConfig(train="rows.jsonl", **config), [Located(row, "rows.jsonl:1")])
    example = shape.read(row, "rows.jsonl:1")
    assert isinstance(example, Example), example
    return example


def encode(row: dict[str, Any], tokenizer: Any, max_length: int = 1000, **config: Any) -> Encoded | Drop:
    return CausalLM().encode([example_of(row, **config)], tokenizer, max_length)[0]


def seen(row: dict[str, Any], tokenizer: Any, **options: Any) -> list[tuple[str, list[str]]]:
    """For each sequence its whole text, and each stretch of it that is trained."""
    encoded = encode(row, tokenizer, **options)
    assert isinstance(encoded, Encoded), encoded
    found, supervised = [], 0
    for sequence in encoded.sequences:
        ids, labels = sequence["input_ids"], sequence["labels"]
        assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
        assert labels[0] == -100
        supervised += sum(label != -100 for label in labels)
        stretches: list[list[int]] = []
        for before, label in zip([-100, *labels], labels, strict=False):
            if label != -100:
                stretches = [*stretches, []] if before == -100 else stretches
                stretches[-1].append(label)
        found.append((tokenizer.decode(ids), [tokenizer.decode(stretch) for stretch in stretches]))
    assert encoded.supervised == supervised
    return found


def chat(*said: str) -> dict[str, Any]:
    """A conversation in which user and assistant take turns."""
    roles = ("user", "assistant") * len(said)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]}


CALL = {
    "messages": [
        {"role": "user", "content": "is it warm?"},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look", "arguments": '{"at": "mat"}'}}]},
        {"role": "tool", "content": "21"},
        {"role": "assistant", "content": "it is"},
    ]
}


@pytest.mark.parametrize(
    ("row", "config", "whole", "trained"),
    [
        ({"text": "the film was good"}, {}, "the film was good</s>", None),
        ({"prompt": "why?", "completion": " it was good"}, {}, "why? it was good</s>", " it was good</s>"),
        ({"prompt": "the fil", "completion": "m was"}, {}, "the film was</s>", "m was</s>"),
        (
            {"question": "why?", "answer": "so"},
            {"prompt_field": "question", "completion_field": "answer"},
            "why?so</s>",
            "so</s>",
        ),
        ({"instruction": "sum up", "output": "good"}, {}, "sum up\n\ngood</s>", "good</s>"),
        ({"instruction": "sum up", "input": "", "output": "good"}, {}, "sum up\n\ngood</s>", "good</s>"),
        ({"instruction": "sum up", "input": "it was", "output": "good"}, {}, "sum up\n\nit was\n\ngood</s>", "good</s>"),
    ],
)
def test_rows_without_a_chat_template(
    row: dict[str, Any], config: dict[str, Any], whole: str, trained: str | None, llama: Path
) -> None:
    tokenizer = make_tokenizer(llama)
    first = tokenizer.decode(tokenizer(whole)["input_ids"][:1])
    assert seen(row, tokenizer, **config) == [(whole, [whole.removeprefix(first) if trained is None else trained])]


THREE = chat("who sat?", "a cat", "where?", " on the mat\n")


@pytest.mark.parametrize(
    ("template", "whole", "trained"),
    [
        pytest.param(
            template,
            "<|im_start|>user\nwho sat?<|im_end|>\n<|im_start|>assistant\na cat<|im_end|>\n"
            "<|im_start|>user\nwhere?<|im_end|>\n<|im_start|>assistant\n on the mat\n<|im_end|>\n",
            ["a cat<|im_end|>", " on the mat\n<|im_end|>"],
            id=name,
        )
        for name, template in {"ChatML": CHATML, "ChatML with markers": CHATML_MARKED}.items()
    ]
    + [
        pytest.param(
            LLAMA_3,
            "<s><|start_header_id|>user<|end_header_id|>\n\nwho sat?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\na cat<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nwhere?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\non the mat<|eot_id|>",
            ["a cat<|eot_id|>", "on the mat<|eot_id|>"],
            id="Llama 3",
        ),
        pytest.param(
            MISTRAL,
            "<s>[INST] who sat? [/INST] a cat</s>[INST] where? [/INST]  on the mat\n</s>",
            [" a cat</s>", "  on the mat\n</s>"],
            id="Mistral",
        ),
        pytest.param(
            GEMMA,
            "<s><start_of_turn>user\nwho sat?<end_of_turn>\n<start_of_turn>model\na cat<end_of_turn>\n"
            "<start_of_turn>user\nwhere?<end_of_turn>\n<start_of_turn>model\non the mat<end_of_turn>\n",
            ["a cat<end_of_turn>", "on the mat<end_of_turn>"],
            id="Gemma",
        ),
        pytest.param(
            None,
            "User: who sat?\nAssistant: a cat</s>\nUser: where?\nAssistant:  on the mat\n</s>\n",
            [" a cat</s>", "  on the mat\n</s>"],
            id="none",
        ),
    ],
)
def test_every_answer_and_its_end_is_trained(template: str | None, whole: str, trained: list[str], llama: Path) -> None:
    assert seen(THREE, make_tokenizer(llama, template)) == [(whole, trained)]


def test_an_instruction_is_a_turn_where_there_is_a_chat_template(llama: Path) -> None:
    row = {"instruction": "sum up", "input": "it was", "output": "good"}
    whole = "<|im_start|>user\nsum up\n\nit was<|im_end|>\n<|im_start|>assistant\ngood<|im_end|>\n"
    assert seen(row, make_tokenizer(llama, CHATML)) == [(whole, ["good<|im_end|>"])]


def test_prompt_and_completion_as_messages_train_the_completion_only(llama: Path) -> None:
    said = chat("who sat?", "a cat", "where?", "on the mat", "why?", "so")["messages"]
    row = {"prompt": said[:3], "completion": said[3:]}
    for template in (CHATML, CHATML_MARKED):
        (found,) = seen(row, make_tokenizer(llama, template))
        assert found[1] == ["on the mat<|im_end|>", "so<|im_end|>"]


@pytest.mark.parametrize("flag", [{"weight": 0}, {"train": False}])
@pytest.mark.parametrize("template", [CHATML, CHATML_MARKED])
def test_a_turn_of_weight_0_is_not_trained(template: str, flag: dict[str, Any], llama: Path) -> None:
    row = chat("who sat?", "a dog", "no", "a cat")
    row["messages"][1] |= flag
    (found,) = seen(row, make_tokenizer(llama, template))
    assert found[1] == ["a cat<|im_end|>"]
    assert "a dog" in found[0]


def test_calls_of_tools_are_trained_and_their_answers_are_not(llama: Path) -> None:
    call = '<tool_call>{"name": "look", "arguments": {"at": "mat"}}</tool_call>'
    whole = (
        f"<|im_start|>user\nis it warm?<|im_end|>\n<|im_start|>assistant\n{call}<|im_end|>\n"
        "<|im_start|>tool\n21<|im_end|>\n<|im_start|>assistant\nit is<|im_end|>\n"
    )
    assert seen(CALL, make_tokenizer(llama, TOOLS)) == [(whole, [f"{call}<|im_end|>", "it is<|im_end|>"])]


def test_the_plain_template_writes_tools_calls_and_answers(llama: Path) -> None:
    call = '\nTool call: {"name": "look", "arguments": {"at": "mat"}}'
    whole = (
        'Tools: [{"name": "look"}]\nSystem: be short\nUser: is it warm?\n'
        f"Assistant:{call}</s>\nTool: 21\nAssistant: it is</s>\n"
    )
    row = {**CALL, "tools": '[{"name": "look"}]', "system": "be short"}
    assert seen(row, make_tokenizer(llama)) == [(whole, [f"{call}</s>", " it is</s>"])]


def test_a_template_that_leaves_calls_out_trains_nothing_of_them(llama: Path) -> None:
    row = {"messages": [{**turn, "content": turn["content"] or ""} for turn in CALL["messages"]]}
    assert encode(row, make_tokenizer(llama, CHATML)) == Drop("the chat template omits tool calls")


def test_a_call_is_left_out_even_if_somebody_names_its_function(llama: Path) -> None:
    call = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    turns = [
        {"role": "user", "content": "Use get_weather for Paris"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    assert encode({"messages": turns}, make_tokenizer(llama, CHATML)) == Drop("the chat template omits tool calls")


@pytest.mark.parametrize("role", ["system", "tool"])
def test_what_a_template_does_not_write_drops_the_row(role: str, llama: Path) -> None:
    deaf = CHATML.replace("{% for message in messages %}", f"{{% for message in messages if message.role != '{role}' %}}")
    turns = [{"role": role, "content": "It is 'cold'."}, *chat("Hi", "Hello")["messages"]]
    reason = f"the chat template omits the content of a {role} turn"
    assert encode({"messages": turns}, make_tokenizer(llama, deaf)) == Drop(reason)
    assert isinstance(encode({"messages": turns}, make_tokenizer(llama, CHATML)), Encoded)


def test_tools_that_a_template_does_not_write_drop_the_row(llama: Path) -> None:
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]
    row = {**chat("Hi", "Hello"), "tools": tools}
    assert encode(row, make_tokenizer(llama, CHATML)) == Drop("the chat template omits the tools")


def test_an_end_that_a_prompt_was_given_is_not_trained(llama: Path) -> None:
    row = {"prompt": "hi you</s>", "completion": "a cat</s>"}
    assert seen(row, make_tokenizer(llama)) == [("hi you</s>a cat</s>", ["a cat</s>"])]


def test_a_template_that_rewrites_earlier_turns_gives_a_sequence_for_each(llama: Path) -> None:
    row = chat("who sat?", "<think>\nmat\n</think>\n\na cat", "where?", "on it")
    asked = "<|im_start|>user\nwho sat?<|im_end|>\n<|im_start|>assistant\n"
    first = "<think>\nmat\n</think>\n\na cat<|im_end|>"
    second = "<think>\n\n</think>\n\non it<|im_end|>"
    assert seen(row, make_tokenizer(llama, THINKING)) == [
        (f"{asked}{first}\n", [first]),
        (f"{asked}a cat<|im_end|>\n<|im_start|>user\nwhere?<|im_end|>\n<|im_start|>assistant\n{second}\n", [second]),
    ]


def test_what_the_prompt_says_already_is_not_trained(llama: Path) -> None:
    row = {**chat("who sat?", "a cat"), "chat_template_kwargs": {"enable_thinking": False}}
    whole = "<|im_start|>user\nwho sat?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\na cat<|im_end|>\n"
    assert seen(row, make_tokenizer(llama, THINKING)) == [(whole, ["a cat<|im_end|>"])]


def test_a_token_over_a_border_is_parted(llama: Path) -> None:
    tokenizer = make_tokenizer(llama, "{% for m in messages %}{{ m.content }}{% endfor %}")
    alone, together = (tokenizer(text)["input_ids"] for text in ("the fil", "the film was"))
    assert together[: len(alone)] != alone
    assert seen(chat("the fil", "m was"), tokenizer) == [("the film was", ["m was"])]


def test_special_tokens_may_swallow_the_white_space_after_them(llama: Path) -> None:
    # As those of Phi 3 do.
    tokenizer = make_tokenizer(llama, CHATML)
    names = ("<|im_start|>assistant", "<|im_end|>")
    tokens = [AddedToken(name, rstrip=True, special=True) for name in names]
    tokenizer.add_special_tokens({"extra_special_tokens": tokens})
    assert tokenizer.decode(tokenizer("<|im_end|> \n a")["input_ids"]) == "<|im_end|>a"
    (found,) = seen(chat("who sat?", "a cat", "where?", " on the mat"), tokenizer)
    assert found[1] == ["a cat<|im_end|>", "on the mat<|im_end|>"]


def test_a_text_without_an_end_of_sequence_token_has_an_open_end(tmp_path: Path) -> None:
    from tests.support.models import save_tokenizer

    save_tokenizer(tmp_path, eos=False)
    tokenizer = make_tokenizer(tmp_path)
    assert seen({"prompt": "why?", "completion": " so"}, tokenizer) == [("why? so", [" so"])]
    assert seen(chat("why?", "so"), tokenizer) == [("User: why?\nAssistant: so\n", [" so\n"])]
    for row in ({"text": "a good film"}, {"prompt": "why?", "completion": " so"}, chat("why?", "so")):
        assert encode(row, tokenizer).open_ended == 1


@pytest.mark.parametrize(
    ("row", "template", "max_length", "open_ended"),
    [
        ({"text": "the film was good"}, None, 1000, 0),
        ({"text": "the film was good and long"}, None, 3, 0),
        ({"prompt": "why?", "completion": " it was good"}, None, 1000, 0),
        ({"prompt": "why?", "completion": " it was good"}, None, 6, 1),
        (THREE, CHATML, 1000, 0),
        (THREE, "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}", 1000, 2),
    ],
    ids=["text", "split text", "completion", "cut completion", "chat", "template without an end"],
)
def test_ends_that_are_not_trained_are_counted(
    row: dict[str, Any], template: str | None, max_length: int, open_ended: int, llama: Path
) -> None:
    assert encode(row, make_tokenizer(llama, template), max_length).open_ended == open_ended


def test_a_long_conversation_is_cut_and_counted(llama: Path) -> None:
    tokenizer = make_tokenizer(llama, CHATML)
    whole = encode(THREE, tokenizer).sequences[0]["input_ids"]
    cut = encode(THREE, tokenizer, max_length=len(whole) - 4)
    assert (cut.tokens_lost, cut.open_ended) == (4, 1)
    assert cut.sequences[0]["input_ids"] == whole[:-4]
    assert seen(THREE, tokenizer, max_length=len(whole) - 4)[0][1] == ["a cat<|im_end|>", " on the"]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "the film was good", "completion": " yes"}, "the film was good"),
        (chat("the film was good", "yes"), "<|im_start|>user\nthe film was good<|im_end|>\n<|im_start|>assistant\n"),
    ],
    ids=["completion", "chat"],
)
def test_a_prompt_that_leaves_no_room_is_dropped_with_its_length(row: dict[str, Any], prompt: str, llama: Path) -> None:
    tokenizer = make_tokenizer(llama, CHATML)
    size = len(tokenizer(prompt)["input_ids"])
    assert encode(row, tokenizer, max_length=4) == Drop("the prompt fills data.max_seq_length 4", size=size)


@pytest.mark.parametrize(
    ("template", "row", "reason"),
    [
        (
            MISTRAL,
            {"messages": [*chat("a")["messages"], *chat("b", "c")["messages"]]},
            "the chat template fails (Conversation roles must alternate user/assistant)",
        ),
        (
            "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}{{ '>' }}{% endif %}",
            chat("a", "b"),
            "the chat template does not start an answer with its generation prompt; "
            "add {% generation %} markers to the chat template, or choose another in data.chat_template",
        ),
        ("{{ messages[0].content }}", chat("a", "b"), "the chat template writes nothing to train on"),
    ],
)
def test_a_conversation_that_cannot_be_told_apart_is_dropped(
    template: str, row: dict[str, Any], reason: str, llama: Path
) -> None:
    assert encode(row, make_tokenizer(llama, template)) == Drop(reason)


def test_rows_of_all_kinds_keep_their_order(llama: Path) -> None:
    tokenizer = make_tokenizer(llama, CHATML)
    rows = [{"text": "the film"}, THREE, {"prompt": "a", "completion": "b"}, chat("a", "b")]
    together = CausalLM().encode([example_of(row) for row in rows], tokenizer, 1000)
    assert together == [encode(row, tokenizer) for row in rows]


anything = st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip)


@given(turns=st.lists(anything, min_size=2, max_size=6))
@settings(max_examples=80, deadline=None)
@pytest.mark.parametrize("template", [CHATML, CHATML_MARKED, MISTRAL, None], ids=["ChatML", "marked", "Mistral", "plain"])
def test_whatever_is_said_is_trained_to_the_letter(template: str | None, turns: list[str], llama: Path) -> None:
    tokenizer = make_tokenizer(llama, template)
    before, end = {CHATML: ("", "<|im_end|>"), CHATML_MARKED: ("", "<|im_end|>")}.get(template, (" ", "</s>"))
    (found,) = seen(chat(*turns), tokenizer)
    assert found[1] == [f"{before}{answer}{end}" for answer in turns[1::2]]


@given(prompt=anything, completion=anything)
@settings(max_examples=80, deadline=None)
def test_whatever_completes_a_prompt_is_trained_to_the_letter(prompt: str, completion: str, llama: Path) -> None:
    row = {"prompt": prompt, "completion": completion}
    assert seen(row, make_tokenizer(llama)) == [(f"{prompt}{completion}</s>", [f"{completion}</s>"])]


def test_the_chosen_template_is_the_one_that_is_used_without_any(llama: Path) -> None:
    bare, given = make_tokenizer(llama), make_tokenizer(llama)
    given.chat_template = choose_template(bare, "auto", "run.yaml:3").template
    assert encode(THREE, bare) == encode(THREE, given)
