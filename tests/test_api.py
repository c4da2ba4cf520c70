"""The library's face, as its callers use it."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset

import smolora_core
from smolora_core import (
    ConfigError,
    Drop,
    LoRAConfig,
    Loss,
    PluginError,
    SmoLoRA,
    TrainingConfig,
    TrainingError,
    hookimpl,
    load,
    train,
)

ROWS = [{"text": f"the film was {word}, said {number} of us"} for number in range(8) for word in ("good", "bad", "fine")]
SHORT = TrainingConfig(
    num_train_epochs=1, gradient_accumulation_steps=1, logging_steps=1, learning_rate=1e-2, max_seq_length=64
)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "reviews.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    return file


@pytest.fixture
def lora(llama: Path, rows: Path, tmp_path: Path) -> SmoLoRA:
    return SmoLoRA(str(llama), str(rows), "text", str(tmp_path / "run"), lora=LoRAConfig(r=4, dropout=0.0), training=SHORT)


def test_every_public_name_can_be_imported() -> None:
    for name in smolora_core.__all__:
        assert getattr(smolora_core, name) is not None


def test_training_returns_metrics_and_leaves_the_adapter(lora: SmoLoRA, tmp_path: Path) -> None:
    metrics = lora.train(num_epochs=2)
    assert metrics["train_loss"] > 0
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()


def test_epochs_and_intervals_of_the_call_win(lora: SmoLoRA, tmp_path: Path) -> None:
    lora.train(num_epochs=1, save_steps=2)
    assert lora.resolved.config.training.num_train_epochs == 1
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]


def test_generate_and_inference_are_the_same(lora: SmoLoRA) -> None:
    lora.train()
    assert lora.generate("the film", max_new_tokens=4) == lora.inference("the film", max_new_tokens=4)


def test_a_saved_adapter_generates_what_the_trained_one_does(lora: SmoLoRA, tmp_path: Path) -> None:
    lora.train()
    saved = lora.save(tmp_path / "saved")
    assert load(saved).generate("the film", max_new_tokens=8) == lora.generate("the film", max_new_tokens=8)


def test_a_merged_model_generates_what_the_trained_one_does(lora: SmoLoRA, tmp_path: Path) -> None:
    lora.train()
    merged = lora.merge(tmp_path / "merged")
    assert not (merged / "adapter_config.json").exists()
    assert load(merged).generate("the film", max_new_tokens=8) == lora.generate("the film", max_new_tokens=8)


def test_load_model_takes_the_place_of_training(lora: SmoLoRA, tmp_path: Path, llama: Path, rows: Path) -> None:
    lora.train()
    other = SmoLoRA(str(llama), str(rows))
    other.load_model(tmp_path / "run" / "adapter")
    assert other.generate("the film", max_new_tokens=4) == lora.generate("the film", max_new_tokens=4)


def test_generating_before_training_says_what_to_do(lora: SmoLoRA) -> None:
    with pytest.raises(TrainingError, match=r"^nothing is trained yet; call train\(\), or load_model\(folder\)$"):
        lora.generate("the film")


def test_rows_can_be_a_dataset_in_memory(llama: Path, tmp_path: Path) -> None:
    lora = SmoLoRA(str(llama), Dataset.from_list(ROWS), output_dir=str(tmp_path / "run"), training=SHORT)
    assert lora.train()["train_loss"] > 0


def test_a_function_is_a_loss(llama: Path, rows: Path, tmp_path: Path) -> None:
    def doubled(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return 2 * torch.nn.functional.cross_entropy(logits, targets, reduction="none")

    def first_loss(**settings: object) -> float:
        seen: list[float] = []
        SmoLoRA(
            str(llama),
            str(rows),
            output_dir=str(tmp_path / "run"),
            training=SHORT,
            listener=lambda event: seen.append(event.values["loss"]) if event.kind == "log" else None,
            model={"dtype": "float32"},
            **settings,
        ).train()
        return seen[0]

    assert first_loss(loss=doubled) == pytest.approx(2 * first_loss(), rel=1e-5)


def test_functions_are_preprocessors_in_their_order(llama: Path, rows: Path, tmp_path: Path) -> None:
    def only_good(row: dict[str, str]) -> dict[str, str] | Drop:
        return row if "good" in row["text"] else Drop("not good")

    def twice(row: dict[str, str]) -> list[dict[str, str]]:
        return [row, row]

    SmoLoRA(
        str(llama), str(rows), output_dir=str(tmp_path / "run"), training=SHORT, preprocessors=["strip", only_good, twice]
    ).train()
    ledger = json.loads((tmp_path / "run" / "ledger.json").read_text())["train"]
    assert (ledger["read"], ledger["added"], ledger["kept"]) == (24, 8, 16)
    assert [(entry["step"], entry["reason"], entry["rows"]) for entry in ledger["dropped"]] == [("only-good", "not good", 16)]


def test_a_loss_gets_the_columns_it_declares(llama: Path, tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    def weighted(logits: torch.Tensor, targets: torch.Tensor, *, weight: torch.Tensor) -> torch.Tensor:
        seen.append(weight)
        return weight * torch.nn.functional.cross_entropy(logits, targets, reduction="none")

    record = Loss(name="weighted", summary="by row", implementation=weighted, columns=("weight",))
    data = [{**row, "weight": float(number)} for number, row in enumerate(ROWS)]
    SmoLoRA(str(llama), data_in_memory(data), output_dir=str(tmp_path / "run"), training=SHORT, loss=record).train()
    assert {value for weights in seen for value in weights.tolist()} == set(map(float, range(len(ROWS))))


def data_in_memory(rows: list[dict[str, object]]) -> Dataset:
    return Dataset.from_list(rows)


def test_a_column_that_a_loss_needs_and_rows_lack_is_named(llama: Path, rows: Path, tmp_path: Path) -> None:
    record = Loss(name="weighted", summary="by row", implementation=lambda *a, weight: weight, columns=("weight",))
    lora = SmoLoRA(str(llama), str(rows), output_dir=str(tmp_path / "run"), loss=record)
    with pytest.raises(smolora_core.DatasetError, match="has no column 'weight'; it has: text"):
        lora.train()


def test_an_object_with_hooks_hears_of_the_run(llama: Path, rows: Path, tmp_path: Path) -> None:
    class Witness:
        def __init__(self) -> None:
            self.heard: list[str] = []

        @hookimpl
        def smolora_adapter_attached(self, model: object) -> None:
            self.heard.append("attached")

        @hookimpl
        def smolora_run_finished(self, outcome: object) -> None:
            self.heard.append(outcome.status)

    witness = Witness()
    SmoLoRA(str(llama), str(rows), output_dir=str(tmp_path / "run"), training=SHORT, plugins=[witness]).train()
    assert witness.heard == ["attached", "finished"]


def test_a_failed_run_is_told_to_plugins_and_keeps_its_exception(llama: Path, rows: Path, tmp_path: Path) -> None:
    heard: list[str] = []

    class Witness:
        @hookimpl
        def smolora_run_finished(self, outcome: object) -> None:
            heard.append(f"{outcome.status} {type(outcome.error).__name__}")

    def broken(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("mine")

    lora = SmoLoRA(str(llama), str(rows), output_dir=str(tmp_path / "run"), training=SHORT, plugins=[Witness()], loss=broken)
    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        lora.train()
    assert heard == ["failed ZeroDivisionError"]
    assert any("computing the loss" in note for note in caught.value.__notes__)


def test_a_config_of_nested_dicts_trains(llama: Path, rows: Path, tmp_path: Path) -> None:
    outcome = train(
        {"model": str(llama), "output_dir": str(tmp_path / "run"), "data": {"train": str(rows)}, "training": {"max_steps": 2}}
    )
    assert (outcome.status, outcome.steps) == ("finished", 2)


def test_wrong_types_from_python_are_reported_like_those_of_a_file(llama: Path, rows: Path) -> None:
    with pytest.raises(ConfigError, match=r"^given from Python lora\.r must be a whole number, is 8\.5$"):
        SmoLoRA(str(llama), str(rows), lora=LoRAConfig(r=8.5))


def test_an_unknown_loss_is_named(llama: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no loss is named 'focl'"):
        SmoLoRA(str(llama), str(rows), output_dir=str(tmp_path / "run"), loss="focl").train()


def test_training_settings_move_on_to_trl(tmp_path: Path) -> None:
    sft = TrainingConfig(
        output_dir=str(tmp_path), learning_rate=1e-3, max_seq_length=128, extra={"warmup_steps": 5}
    ).to_sft_config()
    assert (sft.learning_rate, sft.max_length, sft.warmup_steps) == (1e-3, 128, 5)


def test_the_profile_of_a_run_can_be_read(llama: Path, rows: Path, tmp_path: Path) -> None:
    import pstats

    settings = {"debug": {"profile_training": True}, "training": SHORT}
    SmoLoRA(str(llama), str(rows), output_dir=str(tmp_path / "run"), **settings).train()
    assert pstats.Stats(str(tmp_path / "run" / "profile.pstats")).total_calls > 0
