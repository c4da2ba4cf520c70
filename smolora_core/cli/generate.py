"""`smolora generate`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from smolora_core.cli.flags import heavy_imports


def generate(
    adapter: Path,
    prompt: str,
    *,
    max_new_tokens: int = 100,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    device: str = "auto",
    json: Annotated[bool, Parameter(negative="", help="Print JSON.")] = False,
) -> None:
    """Continue a prompt with a trained adapter, or say what a model that does not write makes of it.

    Args:
        adapter: the adapter's folder.
        prompt: the text to continue.
        max_new_tokens: tokens at most.
        temperature: 0 always takes the likeliest token.
        top_p: share of probability to sample from.
        seed: makes sampling repeatable.
        device: auto, cpu, cuda or mps.
        json: print JSON.
    """
    import json as json_module

    from smolora_core.inference.options import check_device, check_options, check_prompt

    # What can be found out in an instant is, before torch is imported.
    check_options(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    check_device(device)
    check_prompt(prompt)
    with heavy_imports():
        from smolora_core.inference.generate import load_adapter
        from smolora_core.inference.predict import predicts
        from smolora_core.report.terminal import silence_libraries

    silence_libraries()
    loaded = load_adapter(adapter, device)
    if predicts(loaded.model):
        (said,) = loaded.predict([prompt])
        text, more = said.text, said.values
    else:
        options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
        text, more = loaded.generate(prompt, **options), {}
    print(json_module.dumps({"prompt": prompt, "text": text, **more}, ensure_ascii=False) if json else text)
