"""Chat templates: which one writes turns as text, and whether it can."""

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs

from smolora_core.data.sources.encoding import open_text
from smolora_core.errors import ConfigError, DatasetError, did_you_mean, nearest

_PROBE = ("question", "answer")


@attrs.frozen
class ChosenTemplate:
    """A chat template and where it comes from.

    Attributes:
        template: its text, for `tokenizer.chat_template`.
        name: what messages call it.
        note: what a person should be told about the choice; empty where it is the tokenizer's own.
    """

    template: str
    name: str
    note: str = ""


def choose_template(tokenizer: Any, wanted: str, where: str) -> ChosenTemplate:
    """Choose the chat template that a config asks for, and try it.

    Args:
        tokenizer: of the base model; it is left as it is.
        wanted: `auto`, `plain`, a path that ends in `.jinja`, or the name of one of the tokenizer's templates or of those
            that come with TRL.
        where: the place of the config key, for errors.

    Raises:
        ConfigError: there is no such file or name.
        DatasetError: it is not a template, or fails on a plain question and answer, or leaves out what they say.
    """
    chosen = _choose(tokenizer, wanted, where)
    turns = [{"role": role, "content": said} for role, said in zip(("user", "assistant"), _PROBE, strict=True)]
    try:
        text, _ = render(tokenizer, turns, template=chosen.template)
    except Exception as error:
        # A template is the user's code: whatever it raises, the config is at fault.
        raise DatasetError(f"chat template {chosen.name!r} fails ({first_line(error)})", where=where) from error
    if not all(said in text for said in _PROBE):
        hint = "it may be made for images; choose another, or plain"
        raise DatasetError(f"chat template {chosen.name!r} leaves out what turns say", where=where, hint=hint)
    return chosen


def plain_template(tokenizer: Any) -> str:
    """Give the template for tokenizers that have none: turns after `User:` and `Assistant:`, which end as texts end."""
    plain = files("smolora_core.data.chat").joinpath("plain.jinja").read_text(encoding="utf-8")
    start = tokenizer.bos_token_id
    begins = start is not None and tokenizer("a", verbose=False)["input_ids"][:1] == [start]
    return "{{- bos_token }}" + plain if begins else plain


def render(
    tokenizer: Any, messages: Any, *, template: str | None = None, tools: Any = None, prompt: bool = False, **variables: Any
) -> tuple[str, list[tuple[int, int]]]:
    """Write turns as text, as `tokenizer.apply_chat_template` does.

    Args:
        tokenizer: whose special tokens the template may write.
        messages: the turns.
        template: the template; left out, the tokenizer's.
        tools: schemas of functions.
        prompt: whether the start of an answer follows.
        **variables: what else the template may use.

    Returns:
        The text, and the stretches that `{% generation %}` marks in it.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    template = tokenizer.get_chat_template(template, tools)
    # Its own annotation says that it returns one text.
    rendered: Any = render_jinja_template(
        conversations=[list(messages)],
        tools=tools,
        chat_template=template,
        add_generation_prompt=prompt,
        continue_final_message=False,
        # Without markers in the template this option is a warning.
        return_assistant_tokens_mask="endgeneration" in template,
        **{**tokenizer.special_tokens_map, **variables},
    )
    (text,), marked = rendered
    return text, marked[0] if marked else []


def first_line(error: Exception) -> str:
    """Say what a template failed of, on one line."""
    return str(error).partition("\n")[0] or type(error).__name__


def _choose(tokenizer: Any, wanted: str, where: str) -> ChosenTemplate:
    own = tokenizer.chat_template
    named = own if isinstance(own, dict) else {}
    if wanted == "auto" and isinstance(own, str):
        return ChosenTemplate(own, "the tokenizer's")
    if wanted == "auto" and named:
        if "default" not in named:
            what = "the tokenizer has several chat templates, and none is the default"
            raise ConfigError(what, where=where, hint=f"set data.chat_template to one of: {', '.join(sorted(named))}")
        note = f"of the tokenizer's chat templates {', '.join(sorted(named))}, default is used"
        return ChosenTemplate(named["default"], "default", note)
    if wanted == "auto":
        note = "the tokenizer has no chat template: turns are written plainly, after 'User:' and 'Assistant:'"
        return ChosenTemplate(plain_template(tokenizer), "plain", note)
    if wanted == "plain":
        return ChosenTemplate(plain_template(tokenizer), wanted, "turns are written plainly, after 'User:' and 'Assistant:'")
    if wanted.endswith(".jinja"):
        return ChosenTemplate(_read(Path(wanted), where), wanted, f"chat template {wanted}")
    if wanted in named:
        return ChosenTemplate(named[wanted], wanted, f"chat template {wanted!r} of the tokenizer")
    shipped = _shipped()
    if wanted not in shipped:
        raise ConfigError(
            f"no chat template is named {wanted!r}",
            where=where,
            hint=did_you_mean(wanted, ["auto", "plain", *named, *shipped]),
        )
    return ChosenTemplate(_read(shipped[wanted], where), wanted, f"chat template {wanted!r} of TRL")


def _shipped() -> dict[str, Path]:
    """Find the templates that come with TRL, without the seconds that its import takes."""
    spec = find_spec("trl")
    folders = spec.submodule_search_locations if spec else None
    return {path.stem: path for folder in folders or () for path in sorted(Path(folder, "chat_templates").glob("*.jinja"))}


def _read(path: Path, where: str) -> str:
    if not path.is_file():
        near = nearest(path.name, (each.name for each in path.parent.glob("*.jinja"))) if path.parent.is_dir() else ""
        raise ConfigError(f"no file {str(path)!r}", where=where, hint=near)
    with open_text(path) as file:
        return file.read()
