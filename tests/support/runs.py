"""A complete config for runs that are stopped and resumed, and access to the files that a run leaves."""

import hashlib
import json
from pathlib import Path
from typing import Any

FILM_ROWS = [{"text": f"the film was good, said {number} of us"} for number in range(8)]


def rows_in(folder: Path) -> Path:
    """Write some rows."""
    words = ("good", "bad", "fine", "long")
    file = folder / "reviews.jsonl"
    texts = (f"the film was {word}, said {number} of us" for number in range(6) for word in words)
    file.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return file


def config_of(model: Path, rows: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """Make a config; what is given is laid over its sections."""
    values: dict[str, Any] = {
        "model": {"path": str(model), "dtype": "float32", "device": "cpu"},
        "output_dir": str(folder),
        "data": {"train": str(rows), "eval": 0.2, "max_seq_length": 32},
        "training": {
            "max_steps": 6,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "eval_steps": 3,
        },
        "checkpoints": {"save_steps": 2, "keep": 3},
    }
    for section, inside in changes.items():
        together = isinstance(inside, dict) and isinstance(values.get(section), dict)
        values[section] = {**values[section], **inside} if together else inside
    return values


def digests(folder: Path, *names: str) -> dict[str, str]:
    """Digest files of a folder."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Read the events of a kind."""
    lines = map(json.loads, (folder / "events.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["event"] == kind]
