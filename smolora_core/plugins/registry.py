"""Resolve names to components: the rule that picks one, and the error when none or several match."""

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
        """The unambiguous name of this component: `distribution:name`."""
        return f"{self.origin.distribution or self.origin.plugin}:{self.component.name}"


class Registry:
    """All components that plugins contributed, in the order of listings.

    Components from the user's files and objects take precedence over third parties, and these over built-ins. A third
    party takes a built-in's name only if its record sets `replaces`; otherwise the built-in keeps the bare name, and the
    other is selected as `distribution:name`.
    """

    def __init__(self, components: Iterable[Registered[Component]], missing: Iterable[str] = ()) -> None:
        """Index components; `missing` has one line for each plugin that is not loaded, for errors about unknown names."""
        self._components = tuple(components)
        self._missing = tuple(missing)

    def __iter__(self) -> Iterator[Registered[Component]]:
        return iter(self._components)

    def of_kind(self, kind: type[Kind]) -> tuple[Registered[Kind], ...]:
        """List the components of one kind."""
        every: tuple[Registered[Any], ...] = self._components
        return tuple(found for found in every if isinstance(found.component, kind))

    def defaults(self, kind: type[Kind]) -> tuple[Registered[Kind], ...]:
        """List the components of one kind that their bare names resolve to."""
        return tuple(found for found in self.of_kind(kind) if self.is_default_for_its_name(found))

    def resolve(self, kind: type[Kind], name: str, where: str = "") -> Registered[Kind]:
        """Find the component that a bare name or `distribution:name` refers to.

        Raises:
            PluginError: no component has the name, or several plugins offer it; `where` is where the user wrote it.
        """
        offered = self.of_kind(kind)
        matches = _matches(name, offered)
        if not matches:
            known = [found.qualified_name if ":" in name else found.component.name for found in offered]
            hints = [did_you_mean(name, known), *(f"not loaded: {line}" for line in self._missing)]
            raise PluginError(f"no {kind.noun} is named {name!r}", where=where, hint="; ".join(filter(None, hints)))
        if len(matches) > 1:
            owners = ", ".join(f"{found.qualified_name} ({found.origin})" for found in matches)
            what = f"{len(matches)} plugins offer the {kind.noun} {name!r}: {owners}"
            spellings = sorted({repr(found.qualified_name) for found in matches})
            hint = f"write {' or '.join(spellings)}"
            if len(spellings) < len(matches):
                hint = "disable " + " or ".join(f"'{each.origin.distribution}:{each.origin.plugin}'" for each in matches)
            raise PluginError(what, where=where, hint=hint)
        return matches[0]

    def is_default_for_its_name(self, found: Registered[Component]) -> bool:
        """Whether a component's bare name resolves to it."""
        return _matches(found.component.name, self.of_kind(KINDS[found.component.plural])) == [found]

    def problems(self) -> Iterator[Problem]:
        """Report the records that do not get the name they claim."""
        for found in self._components:
            if found.origin.tier is Tier.BUILT_IN:
                continue
            component, where = found.component, f"{found.origin.title}:"
            rivals = self.of_kind(KINDS[component.plural])
            built_in = {rival.component.name for rival in rivals if rival.origin.tier is Tier.BUILT_IN}
            if component.replaces is not None and component.replaces not in built_in:
                what = f"{component.name!r} replaces {component.replaces!r}, which is not a built-in {component.noun}"
                yield Problem(what, where=where, hint=did_you_mean(component.replaces, built_in))
            if found.origin.tier is Tier.THIRD_PARTY and component.replaces is None and component.name in built_in:
                what = f"its {component.noun} {component.name!r} does not replace the built-in of the same name"
                hint = f"select it as {found.qualified_name!r}, or set replaces={component.name!r} in its record"
                yield Problem(what, where=where, hint=hint)


def _matches(name: str, offered: Sequence[Registered[Kind]]) -> list[Registered[Kind]]:
    """List the components that a name refers to by the registry's rule; more than one is a conflict."""
    qualified = [found for found in offered if found.qualified_name == name]
    if qualified:
        return qualified
    named = [found for found in offered if found.component.name == name]
    built_in = [found for found in named if found.origin.tier is Tier.BUILT_IN]
    replacing = [found for found in offered if built_in and found.component.replaces == name]
    from_user = [found for found in (*named, *replacing) if found.origin.tier is Tier.USER]
    return from_user[-1:] or replacing or built_in or named
