"""What each task makes of rows, beside what is made of them by other means."""

import numpy as np
import pytest
import torch
import transformers

from smolora_core.batches.padding import IGNORED
from smolora_core.components import Drop, Encoded, TaskSetup
from smolora_core.data.formats.shapes import Example
from smolora_core.errors import ConfigError, DatasetError
from smolora_plugins.tasks.masked_lm import MaskedLM, WholeWordMaskedLM
from smolora_plugins.tasks.regression import Regression
from smolora_plugins.tasks.seq2seq_lm import Seq2SeqLM
from smolora_plugins.tasks.sequence_classification import SequenceClassification
from smolora_plugins.tasks.token_classification import TokenClassification
from tests.support.models import save_t5, save_tokenizer, save_wordpiece

TEXTS = ["we liked the film", "it was bad", "a cat sat on a mat, and why not", "x"]


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory):
    return save_wordpiece(tmp_path_factory.mktemp("wordpiece"))


def setup(tokenizer, train=(), held_out=None, label_field=None, config=None):
    config = config or transformers.BertConfig(vocab_size=len(tokenizer), pad_token_id=0)
    return TaskSetup(
        train=train, held_out=held_out, tokenizer=tokenizer, pad_token_id=0, model_config=config, label_field=label_field
    )


def rows_of(task, tokenizer, examples, max_length=64):
    return [row for each in task.encode(examples, tokenizer, max_length) for row in each.sequences]


def labelled(*labels):
    return [Example(text, labels=(label,)) for text, label in zip(TEXTS, labels, strict=False)]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("ham", "spam", "ham"), ["ham", "spam"]),
        ((10, 9, 9.0), ["9", "10"]),
        (("10", "9", "-1"), ["-1", "9", "10"]),
        ((True, False, True), ["False", "True"]),
    ],
)
def test_labels_are_numbered_in_their_order(wordpiece, labels, names):
    task = SequenceClassification()
    rows = rows_of(task, wordpiece, labelled(*labels))
    changes = task.configure(setup(wordpiece, rows))
    assert list(changes["id2label"].values()) == names
    assert (changes["num_labels"], changes["problem_type"]) == (len(names), "single_label_classification")
    batch = task.collate(rows, 0)
    expected = [names.index(str(int(each)) if isinstance(each, float) else str(each)) for each in labels]
    assert batch["labels"].tolist() == expected
    alone = wordpiece(TEXTS[: len(labels)], padding=True, return_tensors="pt")
    assert torch.equal(batch["input_ids"], alone["input_ids"])
    assert torch.equal(batch["attention_mask"], alone["attention_mask"])


def test_several_labels_are_a_row_of_zeros_and_ones(wordpiece):
    task = SequenceClassification()
    rows = rows_of(task, wordpiece, labelled(["b", "a"], [], ["[c"]))
    changes = task.configure(setup(wordpiece, rows))
    assert (list(changes["id2label"].values()), changes["problem_type"]) == (["[c", "a", "b"], "multi_label_classification")
    assert task.collate(rows, 0)["labels"].tolist() == [[0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]


def test_columns_of_yes_and_no_keep_their_order(wordpiece):
    task = SequenceClassification()
    rows = rows_of(task, wordpiece, labelled(["b"], [], ["b"]))
    assert list(task.configure(setup(wordpiece, rows, label_field=("z", "b")))["id2label"].values()) == ["z", "b"]
    assert task.collate(rows, 0)["labels"].tolist() == [[0.0, 1.0], [0.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("train", "held_out", "message"),
    [
        (
            ("a", "b"),
            ("a", "c"),
            "data.eval: label 'c' occurs in held-out rows but not in training rows; the training labels are: a, b",
        ),
        (("a", "a"), None, "data.train: every row is labelled 'a'"),
    ],
)
def test_labels_that_cannot_be_learned_are_named(wordpiece, train, held_out, message):
    task = SequenceClassification()
    sides = [rows_of(task, wordpiece, labelled(*labels)) if labels else None for labels in (train, held_out)]
    with pytest.raises(DatasetError) as error:
        task.configure(setup(wordpiece, *sides))
    assert str(error.value) == message


def test_one_label_and_lists_do_not_mix(wordpiece):
    task = SequenceClassification()
    with pytest.raises(ConfigError, match=r"data\.train: some rows have one label, others a list of labels"):
        task.configure(setup(wordpiece, rows_of(task, wordpiece, labelled("a", ["b"]))))


def test_a_long_text_is_cut_inside_its_special_tokens(wordpiece):
    (encoded,) = SequenceClassification().encode([Example(TEXTS[2], labels=("a",))], wordpiece, 6)
    whole = wordpiece(TEXTS[2])["input_ids"]
    assert encoded.sequences[0]["input_ids"] == [*whole[:5], wordpiece.sep_token_id]
    assert encoded.tokens_lost == len(whole) - 6


def test_numbers_are_rows_of_them(wordpiece):
    task = Regression()
    rows = rows_of(task, wordpiece, [Example(text, labels=(at / 2, -1.0)) for at, text in enumerate(TEXTS)])
    changes = task.configure(setup(wordpiece, rows, label_field=("V", "A")))
    assert (changes["id2label"], changes["problem_type"]) == ({0: "V", 1: "A"}, "regression")
    labels = task.collate(rows, 0)["labels"]
    assert labels.dtype == torch.float32
    assert labels.tolist() == [[at / 2, -1.0] for at in range(4)]


def test_the_first_piece_of_a_word_has_its_tag(wordpiece):
    tokens = ("we", "liked", "paris", ",", "2024", "!?")
    tags = ("O", "O", "B-loc", "O", "B-year", "O")
    task = TokenClassification()
    rows = rows_of(task, wordpiece, [Example(" ".join(tokens), labels=tags, tokens=tokens)])
    changes = task.configure(setup(wordpiece, rows))
    names = ["B-loc", "B-year", "O"]
    assert list(changes["id2label"].values()) == names
    reference = wordpiece(list(tokens), is_split_into_words=True)
    words = reference.word_ids()
    labels = [
        names.index(tags[word]) if word is not None and word != words[at - 1] else IGNORED for at, word in enumerate(words)
    ]
    batch = task.collate(rows, 0)
    assert batch["input_ids"].tolist() == [reference["input_ids"]]
    assert batch["labels"].tolist() == [labels]


def test_words_of_a_byte_level_tokenizer_are_found_behind_their_spaces(tmp_path):
    tokenizer = save_tokenizer(tmp_path)
    tokens = ("the", "film", "Zürich", "was")
    rows = rows_of(TokenClassification(), tokenizer, [Example(" ".join(tokens), labels=("1", "2", "3", "4"), tokens=tokens)])
    assert [tag for tag in rows[0]["tags"] if tag] == ["1", "2", "3", "4"]
    starts = [at for at, tag in enumerate(rows[0]["tags"]) if tag]
    pieces = [tokenizer.decode(rows[0]["input_ids"][start:end]) for start, end in zip(starts, [*starts[1:], None], strict=True)]
    assert [piece.strip() for piece in pieces] == list(tokens)


def test_a_decoder_reads_what_it_is_to_write_one_token_later(tmp_path):
    folder = save_t5(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    task = Seq2SeqLM()
    rows = rows_of(task, tokenizer, [Example("not bad", "the film was"), Example("good", "why")])
    task.configure(setup(tokenizer, config=model.config))
    batch = task.collate(rows, 2)
    eos = tokenizer.eos_token_id
    assert [row["labels"] for row in rows] == [[*tokenizer(text)["input_ids"], eos] for text in ("not bad", "good")]
    assert torch.equal(batch["decoder_input_ids"], model.prepare_decoder_input_ids_from_labels(batch["labels"]))
    assert batch["labels"][1, -1] == IGNORED


def test_an_empty_prompt_is_dropped_and_a_long_completion_is_open_ended(tmp_path):
    tokenizer = save_tokenizer(tmp_path)
    empty, long = Seq2SeqLM().encode([Example("good", ""), Example("good and long and not bad", "why")], tokenizer, 4)
    assert empty == Drop("the prompt is empty")
    assert isinstance(long, Encoded)
    assert (long.supervised, long.open_ended) == (4, 1)
    assert long.tokens_lost == len(tokenizer("good and long and not bad")["input_ids"]) + 1 - 4


def masked(task, tokenizer, texts, seed=0):
    rows = rows_of(task, tokenizer, [Example(text) for text in texts])
    task.configure(setup(tokenizer))
    return rows, task.collate(rows, 0, seed=seed)


LONG = " ".join(["the film was good and we liked it all"] * 6)


def test_15_percent_are_to_be_found_and_never_special_tokens(wordpiece):
    task = MaskedLM()
    texts = [LONG] + [f"{LONG[:200]} {number}" for number in range(400)]
    rows, batch = masked(task, wordpiece, texts)
    found = batch["labels"] != IGNORED
    ids = torch.tensor([[*row["input_ids"], *[0] * (found.shape[1] - len(row["input_ids"]))] for row in rows])
    special = torch.isin(ids, torch.tensor(wordpiece.all_special_ids))
    assert not found[special].any()
    assert [int(each.sum()) for each in found] == [max(1, round(0.15 * (len(row["input_ids"]) - 2))) for row in rows]
    assert torch.equal(batch["labels"][found], ids[found])
    assert torch.equal(batch["input_ids"][~found], ids[~found])
    hidden = (batch["input_ids"][found] == wordpiece.mask_token_id).double().mean().item()
    left = (batch["input_ids"][found] == ids[found]).double().mean().item()
    assert hidden == pytest.approx(0.8, abs=0.03)
    assert left == pytest.approx(0.1, abs=0.03)


def test_masks_hang_on_the_seed_and_the_row_and_not_on_the_batch(wordpiece):
    task = MaskedLM()
    rows, first = masked(task, wordpiece, TEXTS, seed=1)
    assert torch.equal(task.collate(rows, 0, seed=1)["input_ids"], first["input_ids"])
    assert not torch.equal(task.collate(rows, 0, seed=2)["labels"], first["labels"])
    for at, row in enumerate(rows):
        alone = task.collate([row], 0, seed=1)["labels"][0]
        assert torch.equal(alone, first["labels"][at, : len(alone)])


def test_a_word_is_hidden_whole(wordpiece):
    rows, batch = masked(WholeWordMaskedLM(), wordpiece, ["paris london berlin tokyo madrid rome oslo"] * 1)
    words = np.array(rows[0]["units"])
    found = batch["labels"][0].numpy() != IGNORED
    assert set(found[words == words[found][0]]) == {True}
    assert found.sum() == (words == words[found][0]).sum() > 1


def test_a_long_text_becomes_sequences_with_special_tokens_of_their_own(wordpiece):
    (encoded,) = MaskedLM().encode([Example(LONG)], wordpiece, 16)
    whole = wordpiece(LONG, add_special_tokens=False)["input_ids"]
    assert [token for row in encoded.sequences for token in row["input_ids"][1:-1]] == whole
    assert {(row["input_ids"][0], row["input_ids"][-1]) for row in encoded.sequences} == {
        (wordpiece.cls_token_id, wordpiece.sep_token_id)
    }


def test_a_tokenizer_that_masks_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"the tokenizer has no mask token; is this a masked language model\?"):
        MaskedLM().configure(setup(save_tokenizer(tmp_path)))
