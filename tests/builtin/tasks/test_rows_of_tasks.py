"""Rows with labels, numbers and tags: what is read, and what is said of those that cannot be."""

import pytest

from smolora_core.config import DataConfig
from smolora_core.data.formats import detect_shape
from smolora_core.errors import Problem

WHERE = "rows.csv:3"


def read(row, formats, **data):
    shape = detect_shape(DataConfig(train="rows.csv", **data), row, WHERE, formats=formats)
    return shape.read(row, WHERE)


READ = [
    (("labelled",), {"text": "x", "label": "3.0"}, {}, ("3.0",)),
    (("scored",), {"text": "x", "label": "3.0"}, {}, (3.0,)),
    (("scored",), {"text": "x", "label": "3.0"}, {"format": "labelled"}, (3.0,)),
    (("scored",), {"text": "x", "V": "3.0", "A": 2}, {"label_field": ("V", "A")}, (3.0, 2.0)),
    (("scored",), {"text": "x", "label": [1, "2.5"]}, {}, (1.0, 2.5)),
    (
        ("labelled",),
        {"text": "x", "good": "1", "long": "0", "bad": True},
        {"label_field": ("good", "long", "bad")},
        (["good", "bad"],),
    ),
    (("tokens",), {"tokens": ["a", "b"], "tags": ["O", "B-x"]}, {}, ("O", "B-x")),
    (("tokens",), {"tokens": ["a", "b"], "ner_tags": [0, 1]}, {"format": "tokens"}, ("0", "1")),
    (("tokens",), {"words": ["a", "b"], "pos": ["N", "V"]}, {"text_field": "words", "label_field": "pos"}, ("N", "V")),
]


@pytest.mark.parametrize(("formats", "row", "data", "labels"), READ)
def test_labels_are_read(formats, row, data, labels):
    assert read(row, formats, **data).labels == labels


def test_a_sentence_keeps_its_tokens():
    example = read({"tokens": ["a", "b"], "tags": ["O", "B-x"]}, ("tokens",))
    assert (example.text, example.tokens) == ("a b", ("a", "b"))


PROBLEMS = [
    (("scored",), {"text": "x", "label": "ham"}, {}, "column 'label' must be a finite number, got str 'ham'"),
    (("scored",), {"text": "x", "label": "nan"}, {}, "column 'label' must be a finite number, got str 'nan'"),
    (("scored",), {"text": "x", "label": []}, {}, "column 'label' must be a finite number, got list []"),
    (("scored",), {"text": 3, "label": 1}, {}, "column 'text' must be text, got int 3"),
    (("labelled",), {"text": "x", "a": 2, "b": 0}, {"label_field": ("a", "b")}, "column 'a' must be 0 or 1, got int 2"),
    (("tokens",), {"tokens": ["a"], "tags": ["O", "O"]}, {}, "column 'tags' has 2 tags for 1 tokens"),
    (("tokens",), {"tokens": "a", "tags": ["O"]}, {}, "column 'tokens' must be a list of texts, got str 'a'"),
    (("tokens",), {"tokens": ["a"], "tags": [None]}, {}, "column 'tags' must be a list of tags, got list [None]"),
]


@pytest.mark.parametrize(("formats", "row", "data", "what"), PROBLEMS)
def test_what_cannot_be_read_names_the_row_and_the_column(formats, row, data, what):
    problem = read(row, formats, **data)
    assert isinstance(problem, Problem)
    assert (problem.where, problem.what) == (WHERE, what)
