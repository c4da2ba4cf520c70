"""Finding and deferring the head of a model."""

import pytest
import torch
import transformers

from smolora_core.model.head import find_head
from tests.support.small_run import batch, load, rows


def small(model_class, **config):
    torch.manual_seed(0)
    shape = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"pad_token_id": None, "bos_token_id": 0, "eos_token_id": 1}
    return model_class(model_class.config_class(**shape, num_key_value_heads=1, **special, **config))


class Biased(transformers.LlamaForCausalLM):
    """Adds something else to every logit."""

    def forward(self, *args, **named):
        output = super().forward(*args, **named)
        output.logits = output.logits + torch.arange(output.logits.shape[-1])
        return output


class HeadTwice(transformers.LlamaForCausalLM):
    """Predicts more than one token."""

    def forward(self, *args, **named):
        output = super().forward(*args, **named)
        self.lm_head(torch.zeros(1, 8, 16))
        return output


class HeadUnused(transformers.LlamaForCausalLM):
    """Computes its logits from the head's weight."""

    def forward(self, input_ids, **named):
        hidden = self.model(input_ids, **named).last_hidden_state
        return transformers.modeling_outputs.CausalLMOutput(logits=hidden @ self.lm_head.weight.T)


@pytest.mark.parametrize("model_class", [Biased, HeadTwice, HeadUnused])
def test_a_head_that_cannot_wait_is_not_found(model_class):
    assert find_head(small(model_class)) is None


def test_a_model_without_a_head_has_none():
    assert find_head(small(transformers.LlamaModel)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("model_class", "config", "after"),
    [
        (transformers.LlamaForCausalLM, {}, lambda logits: logits),
        (transformers.GraniteForCausalLM, {"logits_scaling": 6.0}, lambda logits: logits / 6),
        (transformers.CohereForCausalLM, {"logit_scale": 0.0625}, lambda logits: logits * 0.0625),
        (transformers.Gemma2ForCausalLM, {"final_logit_softcapping": 30.0}, lambda logits: 30 * torch.tanh(logits / 30)),
        (transformers.Gemma2ForCausalLM, {"final_logit_softcapping": None}, lambda logits: logits),
    ],
)
def test_what_follows_the_head_is_found_out(model_class, config, after, dtype):
    head = find_head(small(model_class, **config).to(dtype))
    assert head.width == 40
    some = torch.linspace(-90, 90, 60)
    torch.testing.assert_close(head.after(some), after(some), rtol=1e-6, atol=0)


def logits_by(head, model, inputs):
    with head.deferred() as hidden:
        states = hidden(model, inputs)
    return head.logits(states)


def test_hidden_states_become_the_logits_of_the_model(llama):
    model = load(llama)
    head, inputs = find_head(model), {name: batch(rows())[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(logits_by(head, model, inputs), model(**inputs).logits)


def test_looking_for_the_head_changes_nothing(llama):
    model = load(llama)
    model.get_base_model().model.layers[1].train()
    before = [module.training for module in model.modules()]
    find_head(model)
    assert [module.training for module in model.modules()] == before
    assert "forward" not in vars(model.get_output_embeddings())


SIZE = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
BART = {"vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
WIDE = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
OTHERS = {
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SIZE)),
    "roberta": lambda: transformers.RobertaForMaskedLM(transformers.RobertaConfig(**SIZE)),
    "electra": lambda: transformers.ElectraForMaskedLM(transformers.ElectraConfig(embedding_size=16, **SIZE)),
    "distilbert": lambda: transformers.DistilBertForMaskedLM(
        transformers.DistilBertConfig(vocab_size=40, dim=16, hidden_dim=32, n_layers=1, n_heads=2)
    ),
    "t5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, **SPECIAL)
    ),
    "bart": lambda: transformers.BartForConditionalGeneration(transformers.BartConfig(**BART, **WIDE, **SPECIAL)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_heads_of_encoders_and_of_pairs_can_wait(name):
    torch.manual_seed(0)
    model = OTHERS[name]().eval()
    inputs = {"input_ids": torch.arange(3, 15).reshape(2, 6)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.arange(9, 19).reshape(2, 5)
    head = find_head(model)
    with torch.no_grad():
        assert torch.equal(logits_by(head, model, inputs), model(**inputs).logits)
