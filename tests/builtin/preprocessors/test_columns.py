"""Steps that change what stands in the columns of a row."""

import pytest

from smolora_core import DatasetError, Drop


def refusal(call, *arguments, **options):
    with pytest.raises(DatasetError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def test_strip_leaves_what_is_no_text(apply):
    assert apply("strip", {"text": " a b\n", "stars": 4, "tags": [" x "]}) == [{"text": "a b", "stars": 4, "tags": [" x "]}]


@pytest.mark.parametrize("value", ["", " \t\n\u2028", None, [], {}])
def test_drop_empty_names_the_column_that_is_blank(apply, value):
    row = {"title": "a", "text": value}
    assert apply("drop-empty", row, fields=["title", "text"]) == [Drop("column 'text' is blank")]


@pytest.mark.parametrize("value", ["a", 0, False, [""]])
def test_drop_empty_keeps_what_is_not_blank(apply, value):
    row = {"text": value}
    assert apply("drop-empty", row, fields=["text"]) == [row]


@pytest.mark.parametrize("row", [{"text": " "}, {"text": "", "title": None, "label": 1}, {"messages": []}, {}])
def test_drop_empty_drops_a_row_without_text(apply, row):
    assert apply("drop-empty", row) == [Drop("contains no text")]


@pytest.mark.parametrize("row", [{"text": "", "title": "a"}, {"messages": [{"role": "user", "content": "a"}]}])
def test_drop_empty_keeps_a_row_with_some_text(apply, row):
    assert apply("drop-empty", row) == [row]


def test_rename_keeps_the_order_of_columns_and_the_other_columns(apply):
    (row,) = apply("rename", {"review": "a", "stars": 4, "by": "me"}, columns={"review": "text", "stars": "label"})
    assert list(row.items()) == [("text", "a"), ("label", 4), ("by", "me")]


def test_rename_swaps_names(apply):
    assert apply("rename", {"a": 1, "b": 2}, columns={"a": "b", "b": "a"}) == [{"b": 1, "a": 2}]


def test_rename_overwrites_no_column(apply):
    assert refusal(apply, "rename", {"review": "a", "text": "b"}, columns={"review": "text"}) == (
        "cannot rename 'review': column 'text' exists; it has: review, text"
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"title": "a", "body": "b"}, "a\nb"),
        ({"title": " ", "body": "b"}, "b"),
        ({"title": None, "body": "b"}, "b"),
        ({"title": "", "body": None}, ""),
    ],
    ids=["both", "a blank one", "null", "none"],
)
def test_combine_fields_passes_over_what_is_blank(apply, row, expected):
    assert apply("combine-fields", row, fields=["title", "body"]) == [{**row, "text": expected}]


def test_combine_fields_joins_by_a_separator_into_a_column(apply):
    row = {"title": "a", "body": "b"}
    (made,) = apply("combine-fields", row, fields=["body", "title"], into="title", separator=" -- ")
    assert made == {"title": "b -- a", "body": "b"}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ title }}: {{ stars }}", "a & b: 4"),
        ("{% if note %}\n{{ note }}\n{% endif %}\n{{ title }}\n", "a & b"),
        ("{{ note }}|{{ tags | join(', ') }}", "|x, y"),
        ("{% if by is defined %}{{ by }}{% endif %}", ""),
        ("{{ turns[0].content }}", "hello"),
    ],
    ids=["values", "a block", "null and a list", "a column that may be missing", "a conversation"],
)
def test_template_writes_a_text_of_the_columns(apply, template, expected):
    row = {"title": "a & b", "stars": 4, "note": None, "tags": ["x", "y"], "turns": [{"content": "hello"}]}
    assert apply("template", row, text=template, into="out") == [{**row, "out": expected}]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ titel }}", "'titel' is undefined"),
        ("{{ title.author }}", "'str object' has no attribute 'author'"),
        ("{{ title + 1 }}", 'can only concatenate str (not "int") to str'),
        ("{{ ''.__class__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ title.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ '{0.__class__}'.format(title) }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ tags.append(1) }}", "access to attribute 'append' of 'list' object is unsafe"),
        ("{% include 'secret' %}", "no loader for this environment specified"),
    ],
)
def test_template_says_why_it_cannot_be_filled(apply, template, reason):
    row = {"title": "a", "tags": []}
    assert refusal(apply, "template", row, text=template) == f"the template cannot be rendered ({reason}); it has: title, tags"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("drop-empty", {"fields": ["body"]}),
        ("rename", {"columns": {"body": "text"}}),
        ("combine-fields", {"fields": ["title", "body"]}),
        ("chunk-words", {"size": 3, "field": "body"}),
        ("chunk-tokens", {"size": 3, "field": "body"}),
        ("dedup", {"fields": ["body"]}),
        ("near-dedup", {"fields": ["body"]}),
        ("filter-length", {"minimum": 3, "field": "body"}),
    ],
)
def test_a_column_that_is_missing_is_named(apply, name, options):
    if name == "near-dedup":
        pytest.importorskip("datasketch")
    assert refusal(apply, name, {"title": "a", "stars": 4}, **options) == "has no column 'body'; it has: title, stars"


def test_a_row_without_columns_has_none(apply):
    assert refusal(apply, "chunk-words", {}, size=3) == "has no column 'text'; it has: none"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("combine-fields", {"fields": ["text"]}),
        ("chunk-words", {"size": 3}),
        ("chunk-tokens", {"size": 3}),
        ("filter-length", {"minimum": 3}),
    ],
)
@pytest.mark.parametrize(("value", "found"), [(4, "a number"), (["a"], "a list"), (True, "a boolean")])
def test_what_is_no_text_where_text_is_due_is_said(apply, name, options, value, found):
    assert refusal(apply, name, {"text": value}, **options) == f"column 'text' must be text, got {found}"


@pytest.mark.parametrize(
    ("name", "options"), [("chunk-tokens", {"size": 3}), ("filter-length", {"minimum": 3, "unit": "tokens"})]
)
def test_half_of_a_character_has_no_tokens(apply, name, options):
    row = {"text": "a\ud83d"}
    assert refusal(apply, name, row, **options) == r"column 'text' contains a lone surrogate, '\ud83d'"
