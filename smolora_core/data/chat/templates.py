"""Choose, check and render chat templates."""

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs

from smolora_core.data.sources.encoding import open_text
from smolora_core.errors import ConfigError, DatasetError, did_you_mean, first_line, nearest

_PROBE = ({"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"})
_PLAIN = "using plain turns after 'User:' and 'Assistant:'"


@attrs.frozen
class ChosenTemplate:
    """A chat template: its text and name, and a note on the choice unless it is the tokenizer's only one."""

    template: str
    name: str
    note: str = ""


def choose_template(tokenizer: Any, wanted: str, where: str) -> ChosenTemplate:
    """Choose the chat template that a config requests, and try it; the tokenizer is not modified.

    Args:
        tokenizer: the base model's tokenizer.
        wanted: `auto`, `plain`, a path that ends in `.jinja`, or the name of one of the tokenizer's or TRL's templates.
        where: the place of the config key, for errors.

    Raises:
        ConfigError: there is no such file or name.
        DatasetError: the template is invalid, fails on a plain question and answer, or omits their content.
    """
    chosen = _choose(tokenizer, wanted, where)
    try:
        text, _ = render(tokenizer, _PROBE, template=chosen.template)
    except Exception as error:
        # A template is the user's code: whatever it raises, the config is at fault.
        raise DatasetError(f"chat template {chosen.name!r} fails ({first_line(error)})", where=where) from error
    if not all(turn["content"] in text for turn in _PROBE):
        hint = "it may expect images; choose another one, or plain"
        raise DatasetError(f"chat template {chosen.name!r} omits the content of messages", where=where, hint=hint)
    return chosen


def plain_template(tokenizer: Any) -> str:
    """Make the template for tokenizers without one: turns after `User:` and `Assistant:`, with the usual special tokens."""
    plain = files("smolora_core.data.chat").joinpath("plain.jinja").read_text(encoding="utf-8")
    start = tokenizer.bos_token_id
    begins = start is not None and tokenizer("a", verbose=False)["input_ids"][:1] == [start]
    return "{{- bos_token }}" + plain if begins else plain


def render(
    tokenizer: Any, messages: Any, *, template: str | None = None, tools: Any = None, prompt: bool = False, **variables: Any
) -> tuple[str, list[tuple[int, int]]]:
    """Render messages as `tokenizer.apply_chat_template` does, with the tokenizer's template unless one is given.

    `prompt` adds the generation prompt. Returns the text, and the spans of it that `{% generation %}` marks.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    template = tokenizer.get_chat_template(template, tools)
    # Annotated as returning one text, which it does not.
    rendered: Any = render_jinja_template(
        conversations=[list(messages)],
        tools=tools,
        chat_template=template,
        add_generation_prompt=prompt,
        continue_final_message=False,
        # Warns if the template has no markers.
        return_assistant_tokens_mask="endgeneration" in template,
        **{**tokenizer.special_tokens_map, **variables},
    )
    (text,), marked = rendered
    return text, marked[0] if marked else []


def _choose(tokenizer: Any, wanted: str, where: str) -> ChosenTemplate:
    own = tokenizer.chat_template
    named = own if isinstance(own, dict) else {}
    if wanted == "auto" and isinstance(own, str):
        return ChosenTemplate(own, "default")
    if wanted == "auto" and named:
        if "default" not in named:
            what = "the tokenizer has several chat templates, and none is named 'default'"
            raise ConfigError(what, where=where, hint=f"set data.chat_template to one of: {', '.join(sorted(named))}")
        note = f"using the tokenizer's chat template 'default' (available: {', '.join(sorted(named))})"
        return ChosenTemplate(named["default"], "default", note)
    if wanted == "auto":
        return ChosenTemplate(plain_template(tokenizer), "plain", f"the tokenizer has no chat template, {_PLAIN}")
    if wanted == "plain":
        return ChosenTemplate(plain_template(tokenizer), wanted, _PLAIN)
    if wanted.endswith(".jinja"):
        return ChosenTemplate(_read(Path(wanted), where), wanted, f"using chat template {wanted}")
    if wanted in named:
        return ChosenTemplate(named[wanted], wanted, f"using the tokenizer's chat template {wanted!r}")
    shipped = _shipped_with_trl()
    if wanted not in shipped:
        hint = did_you_mean(wanted, ["auto", "plain", *named, *shipped])
        raise ConfigError(f"no chat template is named {wanted!r}", where=where, hint=hint)
    return ChosenTemplate(_read(shipped[wanted], where), wanted, f"using TRL's chat template {wanted!r}")


def _shipped_with_trl() -> dict[str, Path]:
    """Find TRL's templates without importing it, which takes seconds."""
    spec = find_spec("trl")
    folders = spec.submodule_search_locations if spec else None
    return {path.stem: path for folder in folders or () for path in sorted(Path(folder, "chat_templates").glob("*.jinja"))}


def _read(path: Path, where: str) -> str:
    if not path.is_file():
        near = nearest(path.name, (each.name for each in path.parent.glob("*.jinja"))) if path.parent.is_dir() else ""
        raise ConfigError(f"no file {str(path)!r}", where=where, hint=near)
    with open_text(path) as file:
        return file.read()
