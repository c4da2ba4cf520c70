"""Run a page as its reader does: write the files it shows, run its commands, compare what they print.

A page names models of the hub. The folder it runs in has tiny random models under the same names, which load as folders.
"""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from smolora_core.cli import main
from tests.support.models import save_encoder, save_llama, save_t5

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial" / "first-run.md"
JOBS = [
    ROOT / "docs" / "how-to" / f"{name}.md"
    for name in ("chat", "classify", "evaluate", "regress", "resume", "seq2seq", "tag", "use-elsewhere")
]
WORKED = [TUTORIAL, *JOBS]
"""The pages that run from their first block to their last."""

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_NUMBER = re.compile(r"-?\d[\d.,]*(?:e[+-]?\d+)?")
_ANY_WORD = re.compile(r"\S+")
_STATUS = re.compile(r"^  status .*\n", re.M)
_NAMED = re.compile(r"`([\w.-]+)`:\n+\Z")


def save_stand_ins(folder: Path) -> None:
    """Save a tiny random model for each hub model that a page trains."""
    _save_chat_model(folder / "HuggingFaceTB" / "SmolLM2-135M-Instruct")
    save_llama(folder / "HuggingFaceTB" / "SmolLM2-135M")
    save_encoder(folder / "distilbert" / "distilbert-base-uncased", "distilbert")
    save_encoder(folder / "google-bert" / "bert-base-cased")
    save_t5(folder / "google-t5" / "t5-small")


def _save_chat_model(folder: Path) -> None:
    # Two of the three ids that the model has beyond its tokenizer's become the marks of a turn.
    save_llama(folder, max_position_embeddings=256)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_end|>"})
    tokenizer.chat_template = _CHATML
    tokenizer.save_pretrained(folder)


def run_page(page: Path, printed: Callable[[], str], compare: Callable[[str, str, bool], None]) -> None:
    """Evaluate the blocks of a page in their order, in the current folder.

    Python runs. YAML is written to the file that the line before it names. `$ smolora` commands run, and the lines below one
    are what it prints; a command succeeds unless `$ echo $?` follows. Text is what the Python before it prints.

    Args:
        page: the page.
        printed: returns what was printed since the last call.
        compare: compares output that the page shows with what was printed, and whether only its form counts.
    """
    blocks = {
        "yaml": _write_file,
        "console": _console(printed, compare),
        "text": lambda block: compare(block.parsed, printed(), False),
    }
    parsers = [PythonCodeBlockParser(), *(CodeBlockParser(language, run) for language, run in blocks.items())]
    for example in Sybil(parsers, path=str(page.parent)).parse(page):
        example.evaluate()


def output_pattern(shown: str, form_only: bool = False) -> re.Pattern[str]:
    """Make a pattern of output on a page: numbers may differ, and `...` stands for lines that are left out.

    Words may differ too where only the form counts: what a random model answers depends on the processor.
    """
    varying = _ANY_WORD if form_only else _NUMBER
    lines = ["(?:.*\n)*?" if line == "..." else f"({_line_pattern(line, varying)})\n" for line in shown.splitlines()]
    return re.compile("".join(lines))


def _line_pattern(line: str, varying: re.Pattern[str]) -> str:
    return varying.pattern.join(re.escape(part) for part in varying.split(line))


def _write_file(block: Example) -> None:
    named = _NAMED.search(block.document.text[: block.region.start])
    assert named, f"line {block.line}: no file is named before the block"
    Path(named[1]).write_text(block.parsed, encoding="utf-8")


def _console(printed: Callable[[], str], compare: Callable[[str, str, bool], None]) -> Callable[[Example], Any]:
    def run(block: Example) -> None:
        printed()
        commands = [each.partition("\n") for each in re.split(r"^\$ ", block.parsed, flags=re.M)[1:]]
        status = 0
        for (command, _, shown), (following, *_) in zip(commands, [*commands[1:], ("", "", "")], strict=True):
            if command == "echo $?":
                assert shown == f"{status}\n"
                continue
            program, *arguments = shlex.split(command, comments=True)
            assert program == "smolora", command
            status = main(arguments)
            # A terminal redraws the status in place, so a page shows none.
            output = _STATUS.sub("", printed())
            assert following == "echo $?" or status == 0, output
            if shown:
                compare(shown, output, arguments[0] == "generate")

    return run
