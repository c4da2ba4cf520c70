"""Check the options and prompts of a generation before torch is imported."""

import math
from collections.abc import Iterator
from typing import Any

from smolora_core.errors import ConfigError, Problem, nearest

_DEVICES = ("auto", "cpu", "cuda", "mps")


def check_options(*, max_new_tokens: Any, temperature: Any, top_p: Any, seed: Any) -> None:
    """Check the options of a generation.

    Raises:
        ConfigError: with a problem for each option that is out of range.
    """
    if problems := list(_problems(max_new_tokens, temperature, top_p, seed)):
        raise ConfigError.of(problems)


def check_device(device: Any) -> None:
    """Check the name of a device; only torch knows whether it is available.

    Raises:
        ConfigError: it is not auto, cpu, cuda or mps.
    """
    if device not in _DEVICES:
        hint = nearest(device, _DEVICES) if isinstance(device, str) else ""
        raise ConfigError(f"device must be one of {', '.join(_DEVICES)}, got {device!r}", hint=hint)


def check_prompt(prompt: Any) -> None:
    """Check that a prompt is text that a tokenizer accepts.

    Raises:
        ConfigError: it is not text, or contains bytes of a command line that are not UTF-8.
    """
    if not isinstance(prompt, str):
        hint = "generate_all takes several" if isinstance(prompt, list | tuple) else ""
        raise ConfigError(f"a prompt must be a text, got a {type(prompt).__name__}", hint=hint)
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"a prompt is not UTF-8 at character {error.start + 1}", hint="pass it as UTF-8") from error


def _problems(max_new_tokens: Any, temperature: Any, top_p: Any, seed: Any) -> Iterator[Problem]:
    if not _is_whole(max_new_tokens) or max_new_tokens < 1:
        yield Problem(f"max_new_tokens must be an integer above 0, got {max_new_tokens!r}")
    if not _is_number(temperature) or not 0 <= temperature < math.inf:
        yield Problem(f"temperature must be a number of at least 0, got {temperature!r}")
    if not _is_number(top_p) or not 0 < top_p <= 1:
        yield Problem(f"top_p must be above 0 and at most 1, got {top_p!r}")
    if seed is not None and not (_is_whole(seed) and 0 <= seed < 2**63):
        yield Problem(f"seed must be an integer of at least 0 and below 2^63, got {seed!r}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_whole(value)
