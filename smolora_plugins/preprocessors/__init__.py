"""Built-in preprocessors."""

from collections.abc import Iterable

from smolora_core import Preprocessor, hookimpl
from smolora_plugins.preprocessors import options


@hookimpl
def smolora_preprocessors() -> Iterable[Preprocessor]:
    """Register the built-in steps."""
    yield Preprocessor(
        name="strip",
        summary="strip whitespace from both ends of every text",
        implementation="smolora_plugins.preprocessors.strip:strip",
    )
    yield Preprocessor(
        name="drop-empty",
        summary="drop rows without text, or with a blank value in one of the given columns",
        options=options.DropEmpty,
        implementation="smolora_plugins.preprocessors.drop_empty:drop_empty",
    )
    yield Preprocessor(
        name="rename",
        summary="rename columns",
        options=options.Rename,
        implementation="smolora_plugins.preprocessors.rename:rename",
    )
    yield Preprocessor(
        name="combine-fields",
        summary="join the texts of several columns into one",
        context=True,
        options=options.CombineFields,
        implementation="smolora_plugins.preprocessors.combine_fields:combine_fields",
    )
    yield Preprocessor(
        name="template",
        summary="render a Jinja template with the row's columns",
        context=True,
        options=options.Template,
        implementation="smolora_plugins.preprocessors.template:Template",
    )
    yield Preprocessor(
        name="chunk-words",
        summary="split long texts into rows of at most `size` words",
        context=True,
        options=options.ChunkWords,
        implementation="smolora_plugins.preprocessors.chunk_words:chunk_words",
    )
    yield Preprocessor(
        name="chunk-tokens",
        summary="split long texts into rows of at most `size` tokens",
        context=True,
        options=options.ChunkTokens,
        implementation="smolora_plugins.preprocessors.chunk_tokens:chunk_tokens",
    )
    yield Preprocessor(
        name="dedup",
        summary="drop rows that repeat an earlier one",
        ordered=True,
        options=options.Dedup,
        implementation="smolora_plugins.preprocessors.dedup:Dedup",
    )
    yield Preprocessor(
        name="near-dedup",
        summary="drop rows that resemble an earlier one; needs smolora[dedup]",
        ordered=True,
        options=options.NearDedup,
        implementation="smolora_plugins.preprocessors.near_dedup:NearDedup",
    )
    yield Preprocessor(
        name="filter-length",
        summary="drop rows that are too short or too long",
        context=True,
        options=options.FilterLength,
        implementation="smolora_plugins.preprocessors.filter_length:filter_length",
    )
    yield Preprocessor(
        name="sample",
        summary="keep a fraction of the rows, or the first ones",
        context=True,
        ordered=True,
        options=options.Sample,
        implementation="smolora_plugins.preprocessors.sample:Sample",
    )
    yield Preprocessor(
        name="split",
        summary="keep one side of the split that data.eval makes",
        options=options.Split,
        implementation="smolora_plugins.preprocessors.split:split",
    )
