"""What activation checkpointing saves and costs on the shape of a 135M model.

Activations are counted, not estimated: every storage that autograd keeps for the way back, once, weights left out; checkpointed
layers hold more while they are computed again, and that is counted too.
"""

import argparse
import time
from collections.abc import Callable
from types import SimpleNamespace

import peft
import torch
import transformers

from smolora_plugins.memory.activation_checkpointing import CheckpointLayers


class Kept:
    """Counts the bytes that are kept for the way back, and the most that were at any time."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
        self._users: dict[int, int] = {}
        self._bytes = self.most = 0

    def pack(self, tensor: torch.Tensor) -> "_Held":
        return _Held(tensor, self)

    def change(self, tensor: torch.Tensor, by: int) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self._weights:
            return
        before = self._users.get(storage.data_ptr(), 0)
        self._users[storage.data_ptr()] = before + by
        if not before or not before + by:
            self._bytes += by * storage.nbytes()
            self.most = max(self.most, self._bytes)


class _Held:
    def __init__(self, tensor: torch.Tensor, kept: Kept) -> None:
        self.tensor, self._kept = tensor, kept
        kept.change(tensor, 1)

    def __del__(self) -> None:
        self._kept.change(self.tensor, -1)


def model_of(layers: int) -> torch.nn.Module:
    """Make the model, with an adapter whose gradients are not zero."""
    config = transformers.LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    base = transformers.LlamaForCausalLM(config).requires_grad_(False)
    model = peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj", "v_proj"], lora_dropout=0.1))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model.train()


def measure(model: torch.nn.Module, tokens: int, rounds: int) -> tuple[dict[str, torch.Tensor], int, float]:
    """Give the gradients, the peak of what was kept in bytes, and the least processor time in seconds, below the head."""
    ids = torch.randint(0, 49152, (1, tokens), generator=torch.Generator().manual_seed(0))
    backbone = model.get_base_model().model

    def step() -> None:
        model.zero_grad()
        torch.manual_seed(1)
        backbone(input_ids=ids, use_cache=False).last_hidden_state.square().mean().backward()

    kept = Kept(model)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda held: held.tensor):
        step()
    gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    return gradients, kept.most, min(timed(step) for _ in range(rounds))


def timed(step: Callable[[], None]) -> float:
    # Other processes take none of it.
    start = time.process_time()
    step()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--every", type=int, nargs="*", default=[1, 2, 3])
    given = parser.parse_args()
    expected, plain, seconds = measure(model_of(given.layers), given.tokens, given.rounds)
    print(f"{'every':>8} {'peak MiB':>9} {'share':>6} {'seconds':>8} {'slower':>7}  gradients")
    print(f"{'plain':>8} {plain / 2**20:9.0f} {1:6.2f} {seconds:8.2f} {1:6.2f}x")
    for every in given.every:
        model = model_of(given.layers)
        CheckpointLayers(every_n_layers=every).model_ready(model, SimpleNamespace())
        gradients, most, took = measure(model, given.tokens, given.rounds)
        same = gradients.keys() == expected.keys() and all(
            torch.equal(gradients[name], each) for name, each in expected.items()
        )
        verdict = "the same bits" if same else "DIFFER"
        print(f"{every:>8} {most / 2**20:9.0f} {most / plain:6.2f} {took:8.2f} {took / seconds:6.2f}x  {verdict}")


if __name__ == "__main__":
    main()
