"""Make the demo base: `python -m smolora_plugins.demo.pretrain`.

Trains a byte-level BPE tokenizer and a small Llama on the text of `grammar`, on the CPU and offline. The result
depends on the seed and the number of steps alone, not on how fast the machine is; another CPU or version of torch may
round differently.
"""

import argparse
import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from smolora_plugins.demo import grammar

# Copying is learned suddenly, after a number of steps more than of tokens: hence many small steps.
_ROW_LENGTH = 96
_ROWS_PER_STEP = 16
_WARMUP_STEPS = 100
_PEAK_LEARNING_RATE = 2e-3
# The words of a note are drawn at random; at full weight their loss would drown that of the answers.
_PROMPT_WEIGHT = 0.1
# One message per line, each answer closed by the end-of-sequence token: the form of the pretraining text.
_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token + bos_token }}{% else %}{{ message['content'] | trim + '\\n' }}{% endif %}"
    "{% endfor %}"
)


def make_tokenizer(seed: int, vocab_size: int = 1536, sample: int = 20_000) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on `sample` documents of the grammar."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (f"{prompt}{answer}" for prompt, answer in itertools.islice(grammar.documents(seed), sample))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        pad_token="<pad>",  # noqa: S106
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=512,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=_CHAT_TEMPLATE,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Build the untrained base for `tokenizer`."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=160,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.06,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def pretrain(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, steps: int, seed: int) -> float:
    """Train `model` in place and return its mean loss over the last 100 steps."""
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=_PEAK_LEARNING_RATE, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    batches = _batches(tokenizer, seed)
    losses: list[float] = []
    started = time.monotonic()
    model.train()
    for step in range(1, steps + 1):
        input_ids, weights = next(batches)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=input_ids[:, :-1], use_cache=False).logits
        token_losses = F.cross_entropy(logits.float().mT, input_ids[:, 1:], reduction="none")
        loss = (token_losses * weights[:, 1:]).sum() / weights[:, 1:].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 100 == 0 or step == steps:
            recent = sum(losses[-100:]) / len(losses[-100:])
            print(f"step {step}/{steps}  loss {recent:.4f}  {time.monotonic() - started:.0f} s", flush=True)
    return sum(losses[-100:]) / len(losses[-100:])


def main() -> None:
    """Make the tokenizer and the base and write both to a folder."""
    parser = argparse.ArgumentParser(prog="python -m smolora_plugins.demo.pretrain", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "base")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    # One thread: the order of sums, and so the result, would otherwise depend on the number of cores.
    torch.set_num_threads(1)
    started = time.monotonic()
    tokenizer = make_tokenizer(arguments.seed)
    model = make_model(tokenizer, arguments.seed)
    loss = pretrain(model, tokenizer, arguments.steps, arguments.seed)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=64,
    )
    model.to(torch.bfloat16).save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    print(
        f"{model.num_parameters():,} parameters  seed {arguments.seed}  final loss {loss:.4f}  "
        f"{time.monotonic() - started:.0f} s  ->  {arguments.out}"
    )


def _rate(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: a linear warm-up, then a cosine that ends at zero."""
    if step < _WARMUP_STEPS:
        return (step + 1) / _WARMUP_STEPS
    return 0.5 * (1 + math.cos(math.pi * (step - _WARMUP_STEPS) / max(1, steps - _WARMUP_STEPS)))


def _batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield token ids and loss weights, each [16, 96]; a row starts a document, so no answer lacks its note."""
    documents = grammar.documents(seed)
    while True:
        rows: list[list[int]] = []
        weights: list[list[float]] = []
        while len(rows) < _ROWS_PER_STEP:
            row: list[int] = []
            weight: list[float] = []
            while len(row) < _ROW_LENGTH:
                document = next(documents)
                prompt = tokenizer(document.prompt)["input_ids"]
                answer = tokenizer(document.answer + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
                row += prompt + answer
                weight += [_PROMPT_WEIGHT] * len(prompt) + [1.0] * len(answer)
            rows.append(row[:_ROW_LENGTH])
            weights.append(weight[:_ROW_LENGTH])
        yield torch.tensor(rows), torch.tensor(weights)


if __name__ == "__main__":
    main()
