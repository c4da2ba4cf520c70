"""A loss gets what it needs, and its sum and gradient are those of the full logits."""

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from smolora_core.batches.padding import IGNORED
from smolora_core.errors import PluginError, TrainingError
from smolora_core.training.objective import make_objective
from tests.support.small_run import (
    VOCABULARY,
    adapted,
    batch,
    cross_entropy,
    difference,
    full_logits,
    gradients,
    load,
    objective,
    registered,
    rows,
)

ONE_ROW = 4 * VOCABULARY


def measured(model, of, loss=cross_entropy, chunk_bytes=5 * ONE_ROW, **record):
    model.zero_grad()
    found = objective(loss, model, chunk_bytes, **record)(model, batch(of))
    found.sum.backward()
    return found.sum.item(), found.weight.item(), gradients(model)


def assert_equal(found, expected, within=1e-5):
    assert found[0] == pytest.approx(expected[0], rel=within)
    assert found[1] == expected[1]
    assert difference(found[2], expected[2]) < within


@pytest.fixture(params=["llama", "gpt2"])
def model(request):
    return load(request.getfixturevalue(request.param))


def test_sum_weight_and_gradient_are_those_of_full_logits(model):
    assert_equal(measured(model, rows()), full_logits(model, rows()))


@pytest.mark.parametrize("chunk_bytes", [1, ONE_ROW, 7 * ONE_ROW, 2**30], ids=["under a row", "a row", "7 rows", "all"])
def test_the_size_of_a_chunk_does_not_matter(model, chunk_bytes):
    assert_equal(measured(model, rows(), chunk_bytes=chunk_bytes), measured(model, rows()), within=1e-6)


def test_a_head_that_shares_its_weight_with_the_embeddings(tmp_path):
    from tests.support.models import save_llama

    model = load(save_llama(tmp_path / "tied", tie_word_embeddings=True))
    assert_equal(measured(model, rows()), full_logits(model, rows()))


def test_a_loss_sees_the_tokens_of_completions_in_order(llama):
    seen = []

    def recording(logits, targets):
        seen.append(targets)
        return cross_entropy(logits, targets)

    measured(load(llama), rows(), recording)
    assert torch.cat(seen).tolist() == [token for row in rows() for token in row["labels"][1:] if token != IGNORED]


def test_a_loss_gets_float32_logits_of_the_whole_vocabulary(llama):
    seen = []

    def recording(logits, targets):
        seen.append((logits.dtype, logits.shape[1], len(logits) == len(targets)))
        return cross_entropy(logits, targets)

    model = load(llama).bfloat16()
    measured(model, rows(), recording)
    assert set(seen) == {(torch.float32, model.config.vocab_size, True)}


def test_columns_arrive_per_token(model):
    def weighted(logits, targets, *, weight):
        return weight * cross_entropy(logits, targets)

    found = measured(model, rows(), weighted, chunk_bytes=3 * ONE_ROW, columns=("weight",))
    assert_equal(found, full_logits(model, rows(), weighted, weight=...))


def test_a_column_needs_one_value_a_row(llama):
    model = load(llama)
    measure = objective(lambda logits, targets, *, weight: weight, model, columns=("weight",))
    with pytest.raises(PluginError) as error:
        measure(model, {**batch(rows()), "weight": torch.ones(8, 2)})
    assert str(error.value) == (
        "loss 'made-here' (acme-losses 1.2) needs one value per row in column 'weight', got shape [8, 2]"
    )


@pytest.mark.parametrize("trained_head", [False, True])
def test_rows_without_a_supervised_token_weigh_nothing(llama, trained_head):
    model = load(llama, modules_to_save=["lm_head"] if trained_head else None)
    total, weight, found = measured(model, rows([(4, 0), (9, 0)]))
    assert (total, weight) == (0.0, 0.0)
    assert len(found) == 12 + trained_head
    assert all(not tensor.any() for tensor in found.values())


@pytest.mark.parametrize("chunk_bytes", [3 * ONE_ROW, 2**30], ids=["in chunks", "at once"])
def test_a_trained_head_gets_its_gradient(model, chunk_bytes):
    base = model.unload()
    trained = adapted(base, modules_to_save=["lm_head"])
    found = measured(trained, rows(), chunk_bytes=chunk_bytes)
    assert any("lm_head" in name for name in found[2])
    assert_equal(found, full_logits(trained, rows()))


SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}


class Clamped(transformers.LlamaForCausalLM):
    """Does to its logits what nobody expects."""

    def forward(self, *args, **named):
        output = super().forward(*args, **named)
        output.logits = output.logits.clamp(-3, 3)
        return output


def made(model_class, config_class, **config):
    torch.manual_seed(0)
    model = model_class(config_class(**SHAPE, **config))
    # Large logits, which a cap changes.
    with torch.no_grad():
        model.get_output_embeddings().weight *= 50
    return adapted(model)


UNUSUAL = {
    "capped": lambda: made(transformers.Gemma2ForCausalLM, transformers.Gemma2Config, final_logit_softcapping=5.0),
    "divided": lambda: made(transformers.GraniteForCausalLM, transformers.GraniteConfig, logits_scaling=6.0),
    "multiplied": lambda: made(transformers.CohereForCausalLM, transformers.CohereConfig, logit_scale=0.3),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_a_model_does_to_its_logits_is_done(name):
    model = UNUSUAL[name]()
    assert_equal(measured(model, rows()), full_logits(model, rows()))


def test_logits_that_nobody_knows_how_to_make_are_left_to_the_model():
    model = made(Clamped, transformers.LlamaConfig)
    message = "Clamped post-processes its logits in an unknown way; computing all of them, which takes memory"
    with pytest.warns(UserWarning, match=message):
        found = measured(model, rows())
    assert_equal(found, full_logits(model, rows()))


class Widths(TorchDispatchMode):
    """Counts the rows of every tensor that is as wide as the vocabulary, but for the head's weight and its gradient."""

    def __init__(self):
        super().__init__()
        self.rows = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for tensor in results if isinstance(results, list | tuple) else [results]:
            shape = getattr(tensor, "shape", ())
            if shape[-1:] == (VOCABULARY,) and shape != (SHAPE["hidden_size"], VOCABULARY):
                self.rows.add(tensor.numel() // VOCABULARY)
        return results


@pytest.mark.parametrize("unusual", UNUSUAL)
@pytest.mark.parametrize("trained_head", [False, True])
def test_full_logits_never_exist(unusual, trained_head):
    model = UNUSUAL[unusual]()
    if trained_head:
        model = adapted(model.unload(), modules_to_save=["lm_head"])
    measure = objective(cross_entropy, model, 4 * ONE_ROW)
    with Widths() as widths:
        measure(model, batch(rows())).sum.backward()
    assert max(widths.rows) == 4


def test_a_trained_head_keeps_no_logits_for_the_way_back(llama):
    model = load(llama, modules_to_save=["lm_head"])
    measure, kept = objective(cross_entropy, model, 4 * ONE_ROW), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda tensor: tensor):
        measure(model, batch(rows()))
    assert kept
    assert all(shape[-1] < model.config.vocab_size for shape in kept)


def test_a_model_alone_makes_full_logits():
    with Widths() as widths:
        UNUSUAL["divided"]()(input_ids=torch.zeros((2, 9), dtype=torch.int64))
    assert max(widths.rows) == 18


def test_the_head_is_the_models_own_again(model):
    head, ids = model.get_output_embeddings(), torch.arange(3, 12)[None]
    before = model(input_ids=ids).logits
    measured(model, rows())
    assert "forward" not in vars(head)
    assert torch.equal(model(input_ids=ids).logits, before)


def test_the_head_is_the_models_own_again_after_an_error(llama):
    model = load(llama)
    measure = objective(cross_entropy, model)
    with pytest.raises(TrainingError, match="the model fails on a batch of 8x18 tokens"):
        measure(model, {**batch(rows()), "input_ids": torch.full((8, 18), 10_000)})
    assert "forward" not in vars(model.get_output_embeddings())


def test_a_forward_that_stood_in_before_stands_in_again(llama):
    model, doubled = load(llama), load(llama)
    doubled.get_output_embeddings().weight.data *= 2
    head = model.get_output_embeddings()
    forward = head.forward
    standing_in = head.forward = lambda hidden: 2 * forward(hidden)
    assert_equal(measured(model, rows()), measured(doubled, rows()))
    assert head.forward is standing_in


WRONG = {
    "returned float, not a tensor of shape [45]": lambda logits, targets: 1.0,
    "returned NoneType, not a tensor of shape [45]": lambda logits, targets: None,
    "returned float32 [] for targets [45]; return one unreduced value per target": F.cross_entropy,
    "returned float32 [45, 1] for targets [45]; return one unreduced value per target": lambda logits, targets: logits[:, :1],
    "returned float64 [45] without a gradient; compute it from the logits, without detach or item": lambda logits, targets: (
        cross_entropy(logits, targets).detach().double()
    ),
    "returned float32 [45] with 1 non-finite values for finite logits, the first is nan": lambda logits, targets: (
        cross_entropy(logits, targets) / (torch.arange(45) > 0) * (torch.arange(45) > 0)
    ),
    "returned float32 [45] with 45 non-finite values for finite logits, the first is inf": lambda logits, targets: (
        cross_entropy(logits, targets) * float("inf")
    ),
}
WRONG_OF_A_MODEL = {
    "must return two 0-dimensional tensors, the sum and the weight": lambda model, batch: model(
        batch["input_ids"]
    ).logits.sum(),
    "returned a sum without a gradient; compute it from the model, without detach or item": lambda model, batch: (
        torch.ones(()),
        torch.ones(()),
    ),
}


@pytest.mark.parametrize(
    ("kind", "message", "loss"),
    [("token", *each) for each in WRONG.items()] + [("model", *each) for each in WRONG_OF_A_MODEL.items()],
)
def test_a_loss_that_returns_something_wrong_is_named(llama, kind, message, loss):
    with pytest.raises(PluginError) as error:
        measured(load(llama), rows(), loss, chunk_bytes=2**30, kind=kind)
    assert str(error.value) == f"loss 'made-here' (acme-losses 1.2) {message}"


@pytest.mark.parametrize("kind", ["token", "model"])
def test_an_error_of_a_loss_keeps_its_type_and_says_whose_it_is(llama, kind):
    def failing(*arguments):
        raise ZeroDivisionError("no")

    with pytest.raises(ZeroDivisionError) as error:
        measured(load(llama), rows(), failing, kind=kind)
    assert error.value.__notes__ == ["raised by plugin 'acme' (acme-losses 1.2) while computing the loss"]


class Scores(torch.nn.Module):
    """Predicts two numbers of a row's token ids."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([[0.5, -1.0]]))

    def forward(self, input_ids):
        return transformers.modeling_outputs.SequenceClassifierOutput(
            logits=input_ids.float().mean(1, keepdim=True) @ self.weight
        )


SCORED = {
    "input_ids": torch.tensor([[1, 3], [2, 4], [5, 5]]),
    "labels": torch.tensor([[1.0, 2.0], [0.5, 0.0], [-1.0, 3.0]]),
    "weight": torch.tensor([1.0, 0.0, 3.0]),
}


def squared(predictions, targets):
    return (predictions - targets) ** 2


def of_predictions(loss, of=SCORED, weight_field=None, observe=None, **record):
    measure = make_objective(
        registered(loss, kind="prediction", **record),
        loss,
        Scores(),
        predicts="row",
        weight_field=weight_field,
        observe=observe,
    )
    return measure(Scores(), of)


def plain_predictions():
    return SCORED["input_ids"].float().mean(1, keepdim=True) @ Scores().weight


def test_every_prediction_counts():
    found = of_predictions(squared, {name: SCORED[name] for name in ("input_ids", "labels")})
    assert found.weight.item() == 6
    assert found.sum.item() == pytest.approx(squared(plain_predictions(), SCORED["labels"]).sum().item())


def test_a_column_stands_beside_the_predictions_of_its_row():
    seen = []

    def weighted(predictions, targets, *, weight):
        seen.append(weight.shape)
        return weight * squared(predictions, targets)

    found = of_predictions(weighted, columns=("weight",))
    assert seen == [(3, 1)]
    expected = SCORED["weight"][:, None] * squared(plain_predictions(), SCORED["labels"])
    assert (found.sum.item(), found.weight.item()) == (pytest.approx(expected.sum().item()), 6)


def test_weights_of_rows_count_in_the_sum_and_in_the_weight():
    found = of_predictions(squared, weight_field="weight")
    expected = SCORED["weight"][:, None] * squared(plain_predictions(), SCORED["labels"])
    assert (found.sum.item(), found.weight.item()) == (pytest.approx(expected.sum().item()), 8)


def test_one_prediction_a_row_has_the_shape_of_its_target():
    seen = []

    class One(Scores):
        def forward(self, input_ids):
            return transformers.modeling_outputs.SequenceClassifierOutput(logits=super().forward(input_ids).logits[:, :1])

    def recording(predictions, targets):
        seen.append((predictions.shape, targets.shape))
        return squared(predictions, targets)

    chosen = registered(recording, kind="prediction")
    of = {"input_ids": SCORED["input_ids"], "labels": torch.tensor([1.0, 2.0, 3.0])}
    make_objective(chosen, recording, One(), predicts="row")(One(), of)
    assert seen == [((3,), (3,))]


@pytest.mark.parametrize(
    ("loss", "of", "message"),
    [
        (
            lambda p, t: squared(p, t).mean(-1),
            SCORED,
            "returned float32 [3] for targets [3, 2]; return one unreduced value per target",
        ),
        (
            lambda p, t: squared(p, t).detach(),
            SCORED,
            "returned float32 [3, 2] without a gradient; compute it from the predictions, without detach or item",
        ),
        (
            lambda p, t: squared(p, t) / 0,
            SCORED,
            "returned float32 [3, 2] with 6 non-finite values for finite predictions, the first is nan",
        ),
        (
            squared,
            {**SCORED, "labels": torch.tensor([0, 1, 1])},
            "got predictions [3, 2] for labels int64 [3]; for classes, choose a loss of kind token",
        ),
    ],
)
def test_a_loss_of_predictions_is_held_to_its_contract(loss, of, message):
    with pytest.raises(PluginError) as error:
        of_predictions(loss, {name: of[name] for name in ("input_ids", "labels")})
    assert str(error.value) == f"loss 'made-here' (acme-losses 1.2) {message}"


def test_a_token_loss_takes_classes_of_rows():
    of = {"input_ids": SCORED["input_ids"], "labels": torch.tensor([0, 1, 1])}
    measure = make_objective(registered(cross_entropy), cross_entropy, Scores(), predicts="row")
    found = measure(Scores(), of)
    assert found.weight.item() == 3
    assert found.sum.item() == pytest.approx(F.cross_entropy(plain_predictions(), of["labels"], reduction="sum").item())
    with pytest.raises(PluginError) as error:
        measure(Scores(), SCORED)
    message = "takes class labels, but the labels are float32 [3, 2]; choose a loss of kind prediction"
    assert str(error.value) == f"loss 'made-here' (acme-losses 1.2) {message}"


def test_what_metrics_need_is_kept_where_nothing_is_trained():
    def observe(outputs, targets):
        return torch.stack([outputs[:, 0], targets[:, 0]], dim=-1)

    assert of_predictions(squared, weight_field="weight", observe=observe).observed is None
    with torch.no_grad():
        found = of_predictions(squared, weight_field="weight", observe=observe)
    assert found.observed.tolist() == torch.stack([plain_predictions()[:, 0], SCORED["labels"][:, 0]], dim=-1).tolist()
    assert found.rows.tolist() == [0, 1, 2]


def test_tokens_are_observed_with_their_rows_chunk_by_chunk(llama):
    model = load(llama)
    chosen = registered(cross_entropy)
    observe = lambda logits, targets: torch.stack([logits.argmax(-1), targets], dim=-1)  # noqa: E731
    with torch.no_grad():
        found = make_objective(chosen, cross_entropy, model, 3 * ONE_ROW, observe=observe)(model, batch(rows()))
    assert found.rows.tolist() == [number for number, row in enumerate(rows()) for label in row["labels"] if label != IGNORED]
    assert found.observed[:, 1].tolist() == [label for row in rows() for label in row["labels"] if label != IGNORED]
