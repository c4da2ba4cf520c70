"""Files as people have them: what is read of each, what is reported, and what is said of guesses."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolora_core.data.sources import Reading, open_source
from smolora_core.errors import DatasetError

SAID = "set data.encoding if that is wrong"
KNOWN = "known: big5, euc-kr, gb18030, koi8-r, latin-1, shift_jis, utf-16, utf-8, windows-1251, windows-1252"
KINDS = (
    "known: .bio, .conll, .csv, .iob, .iob2, .json, .jsonl, .md, .ndjson, .parquet, .tsv, .txt; "
    "all but .parquet may be compressed as .gz or .zst"
)
SAVE = "save it as UTF-8, or set data.encoding to its encoding"


@attrs.frozen
class Odd:
    """A file, and everything that comes of it."""

    name: str
    content: bytes
    rows: list[dict[str, Any]]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    reading: Mapping[str, Any] = attrs.field(factory=dict)


def zstd(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, content: bytes | str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)


XY = [{"a": "x", "b": "y"}]
DAY = '{"a": "día"}\n{"a": "\u2026"}\n'
DAYS = [{"a": "día"}, {"a": "\u2026"}]
SENTENCE = "It was a film that I would see once more."
HEADLESS = "a.csv has no header row, calling its columns column_1, column_2; set data.header if that is wrong"
UNMARKED = "a.jsonl has no byte order mark but looks like {}, reading it as {}; " + SAID

ODD = {
    "UTF-8 mark": Odd("a.jsonl", DAY.encode("utf-8-sig"), DAYS),
    "UTF-16 mark": Odd("a.jsonl", DAY.encode("utf-16"), DAYS),
    "UTF-16 mark, big-endian": Odd("a.jsonl", b"\xfe\xff" + DAY.encode("utf-16-be"), DAYS),
    "UTF-32 mark": Odd("a.jsonl", DAY.encode("utf-32"), DAYS),
    "UTF-16 without mark": Odd("a.jsonl", DAY.encode("utf-16-le"), DAYS, notes=(UNMARKED.format("UTF-16", "utf-16-le"),)),
    "UTF-16 big-endian": Odd("a.jsonl", DAY.encode("utf-16-be"), DAYS, notes=(UNMARKED.format("UTF-16", "utf-16-be"),)),
    "UTF-32 without mark": Odd("a.jsonl", DAY.encode("utf-32-le"), DAYS, notes=(UNMARKED.format("UTF-32", "utf-32-le"),)),
    "UTF-16 lines": Odd("a.jsonl", '{"a": 1}\r\n1\r\n'.encode("utf-16"), [{"a": 1}], ("a.jsonl:2 is a number",)),
    "UTF-16 CSV": Odd("a.csv", 'a,b\r\n"x",y\r\nz\r\n'.encode("utf-16"), XY, ("a.csv:3 has 1 value for 2 columns",)),
    "explicit UTF-16 without mark": Odd("a.jsonl", DAY.encode("utf-16-be"), DAYS, reading={"encoding": "utf-16"}),
    "explicit UTF-16-LE with mark": Odd("a.jsonl", DAY.encode("utf-16"), DAYS, reading={"encoding": "UTF-16LE"}),
    "explicit UTF-8 with mark": Odd("a.jsonl", DAY.encode("utf-8-sig"), DAYS, reading={"encoding": "utf8"}),
    "latin-1": Odd(
        "a.csv",
        b"a,b\nnone here,n\ncosts \xa3 5\x9d,y\n",
        [{"a": "none here", "b": "n"}, {"a": "costs £ 5\x9d", "b": "y"}],
        notes=(f"a.csv:3 is not UTF-8 (byte 0xa3), reading it as latin-1; {SAID}",),
    ),
    "windows-1252": Odd(
        "a.txt",
        b"it\x92s fine \x96 caf\xe9",
        [{"text": "it\u2019s fine \u2013 café"}],
        notes=(f"a.txt:1 is not UTF-8 (byte 0x92), reading it as windows-1252; {SAID}",),
    ),
    "explicit Shift-JIS": Odd(
        "a.txt", "日本語の文章".encode("shift-jis"), [{"text": "日本語の文章"}], reading={"encoding": "shift_jis"}
    ),
    "zero bytes in UTF-8": Odd("a.txt", b"one\0two", [{"text": "one\0two"}]),
    "carriage returns": Odd("a.jsonl", b'{"a": 1}\r[]\r{"a": 2}', [{"a": 1}, {"a": 2}], ("a.jsonl:2 is a list",)),
    "carriage returns, latin-1": Odd(
        "a.txt",
        b"one\rtwo\r\nthree \xe9",
        [{"text": "one\ntwo\nthree é"}],
        notes=(f"a.txt:3 is not UTF-8 (byte 0xe9), reading it as latin-1; {SAID}",),
    ),
    "carriage returns in CSV": Odd("a.csv", b"a,b\rx,y\rz", XY, ("a.csv:3 has 1 value for 2 columns",)),
    "line separators are no lines": Odd(
        "a.jsonl", '{"a": "x\u2028\x85"}\n1'.encode(), [{"a": "x\u2028\x85"}], ("a.jsonl:2 is a number",)
    ),
    "lone surrogate": Odd(
        "a.jsonl", b'{"a": "\\ud800"}\n{"a": 1}', [{"a": 1}], (r"a.jsonl:1 contains a lone surrogate, '\ud800'",)
    ),
    "zero byte in JSON": Odd("a.jsonl", b'{"a": "\0"}\n{"a": 1}', [{"a": 1}], ("a.jsonl:1:8 is not JSON (Invalid control",)),
    "huge cell": Odd("a.csv", b"a,b\n" + b"x" * 2_000_000 + b",y", [{"a": "x" * 2_000_000, "b": "y"}]),
    "mark in the header": Odd("a.csv", b"\xef\xbb\xbfa,b\nx,y", XY),
    "mark and quotes in the header": Odd("a.csv", b'\xef\xbb\xbf"a","b"\nx,y', XY),
    "semicolons": Odd(
        "a.csv",
        b"a;b\nx, 1;y, 2",
        [{"a": "x, 1", "b": "y, 2"}],
        notes=("a.csv is delimited by ';'; set data.delimiter if that is wrong",),
    ),
    "tabs in .csv": Odd(
        "a.csv", b"a\tb\nx\ty", XY, notes=(r"a.csv is delimited by '\t'; set data.delimiter if that is wrong",)
    ),
    "pipes": Odd("a.csv", b"a|b\nx|y", XY, notes=("a.csv is delimited by '|'; set data.delimiter if that is wrong",)),
    "commas in .tsv": Odd("a.tsv", b"a,b\nx,y", XY, notes=("a.tsv is delimited by ','; set data.delimiter if that is wrong",)),
    "tabs and commas in .tsv": Odd("a.tsv", b"a\tb\nx, 1\ty", [{"a": "x, 1", "b": "y"}]),
    "both commas and semicolons": Odd(
        "a.csv",
        b"a;,b\nx;,y",
        [{"a;": "x;", "b": "y"}],
        notes=("a.csv could be delimited by ',' or ';', using ','; set data.delimiter if that is wrong",),
    ),
    "semicolons in one column": Odd("a.csv", b"a\nx; y\nz", [{"a": "x; y"}, {"a": "z"}]),
    "ragged among the first": Odd("a.csv", b"a,b\nx;1,y;2,z\nx,y", XY, ("a.csv:2 has 3 values for 2 columns",)),
    "explicit tab": Odd("a.csv", b"a,1\tb,1\nx\ty", [{"a,1": "x", "b,1": "y"}], reading={"delimiter": "\\t"}),
    "no header, a number": Odd(
        "a.csv", b"x,1\ny,2", [{"column_1": "x", "column_2": "1"}, {"column_1": "y", "column_2": "2"}], notes=(HEADLESS,)
    ),
    "no header, a European number": Odd(
        "a.csv",
        b"x;2,5\ny;3",
        [{"column_1": "x", "column_2": "2,5"}, {"column_1": "y", "column_2": "3"}],
        notes=("a.csv is delimited by ';'; set data.delimiter if that is wrong", HEADLESS),
    ),
    "no header, a cell twice": Odd(
        "a.csv", b"x,x\ny,z", [{"column_1": "x", "column_2": "x"}, {"column_1": "y", "column_2": "z"}], notes=(HEADLESS,)
    ),
    "no header, a label that comes again": Odd(
        "a.csv",
        b"good,I like it\nbad,not much\ngood,fine",
        [
            {"column_1": label, "column_2": text}
            for label, text in (("good", "I like it"), ("bad", "not much"), ("good", "fine"))
        ],
        notes=(HEADLESS,),
    ),
    "no header, sentences": Odd(
        "a.csv",
        f"{SENTENCE}\nWe left early on.".encode(),
        [{"column_1": SENTENCE}, {"column_1": "We left early on."}],
        notes=("a.csv has no header row, calling its columns column_1; set data.header if that is wrong",),
    ),
    "a question is a header": Odd(
        "a.csv",
        b"How did you like it in the end?,No.\nvery much,7",
        [{"How did you like it in the end?": "very much", "No.": "7"}],
    ),
    "a statement above answers is a header": Odd(
        "a.csv", b"I would come here again.\nyes", [{"I would come here again.": "yes"}]
    ),
    "headers of files put together": Odd(
        "a.csv", b"a,b\nx,y\na,b", XY, ("a.csv:3 repeats the header row; remove the line, or set data.on_bad_row to drop",)
    ),
    "a field's name that is a value too": Odd(
        "a.csv", b"text,lang\nhi,en\ntext,en", [{"text": "hi", "lang": "en"}, {"text": "text", "lang": "en"}]
    ),
    "explicit header of numbers": Odd("a.csv", b"2019,2020\nx,y", [{"2019": "x", "2020": "y"}], reading={"header": True}),
    "explicitly no header": Odd(
        "a.csv",
        b"a,b\nx,y",
        [{"column_1": "a", "column_2": "b"}, {"column_1": "x", "column_2": "y"}],
        reading={"header": False},
    ),
    "unnamed columns": Odd(
        "a.csv",
        b"a,,\nx,,\ny,, z",
        [{"a": "x"}, {"a": "y", "column_3": " z"}],
        notes=("a.csv:1 has unnamed columns, calling them column_2, column_3",),
    ),
    "an unnamed index": Odd(
        "a.csv", b"\n,a\n0,x", [{"column_1": "0", "a": "x"}], notes=("a.csv:2 has unnamed columns, calling them column_1",)
    ),
    "many unnamed columns": Odd(
        "a.csv",
        b"a" + b"," * 9 + b"\nx" + b"," * 9,
        [{"a": "x"}],
        notes=("a.csv:1 has unnamed columns, calling them column_2, column_3, column_4, column_5, column_6 and 4 more",),
    ),
    "no final newline, quoted newline": Odd("a.csv", b'a,b\n"x\r\n1",y', [{"a": "x\r\n1", "b": "y"}]),
    "compressed JSON lines": Odd(
        "a.jsonl.gz", gzip.compress(b'\n{"a": 1}\n1\n', mtime=0), [{"a": 1}], ("a.jsonl.gz:3 is a number",)
    ),
    "compressed in two members": Odd(
        "a.JSONL.GZ", gzip.compress(b'{"a": 1}\n{"a"', mtime=0) + gzip.compress(b": 2}", mtime=0), [{"a": 1}, {"a": 2}]
    ),
    "compressed JSON": Odd("a.json.gz", gzip.compress(b'[{"a": 1}]', mtime=0), [{"a": 1}]),
    "compressed CSV": Odd(
        "a.csv.zst", zstd(b"a;b\nx;y"), XY, notes=("a.csv.zst is delimited by ';'; set data.delimiter if that is wrong",)
    ),
    "compressed TSV": Odd("a.tsv.gz", gzip.compress(b"a\tb\nx\ty", mtime=0), XY),
    "compressed text": Odd(
        "a.txt.zst",
        zstd(b"one\ncaf\xe9"),
        [{"text": "one\ncafé"}],
        notes=(f"a.txt.zst:2 is not UTF-8 (byte 0xe9), reading it as latin-1; {SAID}",),
    ),
    "compressed UTF-16": Odd("a.jsonl.zst", zstd(DAY.encode("utf-16")), DAYS),
    "tokens": Odd(
        "a.conll",
        b"-DOCSTART- -X- O\n\nThe DT O\nEU NNP B-ORG\n\t\n \nrejects VBZ O\n",
        [{"tokens": ["The", "EU"], "tags": ["O", "B-ORG"]}, {"tokens": ["rejects"], "tags": ["O"]}],
    ),
    "tokens with spaces in them": Odd(
        "a.bio", b"\n1 000\tB-NUM\t\r\n# 5\tO\r\n", [{"tokens": ["1 000", "# 5"], "tags": ["B-NUM", "O"]}]
    ),
    "comments before tokens": Odd(
        "a.iob2",
        b"# id = 1\n# EU says no\nEU  B-ORG\n\n# id = 2\n# O",
        [{"tokens": ["EU"], "tags": ["B-ORG"]}, {"tokens": ["#"], "tags": ["O"]}],
    ),
    "tokens without a tag": Odd(
        "a.conll",
        b"EU B\nsays O\n\nEU\nsays O\n\nsays O\nno no O\n\nyes O\n",
        [{"tokens": ["EU", "says"], "tags": ["B", "O"]}, {"tokens": ["yes"], "tags": ["O"]}],
        ("a.conll:4 has 1 column where other lines have 2", "a.conll:8 has 3 columns where other lines have 2"),
    ),
    "tokens and no tags": Odd(
        "a.conll", b"EU\nsays\n\nEU O", [{"tokens": ["EU"], "tags": ["O"]}], ("a.conll:1 has a token but no tag",)
    ),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_rows_in_are_rows_out_and_problems(odd: Odd) -> None:
    write(odd.name, odd.content)
    source = open_source(odd.name, reading=Reading(**odd.reading))
    problems: list[str] = []
    assert [located.row for located in source.rows(lambda problem: problems.append(str(problem)))] == odd.rows
    assert len(problems) == len(odd.problems)
    for problem, expected in zip(problems, odd.problems, strict=True):
        assert problem.startswith(expected)
    assert source.notes() == odd.notes


@pytest.mark.parametrize(
    ("name", "content", "reading", "expected"),
    [
        ("a.jsonl", b"\xef\xbb\xbf", {}, "a.jsonl has no rows"),
        ("a.jsonl", b"\xff\xfe", {}, "a.jsonl has no rows"),
        ("a.csv", b"\xef\xbb\xbf", {}, "a.csv has no rows"),
        ("a.csv", b"a,b\r\n", {}, "a.csv has no rows"),
        ("a.conll", b"\n \n-DOCSTART-\n", {}, "a.conll has no rows"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0), {}, "a.jsonl.gz has no rows"),
        ("a.txt", "日本語の文章".encode("shift-jis"), {}, f"a.txt:1 is not UTF-8 (byte 0x93); {SAVE}"),
        ("a.txt", b"On " * 30 + "Привет, мир".encode("cp1251"), {}, f"a.txt:1 is not UTF-8 (byte 0xcf); {SAVE}"),
        ("a.txt", "día, día\n".encode() * 9 + b"d\xeda", {}, f"a.txt:10 is not UTF-8 (byte 0xed); {SAVE}"),
        ("a.txt", b"\xe9a" * 9, {}, f"a.txt:1 is not UTF-8 (byte 0xe9); {SAVE}"),
        ("a.txt", b"\x93NUMPY" + b"\0" * 90, {}, f"a.txt:1 is not UTF-8 (byte 0x93); {SAVE}"),
        (
            "a.txt",
            b"fine\ncut\xc3",
            {"encoding": "utf-8"},
            "a.txt:2 is not utf-8 (byte 0xc3); remove data.encoding, or set it to the file's encoding",
        ),
        (
            "a.csv",
            b"a\nx\n\xe9",
            {"encoding": "ascii"},
            "a.csv:3 is not ascii (byte 0xe9); remove data.encoding, or set it to the file's encoding",
        ),
        ("a.jsonl", b'\xff\xfe{\0}\0\n\0\n\0"', {}, f"a.jsonl:3 is not UTF-16 (byte 0x22); {SAVE}"),
        ("a.jsonl", b"\xff\xfe\n\0\n\0\0\xdc", {}, f"a.jsonl:3 is not UTF-16 (byte 0x00); {SAVE}"),
        ("a.jsonl", b"{}", {"encoding": "uft-8"}, "data.encoding 'uft-8' is not a text encoding; did you mean 'utf-8'?"),
        ("a.jsonl", b"{}", {"encoding": "idna"}, "data.encoding 'idna' is not a text encoding; " + KNOWN),
        ("a.jsonl", b"{}", {"encoding": "hex"}, "data.encoding 'hex' is not a text encoding; " + KNOWN),
        ("a.jsonl", b"{}", {"encoding": ""}, "data.encoding '' is not a text encoding; " + KNOWN),
        (
            "a.csv",
            b"a",
            {"delimiter": "::"},
            "data.delimiter '::' is not a single-character delimiter; set it to one character, like ',' or ';' or '\\t'",
        ),
        (
            "a.csv",
            b"a",
            {"delimiter": '"'},
            "data.delimiter '\"' is not a single-character delimiter; set it to one character, like ',' or ';' or '\\t'",
        ),
        ("a.csv", b"a,b,a\n1,2,3", {}, "a.csv:1 has two columns named 'a'; rename one of them"),
        ("a.csv", b"x,x\n", {"header": True}, "a.csv:1 has two columns named 'x'; rename one of them"),
        ("a.csv", b'a,b\n"x', {}, "a.csv:2 is not CSV (unexpected end of data); a quote opened there is never closed"),
        ("a.csv", b'a;b\nx;"y"z', {}, "a.csv:2 is not CSV (';' expected after '\"')"),
        ("a.tsv", b'a\tb\n"x', {}, "a.tsv:2 is not TSV (unexpected end of data); a quote opened there is never closed"),
        ("a.jsonl.gz", b'{"a": 1}', {}, "a.jsonl.gz cannot be decompressed (Not a gzipped file (b'{\"'))"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"a": 1}\n' * 9, mtime=0)[:-9],
            {},
            "a.jsonl.gz cannot be decompressed (Compressed file ended before the end-of-stream marker was reached)",
        ),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"a": 1}', mtime=0)[:-8] + b"\0" * 8,
            {},
            "a.jsonl.gz cannot be decompressed (CRC check failed 0x0 != 0xfba18e97)",
        ),
        (
            "a.csv.gz",
            gzip.compress(b"a,b\n" * 9, mtime=0)[:10] + b"\xff" * 9,
            {},
            "a.csv.gz cannot be decompressed (Error -3 while decompressing data: invalid block type)",
        ),
        (
            "a.jsonl.zst",
            b'{"a": 1}',
            {},
            "a.jsonl.zst cannot be decompressed (ZSTD decompress failed: Unknown frame descriptor)",
        ),
        ("a.jsonl.zst", zstd(b'{"a": 1}\n' * 9)[:-3], {}, "a.jsonl.zst cannot be decompressed (Truncated compressed stream)"),
        ("a.parquet.gz", b"", {}, f"file 'a.parquet.gz' has the unknown extension '.parquet.gz'; {KINDS}"),
        ("a.gz", b"", {}, f"file 'a.gz' has the unknown extension '.gz'; {KINDS}"),
        ("a.xlsx.gz", b"", {}, f"file 'a.xlsx.gz' has the unknown extension '.xlsx.gz'; {KINDS}"),
    ],
)
def test_a_file_that_is_refused(name: str, content: bytes, reading: dict[str, Any], expected: str) -> None:
    write(name, content)
    with pytest.raises(DatasetError) as caught:
        list(open_source(name, reading=Reading(**reading)).rows())
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("at_the_bound", "hint"), [(b"xx", "set data.encoding to latin-1, or to its actual encoding"), ("é".encode(), SAVE)]
)
def test_what_is_no_utf_8_behind_the_part_that_is_looked_at(
    at_the_bound: bytes, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smolora_core.data.sources.encoding._SCANNED", 1000)
    write("a.txt", b"x" * 999 + at_the_bound + b"\n" * 9000 + b"caf\xe9")
    source = open_source("a.txt")
    assert source.notes() == ()
    with pytest.raises(DatasetError) as caught:
        list(source.rows())
    assert str(caught.value) == f"a.txt:9001 is not UTF-8 (byte 0xe9); {hint}"


def test_a_file_that_was_written_anew_is_looked_at_anew() -> None:
    write("a.csv", "a,b\nx,y")
    assert open_source("a.csv").notes() == ()
    write("a.csv", b"a;b\n\xe9 x;y")
    assert [located.row for located in open_source("a.csv").rows()] == [{"a": "é x", "b": "y"}]
    assert len(open_source("a.csv").notes()) == 2


@given(
    lines=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00"), max_size=9), max_size=9),
    mark=st.booleans(),
)
def test_the_line_of_what_cannot_be_decoded(tmp_path_factory: pytest.TempPathFactory, lines: list[str], mark: bool) -> None:
    path = tmp_path_factory.mktemp("bad") / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" * mark + "".join(f"{line}\n" for line in lines).encode() + b"\xc3(\xff")
    with pytest.raises(DatasetError) as caught:
        list(open_source(path, reading=Reading(encoding="utf-8")).rows(lambda problem: None))
    assert caught.value.problems[0].where == f"{path.as_posix()}:{len(lines) + 1}"
    assert caught.value.problems[0].what == "is not utf-8 (byte 0xc3)"


@pytest.mark.parametrize(
    ("files", "train", "test"),
    [
        (["train.jsonl", "test.jsonl"], ["train.jsonl"], ["test.jsonl"]),
        (["a.csv", "a_dev.csv", "a-valid2.csv"], ["a.csv"], ["a-valid2.csv", "a_dev.csv"]),
        (["train/0.jsonl", "Eval/0.jsonl"], ["train/0.jsonl"], ["Eval/0.jsonl"]),
        (["wiki.train.txt", "wiki.test.txt"], ["wiki.train.txt"], ["wiki.test.txt"]),
        (["x.json.gz", "x.validation.json.gz"], ["x.json.gz"], ["x.validation.json.gz"]),
    ],
)
def test_the_held_out_files_of_a_folder_are_told_from_the_others(files: list[str], train: list[str], test: list[str]) -> None:
    for name in files:
        write(f"data/{name}", "")
    source, held_out = open_source("data"), open_source("data", held_out=True)
    assert [file.relative_to("data").as_posix() for file in source.files] == train
    assert [file.relative_to("data").as_posix() for file in held_out.files] == test
    read, skipped = ", ".join(train), ", ".join(test)
    hint = "set data.eval to 'data' to evaluate on the rest"
    assert source.skipped == (f"folder 'data': reading {read}, skipping {skipped}; {hint}",)
    assert held_out.skipped == (f"folder 'data': reading {skipped}, skipping {read}",)


@pytest.mark.parametrize(
    "files",
    [
        ["test.jsonl", "dev.jsonl"],
        ["a.jsonl", "latest.jsonl", "devices.jsonl", "contest.jsonl"],
        ["intro.md", "how-to-test.md"],
    ],
    ids=["only held-out ones", "other words", "titles"],
)
def test_a_folder_without_two_sides_is_read_whole(files: list[str]) -> None:
    for name in files:
        write(f"data/{name}", "")
    for held_out in (False, True):
        source = open_source("data", held_out=held_out)
        assert [file.name for file in source.files] == sorted(files)
        assert source.skipped == ()


def test_many_files_left_out_are_counted() -> None:
    for number in range(8):
        write(f"data/test-{number}.jsonl", "")
    write("data/a.jsonl", '{"a": 1}')
    (note,) = open_source("data").notes()
    assert note == (
        "folder 'data': reading a.jsonl, skipping test-0.jsonl, test-1.jsonl, test-2.jsonl, test-3.jsonl, test-4.jsonl "
        "and 3 more; set data.eval to 'data' to evaluate on the rest"
    )


def test_a_folder_under_the_name_of_a_file() -> None:
    write("x.csv/a.csv", "a\nx")
    assert [located.where for located in open_source("x.csv").rows()] == ["x.csv/a.csv:2"]


@pytest.mark.parametrize("spec", ["loop.jsonl", "folder"])
def test_a_link_to_nothing_is_not_passed_over(spec: str) -> None:
    write("folder/a.jsonl", '{"a": 1}')
    for name in ("loop.jsonl", "folder/loop.jsonl"):
        Path(name).symlink_to("loop.jsonl")
    with pytest.raises(DatasetError) as caught:
        open_source(spec)
    assert str(caught.value) == f"'{'folder/' * (spec == 'folder')}loop.jsonl' is a broken link"


def test_a_file_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.jsonl", "{}")

    # Its permissions would not keep root out.
    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DatasetError) as caught:
        list(open_source("a.jsonl").rows())
    assert str(caught.value) == "a.jsonl cannot be read (Permission denied)"


def test_the_size_of_a_source() -> None:
    write("a.jsonl", b'{"a": 1}')
    write("b.jsonl.gz", gzip.compress(b'{"a": 1}', mtime=0))
    assert open_source("a.jsonl").size() == 8
    assert open_source(["a.jsonl", "b.jsonl.gz"]).size() == 8 + 4 * Path("b.jsonl.gz").stat().st_size
    assert open_source([{"a": "x" * 991}] * 500).size() == 500 * 1000
    assert open_source("owner/name").size() is None


def test_the_size_of_a_dataset() -> None:
    from datasets import Dataset

    dataset = Dataset.from_dict({"a": ["x"] * 30})
    assert open_source(dataset).size() == 30 * len("{'a': 'x'}")
    assert open_source(dataset.select([])).size() == 0
    assert open_source(dataset.to_iterable_dataset()).size() is None


def test_compressed_rows_are_located_as_plain_ones_are(tmp_path: Path) -> None:
    text = "".join(json.dumps({"a": number}) + "\n" for number in range(100_000))
    write("a.jsonl", text)
    write("a.jsonl.gz", gzip.compress(text.encode()))
    plain, compressed = (list(open_source(name).rows()) for name in ("a.jsonl", "a.jsonl.gz"))
    assert [located.row for located in plain] == [located.row for located in compressed]
    assert compressed[-1].where == "a.jsonl.gz:100000"
