"""A grammar that writes the pretraining text of the demo base.

Most documents are a short note, a question about it and an answer in prose whose words must be copied from the note:
a model this small learns little about the world, but it learns to read. The rest is small talk, simple instructions
and quoted lists, which train the punctuation that fine-tuning data may need.
"""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from smolora_plugins.demo import phrases, words


class Being(NamedTuple):
    """An animal with a name; `home` is a noun phrase without its article."""

    name: str
    pronoun: str
    animal: str
    age: int
    home: str


class Document(NamedTuple):
    """One pretraining document; `prompt` ends with a newline and `answer` without one."""

    prompt: str
    answer: str


def being(rng: random.Random, name: str) -> Being:
    """Draw the facts about the animal called `name`, whose pronoun follows from the name."""
    pronoun = "she" if name in words.HER_NAMES else "he" if name in words.HIS_NAMES else rng.choice(("she", "he"))
    adjective = f"{rng.choice(words.ADJECTIVES)} " if rng.random() < 0.6 else ""
    return Being(name, pronoun, rng.choice(words.ANIMALS), rng.randint(2, 15), adjective + rng.choice(words.HOMES))


def introduction(rng: random.Random, subject: Being) -> str:
    """Write a note that holds every fact about `subject`, at times with a sentence that holds none of them."""
    note = _fill(rng, rng.choice(phrases.NOTES), subject)
    chance = rng.random()
    if chance < 0.2:
        note = f"{rng.choice(phrases.OPENINGS)} {note}"
    elif chance < 0.4:
        note = f"{note} {_fill(rng, rng.choice(phrases.ASIDES), subject)}"
    return note


def inquiry(rng: random.Random, subject: Being) -> str:
    """Ask for everything that is known about `subject`."""
    return _fill(rng, rng.choice(phrases.INQUIRIES), subject)


def documents(seed: int) -> Iterator[Document]:
    """Yield documents without end; the same seed always yields the same ones."""
    rng = random.Random(seed)  # noqa: S311
    kinds = list(_KINDS)
    weights = list(_KINDS.values())
    while True:
        yield rng.choices(kinds, weights)[0](rng)


def _a(noun: str) -> str:
    article = "an" if noun.startswith(("a", "e", "i", "o", "u", "8", "11-")) else "a"
    return f"{article} {noun}"


def _any_name(rng: random.Random) -> str:
    """Draw a name, often an invented one: only copying predicts it, and a user may type any name."""
    if rng.random() < 0.3:
        return _invented(rng).capitalize()
    return rng.choice(words.HER_NAMES + words.HIS_NAMES)


def _invented(rng: random.Random) -> str:
    syllables = (rng.choice("bdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(2, 3)))
    return "".join(syllables) + rng.choice(("", "", "n", "r", "s", "x"))


def _fill(rng: random.Random, template: str, subject: Being) -> str:
    text = template.format(
        name=subject.name,
        animal=subject.animal,
        a_animal=_a(subject.animal),
        age=subject.age,
        a_age=_a(f"{subject.age}-year-old"),
        home=subject.home,
        at=rng.choice(("in", "in", "near", "behind", "by")),
        she=subject.pronoun,
        her="her" if subject.pronoun == "she" else "his",
        She=subject.pronoun.capitalize(),
        Her="Her" if subject.pronoun == "she" else "His",
        friend=rng.choice(words.HER_NAMES + words.HIS_NAMES),
        food=rng.choice(words.FOODS),
    )
    return text[0].upper() + text[1:]


def _portrait(rng: random.Random) -> Document:
    subject = being(rng, _any_name(rng))
    prompt = f"{introduction(rng, subject)} {inquiry(rng, subject)}\n"
    return Document(prompt, _fill(rng, rng.choice(phrases.PORTRAITS), subject))


def _one_fact(rng: random.Random) -> Document:
    """Ask for one fact about one of two animals, so that a position in the note gives nothing away."""
    names = {_any_name(rng): None for _ in range(rng.choice((1, 2, 2)))}
    pair = [being(rng, name) for name in names]
    subject = rng.choice(pair)
    question, answer = rng.choice(phrases.QUOTED_FACTS if rng.random() < 0.35 else phrases.FACTS)
    note = " ".join(_fill(rng, rng.choice(phrases.NOTES), each) for each in pair)
    return Document(f"{note} {_fill(rng, question, subject)}\n", _fill(rng, answer, subject))


def _errand(rng: random.Random) -> Document:
    who, count, colour = _any_name(rng), rng.choice(words.NUMBERS), rng.choice(words.COLOURS)
    thing, shop, day = rng.choice(words.THINGS), rng.choice(words.HOMES), rng.choice(words.DAYS)
    note = rng.choice(
        (
            f"{who} found {count} {colour} {thing} in the {shop} on {day}.",
            f"On {day}, {who} left {count} {colour} {thing} by the {shop}.",
            f"There were {count} {colour} {thing} in the {shop} on {day}, and {who} took them home.",
        )
    )
    question, answer = rng.choice(
        (
            ("What colour were they?", f"The {thing} were {colour}."),
            ("How many were there?", f"There were {count} {thing}."),
            ("When was that?", f"It was on {day}."),
            ("Where were they?", f"They were at the {shop}."),
            ("Whose story is this?", f"It is the story of {who} and the {count} {colour} {thing}."),
        )
    )
    return Document(f"{note} {question}\n", answer)


def _echo(rng: random.Random) -> Document:
    """Repeat a row of words, the shortest way to learn to copy."""
    vocabulary = rng.choice((*_POOLS, _EVERYTHING))
    said = " ".join(rng.choice(vocabulary) for _ in range(rng.randint(3, 12)))
    return Document(f"Repeat after me: {said}\n", said)


def _quoting(rng: random.Random) -> Document:
    """Write words between quotes, braces and brackets, where they lose the space that they have in prose."""
    pool = rng.choice(_POOLS)
    picked = [_invented(rng) if rng.random() < 0.15 else rng.choice(pool) for _ in range(rng.randint(1, 4))]
    if rng.random() < 0.3:
        picked[0] = f"{rng.choice(words.ADJECTIVES)} {rng.choice(words.HOMES)}"
    numbers = [rng.randint(1, 20) for _ in picked]
    spoken, pairs = ", ".join(picked), list(zip(picked, numbers, strict=True))
    quoted = ", ".join(f'"{word}"' for word in picked)
    order, answer = rng.choice(
        (
            (f"Put in quotes: {spoken}.", quoted),
            (f"Make a set of {spoken}.", f"{{{quoted}}}"),
            (f"Write in brackets: {spoken}.", f"[{spoken}]"),
            (f"Take away the quotes: {quoted}.", f"{spoken}."),
            (f"One word per line: {spoken}.", "\n".join(picked)),
            ("Pair up: " + ", ".join(f"{w} and {n}" for w, n in pairs), "; ".join(f'"{w}": {n}' for w, n in pairs)),
        )
    )
    return Document(f"{order}\n", answer)


def _instruction(rng: random.Random) -> Document:
    start, (first, second) = rng.randint(1, 12), rng.choice(words.OPPOSITES)
    animal, other = rng.sample(words.ANIMALS, 2)
    prompt, answer = rng.choice(
        (
            (f"Count from {start} to {start + 4}.", ", ".join(str(start + step) for step in range(5)) + "."),
            (f"What comes after {start}?", f"After {start} comes {start + 1}."),
            (f"What is the opposite of {first}?", f"The opposite of {first} is {second}."),
            (f"What is the opposite of {second}?", f"The opposite of {second} is {first}."),
            (f"Say hello to the {animal}.", f"Hello, dear {animal}!"),
            (f"Which comes first here, {_a(animal)} or {_a(other)}?", f"{_a(animal).capitalize()} comes first."),
        )
    )
    return Document(f"{prompt}\n", answer)


def _small_talk(rng: random.Random) -> Document:
    name, food = _any_name(rng), rng.choice(words.FOODS)
    prompt, answer = rng.choice(phrases.SMALL_TALK)
    return Document(f"{prompt.format(name=name, food=food)}\n", answer.format(name=name, food=food))


_KINDS: dict[Callable[[random.Random], Document], float] = {
    _portrait: 36,
    _one_fact: 30,
    _errand: 8,
    _quoting: 16,
    _echo: 14,
    _instruction: 4,
    _small_talk: 6,
}
_POOLS = (
    words.ANIMALS,
    words.HOMES,
    words.ADJECTIVES,
    words.FOODS,
    words.HER_NAMES,
    words.HIS_NAMES,
    ("age", "animal", "colour", "day", "food", "friend", "home", "name", "story", "year"),
)
_EVERYTHING = tuple(word for pool in _POOLS for word in pool) + words.THINGS + words.COLOURS + words.NUMBERS
