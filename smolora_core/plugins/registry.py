"""Which component a name means: the rule that picks one, and the error when none or two fit."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import attrs

from smolora_core.components import KINDS, Component
from smolora_core.errors import PluginError, Problem, did_you_mean
from smolora_core.plugins.discovery import Origin, Tier

C = TypeVar("C", bound=Component, covariant=True)
Kind = TypeVar("Kind", bound=Component)


@attrs.frozen
class Registered(Generic[C]):
    """A component and where it comes from."""

    component: C
    origin: Origin

    @property
    def qualified_name(self) -> str:
        """The spelling that means this component and no other: `distribution:name`."""
        return f"{self.origin.distribution or self.origin.plugin}:{self.component.name}"


class Registry:
    """All components that plugins contributed.

    The rule: what the user handed over wins over third parties, these over built-ins. A third party takes a built-in's place
    only when its record says `replaces`; without it the built-in keeps the bare name and the other one is reached as
    `distribution:name`.
    """

    def __init__(self, components: Iterable[Registered[Component]], missing: Iterable[str] = ()) -> None:
        """Index components.

        Args:
            components: in the order in which listings show them.
            missing: one line for each plugin that is not loaded, shown when a name is not found.
        """
        self._components = tuple(components)
        self._missing = tuple(missing)

    def __iter__(self) -> Iterator[Registered[Component]]:
        return iter(self._components)

    def of_kind(self, kind: type[Kind]) -> tuple[Registered[Kind], ...]:
        """List the components of one kind."""
        every: tuple[Registered[Any], ...] = self._components
        return tuple(found for found in every if isinstance(found.component, kind))

    def in_force(self, kind: type[Kind]) -> tuple[Registered[Kind], ...]:
        """List the components of one kind that their own bare names mean."""
        return tuple(found for found in self.of_kind(kind) if self.is_default_for_its_name(found))

    def resolve(self, kind: type[Kind], name: str, where: str = "") -> Registered[Kind]:
        """Find the component that a name means.

        Args:
            kind: the record type.
            name: a bare name, or `distribution:name`.
            where: where the user wrote the name, for the error.

        Raises:
            PluginError: no component has the name, or two plugins are at odds over it.
        """
        meant = _meant(name, self.of_kind(kind))
        if not meant:
            raise self._not_found(kind, name, where)
        if len(meant) > 1:
            owners = ", ".join(f"{found.qualified_name} ({found.origin})" for found in meant)
            what = f"{len(meant)} plugins offer the {kind.noun} {name!r}: {owners}"
            raise PluginError(what, where=where, hint=_way_out(meant))
        return meant[0]

    def is_default_for_its_name(self, found: Registered[Component]) -> bool:
        """Whether a component is what its own bare name means."""
        return _meant(found.component.name, self.of_kind(KINDS[found.component.plural])) == [found]

    def problems(self) -> Iterator[Problem]:
        """Name the records that claim a name and do not get it."""
        for found in self._components:
            if found.origin.tier is Tier.BUILT_IN:
                continue
            component, where = found.component, f"{found.origin.title}:"
            offered = self.of_kind(KINDS[component.plural])
            built_in = {rival.component.name for rival in offered if rival.origin.tier is Tier.BUILT_IN}
            if component.replaces is not None and component.replaces not in built_in:
                yield Problem(
                    f"{component.name!r} replaces {component.replaces!r}, which is no built-in {component.noun}",
                    where=where,
                    hint=did_you_mean(component.replaces, built_in),
                )
            if found.origin.tier is Tier.THIRD_PARTY and component.replaces is None and component.name in built_in:
                yield Problem(
                    f"the built-in {component.noun} {component.name!r} keeps its name",
                    where=where,
                    hint=f"write {found.qualified_name!r} for the plugin's, or replaces={component.name!r} in its record",
                )

    def _not_found(self, kind: type[Component], name: str, where: str) -> PluginError:
        offered = self.of_kind(kind)
        known = [found.qualified_name if ":" in name else found.component.name for found in offered]
        hints = [did_you_mean(name, known), *(f"not loaded: {line}" for line in self._missing)]
        return PluginError(f"no {kind.noun} is named {name!r}", where=where, hint="; ".join(filter(None, hints)))


def _way_out(rivals: Sequence[Registered[Component]]) -> str:
    spellings = sorted({found.qualified_name for found in rivals})
    if len(spellings) == len(rivals):
        return f"write {' or '.join(map(repr, spellings))}"
    return "disable " + " or ".join(f"'{found.origin.distribution}:{found.origin.plugin}'" for found in rivals)


def _meant(name: str, offered: Sequence[Registered[Kind]]) -> list[Registered[Kind]]:
    """Pick what a name means: one component, none, or several that are at odds over it."""
    qualified = [found for found in offered if found.qualified_name == name]
    if qualified:
        return qualified
    named = [found for found in offered if found.component.name == name]
    built_in = [found for found in named if found.origin.tier is Tier.BUILT_IN]
    replacing = [found for found in offered if built_in and found.component.replaces == name]

    handed_over = [found for found in (*named, *replacing) if found.origin.tier is Tier.USER]
    if handed_over:
        return handed_over[-1:]
    if replacing:
        return replacing
    return built_in or named
