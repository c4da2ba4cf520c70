"""Chat templates: which one is chosen, what is said of one that cannot be used, and what it writes."""

from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from smolora_core.batches.tokens import token_ids
from smolora_core.components import Drop, Encoded
from smolora_core.data.chat.encode import encode_chats
from smolora_core.data.chat.templates import choose_template, render
from smolora_core.data.formats.conversation import Conversation
from smolora_core.errors import SmoLoRAError

WHERE = "run.yaml:3"
TEMPLATE = "{% for message in messages %}{{ message.role + ': ' + message.content + '\n' }}{% endfor %}"
TURNS = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so"}]


def make_tokenizer(folder: Path, template: Any = None, **changes: Any) -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **changes)
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("own", "wanted", "name", "note"),
    [
        (TEMPLATE, "auto", "default", ""),
        (
            {"default": TEMPLATE, "rag": "{{ 1 }}"},
            "auto",
            "default",
            "using the tokenizer's chat template 'default' (available: default, rag)",
        ),
        ({"default": "{{ 1 }}", "rag": TEMPLATE}, "rag", "rag", "using the tokenizer's chat template 'rag'"),
    ],
)
def test_the_tokenizer_may_have_a_template_or_several(own: Any, wanted: str, name: str, note: str, llama: Path) -> None:
    chosen = choose_template(make_tokenizer(llama, own), wanted, WHERE)
    assert (chosen.template, chosen.name, chosen.note) == (TEMPLATE, name, note)


@pytest.mark.parametrize(
    ("own", "wanted", "note"),
    [
        (None, "auto", "the tokenizer has no chat template, using plain turns after 'User:' and 'Assistant:'"),
        (TEMPLATE, "plain", "using plain turns after 'User:' and 'Assistant:'"),
    ],
)
def test_ours_is_plain_and_announced(own: str | None, wanted: str, note: str, llama: Path) -> None:
    tokenizer = make_tokenizer(llama, own)
    chosen = choose_template(tokenizer, wanted, WHERE)
    assert (chosen.name, chosen.note) == ("plain", note)
    assert render(tokenizer, TURNS[:1], template=chosen.template, prompt=True)[0] == "User: why?\nAssistant:"


def test_ours_begins_a_text_as_the_tokenizer_does(tmp_path: Path, llama: Path) -> None:
    tokenizer = make_tokenizer(llama)
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    text, _ = render(tokenizer, TURNS, template=choose_template(tokenizer, "plain", WHERE).template)
    assert text == "<s>User: why?\nAssistant: so</s>\n"


def test_a_template_may_be_a_file(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.jinja").write_text(TEMPLATE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    chosen = choose_template(make_tokenizer(llama), "mine.jinja", WHERE)
    assert (chosen.template, chosen.note) == (TEMPLATE, "using chat template mine.jinja")


def test_a_template_may_be_one_of_trl(llama: Path) -> None:
    chosen = choose_template(make_tokenizer(llama), "qwen3", WHERE)
    assert "<|im_start|>" in chosen.template
    assert chosen.note == "using TRL's chat template 'qwen3'"


@pytest.mark.parametrize(
    ("own", "wanted", "message"),
    [
        (None, "qwen33", "no chat template is named 'qwen33'; did you mean 'qwen3'?"),
        ({"rag": TEMPLATE}, "rga", "no chat template is named 'rga'; did you mean 'rag'?"),
        (None, "mien.jinja", "no file 'mien.jinja'; did you mean 'mine.jinja'?"),
        (None, "no/such.jinja", "no file 'no/such.jinja'"),
        (
            {"rag": TEMPLATE, "tools": TEMPLATE},
            "auto",
            "the tokenizer has several chat templates, and none is named 'default'; "
            "set data.chat_template to one of: rag, tools",
        ),
        (
            None,
            "mine.jinja",
            "chat template 'mine.jinja' fails (Unexpected end of template. Jinja was looking for the following tags: "
            "'endfor' or 'else'. The innermost block that needs to be closed is 'for'.)",
        ),
        ("{{ raise_exception('not today') }}", "auto", "chat template 'default' fails (not today)"),
        (
            "{{ 1 }}",
            "auto",
            "chat template 'default' omits the content of messages; it may expect images; choose another one, or plain",
        ),
    ],
)
def test_a_template_that_cannot_be_used_is_an_error_at_its_key(
    own: Any, wanted: str, message: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.jinja").write_text("{% for message in messages %}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SmoLoRAError) as caught:
        choose_template(make_tokenizer(llama, own), wanted, WHERE)
    assert str(caught.value) == f"run.yaml:3 {message}"


def test_a_template_sees_tools_and_what_a_row_sets(llama: Path) -> None:
    template = "{{ tools | tojson }} {{ mood }} {{ bos_token }}{% for message in messages %}{{ message.content }}{% endfor %}"
    text, _ = render(make_tokenizer(llama, template), TURNS, tools=[{"name": "look"}], mood="calm")
    assert text == '[{"name": "look"}] calm <s>why?so'


def test_texts_are_tokenised_as_by_a_call_whatever_the_tokenizer_was_set_to(llama: Path) -> None:
    tokenizer = make_tokenizer(llama)
    texts = ["the film", "was", "", "good and long and bad"]
    expected = tokenizer(texts)["input_ids"]
    tokenizer.backend_tokenizer.enable_truncation(1)
    tokenizer.backend_tokenizer.enable_padding(length=7)
    assert token_ids(tokenizer, texts) == expected


def test_a_tokenizer_with_a_way_of_its_own_is_called(llama: Path) -> None:
    class Loud(transformers.PreTrainedTokenizerFast):
        def _encode_plus(self, text: Any, **options: Any) -> Any:
            return super()._encode_plus([each.upper() for each in text], **options)

    tokenizer = Loud.from_pretrained(llama)
    assert tokenizer.decode(token_ids(tokenizer, ["the film", "was good"])[1]) == "WAS GOOD"


settings_of_rows = st.dictionaries(
    st.sampled_from(["messages", "tools", "template", "tokenize", "conversations", "chat_template", "eos_token", "mood"]),
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    max_size=3,
)
snippets = st.sampled_from(
    [
        "{% for m in messages %}",
        "{% endfor %}",
        "{{ m.content }}",
        "{{ m.role + 1 }}",
        "{% generation %}",
        "{% endgeneration %}",
        "{{ messages[9].content.x }}",
        "{% if add_generation_prompt %}>{% endif %}",
        "{{ raise_exception('no') }}",
        "{{ 1 / 0 }}",
        " ",
        "a{{ messages[-1].content }}",
    ]
)


@given(template=st.lists(snippets, min_size=1, max_size=6).map("".join), variables=settings_of_rows)
@settings(max_examples=200, deadline=None)
def test_whatever_a_template_does_a_row_is_encoded_or_dropped(template: str, variables: dict[str, Any], llama: Path) -> None:
    conversation = Conversation(tuple(TURNS), (False, True), (), variables)
    (found,) = encode_chats([conversation], make_tokenizer(llama, template), 100)
    assert isinstance(found, Drop | Encoded)
