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
# Most tokens are a model's: `pad_token`, `focus_token`. Those of a service have its name, or say what they are for.
_OPENS = (
    "access|api|auth|bearer|deploy|git(hub|lab)|hf|hub|hugging_?face|id|jwt|login|o_?auth|personal|private|refresh|registry|"
    "secret|security|service|session|sso|wandb"
)
_SECRET = re.compile(
    rf"^token$|(^|_)(({_OPENS})_?token|(access|account|api|auth|encryption|private|secret|signing)_?key|"
    r"secret|password|passwd|passphrase|pwd|authorization|credentials?)$"
)
_SECRET_VARIABLE = re.compile(r"(^|_)(token|pass)$", re.IGNORECASE)
_SECRET_IN_QUERY = re.compile(r"(^|[-_])(key|sig|signature)$", re.IGNORECASE)
_LOGIN = re.compile(r"""(?<=://)[^/\s"']+(?=@)""")
_QUERY = re.compile(r"""(?<=[?&#;])([\w.-]+)=([^&#;\s"']+)""")
_MARK = re.compile(rf"{REDACTED}:[0-9a-f]{{4}}")
# A shorter value would be found in the middle of harmless words.
_SHORTEST = 8
_LONGEST_WORD = 12


def is_secret(name: str) -> bool:
    """Whether an option that goes by a name is nobody's business: `hub_token`, `apiKey`, `API-KEY`."""
    return _SECRET.search(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[-. ]", "_", name).lower()) is not None


@attrs.frozen
class Mask:
    """Puts a word in place of secrets.

    Attributes:
        values: the secrets that are known.
    """

    values: frozenset[str] = frozenset()

    @classmethod
    def of(cls, config: Any = None, environment: Mapping[str, str] = os.environ) -> "Mask":
        """Collect secrets by their names, from a config and from the environment.

        Args:
            config: sections, mappings and lists, nested.
            environment: variables like `HF_TOKEN`; a path or a mere word in one is not masked, for it stands in too much else.
        """
        given = (value for name, value in _named(config) if is_secret(name))
        variables = (value for name, value in environment.items() if is_secret(name) or _SECRET_VARIABLE.search(name))
        found = (*given, *(value for value in variables if not _ordinary(value)))
        # An error is often told in one line, and a private key has many.
        parts = {part.strip() for value in found for part in (value, *value.splitlines())}
        return cls(frozenset(part for part in parts if len(part) >= _SHORTEST))

    def __call__(self, value: Any) -> Any:
        """Mask a text, or every text in nested lists and mappings; what else there is stays as it is."""
        if isinstance(value, str):
            for secret in sorted(self.values, key=len, reverse=True):
                value = value.replace(secret, REDACTED)
            return addresses(value)
        if isinstance(value, Mapping):
            return {name: self(inner) for name, inner in value.items()}
        return type(value)(map(self, value)) if type(value) in (list, tuple) else value

    def option(self, key: str, value: Any) -> Any:
        """Give an option as plain values that may be written: in place of each secret, and of text with one in it, a mark."""
        if _is_kept(key, value):
            return _mark(key, value)
        if isinstance(value, str):
            text = addresses(value)
            return _mark(key, text) if any(secret in text for secret in self.values) else text
        if isinstance(value, Mapping):
            return {name: self.option(f"{key}.{name}", inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.option(f"{key}.{index}", inner) for index, inner in enumerate(value)]
        return value


def addresses(text: str) -> str:
    """Mask who logs in, and what a query opens, in every address of a text."""
    text = _LOGIN.sub(REDACTED, text)
    return _QUERY.sub(lambda found: f"{found[1]}={REDACTED}" if _opens(found[1]) else found[0], text)


def same(key: str, old: Any, new: Any) -> bool:
    """Whether two plain values of a key are the same, with a mark in place of either or not."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return old.keys() == new.keys() and all(same(f"{key}.{name}", old[name], new[name]) for name in old)
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return len(old) == len(new) and all(same(f"{key}.{at}", *each) for at, each in enumerate(zip(old, new, strict=True)))
    return bool(old == new) or ((_is_mark(old) or _is_mark(new)) and _mark(key, old) == _mark(key, new))


def left_out(value: Any, key: str = "", flag: str = "-") -> Iterator[tuple[str, str]]:
    """Find the keys of plain values that hold a mark in place of a secret, each with the flag that gives it anew."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from left_out(inner, f"{key}.{name}".lstrip("."), f"{flag}{'.' if key else '-'}{name}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            name = inner.get("name") if isinstance(inner, Mapping) else None
            yield from left_out(inner, f"{key}.{index}", f"{flag}.{name}" if name else flag)
    elif isinstance(value, str):
        marked = _is_mark(value) or (value == REDACTED and _is_kept(key, value))
        logins = any(found[0] == REDACTED for found in _LOGIN.finditer(value))
        if marked or logins or any(found[2] == REDACTED and _opens(found[1]) for found in _QUERY.finditer(value)):
            yield key, flag


def _is_kept(key: str, value: Any) -> bool:
    """Whether a value is secret by its name; `use_auth_token: true` tells nothing."""
    return is_secret(key.rpartition(".")[2]) and not (value is None or value == "" or isinstance(value, bool))


def _opens(name: str) -> bool:
    return is_secret(name) or _SECRET_IN_QUERY.search(name) is not None


def _mark(key: str, value: Any) -> str:
    if _is_mark(value):
        return str(value)
    # The key keeps equal secrets of two keys apart. Enough digits to notice a change, too few to find out a password by trying.
    digest = hashlib.sha256(json.dumps([key, value], sort_keys=True, default=str).encode()).hexdigest()
    return f"{REDACTED}:{digest[:4]}"


def _is_mark(value: Any) -> bool:
    return isinstance(value, str) and _MARK.fullmatch(value) is not None


def _ordinary(value: str) -> bool:
    """Whether a text is a path, or a word."""
    if len(value) <= _LONGEST_WORD and value.isalpha() and value in (value.lower(), value.upper(), value.capitalize()):
        return True
    with suppress(OSError, RuntimeError, ValueError):  # a text that no path can be
        path = Path(value).expanduser()
        # What is random may begin with a slash, but not with a folder that is there.
        return path.exists() or (path.is_absolute() and Path(*path.parts[:2]).exists())
    return False


def _named(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _named(inner, name if is_secret(name) else str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _named(inner, name)
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from _named(getattr(value, field.name), field.name)
