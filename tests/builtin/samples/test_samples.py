"""Sample prompts are answered at every evaluation, as the trained model answers them, and training does not notice."""

import json
from itertools import takewhile
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers.processors import TemplateProcessing

import smolora_core
from smolora_core import RunContext, hookimpl, load, train
from smolora_core.batches import IGNORED
from smolora_core.cli import main
from smolora_core.config import resolve
from smolora_core.config.document import Document
from smolora_plugins import samples
from tests.support.injector import Injected, fail_at
from tests.support.models import save_encoder, save_llama, save_t5
from tests.support.runs import config_of, digests, events

WEIGHTS = "adapter_model.safetensors"
PROMPTS = ["the film was", "a cat"]
CHATML = (
    "<s>{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def write(file: Path, *rows: object) -> Path:
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


def rows_of(kind: str) -> list[dict]:
    prompts = ["the film was", "a cat", "who", "why"]
    return {
        "text": [{"text": f"{each} good"} for each in prompts],
        "prompt-completion": [{"prompt": each, "completion": " good"} for each in prompts],
        "instruction": [{"instruction": each, "output": "good"} for each in prompts],
        "messages": [
            {"messages": [{"role": "user", "content": each}, {"role": "assistant", "content": "good"}]} for each in prompts
        ],
    }[kind]


def config(model: Path, folder: Path, kind: str = "prompt-completion", prompts: object = PROMPTS, **training: object) -> dict:
    rows = write(folder / "rows.jsonl", *rows_of(kind))
    data = {"eval": {"easy": str(rows), "hard": str(rows)}, "max_seq_length": 64}
    return config_of(model, rows, folder / "run", data=data, training={"sample_prompts": prompts, **training})


def test_every_evaluation_answers_as_the_model_does(llama, tmp_path):
    train(config(llama, tmp_path))
    found = events(tmp_path / "run", "samples")
    assert [each["step"] for each in found] == [0, 3, 6]
    assert [each["prompts"] for each in found] == [PROMPTS] * 3
    before, after = (load(folder).generate_all(PROMPTS, max_new_tokens=64) for folder in (llama, tmp_path / "run" / "adapter"))
    assert (found[0]["answers"], found[2]["answers"]) == (before, after)
    assert before != after


def test_what_was_learned_is_answered(llama, tmp_path):
    learns = {"max_steps": 40, "eval_steps": 40, "learning_rate": 1e-2, "gradient_accumulation_steps": 1}
    train({**config(llama, tmp_path, **learns), "lora": {"r": 16, "target_modules": "all-linear", "dropout": 0.0}})
    assert events(tmp_path / "run", "samples")[-1]["answers"] == [" good", " good"]


@pytest.mark.parametrize("save", [save_llama, save_t5])
def test_training_does_not_notice(tmp_path, save):
    model = save(tmp_path / "model")
    for name, prompts in (("with", PROMPTS), ("without", [])):
        values = config(model, tmp_path, prompts=prompts, batching="auto")
        train({**values, "output_dir": str(tmp_path / name)})
    assert digests(tmp_path / "with" / "adapter", WEIGHTS) == digests(tmp_path / "without" / "adapter", WEIGHTS)
    losses = [[each["loss"] for each in events(tmp_path / name, "log")] for name in ("with", "without")]
    assert losses[0] == losses[1]


class Prompted:
    """A plugin that keeps the tokens that each generation starts with, and those of the training rows."""

    def __init__(self) -> None:
        self.prompted: list[list[int]] = []
        self.trained: list[list[int]] = []

    @hookimpl
    def smolora_adapter_attached(self, model):
        generate = model.base_model.generate

        def watched(**options):
            pairs = zip(options["input_ids"], options["attention_mask"], strict=True)
            self.prompted += [ids[mask.bool()].tolist() for ids, mask in pairs]
            return generate(**options)

        model.base_model.generate = watched

    @hookimpl
    def smolora_callbacks(self, run):
        class Rows(transformers.TrainerCallback):
            def on_train_begin(inner, args, state, control, train_dataloader=None, **more):
                for row in train_dataloader.dataset:
                    prompt = takewhile(lambda pair: pair[1] == IGNORED, zip(row["input_ids"], row["labels"], strict=True))
                    self.trained.append([token for token, _ in prompt])

        return [Rows()]


@pytest.mark.parametrize("template", [None, CHATML], ids=["plain", "template"])
@pytest.mark.parametrize("kind", ["prompt-completion", "instruction", "messages"])
def test_prompts_have_the_tokens_that_precede_completions_in_training(tmp_path, kind, template):
    model = save_llama(tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(model)
    watch = Prompted()
    prompts = ["the film was", "a cat", "who", "why"]
    train(config(model, tmp_path, kind, prompts, max_steps=1), plugins=[watch])
    assert sorted(watch.prompted[:4]) == sorted(watch.trained)


def test_whole_texts_are_continued(llama, tmp_path):
    watch = Prompted()
    train(config(llama, tmp_path, "text", max_steps=1), plugins=[watch])
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    assert watch.prompted[:2] == tokenizer(PROMPTS)["input_ids"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("prompts.txt", "the film was \n\n  a cat\n", ("the film was ", "  a cat")),
        ("prompts.jsonl", '{"prompt": "two\\nlines", "id": 1}\n\n{"prompt": "a cat"}', ("two\nlines", "a cat")),
        ("prompts.csv", 'prompt,id\n"the film, was",1\n', ("the film, was",)),
    ],
)
def test_prompts_are_read_from_a_file(tmp_path, monkeypatch, name, content, expected):
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(content, encoding="utf-8")
    assert samples.read_prompts(given(name)) == expected


def given(prompts: object, **data: object) -> smolora_core.config.RunConfig:
    values = {"model": "m", "data": {"train": "t", "eval": 0.1, **data}, "training": {"sample_prompts": prompts}}
    return resolve(Document(values, {})).config


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("p.txt", "\n \n", "p.txt contains no prompts"),
        ("p.txt", "", "p.txt has no rows"),
        (
            "p.txt",
            b"caf\xff\xfe\xfd",
            "p.txt:1 is not UTF-8 (byte 0xff); save it as UTF-8, or set data.encoding to its encoding",
        ),
        ("p.jsonl", '{"prompt": "a"}\n{"promt": "b", "id": 1}', "p.jsonl:2 has no column 'prompt'; it has: promt, id"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": 3}', "p.jsonl:2 column 'prompt' must be text, got a number"),
        ("p.jsonl", '{"prompt": "a"}\n"b"', "p.jsonl:2 is a string, not an object with columns"),
        ("p.jsonl", '{"prompt": "a"}\n{', "p.jsonl:2:2 is not JSON (Expecting property name enclosed in double quotes)"),
    ],
)
def test_a_file_without_prompts_is_a_problem_with_its_line(tmp_path, monkeypatch, name, content, problem):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert [str(each) for each in samples.smolora_check_config(given(name))] == [problem]


def test_prompts_need_a_file_or_a_list_and_an_evaluation():
    no_file = "training.sample_prompts: no file 'the film was'; write the prompts themselves as a list"
    no_evaluation = "training.sample_prompts: prompts are answered at evaluations, and there are none; set data.eval"
    assert [str(each) for each in samples.smolora_check_config(given("the film was"))] == [no_file]
    assert [str(each) for each in samples.smolora_check_config(given(["a"], eval=None))] == [no_evaluation]
    assert [*samples.smolora_check_config(given([], eval=None))] == []


def test_a_task_that_does_not_write_is_refused_by_name(tmp_path, capsys):
    rows = write(tmp_path / "rows.jsonl", {"text": "the cat"}, {"text": "a film"})
    values = config_of(save_encoder(tmp_path / "bert"), rows, tmp_path / "run", training={"sample_prompts": PROMPTS})
    (tmp_path / "run.yaml").write_text(json.dumps(values))
    assert main(["check", str(tmp_path / "run.yaml")]) == 2
    refused = "training.sample_prompts needs a task that writes text, and masked-lm (smolora 0.1.0) does not; remove it"
    assert capsys.readouterr().err.endswith(f"{tmp_path / 'run.yaml'}:1 {refused}\n")


def test_only_the_first_process_answers(tmp_path):
    run = {"config": given(PROMPTS), "folder": tmp_path, "device": torch.device("cpu"), "plugins": None, "emit": print}
    offered = [len([*samples.smolora_callbacks(RunContext(**run, leads=leads), "text")]) for leads in (True, False)]
    assert offered == [1, 0]


def test_prompts_may_change_when_a_run_resumes(llama, tmp_path):
    with pytest.raises(Injected):
        train(config(llama, tmp_path), plugins=[fail_at(5, "on_step_begin", "raise")])
    train(config(llama, tmp_path, prompts=["who"]), resume="auto")
    assert [(each["step"], len(each["prompts"])) for each in events(tmp_path / "run", "samples")] == [(0, 2), (3, 2), (6, 1)]


def test_the_page_and_the_terminal_show_the_answers(llama, tmp_path, capsys):
    from smolora_core.report import Terminal

    train(config(llama, tmp_path, prompts=["who", *"abc"]), listener=Terminal())
    last = events(tmp_path / "run", "samples")[-1]["answers"]
    shown = [line for line in capsys.readouterr().out.splitlines() if "→" in line or "more in" in line]
    assert len(shown) == 3 * 4
    assert shown[8].startswith(f"  sample   'who' → {repr(last[0])[:20]}")
    assert shown[11] == "           and 1 more in events.jsonl"
    assert "Sample prompts" in (tmp_path / "run" / "report.html").read_text()
