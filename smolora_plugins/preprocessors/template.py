"""Write a text from the columns of a row."""

from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from smolora_core import ConfigError, DatasetError
from smolora_plugins.preprocessors.columns import has


def compiled(source: str) -> jinja2.Template:
    """Compile a template that sees nothing but the row.

    White space around block tags is handled as in chat templates. Null becomes an empty text.

    Raises:
        ConfigError: it is no template; the message names the line.
    """
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: "" if value is None else value,
    )
    # A row must come out the same each time.
    del environment.globals["lipsum"], environment.filters["random"]
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"text is no template, line {error.lineno}: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).removesuffix(".")


class Template:
    """Fills a Jinja template, compiled once, with each row."""

    def __init__(self, text: str, into: str | None) -> None:
        self._arguments = text, into
        self._into = into
        self._template = compiled(text)

    def __reduce__(self) -> Any:
        # Compiled templates cannot travel to other processes.
        return Template, self._arguments

    def __call__(self, row: dict[str, Any], context: Any) -> dict[str, Any]:
        """Write the text.

        Raises:
            DatasetError: the template asks for a column that the row does not have, or for what a sandbox refuses.
        """
        try:
            return {**row, self._into or context.text_field: self._template.render(row)}
        except Exception as error:
            what = f"the template cannot be filled ({_line(error)})"
            raise DatasetError(what, hint=has(row)) from error
