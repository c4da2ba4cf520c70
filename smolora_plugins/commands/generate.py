"""`smolora generate`."""

import json as json_module
from pathlib import Path

from smolora_core.cli import Json, heavy_imports
from smolora_core.inference import check_device, check_options, check_prompt


def generate(
    adapter: Path,
    prompt: str,
    *,
    max_new_tokens: int = 100,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    device: str = "auto",
    json: Json = False,
) -> None:
    """Continue a prompt with a trained adapter, or predict what its task predicts.

    Args:
        adapter: The adapter's folder.
        prompt: The text to continue, or to predict from.
        max_new_tokens: The most tokens to generate.
        temperature: 0 always takes the most likely token.
        top_p: The share of probability to sample from.
        seed: Makes sampling repeatable.
        device: auto, cpu, cuda or mps.
        json: Print JSON.
    """
    # Mistakes are reported at once, before torch is imported.
    check_options(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    check_device(device)
    check_prompt(prompt)
    with heavy_imports():
        from smolora_core.inference import load_adapter
        from smolora_core.report import silence_libraries

    silence_libraries()
    loaded = load_adapter(adapter, device)
    if loaded.predicts:
        (prediction,) = loaded.predict([prompt])
        text, more = prediction.text, prediction.values
    else:
        options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
        text, more = loaded.generate(prompt, **options), {}
    print(json_module.dumps({"prompt": prompt, "text": text, **more}, ensure_ascii=False) if json else text)
