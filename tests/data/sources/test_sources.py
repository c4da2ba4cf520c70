import csv
import errno
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolora_core.data.sources import Reading, open_source, peek
from smolora_core.data.sources.hub import HubId
from smolora_core.errors import DatasetError

KNOWN = (
    "known: .bio, .conll, .csv, .iob, .iob2, .json, .jsonl, .md, .ndjson, .parquet, .tsv, .txt; "
    "all but .parquet may be compressed as .gz or .zst"
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_parquet(path, columns):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path, row_group_size=2)


def rows(spec):
    return [located.row for located in open_source(spec).rows()]


def places(spec):
    return [located.where for located in open_source(spec).rows()]


def error(call, *arguments):
    with pytest.raises(DatasetError) as caught:
        call(*arguments)
    return str(caught.value)


def read_error(spec):
    return error(rows, spec)


def test_opening_a_source_imports_nothing_heavy(folder):
    write(folder, "a.jsonl", '{"a": 1}')
    program = """
import sys
from smolora_core.data.splits import hold_out
from smolora_core.data.sources import open_source, peek
list(hold_out(peek(open_source("a.jsonl")), 0.5, documents=False))
print([name for name in ("torch", "transformers", "datasets", "numpy", "pyarrow") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.jsonl", '{"a": "x"}\n{"a": "y"}\n', "jsonl"),
        ("a.JSONL", '{"a": "x"}\n{"a": "y"}\n', "jsonl"),
        ("a.ndjson", '\n{"a": "x"}\r\n   \n  {"a": "y"}', "jsonl"),
        ("a.json", '[{"a": "x"}, {"a": "y"}]', "json"),
        ("a.json", ' [\n {"a": "x"} ,\n\n {"a": "y"}\n]\n', "json"),
        ("a.json", '{"data": [{"a": "x"}, {"a": "y"}]}', "json"),
        ("a.json", '{\n "da\\"ta" : [\n {"a": "x"},\n {"a": "y"}\n ]\n}\n', "json"),
        ("a.json", '{"a": "x"}\n{"a": "y"}\n', "json"),
        ("a.csv", "a\nx\ny\n", "csv"),
        ("a.csv", 'a\r\n"x"\r\n\r\ny', "csv"),
        ("a.tsv", "a\nx\ny\n", "tsv"),
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_reads_rows(folder, name, content, kind, mark):
    write(folder, name, mark + content.encode())
    assert rows(name) == [{"a": "x"}, {"a": "y"}]
    assert open_source(name).kind == kind
    assert not open_source(name).documents


def test_reads_parquet_over_row_groups(folder):
    write_parquet(folder / "a.parquet", {"a": ["x", "y", None], "b": [[1], [], [2, 3]]})
    assert rows("a.parquet") == [{"a": "x", "b": [1]}, {"a": "y", "b": []}, {"a": None, "b": [2, 3]}]
    assert places("a.parquet") == ["a.parquet:row 1", "a.parquet:row 2", "a.parquet:row 3"]


def test_reads_a_text_file_as_one_document(folder):
    write(folder, "a.txt", "one\r\n\r\ntwo\n")
    source = open_source("a.txt")
    assert source.documents
    assert [(located.row, located.where) for located in source.rows()] == [({"text": "one\n\ntwo\n"}, "a.txt")]


def test_reads_a_folder_of_texts_sorted_and_without_hidden_files(folder):
    for name in ("b.md", "a/z.txt", "c.txt", ".hidden.txt", ".git/x.txt", "picture.png"):
        write(folder, f"texts/{name}", name)
    assert places("texts") == ["texts/a/z.txt", "texts/b.md", "texts/c.txt"]
    assert open_source("./texts/").documents


def test_reads_a_folder_of_data_files_without_its_read_me(folder):
    write(folder, "data/b.jsonl", '{"a": 2}')
    write(folder, "data/a.jsonl", '{"a": 1}')
    write(folder, "data/README.md", "about")
    assert places("data") == ["data/a.jsonl:1", "data/b.jsonl:1"]


@pytest.mark.parametrize(("folder_of_run", "written"), [("runs/a", "run.yaml"), ("adapter", "manifest.json")])
def test_a_folder_is_read_without_what_runs_wrote_into_it(folder, folder_of_run, written):
    write(folder, "data/a.jsonl", '{"a": 1}')
    write(folder, f"data/{folder_of_run}/{written}", "")
    write(folder, f"data/{folder_of_run}/events.jsonl", "{}")
    write(folder, f"data/{folder_of_run}/checkpoint-1/more.jsonl", "{}")
    assert places("data") == ["data/a.jsonl:1"]


def test_a_folder_that_holds_a_config_is_read(folder):
    write(folder, "data/run.yaml", "")
    write(folder, "data/a.jsonl", '{"a": 1}')
    assert places("data") == ["data/a.jsonl:1"]


def test_a_folder_that_cannot_be_read_is_not_passed_over(folder, monkeypatch):
    write(folder, "data/a.jsonl", '{"a": 1}')
    write(folder, "data/private/b.jsonl", '{"a": 2}')
    scandir = os.scandir

    # Its permissions would not keep root out.
    def refuse(path):
        if os.fspath(path).endswith("private"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert error(open_source, "data", "run.yaml:3") == "run.yaml:3 'data/private' cannot be read (Permission denied)"


def test_reads_the_files_of_a_glob_sorted(folder):
    for name in ("b", "a", ".c"):
        write(folder, f"data/{name}.jsonl", '{"a": 1}')
    assert places("data/*.jsonl") == ["data/a.jsonl:1", "data/b.jsonl:1"]
    assert places("**/*.jsonl") == ["data/a.jsonl:1", "data/b.jsonl:1"]
    assert places(f"{folder}/data/[a].jsonl") == [f"{folder.as_posix()}/data/a.jsonl:1"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder):
    write(folder, "rows[1].jsonl", '{"a": 1}')
    assert places("rows[1].jsonl") == ["rows[1].jsonl:1"]


@pytest.mark.parametrize("kind", [list, tuple])
def test_reads_a_list_of_files_in_its_order(folder, kind):
    write(folder, "a.jsonl", '{"a": 1}')
    write(folder, "b.jsonl", '{"a": 2}')
    source = open_source(kind(["b.jsonl", folder / "a.jsonl"]))
    assert [located.row["a"] for located in source.rows()] == [2, 1]
    assert source.name == f"b.jsonl, {folder / 'a.jsonl'}"


def test_an_empty_file_among_others_is_no_error(folder):
    write(folder, "a.jsonl", "")
    write(folder, "b.jsonl", '{"a": 2}')
    assert rows(["a.jsonl", "b.jsonl"]) == [{"a": 2}]


def test_rows_start_afresh_every_time(folder):
    write(folder, "a.jsonl", '{"a": 1}\n{"a": 2}')
    source = open_source("a.jsonl")
    first = source.rows()
    next(first)
    assert [located.row["a"] for located in source.rows()] == [1, 2]
    assert next(first).row == {"a": 2}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", '\n{"a": 1}\n\n\n{"a": 2}', ["a.jsonl:2", "a.jsonl:5"]),
        ("a.json", '[\n  {\n    "a": 1\n  },\n  {"a": 2}\n]', ["a.json:2", "a.json:5"]),
        ("a.json", '[{"a": 1}, {"a": 2},\n{"a": 3}]', ["a.json:1", "a.json:1:12", "a.json:2"]),
        ("a.csv", 'a,b\n"one\ntwo",1\n\nthree,"\n"\nfour,4\n', ["a.csv:2", "a.csv:5", "a.csv:7"]),
    ],
)
def test_says_the_line_a_row_starts_on(folder, name, content, expected):
    write(folder, name, content)
    assert places(name) == expected


def test_reads_a_csv_cell_longer_than_the_default_limit(folder):
    write(folder, "a.csv", f"a,b\n{'x' * 200_000},y\n")
    assert len(rows("a.csv")[0]["a"]) == 200_000


def test_ignores_empty_columns_without_a_name(folder):
    write(folder, "a.csv", "a,b,,\n1,2,,\n3,4, ,\n")
    assert rows("a.csv") == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert open_source("a.csv").columns() == ("a", "b")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", '{"b": 1, "a": 2}\n{"c": 1}', ("b", "a")),
        ("a.json", '[{"b": 1, "a": 2}', ("b", "a")),
        ("a.csv", 'b,a\n1,2\n1,2,3\n"', ("b", "a")),
        ("a.txt", "x", ("text",)),
    ],
)
def test_columns_are_those_of_the_first_row_whatever_follows(folder, name, content, expected):
    write(folder, name, content)
    assert open_source(name).columns() == expected


def test_columns_of_parquet(folder):
    write_parquet(folder / "a.parquet", {"b": [1], "a": [2]})
    assert open_source("a.parquet").columns() == ("b", "a")


def test_peek_reads_the_first_rows_and_nothing_that_follows(folder):
    write(folder, "a.jsonl", '{"a": 1}\n{"a": 2}\nbroken')
    assert [located.row["a"] for located in peek(open_source("a.jsonl"), 2)] == [1, 2]


def test_peek_of_fewer_rows_than_asked_for(folder):
    write(folder, "a.jsonl", '{"a": 1}')
    assert len(peek(open_source("a.jsonl"))) == 1


def test_a_json_list_is_read_no_further_than_asked_for(folder):
    write(folder, "a.json", '[{"a": 1},' + " " * 5_000_000 + "broken")
    assert [located.row for located in peek(open_source("a.json"), 1)] == [{"a": 1}]


def test_a_row_of_a_json_list_may_be_cut_anywhere_by_a_chunk(folder):
    row = '{"é": ["\\ud83d\\ude00\\"", -1.5e3, true, null, {}], "b": ""}'
    for offset in range(len(row) + 2):
        write(folder, "a.json", "[" + " " * ((1 << 20) - 1 - offset) + row + ",1,\n" + row + "]")
        problems = []
        found = [located.row for located in open_source("a.json").rows(problems.append)]
        assert found == [json.loads(row)] * 2, offset
        assert [problem.what for problem in problems] == ["is a number, not an object with columns"]


def test_a_row_of_a_json_list_may_be_longer_than_a_chunk(folder):
    long = [{"a": letter * 5_000_000} for letter in "xyz"]
    write(folder, "a.json", json.dumps({"data": long}))
    assert rows("a.json") == long


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.json", "empty.csv", "empty.tsv", "empty.parquet", "empty.txt"])
def test_an_empty_file(folder, name):
    write(folder, name, "")
    assert read_error(name) == f"{name} has no rows"
    assert error(open_source(name).columns) == f"{name} has no rows"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("blank.jsonl", "\n \n\n"),
        ("blank.json", " \n"),
        ("list.json", "[]"),
        ("wrapper.json", '{"data": []}'),
        ("header.csv", "a,b\n"),
        ("mark.jsonl", b"\xef\xbb\xbf"),
    ],
)
def test_a_file_without_rows(folder, name, content):
    write(folder, name, content)
    assert read_error(name) == f"{name} has no rows"


def test_a_parquet_file_without_rows(folder):
    write_parquet(folder / "a.parquet", {"a": []})
    assert read_error("a.parquet") == "a.parquet has no rows"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"a": "x"}\n{"a": "xxxxxxxx" "b"}', "bad.jsonl:2:18 is not JSON (Expecting ',' delimiter)"),
        ('  {"a" 1}', "bad.jsonl:1:8 is not JSON (Expecting ':' delimiter)"),
        ("\n{'a': 1}\n", "bad.jsonl:2:2 is not JSON (Expecting property name enclosed in double quotes)"),
        ('{"a": "cut\n{"a": 1}\n', "bad.jsonl:1:7 is not JSON (Unterminated string)"),
        ('{"a": "tab\t"}', "bad.jsonl:1:11 is not JSON (Invalid control character)"),
        ('{"a": 1} {"a": 2}', "bad.jsonl:1:10 is not JSON (Extra data)"),
        ("{", "bad.jsonl:1:2 is not JSON (Expecting property name enclosed in double quotes)"),
        ("text", "bad.jsonl:1:1 is not JSON (Expecting value)"),
        ('{"a": ' + "[" * 100_000, "bad.jsonl:1 is not JSON (nested too deeply)"),
        ('{"a": 1}\n{"a": 2}\n[1]', "bad.jsonl:3 is a list, not an object with columns"),
        ('"x"', "bad.jsonl:1 is a string, not an object with columns"),
        ("1.5", "bad.jsonl:1 is a number, not an object with columns"),
        ("true", "bad.jsonl:1 is a boolean, not an object with columns"),
        ("null", "bad.jsonl:1 is null, not an object with columns"),
        ('{"a": ["x\\ud800y"]}', r"bad.jsonl:1 contains a lone surrogate, '\ud800'"),
        ('{"\\uDc00": 1}', r"bad.jsonl:1 contains a lone surrogate, '\udc00'"),
    ],
)
def test_a_bad_line(folder, content, expected):
    write(folder, "bad.jsonl", content)
    assert read_error("bad.jsonl") == expected


def test_escapes_that_only_look_like_half_a_character(folder):
    write(folder, "a.jsonl", r'{"a": "\ud83d\ude00 \\ud800 \uD7ff"}')
    assert rows("a.jsonl") == [{"a": "😀 \\ud800 \ud7ff"}]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"a": 1}\n {"a": 2}]', "bad.json:2:2 is not JSON (Expecting ',' delimiter)"),
        ('[{"a": 1},\n {"a" 2}]', "bad.json:2:7 is not JSON (Expecting ':' delimiter)"),
        ('[{"a": 1},]', "bad.json:1:11 is not JSON (Expecting value)"),
        ('[{"a": 1}', "bad.json:1:10 is not JSON (Expecting ',' delimiter)"),
        ('[{"a": 1},\n{"a": "cu', "bad.json:2:7 is not JSON (Unterminated string)"),
        ('[{"a": 1}] x', "bad.json:1:12 is not JSON (Extra data)"),
        ("[" * 100_000, "bad.json:1:2 is not JSON (nested too deeply)"),
        ('{"data": [{"a": 1}]', "bad.json:1:20 is not JSON (Expecting ',' delimiter)"),
        ('{"a": "x" "b"}\n{"a": "y"}', "bad.json:1:11 is not JSON (Expecting ',' delimiter)"),
        ('{"a": "x"}\n{"a" "y"}', "bad.json:2:6 is not JSON (Expecting ':' delimiter)"),
        ("a,b\n1,2", "bad.json:1:1 is not JSON (Expecting value)"),
        ('[{"a": 1},\n"x"]', "bad.json:2 is a string, not an object with columns"),
        ('[{"a": "\\ud800"}]', r"bad.json:1 contains a lone surrogate, '\ud800'"),
        (
            '{"data": [{"a": 1}],\n "version": 1}',
            "bad.json:1 has other keys besides the list of rows; keep only the list",
        ),
        (
            '{\n "version": 1,\n "data": [{"a": 1}]}',
            "bad.json is an object, not a list of rows; write the rows as [{...}, {...}], or one per line in a .jsonl file",
        ),
        (
            "{\n}",
            "bad.json is an object, not a list of rows; write the rows as [{...}, {...}], or one per line in a .jsonl file",
        ),
        ('"x"', "bad.json is a string, not a list of rows; write the rows as [{...}, {...}], or one per line in a .jsonl file"),
    ],
)
def test_a_bad_json_list(folder, content, expected):
    write(folder, "bad.json", content)
    assert read_error("bad.json") == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a,b\n1,2\n1,2,3\n", "bad.csv:3 has 3 values for 2 columns; quote values that contain ','"),
        ("a,b\n1\n", "bad.csv:2 has 1 value for 2 columns"),
        ("a\n1,2\n", "bad.csv:2 has 2 values for 1 column; quote values that contain ','"),
        ("a,b,a\n1,2,3\n", "bad.csv:1 has two columns named 'a'; rename one of them"),
        ('a,b\n"x",1\n"y,1\nz,1\n', "bad.csv:3 is not CSV (unexpected end of data); a quote opened there is never closed"),
        ('a,b\n"x"y,1\n', "bad.csv:2 is not CSV (',' expected after '\"')"),
    ],
)
def test_a_bad_csv(folder, content, expected):
    write(folder, "bad.csv", content)
    assert read_error("bad.csv") == expected


def test_a_ragged_tsv(folder):
    write(folder, "bad.tsv", "a\tb\n1\t2\t3\n")
    assert read_error("bad.tsv") == r"bad.tsv:2 has 3 values for 2 columns; quote values that contain '\t'"


def test_a_file_that_is_no_parquet(folder):
    write(folder, "bad.parquet", "not at all Parquet")
    assert read_error("bad.parquet").startswith("bad.parquet cannot be read as Parquet (Parquet magic bytes not found")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_file_that_goes_away_after_opening(folder, name):
    source = open_source(str(write(folder, name, "x")))
    (folder / name).unlink()
    assert error(next, source.rows()) == f"{(folder / name).as_posix()} cannot be read (No such file or directory)"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n[2]\n{"a": 3}', ["a.jsonl:2:6", "a.jsonl:3"]),
        ("a.json", '[{"a": 1}, 2,\n{"b": "\\udfff"}, {"a": 3}]', ["a.json:1:12", "a.json:2"]),
        ("a.csv", "a,\n1,\n2\n2,x,\n3,\n", ["a.csv:3", "a.csv:4"]),
    ],
)
def test_rows_that_cannot_be_used_are_reported_and_skipped(folder, name, content, expected):
    write(folder, name, content)
    problems = []
    found = [located.row for located in open_source(name).rows(on_bad=problems.append)]
    assert [int(row["a"]) for row in found] == [1, 3]
    assert [problem.where for problem in problems] == expected


def test_skipping_every_row_is_not_called_empty(folder):
    write(folder, "a.jsonl", "[1]\n[2]\n")
    assert error(list, open_source("a.jsonl").rows(on_bad=lambda problem: None)) == "a.jsonl has no usable rows"


def test_columns_and_peek_step_over_bad_rows(folder):
    write(folder, "a.jsonl", '[1]\n{"a": 2}\n')
    problems = []
    assert open_source("a.jsonl").columns(on_bad=problems.append) == ("a",)
    assert peek(open_source("a.jsonl"), on_bad=problems.append)[0].where == "a.jsonl:2"
    assert len(problems) == 2


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("./reviewz.jsonl", "no file './reviewz.jsonl'; did you mean './reviews.jsonl'?"),
        ("reviews.json", "no file 'reviews.json'; did you mean 'reviews.jsonl'?"),
        ("texts/on.txt", "no file 'texts/on.txt'; did you mean 'texts/one.txt'?"),
        ("./text", "no file or folder './text'; did you mean './texts'?"),
        ("texts/no", "no file or folder 'texts/no'; available: texts/one.txt"),
        ("zzz.csv", "no file 'zzz.csv'; available: odd, reviews.jsonl, texts"),
        ("nowhere/a.csv", "no file 'nowhere/a.csv'; folder 'nowhere' does not exist"),
        ("owner/name:a/b", "no file or folder 'owner/name:a/b'; folder 'owner/name:a' does not exist"),
        ("reviews.jsonl:main", "no file 'reviews.jsonl:main'; did you mean 'reviews.jsonl'?"),
        ("", "no file or folder ''; available: odd, reviews.jsonl, texts"),
        ("*.csv", "no file matches '*.csv'; available: odd, reviews.jsonl, texts"),
        (["reviews.jsonl", "owner/name"], "no file or folder 'owner/name'; folder 'owner' does not exist"),
        ([], "the list of files is empty"),
        ("notes.xlsx", f"file 'notes.xlsx' has the unknown extension '.xlsx'; {KNOWN}"),
        ("LICENSE", f"file 'LICENSE' has no extension; {KNOWN}"),
        ("missing.xlsx", "no file 'missing.xlsx'; available: odd, reviews.jsonl, texts"),
        ("odd", f"folder 'odd' contains no data files; {KNOWN}"),
        (["reviews.jsonl", "texts"], "'reviews.jsonl' is jsonl and 'texts/one.txt' is text; list files of one kind only"),
        (
            {"a": [1]},
            "cannot read rows from a dict; "
            "pass a file, a folder, a list of files, a hub id, a datasets.Dataset or a list of dicts",
        ),
    ],
)
def test_a_source_that_stands_for_nothing(folder, spec, expected):
    write(folder, "reviews.jsonl", '{"a": 1}')
    write(folder, "texts/one.txt", "one")
    write(folder, "odd/picture.png", "")
    write(folder, "notes.xlsx", "")
    write(folder, "LICENSE", "")
    assert error(open_source, spec) == expected
    assert error(open_source, spec, "run.yaml:3") == f"run.yaml:3 {expected}"


def test_a_folder_of_two_kinds(folder):
    write(folder, "data/a.csv", "a\n1")
    write(folder, "data/b.txt", "x")
    assert error(open_source, "data") == "'data/a.csv' is csv and 'data/b.txt' is text; list files of one kind only"


@pytest.mark.parametrize("spec", ["imdb", "openai/gsm8k", "teknium/OpenHermes-2.5", "a_b/c.d-1"])
def test_a_name_that_is_no_path_is_a_hub_id(spec):
    source = open_source(spec)
    assert (source.name, source.kind, source.files) == (spec, "hub", ())


def test_a_name_inside_an_existing_folder_is_no_hub_id(folder):
    write(folder, "data/reviews.jsonl", "")
    assert error(open_source, "data/review") == "no file or folder 'data/review'; did you mean 'data/reviews.jsonl'?"


def test_reads_a_hub_dataset_from_its_train_split(monkeypatch):
    def load_dataset(name, config, split, streaming):
        return [{"a": name}, {"a": split}]

    monkeypatch.setattr("datasets.load.load_dataset", load_dataset)
    assert rows("owner/name") == [{"a": "owner/name"}, {"a": "train"}]
    assert places("owner/name") == ["owner/name:row 1", "owner/name:row 2"]


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        ("owner/name", ("owner/name", None, "train")),
        ("imdb::test", ("imdb", None, "test")),
        ("openai/gsm8k:main", ("openai/gsm8k", "main", "train")),
        ("owner/name:20220301.en:train[:10%]+test", ("owner/name", "20220301.en", "train[:10%]+test")),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_id_may_name_a_config_and_a_split(monkeypatch, spec, asked, streaming):
    def load_dataset(name, config, split, streaming):
        return [{"asked": (name, config, split), "streaming": streaming}]

    monkeypatch.setattr("datasets.load.load_dataset", load_dataset)
    (located,) = open_source(spec, reading=Reading(streaming=streaming)).rows()
    assert located.row == {"asked": asked, "streaming": streaming}
    assert located.where == f"{spec}:row 1"


def test_a_hub_dataset_streams_through_the_library(folder):
    write(folder, "data/train.jsonl", '{"a": 1}\n{"a": 2}')
    assert list(HubId(str(folder / "data")).rows(streaming=True)) == [{"a": 1}, {"a": 2}]


def test_a_hub_dataset_of_several_configs(monkeypatch):
    def load_dataset(name, config, split, streaming):
        raise ValueError("Config name is missing.\nPlease pick one among the available configs: ['main', 'socratic']\nExample")

    monkeypatch.setattr("datasets.load.load_dataset", load_dataset)
    assert read_error("openai/gsm8k") == (
        "openai/gsm8k cannot be loaded from the hub (Config name is missing.); "
        "append one of its configs after a colon: 'main', 'socratic'"
    )


def test_a_hub_dataset_that_breaks_off(monkeypatch):
    def load_dataset(name, config, split, streaming):
        yield {"a": 1}
        raise OSError("connection lost")

    monkeypatch.setattr("datasets.load.load_dataset", load_dataset)
    assert read_error("imdb") == "imdb cannot be loaded from the hub (connection lost)"


def test_a_hub_dataset_that_does_not_load(folder, monkeypatch):
    def load_dataset(name, config, split, streaming):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr("datasets.load.load_dataset", load_dataset)
    write(folder, "reviews/a.jsonl", "")
    assert read_error("imdb") == "imdb cannot be loaded from the hub (no network)"
    assert read_error("reviewz") == "reviewz cannot be loaded from the hub (no network); did you mean 'reviews'?"


def test_reads_a_list_of_dicts_without_handing_out_the_dicts():
    given_rows = [{"a": 1}, {"a": 2}]
    source = open_source(given_rows)
    for located in source.rows():
        located.row["a"] = 0
    assert given_rows == [{"a": 1}, {"a": 2}]
    assert source.columns() == ("a",)
    assert (source.name, source.kind) == ("dataset", "memory")


def test_reads_a_dataset_in_memory():
    from datasets import Dataset

    dataset = Dataset.from_dict({"a": [1, 2], "b": ["x", None]})
    assert rows(dataset) == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
    assert places(dataset) == ["dataset:row 1", "dataset:row 2"]


def test_reads_a_streaming_dataset_afresh_every_time():
    from datasets import Dataset

    source = open_source(Dataset.from_dict({"a": [1, 2]}).to_iterable_dataset())
    assert len(list(source.rows())) == len(list(source.rows())) == 2


def test_an_empty_dataset():
    from datasets import Dataset

    assert read_error(Dataset.from_dict({"a": []})) == "dataset has no rows"


def test_a_dataset_of_several_splits():
    from datasets import Dataset, DatasetDict

    both = DatasetDict(train=Dataset.from_dict({"a": [1]}), test=Dataset.from_dict({"a": [2]}))
    assert error(open_source, both) == "a DatasetDict has several splits; pass one of: train, test"


def test_an_item_in_memory_that_is_no_row():
    assert read_error([{"a": 1}, "x"]) == "dataset:row 2 is a string, not an object with columns"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | texts,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(texts, values, max_size=3),
    max_leaves=6,
)
json_rows = st.lists(st.dictionaries(texts, json_values, max_size=4), min_size=1, max_size=8)


@given(table=json_rows, ascii_only=st.booleans())
def test_json_lines_come_back_equal(tmp_path_factory, table, ascii_only):
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    lines = (json.dumps(row, ensure_ascii=ascii_only) for row in table)
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    assert rows(str(path)) == table


@given(table=json_rows, ascii_only=st.booleans(), indent=st.none() | st.integers(0, 2), wrapped=st.booleans())
def test_a_json_list_comes_back_equal(tmp_path_factory, table, ascii_only, indent, wrapped):
    path = tmp_path_factory.mktemp("rows") / "a.json"
    document = {"rows": table} if wrapped else table
    path.write_text(json.dumps(document, ensure_ascii=ascii_only, indent=indent), encoding="utf-8", newline="")
    assert rows(str(path)) == table


@given(table=st.lists(st.tuples(texts, texts), min_size=1, max_size=8), suffix=st.sampled_from([".csv", ".tsv"]))
def test_csv_comes_back_equal(tmp_path_factory, table, suffix):
    path = tmp_path_factory.mktemp("rows") / f"a{suffix}"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="," if suffix == ".csv" else "\t").writerows([("text", "label"), *table])
    assert rows(str(path)) == [{"text": text, "label": label} for text, label in table]


@settings(deadline=None)
@given(table=st.lists(st.tuples(texts, st.none() | st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=8))
def test_parquet_comes_back_equal(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("rows") / "a.parquet"
    write_parquet(path, {"text": [text for text, _ in table], "n": [number for _, number in table]})
    assert rows(str(path)) == [{"text": text, "n": number} for text, number in table]
