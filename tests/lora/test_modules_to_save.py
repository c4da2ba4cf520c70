"""A new head is trained in float32 on a base of any dtype, saved with the adapter, and loaded back by plain PEFT."""

import json

import pytest
import torch
import transformers
from peft import PeftModel

from smolora_core import LoRAConfig, Task
from smolora_core.errors import ConfigError
from smolora_core.lora.attach import adaptable_modules, attach
from smolora_core.lora.options import resolve_targets
from smolora_core.plugins import PluginChoice, PluginManager
from tests.support.tiny import tiny

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

REGISTRY = PluginManager.create(PluginChoice(third_party=False)).registry
# The last token is the end of the text, which BART looks for.
IDS = torch.arange(3, 19).reshape(2, 8).index_fill(1, torch.tensor([7]), 2)
BATCH = {"input_ids": IDS, "attention_mask": torch.ones(2, 8, dtype=torch.long)}


def task(peft_task_type="SEQ_CLS"):
    return Task(
        name="any", summary="", implementation="a:b", model_class="AutoModel", loss="any", peft_task_type=peft_task_type
    )


def saved(model_type, folder, auto="AutoModelForSequenceClassification", **changes):
    base = tiny(model_type, encoder=True)
    model = getattr(transformers, auto).from_config(type(base.config)(**{**base.config.to_dict(), "num_labels": 3, **changes}))
    model.save_pretrained(folder)
    return folder


def adapted(folder, dtype, names, auto="AutoModelForSequenceClassification", peft_task_type="SEQ_CLS", **options):
    base = getattr(transformers, auto).from_pretrained(folder, dtype=dtype)
    lora = LoRAConfig(**{"r": 2, "dropout": 0.0, **options})
    targets = resolve_targets(lora, base.config.model_type, adaptable_modules(base), REGISTRY)
    return attach(base, lora, targets, task(peft_task_type), str(folder), seed=1, modules_to_save=names)


def trained(model, steps=3):
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-5)
    for _ in range(steps):
        logits = model.train()(**BATCH).logits
        wanted = torch.zeros(logits.shape[:-1].numel(), dtype=torch.long)
        torch.nn.functional.cross_entropy(logits.float().flatten(0, -2), wanted).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def logits(model):
    with torch.no_grad():
        return model.eval()(**BATCH).logits


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return saved("bert", tmp_path_factory.mktemp("bert"))


def test_a_head_in_bfloat16_is_trained_saved_and_loaded_back(bert, tmp_path):
    result = adapted(bert, "bfloat16", ("classifier",))
    head = result.model.base_model.model.classifier.modules_to_save["default"]
    before = head.weight.detach().clone()
    model = trained(result.model)
    assert head.weight.dtype == torch.float32
    assert (head.weight != before).float().mean() > 0.95
    assert logits(model).dtype == torch.float32
    assert result.trainable == sum(each.numel() for each in model.parameters() if each.requires_grad)

    model.save_pretrained(tmp_path, save_embedding_layers=False)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"] == ["classifier", "score"]
    plain = transformers.AutoModelForSequenceClassification
    # In float32 nothing is rounded, and it is the same to the last digits; in bfloat16 PEFT rounds the head as it loads it.
    exact = PeftModel.from_pretrained(plain.from_pretrained(bert, dtype="bfloat16").float(), tmp_path)
    rounded = PeftModel.from_pretrained(plain.from_pretrained(bert, dtype="bfloat16"), tmp_path)
    torch.testing.assert_close(logits(rounded).float(), logits(model), rtol=2e-2, atol=1e-2)
    torch.testing.assert_close(logits(exact), logits(model.float()), rtol=1e-5, atol=1e-6)


def test_a_head_in_float32_is_loaded_back_to_the_same_numbers(bert, tmp_path):
    model = trained(adapted(bert, "float32", ("classifier",)).model)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(bert)
    torch.testing.assert_close(logits(PeftModel.from_pretrained(base, tmp_path)), logits(model), rtol=0, atol=0)


def test_a_merged_model_keeps_the_head(bert):
    model = trained(adapted(bert, "bfloat16", ("classifier",)).model)
    expected = logits(model)
    merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected, rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("model_type", "names", "head", "task_type"),
    [
        ("bert", ("bert.pooler.dense", "classifier"), "SequenceClassification", "SEQ_CLS"),
        ("bert", ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"), "MaskedLM", None),
        ("bert", ("classifier",), "TokenClassification", "TOKEN_CLS"),
        ("roberta", ("classifier.dense", "classifier.out_proj"), "SequenceClassification", "SEQ_CLS"),
        ("distilbert", ("pre_classifier", "classifier"), "SequenceClassification", "SEQ_CLS"),
        (
            "bart",
            ("classification_head.dense", "classification_head.out_proj"),
            "SequenceClassification",
            "SEQ_CLS",
        ),
        ("modernbert", ("head.dense", "head.norm", "classifier"), "SequenceClassification", "SEQ_CLS"),
        ("llama", ("score",), "SequenceClassification", "SEQ_CLS"),
    ],
)
def test_heads_of_every_make_are_trained_in_bfloat16(tmp_path, model_type, names, head, task_type):
    auto = f"AutoModelFor{head}"
    saved(model_type, tmp_path / "base", auto)
    result = adapted(tmp_path / "base", "bfloat16", names, auto, task_type)
    model = trained(result.model)
    whole = [name for name, each in model.named_parameters() if each.requires_grad and "lora_" not in name]
    assert whole and all(".modules_to_save.default." in name for name in whole)
    assert not any("head" in name or "classifier" in name for name in result.targets.modules)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    base = getattr(transformers, auto).from_pretrained(tmp_path / "base", dtype="bfloat16")
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter")
    torch.testing.assert_close(logits(loaded).float(), logits(model).float(), rtol=3e-2, atol=3e-2)


def test_a_module_that_is_trained_whole_is_not_adapted_as_well(bert):
    names = adapted(bert, "float32", ("classifier",), target_modules=("query", "dense"), modules_to_save=("bert.pooler",))
    assert "bert.pooler.dense" not in names.targets.modules


def test_a_module_to_save_that_does_not_exist_is_refused(bert):
    with pytest.raises(ConfigError) as error:
        adapted(bert, "float32", ("clasifier",))
    assert str(error.value) == "lora.modules_to_save: no module is named 'clasifier'; did you mean 'classifier'?"
