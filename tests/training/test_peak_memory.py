"""A step never holds the full logits of what it learns, whatever the token loss; the allocator says what it holds."""

import json

import pytest
import torch
import transformers

from tests.support.small_run import adapted, cross_entropy, objective

VOCABULARY, ROWS, LENGTH = 8192, 2, 128
FULL_LOGITS = 4 * VOCABULARY * ROWS * LENGTH


def focal(logits, targets):
    """A token loss that nobody here has written."""
    chosen = logits.softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    return -((1 - chosen) ** 2) * chosen.log()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    return adapted(transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=VOCABULARY, **shape)))


@pytest.fixture(scope="module")
def batch():
    # The first token of a row is no target.
    ids = torch.randint(VOCABULARY, (ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "labels": ids}


def most_bytes(folder, step):
    """Say how many bytes a step holds at most, beyond those that were held before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    profile.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    held = [each["args"] for each in sorted(events, key=lambda each: each.get("ts", 0)) if each["name"] == "[memory]"]
    return max(each["Total Allocated"] for each in held) - (held[0]["Total Allocated"] - held[0]["Bytes"])


@pytest.mark.parametrize("loss", [cross_entropy, focal])
def test_a_step_holds_less_than_the_full_logits(tmp_path, model, batch, loss):
    measure = objective(loss, model, chunk_bytes=FULL_LOGITS // 16)
    assert most_bytes(tmp_path, lambda: measure(model, batch).sum.backward()) < FULL_LOGITS


def test_a_step_of_the_model_alone_holds_more(tmp_path, model, batch):
    assert most_bytes(tmp_path, lambda: model(**batch).loss.backward()) > FULL_LOGITS
