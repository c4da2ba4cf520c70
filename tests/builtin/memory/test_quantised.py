"""QLoRA on a processor: a quantised base is trained, resumed, merged and loaded again."""

import json
import os
from pathlib import Path

import pytest
import torch
import transformers

from smolora_core import ModelLoadError, PluginError, load, train
from smolora_core.lora.merge import merge_and_save, with_plain_weights
from smolora_core.model.quantised import is_quantised
from tests.support.models import save_encoder, save_gpt2, save_llama

# Without the extra `quant` nothing here can run; where it should be, its absence is a failure.
if "SMOLORA_TEST_QUANT" not in os.environ:
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("torchao")

FORMATS = ("nf4", "int8", "torchao-int8")
WORDS = ("good", "bad", "fine", "long")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A Llama whose weights are mostly layers, as those of larger models are."""
    shape = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4}
    return save_llama(tmp_path_factory.mktemp("models") / "wide", **shape)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "reviews.jsonl"
    lines = [{"text": f"the film was {word}, said {number} of us", "label": word} for number in range(16) for word in WORDS]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


def settings(base: Path, rows: Path, folder: Path, memory: object = "none", **more: object) -> dict:
    training = {"learning_rate": 5e-3, "gradient_accumulation_steps": 1, "logging_steps": 10, **more.pop("training", {})}
    return {
        "model": {"path": str(base), "dtype": "bfloat16"},
        "data": {"train": str(rows), **more.pop("data", {})},
        "output_dir": str(folder),
        "memory": memory,
        "training": training,
        **more,
    }


def quantised(kind: str, **options: object) -> list:
    return [{"name": "quantised", "format": kind, **options}]


def bytes_of(model: torch.nn.Module) -> int:
    """Count the bytes of all weights that are not trained, with the scales of quantised ones."""
    counted = 0
    for parameter in (*model.parameters(), *model.buffers()):
        if parameter.requires_grad:
            continue
        inner = [getattr(parameter, name, None) for name in ("qdata", "scale", "CB", "SCB")]
        state = getattr(parameter, "quant_state", None)
        inner += (
            [state.absmax, state.code, *([state.state2.absmax, state.state2.code] if state.nested else [])] if state else []
        )
        tensors = [each for each in inner if isinstance(each, torch.Tensor)]
        plain = hasattr(parameter, "qdata")
        tensors += [] if plain else [parameter.data]
        counted += sum({each.data_ptr(): each.nbytes for each in tensors}.values())
    return counted


@pytest.mark.parametrize(("kind", "most"), [("nf4", 0.35), ("int8", 0.6), ("torchao-int8", 0.6)])
@pytest.mark.slow
def test_it_learns_as_much_in_less_memory(base, rows, tmp_path, kind, most):
    steps = {"max_steps": 50, "logging_steps": 50}
    data = {"eval": 0.1}
    plain = train(settings(base, rows, tmp_path / "plain", training=steps, data=data))
    small = train(settings(base, rows, tmp_path / "small", quantised(kind), training=steps, data=data))
    assert small.metrics["eval_loss"] < 0.9 * small.metrics["eval_loss_before"]
    assert small.metrics["eval_loss"] == pytest.approx(plain.metrics["eval_loss"], rel=0.03)
    assert small.metrics["train_loss"] == pytest.approx(plain.metrics["train_loss"], rel=0.03)
    assert bytes_of(small.model) <= most * bytes_of(plain.model)


@pytest.mark.parametrize(("kind", "most"), [("nf4", 0.35), ("int8", 0.6), ("torchao-int8", 0.6)])
def test_embeddings_that_are_much_of_a_model_are_kept_in_8_bits_too(rows, tmp_path, kind, most):
    # Shares of embeddings and layers as in a model of 135M parameters; the head is tied to the embeddings.
    shape = {
        "vocab_size": 2048,
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "tie_word_embeddings": True,
    }
    base = save_llama(tmp_path / "base", **shape)
    steps = {"max_steps": 5}
    plain = train(settings(base, rows, tmp_path / "plain", training=steps))
    small = train(settings(base, rows, tmp_path / "small", quantised(kind, embeddings=True), training=steps))
    assert small.metrics["train_loss"] == pytest.approx(plain.metrics["train_loss"], rel=0.03)
    assert bytes_of(small.model) <= most * bytes_of(plain.model)
    merged = transformers.AutoModelForCausalLM.from_pretrained(
        merge_and_save(small.model, small.tokenizer, tmp_path / "merged")
    ).eval()
    ids = torch.arange(5, 35)[None]
    with torch.no_grad():
        trained, found = (each.eval()(input_ids=ids).logits.float() for each in (small.model, merged))
    assert (found - trained).norm() < 0.05 * trained.norm()
    assert merged.get_output_embeddings().weight is merged.get_input_embeddings().weight


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.slow
def test_a_run_goes_on_as_if_it_had_not_stopped(base, rows, tmp_path, kind):
    def run(folder: str, steps: int, resume: str = "never") -> dict[str, torch.Tensor]:
        training = {"max_steps": steps, "extra": {"lr_scheduler_type": "constant"}}
        config = settings(base, rows, tmp_path / folder, quantised(kind), training=training, checkpoints={"save_steps": 2})
        return {name: each for name, each in train(config, resume=resume).model.named_parameters() if each.requires_grad}

    whole = run("whole", 4)
    run("parts", 2)
    parts = run("parts", 4, "auto")
    assert all(torch.equal(parts[name], each) for name, each in whole.items())


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_merged_is_what_was_trained(base, rows, tmp_path, kind):
    outcome = train(settings(base, rows, tmp_path / "run", quantised(kind), training={"max_steps": 5, "learning_rate": 5e-2}))
    folder = merge_and_save(outcome.model, outcome.tokenizer, tmp_path / "merged")
    ids = torch.arange(5, 35)[None]
    with torch.no_grad():
        trained = outcome.model.eval()(input_ids=ids).logits.float()
        with outcome.model.disable_adapter():
            untrained = outcome.model(input_ids=ids).logits.float()
        merged = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        found = merged(input_ids=ids).logits.float()
        reloaded = load(outcome.adapter).model.eval()(input_ids=ids).logits.float()
    assert merged.dtype == torch.bfloat16 and "quantization_config" not in merged.config.to_dict()
    learned = (trained - untrained).norm()
    assert (found - trained).norm() < 0.1 * learned
    # The adapter is plain PEFT, and fits the base as it was too.
    assert (reloaded - trained).norm() < 0.5 * learned
    assert any(map(is_quantised, outcome.model.modules()))


@pytest.mark.parametrize("kind", FORMATS)
def test_gradients_are_those_of_the_weights_that_quantised_ones_stand_for(base, rows, tmp_path, kind):
    # An evaluation comes first, because some processors repack weights in it.
    config = settings(base, rows, tmp_path / "run", quantised(kind), training={"max_steps": 2}, data={"eval": 0.1})
    config["model"]["dtype"] = "float32"
    model = train(config).model
    plain = with_plain_weights(model)
    ids = torch.arange(5, 35)[None]

    def gradients(of: torch.nn.Module) -> dict[str, torch.Tensor]:
        of.zero_grad()
        of.eval()(input_ids=ids, labels=ids).loss.backward()
        return {name: each.grad for name, each in of.named_parameters() if each.grad is not None}

    found, expected = gradients(model), gradients(plain)
    assert found.keys() == expected.keys()
    # bitsandbytes' int8 rounds what comes in, too.
    most = 0.1 if kind == "int8" else 1e-4
    for name, each in expected.items():
        assert (found[name] - each).norm() < most * each.norm(), name


@pytest.mark.parametrize("kind", FORMATS)
def test_a_new_head_is_left_as_it_is_and_trained_in_float32(rows, tmp_path, kind):
    # Its pooler is new too, and stands inside of what is quantised.
    base = save_encoder(tmp_path / "bert")
    config = settings(base, rows, tmp_path / "run", quantised(kind), training={"max_steps": 3}, task="sequence-classification")
    config["data"] |= {"label_field": "label"}
    outcome = train(config)
    trained = {name: each.dtype for name, each in outcome.model.named_parameters() if each.requires_grad}
    assert set(trained.values()) == {torch.float32}
    heads = {name.split(".modules_to_save")[0].rsplit(".", 1)[-1] for name in trained if "modules_to_save" in name}
    assert heads == {"classifier", "dense"}
    assert any(map(is_quantised, outcome.model.modules()))
    folder = merge_and_save(outcome.model, outcome.tokenizer, tmp_path / "merged")
    assert transformers.AutoModelForSequenceClassification.from_pretrained(folder).config.num_labels == 4


@pytest.mark.parametrize("kind", FORMATS)
def test_layers_that_nothing_quantises_are_refused(rows, tmp_path, kind):
    with pytest.raises(ModelLoadError) as error:
        train(settings(save_gpt2(tmp_path / "gpt2"), rows, tmp_path / "run", quantised(kind)))
    assert str(error.value) == "GPT2LMHeadModel has Conv1D layers, which cannot be quantised; choose another base model"


def test_parameters_are_counted_as_what_they_stand_for(base, rows, tmp_path):
    told = []
    train(settings(base, rows, tmp_path / "run", quantised("nf4"), training={"max_steps": 1}), listener=told.append)
    total = next(event.values["total"] for event in told if event.kind == "targets")
    assert total == transformers.AutoModelForCausalLM.from_pretrained(base).num_parameters()


def test_an_unknown_format_is_refused(base, rows, tmp_path):
    with pytest.raises(PluginError, match="format must be one of nf4, int8, torchao-int8, got 'nf3'"):
        train(settings(base, rows, tmp_path / "run", quantised("nf3")))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="tells by /proc which files are mapped")
@pytest.mark.parametrize("kind", FORMATS)
def test_the_file_that_weights_were_read_from_is_let_go(kind, rows, tmp_path):
    base = save_llama(tmp_path / "base")
    # What need not be converted is mapped.
    transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    outcome = train(settings(base, rows, tmp_path / "run", quantised(kind), training={"max_steps": 1}))
    assert any(map(is_quantised, outcome.model.modules()))
    assert str(base / "model.safetensors") not in Path("/proc/self/maps").read_text()
