"""Render a Jinja template with the columns of a row."""

from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from smolora_core import ConfigError, DatasetError
from smolora_plugins.preprocessors.columns import columns_of


def compiled(source: str) -> jinja2.Template:
    """Compile a sandboxed template; null renders as an empty text, and blocks are trimmed as in chat templates.

    Raises:
        ConfigError: the template is invalid; the message names the line.
    """
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: "" if value is None else value,
    )
    # Rendering must be deterministic.
    del environment.globals["lipsum"], environment.filters["random"]
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"text is not a valid template, line {error.lineno}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).removesuffix(".")


class Template:
    """Render a Jinja template, compiled once, with each row."""

    def __init__(self, text: str, into: str | None) -> None:
        self._arguments = text, into
        self._into = into
        self._template = compiled(text)

    def __reduce__(self) -> Any:
        # Compiled templates cannot be pickled for worker processes.
        return Template, self._arguments

    def __call__(self, row: dict[str, Any], context: Any) -> dict[str, Any]:
        """Render the text.

        Raises:
            DatasetError: the template uses a missing column, or something that the sandbox forbids.
        """
        try:
            return {**row, self._into or context.text_field: self._template.render(row)}
        except Exception as error:
            what = f"the template cannot be rendered ({_one_line(error)})"
            raise DatasetError(what, hint=columns_of(row)) from error
