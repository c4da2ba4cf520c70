"""The library's face, as its callers use it."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset

import smolora_core
from smolora_core import (
    CheckpointWriter,
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
    with pytest.raises(TrainingError, match=r"^the model has not been trained; call train\(\) or load_model\(folder\)$"):
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


@pytest.mark.parametrize("held_out", [None, 0.25])
def test_the_trained_model_drops_nothing_out(llama: Path, rows: Path, tmp_path: Path, held_out: float | None) -> None:
    model, data = {"path": str(llama)}, {"train": str(rows), "eval": held_out}
    outcome = train({"model": model, "data": data, "output_dir": str(tmp_path / "run"), "training": {"max_steps": 1}})
    assert not any(each.training for each in outcome.model.modules())


def test_wrong_types_from_python_are_reported_like_those_of_a_file(llama: Path, rows: Path) -> None:
    with pytest.raises(ConfigError, match=r"^given from Python lora\.r must be an integer, got 8\.5$"):
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


def run_of(llama: Path, rows: Path, folder: Path, **settings: object) -> SmoLoRA:
    return SmoLoRA(str(llama), str(rows), output_dir=str(folder), **{"training": SHORT, **settings})


def test_rows_can_be_a_list_of_dicts(llama: Path, tmp_path: Path) -> None:
    assert SmoLoRA(str(llama), ROWS, output_dir=str(tmp_path / "run"), training={"max_steps": 1}).train()["train_loss"] > 0


def test_no_dataset_is_said_to_be_none(llama: Path) -> None:
    with pytest.raises(ConfigError, match="given from Python dataset_name is None; pass a file"):
        SmoLoRA(str(llama), None)


def test_functions_without_a_name_of_their_own_get_one(llama: Path, rows: Path, tmp_path: Path) -> None:
    run_of(llama, rows, tmp_path / "run", preprocessors=[lambda row: row, lambda row: row]).train()
    assert '["lambda", "lambda-2"]' in (tmp_path / "run" / "run.yaml").read_text()


def test_an_earlier_run_is_moved_aside_whole(llama: Path, rows: Path, tmp_path: Path) -> None:
    said: list[str] = []
    folder = tmp_path / "run"
    run_of(llama, rows, folder).train(save_steps=2)
    first = (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    run_of(llama, rows, folder, lora=LoRAConfig(r=2), listener=lambda e: said.append(e.values.get("text", ""))).train(
        save_steps=4
    )
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]
    assert (folder / "previous-1" / "adapter" / "adapter_model.safetensors").read_bytes() == first
    aside = folder / "previous-1"
    assert f"an earlier run was moved to {aside}; resume it with --output_dir {aside} --resume auto" in said


def test_a_run_that_ends_early_does_not_describe_the_adapter_of_another(llama: Path, rows: Path, tmp_path: Path) -> None:
    run_of(llama, rows, tmp_path / "run").train()

    def broken(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_of(llama, rows, tmp_path / "run", loss=broken).train()
    assert not (tmp_path / "run" / "adapter").exists()
    assert (tmp_path / "run" / "previous-1" / "adapter").is_dir()


def test_other_writers_do_not_cost_the_final_adapter(llama: Path, rows: Path, tmp_path: Path) -> None:
    class Cards:
        @hookimpl
        def smolora_checkpoint_writers(self) -> list[CheckpointWriter]:
            def write_card(checkpoint: object, directory: Path) -> None:
                (directory / "CARD.md").write_text(f"step {checkpoint.step}")

            return [CheckpointWriter(name="card", summary="a card", implementation=write_card)]

    run_of(llama, rows, tmp_path / "run", checkpoints={"writers": ["card"], "save_steps": 3}, plugins=[Cards()]).train()
    written = {path.name for path in (tmp_path / "run" / "checkpoint-3").iterdir()}
    assert {"CARD.md", "adapter_model.safetensors", "optimizer.safetensors", "manifest.json"} <= written
    assert {"CARD.md", "adapter_model.safetensors"} <= {path.name for path in (tmp_path / "run" / "adapter").iterdir()}


def test_a_batch_that_is_never_full_is_no_training(llama: Path, rows: Path, tmp_path: Path) -> None:
    training = {"per_device_train_batch_size": 64, "extra": {"dataloader_drop_last": True}}
    lora = run_of(llama, rows, tmp_path / "run", training=training)
    with pytest.raises(TrainingError, match=r"^24 rows do not fill an optimizer step of 256; lower the batch size$"):
        lora.train()


def test_a_small_held_out_side_is_evaluated_whole(llama: Path, rows: Path, tmp_path: Path) -> None:
    training = {"num_train_epochs": 1, "extra": {"dataloader_drop_last": True}}
    metrics = run_of(llama, rows, tmp_path / "run", training=training, data={"eval": 0.3}).train()
    assert metrics["eval_loss"] > 0


def test_a_plugin_that_trains_more_than_the_adapter_is_stopped(llama: Path, rows: Path, tmp_path: Path) -> None:
    class Greedy:
        @hookimpl
        def smolora_adapter_attached(self, model: torch.nn.Module) -> None:
            model.requires_grad_(True)

    message = r"a plugin changed which parameters are trainable: .* leave requires_grad as it is"
    with pytest.raises(TrainingError, match=message):
        run_of(llama, rows, tmp_path / "run", plugins=[Greedy()]).train()


def test_a_loss_that_exits_does_not_end_the_run_well(llama: Path, rows: Path, tmp_path: Path) -> None:
    def leaves(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise SystemExit(0)

    with pytest.raises(PluginError, match=r"called sys\.exit\(0\) while computing the loss"):
        run_of(llama, rows, tmp_path / "run", loss=leaves).train()


def test_what_goes_wrong_after_a_failure_is_a_note_on_it(llama: Path, rows: Path, tmp_path: Path) -> None:
    class Clumsy:
        @hookimpl
        def smolora_run_finished(self) -> None:
            raise OSError("disk")

    def broken(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        run_of(llama, rows, tmp_path / "run", loss=broken, plugins=[Clumsy()]).train()
    assert any(note.startswith("then the cleanup raised OSError: disk") for note in caught.value.__notes__)


def test_what_goes_wrong_after_a_good_run_is_a_warning(llama: Path, rows: Path, tmp_path: Path) -> None:
    warnings: list[str] = []

    class Clumsy:
        @hookimpl
        def smolora_run_finished(self) -> None:
            raise OSError("disk")

    lora = run_of(
        llama,
        rows,
        tmp_path / "run",
        plugins=[Clumsy()],
        listener=lambda event: warnings.append(event.values["text"]) if event.kind == "warning" else None,
    )
    assert lora.train()["train_loss"] > 0
    assert warnings[0].startswith("OSError: disk raised by plugin")


def test_a_callback_hook_that_gives_something_else_is_named(llama: Path, rows: Path, tmp_path: Path) -> None:
    class Odd:
        @hookimpl
        def smolora_callbacks(self) -> int:
            return 5

    message = r"smolora_callbacks returned int; it must return TrainerCallback objects"
    with pytest.raises(PluginError, match=message):
        run_of(llama, rows, tmp_path / "run", plugins=[Odd()]).train()


def test_secrets_reach_no_file(llama: Path, rows: Path, tmp_path: Path) -> None:
    training = {"max_steps": 1, "extra": {"run_name": "https://user:hf_canary@host/run"}}
    run_of(llama, rows, tmp_path / "run", training=training).train()
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if b"hf_canary" in path.read_bytes()]


def test_a_default_length_is_held_to_the_positions_of_the_model(llama: Path, rows: Path, tmp_path: Path) -> None:
    run_of(llama, rows, tmp_path / "run", training={"max_steps": 1}).train()
    assert "max_seq_length: 128  # the model's positions" in (tmp_path / "run" / "run.yaml").read_text()


def test_a_length_beyond_the_positions_of_the_model_is_refused(llama: Path, rows: Path, tmp_path: Path) -> None:
    lora = run_of(llama, rows, tmp_path / "run", training={"max_steps": 1}, data={"max_seq_length": 256})
    with pytest.raises(ConfigError, match=r"data\.max_seq_length 256 exceeds the model's 128 positions"):
        lora.train()
