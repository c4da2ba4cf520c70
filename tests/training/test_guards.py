"""A first step that teaches nothing is spoken of, and a loss that cannot teach anything is refused."""

import pytest
import torch

from smolora_core.errors import TrainingError
from smolora_core.training.guards import first_loss_warning
from tests.support.small_run import cross_entropy, load, objective, rows, trainer

SPLIT = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}


def test_a_loss_that_no_tensor_has_a_share_in_is_refused(tmp_path, llama):
    model, other = load(llama), torch.zeros((), requires_grad=True)

    def of_something_else(model, batch):
        return other + 1, torch.tensor(1.0)

    with pytest.raises(TrainingError) as error:
        trainer(model, objective(of_something_else, model, kind="model"), tmp_path, rows(), max_steps=3, **SPLIT).train()
    assert str(error.value) == "the loss does not depend on any trained tensor; compute it from the model's outputs"


@pytest.mark.parametrize(
    ("loss", "weight", "text"),
    [
        (1.5, 8.0, None),
        (-1.5, 8.0, None),
        (0.0, 8.0, "the loss is 0 at step 1: the rows carry no training signal, or the loss ignores them"),
        (0.0, 0.0, "the first step has nothing to learn from: every label is masked, or every row has weight 0"),
    ],
)
def test_a_first_step_that_teaches_nothing_is_spoken_of(loss, weight, text):
    assert first_loss_warning(loss, weight) == text


def test_the_trainer_says_it_once(tmp_path, llama):
    said, model = [], load(llama)
    measure = objective(lambda logits, targets: 0 * cross_entropy(logits, targets), model)
    trainer(model, measure, tmp_path, rows(), max_steps=3, warn=said.append, **SPLIT).train()
    assert said == [first_loss_warning(0.0, 8.0)]
