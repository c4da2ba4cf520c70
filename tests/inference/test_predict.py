"""A folder knows its task: what was trained to judge judges, and what was trained to answer answers."""

import json

import pytest
import torch
import transformers

from smolora_core.cli import main
from smolora_core.errors import ConfigError, ModelLoadError
from smolora_core.inference.generate import load_adapter
from tests.support.models import save_encoder, save_t5
from tests.support.small_tasks import CASES, Watch, run_of

TEXTS = ["the film was not bad", "a cat", "why was it long and short and good"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a case once; give the model in memory and the folder of its adapter."""
    made = {}

    def train(name):
        if name not in made:
            folder, watch = tmp_path_factory.mktemp("trained"), Watch()
            case = CASES[name]
            run_of(case.save(folder / "model"), folder, case, case.some(0, 8), watch=watch, max_steps=3).train()
            made[name] = watch.outcome.model.eval().requires_grad_(False), watch.outcome.adapter
        return made[name]

    return train


@pytest.mark.parametrize("name", CASES)
def test_a_folder_is_loaded_as_the_class_that_was_trained(trained, name):
    model, folder = trained(name)
    loaded = load_adapter(folder, device="cpu").model
    assert type(loaded.get_base_model()) is type(model.get_base_model())
    batch = {"input_ids": torch.arange(5, 17).reshape(2, 6)}
    if model.config.is_encoder_decoder:
        batch["decoder_input_ids"] = batch["input_ids"]
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)


def logits(loaded, text):
    with torch.no_grad():
        return loaded.model(**loaded.tokenizer(text, return_tensors="pt")).logits[0]


@pytest.mark.parametrize("name", ["sequence-classification", "classes of a decoder"])
def test_a_classifier_gives_the_likeliest_label_and_the_scores_of_all(trained, name):
    loaded = load_adapter(trained(name)[1], device="cpu")
    for text, found in zip(TEXTS, loaded.predict(TEXTS), strict=True):
        expected = dict(zip(("eggs", "ham", "spam"), logits(loaded, text).softmax(-1).tolist(), strict=True))
        label = max(expected, key=expected.get)
        assert found.values["label"] == label
        assert found.values["scores"] == pytest.approx(expected, abs=1e-6)
        assert found.text == f"{label} {expected[label]:.3g}" == loaded.generate(text)


def test_of_several_labels_those_are_given_that_rather_hold_than_not(trained):
    loaded = load_adapter(trained("several labels")[1], device="cpu")
    (found,) = loaded.predict(TEXTS[:1])
    expected = dict(zip("xyz", logits(loaded, TEXTS[0]).sigmoid().tolist(), strict=True))
    assert found.values["scores"] == pytest.approx(expected, abs=1e-6)
    assert found.values["labels"] == [name for name in "xyz" if expected[name] > 0.5]


def test_a_regression_gives_a_number_for_each_column(trained):
    loaded = load_adapter(trained("regression")[1], device="cpu")
    (found,) = loaded.predict(TEXTS[:1])
    numbers = logits(loaded, TEXTS[0]).tolist()
    assert found.values["scores"] == pytest.approx(dict(zip("VAD", numbers, strict=True)), abs=1e-6)
    assert found.text == "\n".join(f"{name} {number:.3g}" for name, number in zip("VAD", numbers, strict=True))


def test_words_have_the_labels_of_their_first_pieces(trained):
    loaded = load_adapter(trained("token-classification")[1], device="cpu")
    (found,) = loaded.predict(["we liked  xyz mat"])
    # [CLS] we liked x ##y ##z mat [SEP]
    expected = logits(loaded, "we liked xyz mat").argmax(-1)[[1, 2, 3, 6]].tolist()
    names = [loaded.model.config.id2label[number] for number in expected]
    words = [(each["word"], each["label"]) for each in found.values["words"]]
    assert words == list(zip(["we", "liked", "xyz", "mat"], names, strict=True))
    assert [line.split("\t")[:2] for line in found.text.splitlines()] == [list(pair) for pair in words]


def test_masks_are_filled_with_the_likeliest_tokens(trained):
    loaded = load_adapter(trained("masked-lm")[1], device="cpu")
    (found,) = loaded.predict(["the [MASK] was good"])
    ids = loaded.tokenizer("the [MASK] was good")["input_ids"]
    ids[2] = int(logits(loaded, "the [MASK] was good")[2].argmax())
    assert found.text == loaded.tokenizer.decode(ids, skip_special_tokens=True)
    assert found.values["candidates"][0][0]["token"] == loaded.tokenizer.decode([ids[2]])
    with pytest.raises(ConfigError) as error:
        loaded.generate("the film was good")
    assert str(error.value) == "the text contains no [MASK]; write [MASK] in place of the word to predict"


def test_an_answer_is_the_one_of_transformers_and_has_no_prompt_in_it(tmp_path):
    loaded = load_adapter(save_t5(tmp_path, tie_word_embeddings=False), device="cpu")
    answers = loaded.generate_all(TEXTS, max_new_tokens=12)
    for text, answer in zip(TEXTS, answers, strict=True):
        batch = loaded.tokenizer(text, return_tensors="pt")
        made = loaded.model.generate(**batch, max_new_tokens=12, do_sample=False)
        assert answer == loaded.tokenizer.decode(made[0], skip_special_tokens=True) != ""


def test_what_writes_does_not_predict(trained):
    with pytest.raises(ConfigError, match="the model generates text; call generate"):
        load_adapter(trained("causal-lm")[1], device="cpu").predict(TEXTS)


def test_a_text_that_is_too_long_is_refused(trained):
    with pytest.raises(ConfigError) as error:
        load_adapter(trained("sequence-classification")[1], device="cpu").predict(["cat " * 70])
    assert str(error.value) == "a text has 72 tokens, but the model takes 1 to 64"


def test_a_whole_model_predicts_as_well(tmp_path):
    loaded = load_adapter(save_encoder(tmp_path), device="cpu")
    assert isinstance(loaded.model, transformers.BertForMaskedLM)
    assert "[MASK]" not in loaded.generate("the [MASK] was good")


def test_a_head_that_nobody_has_trained_is_refused(tmp_path):
    with pytest.raises(ModelLoadError, match="has no weights for 6 tensors"):
        load_adapter(save_encoder(tmp_path, "bert", "Model"), device="cpu")


def test_the_command_line_says_the_label(trained, capfd):
    _, folder = trained("sequence-classification")
    said = load_adapter(folder, device="cpu").generate(TEXTS[0])
    capfd.readouterr()
    assert main(["generate", str(folder), TEXTS[0], "--device", "cpu", "--json"]) == 0
    out, err = capfd.readouterr()
    assert (json.loads(out)["text"], err) == (said, "")
