"""Preprocessors that come with SmoLoRA."""

from collections.abc import Iterable

from smolora_core import Preprocessor, hookimpl
from smolora_plugins.preprocessors import options


@hookimpl
def smolora_preprocessors() -> Iterable[Preprocessor]:
    """Offer the built-in steps."""
    yield Preprocessor(
        name="strip",
        summary="remove white space around every text of a row",
        implementation="smolora_plugins.preprocessors.strip:strip",
    )
    yield Preprocessor(
        name="drop-empty",
        summary="leave out rows without text, or with a blank column among those named",
        options=options.DropEmpty,
        implementation="smolora_plugins.preprocessors.drop_empty:drop_empty",
    )
    yield Preprocessor(
        name="rename",
        summary="give columns other names",
        options=options.Rename,
        implementation="smolora_plugins.preprocessors.rename:rename",
    )
    yield Preprocessor(
        name="combine-fields",
        summary="join the texts of several columns",
        context=True,
        options=options.CombineFields,
        implementation="smolora_plugins.preprocessors.combine_fields:combine_fields",
    )
    yield Preprocessor(
        name="template",
        summary="write a text from columns by a Jinja template",
        context=True,
        options=options.Template,
        implementation="smolora_plugins.preprocessors.template:Template",
    )
    yield Preprocessor(
        name="chunk-words",
        summary="cut long texts into rows of so many words",
        context=True,
        options=options.ChunkWords,
        implementation="smolora_plugins.preprocessors.chunk_words:chunk_words",
    )
    yield Preprocessor(
        name="chunk-tokens",
        summary="cut long texts into rows of so many tokens",
        context=True,
        options=options.ChunkTokens,
        implementation="smolora_plugins.preprocessors.chunk_tokens:chunk_tokens",
    )
    yield Preprocessor(
        name="dedup",
        summary="leave out rows that repeat an earlier one",
        ordered=True,
        options=options.Dedup,
        implementation="smolora_plugins.preprocessors.dedup:Dedup",
    )
    yield Preprocessor(
        name="near-dedup",
        summary="leave out rows that resemble an earlier one; needs smolora[dedup]",
        ordered=True,
        options=options.NearDedup,
        implementation="smolora_plugins.preprocessors.near_dedup:NearDedup",
    )
    yield Preprocessor(
        name="filter-length",
        summary="leave out rows that are too short or too long",
        context=True,
        options=options.FilterLength,
        implementation="smolora_plugins.preprocessors.filter_length:filter_length",
    )
    yield Preprocessor(
        name="sample",
        summary="take a fraction of the rows, or the first ones",
        context=True,
        ordered=True,
        options=options.Sample,
        implementation="smolora_plugins.preprocessors.sample:Sample",
    )
    yield Preprocessor(
        name="split",
        summary="take one side of the rows as data.eval parts them",
        options=options.Split,
        implementation="smolora_plugins.preprocessors.split:split",
    )
