"""Keep tokens and passwords out of everything that is written or shown."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

REDACTED = "redacted"
# Most tokens belong to a model (`pad_token`, `focus_token`); those of a service carry its name or their purpose.
_SERVICES = (
    "access|api|auth|bearer|deploy|git(hub|lab)|hf|hub|hugging_?face|id|jwt|login|o_?auth|personal|private|refresh|registry|"
    "secret|security|service|session|sso|wandb"
)
_SECRET = re.compile(
    rf"^token$|(^|_)(({_SERVICES})_?token|(access|account|api|auth|encryption|private|secret|signing)_?key|"
    r"secret|password|passwd|passphrase|pwd|authorization|credentials?)$"
)
_SECRET_VARIABLE = re.compile(r"(^|_)(token|pass)$", re.IGNORECASE)
_SECRET_IN_QUERY = re.compile(r"(^|[-_])(key|sig|signature)$", re.IGNORECASE)
_LOGIN = re.compile(r"""(?<=://)[^/\s"']+(?=@)""")
_QUERY = re.compile(r"""(?<=[?&#;])([\w.-]+)=([^&#;\s"']+)""")
_MARK = re.compile(rf"{REDACTED}:[0-9a-f]{{4}}")
# Shorter values would match inside harmless words.
_MIN_SECRET = 8
_MAX_WORD = 12


def is_secret(name: str) -> bool:
    """Whether an option's name marks its value as secret: `hub_token`, `apiKey`, `API-KEY`."""
    return _SECRET.search(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[-. ]", "_", name).lower()) is not None


@attrs.frozen
class Mask:
    """Replaces known secret values, and secrets in URLs."""

    values: frozenset[str] = frozenset()

    @classmethod
    def of(cls, config: Any = None, environment: Mapping[str, str] = os.environ) -> "Mask":
        """Collect the values of secret names in nested config values and in the environment.

        A path or a plain word in an environment variable is not masked, because it occurs in too much harmless text.
        """
        options = (value for name, value in _named_strings(config) if is_secret(name))
        variables = (value for name, value in environment.items() if is_secret(name) or _SECRET_VARIABLE.search(name))
        found = (*options, *(value for value in variables if not _is_harmless(value)))
        # Errors often quote a single line, and a private key has many.
        parts = {part.strip() for value in found for part in (value, *value.splitlines())}
        return cls(frozenset(part for part in parts if len(part) >= _MIN_SECRET))

    def __call__(self, value: Any) -> Any:
        """Mask the secrets in a string, or in every string of nested lists and mappings."""
        if isinstance(value, str):
            for secret in sorted(self.values, key=len, reverse=True):
                value = value.replace(secret, REDACTED)
            return mask_urls(value)
        if isinstance(value, Mapping):
            return {name: self(inner) for name, inner in value.items()}
        return type(value)(map(self, value)) if type(value) in (list, tuple) else value

    def option(self, key: str, value: Any) -> Any:
        """Return an option as plain values, with a mark in place of each secret and of each string that contains one."""
        if _is_withheld(key, value):
            return _mark(key, value)
        if isinstance(value, str):
            text = mask_urls(value)
            return _mark(key, text) if any(secret in text for secret in self.values) else text
        if isinstance(value, Mapping):
            return {name: self.option(f"{key}.{name}", inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.option(f"{key}.{index}", inner) for index, inner in enumerate(value)]
        return value


def mask_urls(text: str) -> str:
    """Mask logins and secret query parameters in the URLs of a text."""
    text = _LOGIN.sub(REDACTED, text)
    return _QUERY.sub(lambda found: f"{found[1]}={REDACTED}" if _is_secret_parameter(found[1]) else found[0], text)


def equal_except_secrets(key: str, old: Any, new: Any) -> bool:
    """Whether two plain values of a key are equal, either of which may contain marks in place of secrets."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return old.keys() == new.keys() and all(equal_except_secrets(f"{key}.{name}", old[name], new[name]) for name in old)
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return len(old) == len(new) and all(
            equal_except_secrets(f"{key}.{at}", *each) for at, each in enumerate(zip(old, new, strict=True))
        )
    return bool(old == new) or ((_is_mark(old) or _is_mark(new)) and _mark(key, old) == _mark(key, new))


def omitted_secrets(value: Any, key: str = "", flag: str = "-") -> Iterator[tuple[str, str]]:
    """Yield each key whose plain value contains a mark in place of a secret, and the flag that sets it."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from omitted_secrets(inner, f"{key}.{name}".lstrip("."), f"{flag}{'.' if key else '-'}{name}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            name = inner.get("name") if isinstance(inner, Mapping) else None
            yield from omitted_secrets(inner, f"{key}.{index}", f"{flag}.{name}" if name else flag)
    elif isinstance(value, str):
        marked = _is_mark(value) or (value == REDACTED and _is_withheld(key, value))
        login = any(found[0] == REDACTED for found in _LOGIN.finditer(value))
        if marked or login or any(found[2] == REDACTED and _is_secret_parameter(found[1]) for found in _QUERY.finditer(value)):
            yield key, flag


def _is_withheld(key: str, value: Any) -> bool:
    """Whether a value is secret by its key; `use_auth_token: true` reveals nothing."""
    return is_secret(key.rpartition(".")[2]) and not (value is None or value == "" or isinstance(value, bool))


def _is_secret_parameter(name: str) -> bool:
    return is_secret(name) or _SECRET_IN_QUERY.search(name) is not None


def _mark(key: str, value: Any) -> str:
    if _is_mark(value):
        return str(value)
    # Salted with the key, so that equal secrets of two keys differ; four digits show a change but cannot confirm a guess.
    digest = hashlib.sha256(json.dumps([key, value], sort_keys=True, default=str).encode()).hexdigest()
    return f"{REDACTED}:{digest[:4]}"


def _is_mark(value: Any) -> bool:
    return isinstance(value, str) and _MARK.fullmatch(value) is not None


def _is_harmless(value: str) -> bool:
    """Whether a value is a plain word or a path."""
    if len(value) <= _MAX_WORD and value.isalpha() and value in (value.lower(), value.upper(), value.capitalize()):
        return True
    with suppress(OSError, RuntimeError, ValueError):  # not a valid path
        path = Path(value).expanduser()
        # A random key may begin with a slash, but not with an existing folder.
        return path.exists() or (path.is_absolute() and Path(*path.parts[:2]).exists())
    return False


def _named_strings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _named_strings(inner, name if is_secret(name) else str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _named_strings(inner, name)
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from _named_strings(getattr(value, field.name), field.name)
