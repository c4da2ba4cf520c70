"""What an adapter drops out of a row depends on the row, whatever it is batched with."""

import peft
import pytest
import torch

from smolora_core.lora.dropout import RowSeeds, row_dropout, seeded
from tests.support.tiny import tiny

IDS = torch.arange(24).view(4, 6) % 20 + 3
SEEDS = [11, 12, 13, 14]


def dropping_out(model_type):
    """Adapt a model whose own layers drop nothing out."""
    torch.manual_seed(0)
    base = tiny(model_type)
    for module in base.modules():
        for name in ("p", "dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    config = peft.LoraConfig(r=4, lora_dropout=0.3, target_modules="all-linear", init_lora_weights=False)
    return peft.get_peft_model(base, config).train()


def logits_of(model, rows):
    """Run a model on some of the rows, with their seeds."""
    with row_dropout(model), seeded(RowSeeds([SEEDS[row] for row in rows])), torch.no_grad():
        return model(input_ids=IDS[rows], use_cache=False).logits


@pytest.mark.parametrize("model_type", ["llama", "opt"])
def test_a_row_is_dropped_from_the_same_alone_and_with_others(model_type):
    """OPT's MLPs get the tokens of all rows in one dimension."""
    model = dropping_out(model_type)
    together = logits_of(model, [0, 1, 2, 3])
    for rows in ([2], [3, 1]):
        torch.testing.assert_close(logits_of(model, rows), together[rows])
    assert not torch.allclose(model(input_ids=IDS, use_cache=False).logits, together, atol=1e-3)
