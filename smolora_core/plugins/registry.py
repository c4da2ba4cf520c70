"""Which component a name means: candidates by kind and name, the rule that picks one, and the error when none or two fit."""

from collections.abc import Iterable, Iterator
from operator import attrgetter

import attrs

from smolora_core.components import Component
from smolora_core.errors import PluginError, Problem, did_you_mean
from smolora_core.plugins.discovery import Origin, Tier

__all__ = ["Registered", "Registry"]


@attrs.frozen
class Registered:
    """A component and where it comes from."""

    component: Component
    origin: Origin

    @property
    def qualified_name(self) -> str:
        """The spelling that means this component and no other: `distribution:name`."""
        return f"{self.origin.distribution or self.origin.plugin}:{self.component.name}"


class Registry:
    """All components that plugins contributed.

    The rule: what the user handed over wins over third parties, these over built-ins. A third party takes a built-in's place only when its
    record says `replaces`; without it the built-in keeps the bare name and the other is reached as `distribution:name`.
    """

    def __init__(self, components: Iterable[Registered], missing: Iterable[str] = ()) -> None:
        """Index components.

        Args:
            components: in the order in which listings show them.
            missing: one line for each plugin that could not be loaded, shown when a name is not found.
        """
        self._components = tuple(components)
        self._missing = tuple(missing)

    def __iter__(self) -> Iterator[Registered]:
        return iter(self._components)

    def of_kind(self, kind: type[Component]) -> tuple[Registered, ...]:
        """List the components of one kind."""
        return tuple(found for found in self._components if isinstance(found.component, kind))

    def resolve(self, kind: type[Component], name: str, where: str = "") -> Registered:
        """Find the component that a name means.

        Args:
            kind: the record type.
            name: a bare name, or `distribution:name`.
            where: where the user wrote the name, for the error.

        Raises:
            PluginError: no component has the name, or two third parties have it.
        """
        offered = self.of_kind(kind)
        exact = [found for found in offered if found.qualified_name == name]
        fitting = exact or [found for found in offered if name in (found.component.name, found.component.replaces)]
        tier, rivals = self._strongest(name, fitting)
        if not rivals:
            raise self._not_found(kind, name, where)
        if tier is Tier.THIRD_PARTY and len(rivals) > 1:
            owners = ", ".join(f"{rival.qualified_name} ({rival.origin})" for rival in rivals)
            raise PluginError(
                f"two plugins offer the {_noun(kind)} {name!r}: {owners}",
                where=where,
                hint=f"write {rivals[0].qualified_name!r}",
            )
        return rivals[-1]

    def holds_its_name(self, found: Registered) -> bool:
        """Whether a component is what its own bare name means."""
        try:
            return self.resolve(type(found.component), found.component.name) is found
        except PluginError:
            return False

    def problems(self) -> Iterator[Problem]:
        """Name the records that nobody will reach by the name they chose."""
        built_in = {(type(f.component), f.component.name) for f in self._components if f.origin.tier is Tier.BUILT_IN}
        for found in self._components:
            component, where = found.component, f"plugin '{found.origin.plugin}' ({found.origin}):"
            if found.origin.tier is not Tier.THIRD_PARTY:
                continue
            if component.replaces is not None and (type(component), component.replaces) not in built_in:
                known = (name for kind, name in built_in if kind is type(component))
                yield Problem(
                    f"{component.name!r} replaces {component.replaces!r}, which is no built-in {_noun(type(component))}",
                    where=where,
                    hint=did_you_mean(component.replaces, known),
                )
            if component.replaces is None and (type(component), component.name) in built_in:
                yield Problem(
                    f"{component.name!r} has the name of a built-in {_noun(type(component))} and does not say replaces={component.name!r}",
                    where=where,
                    hint=f"the built-in keeps the name; write {found.qualified_name!r} for this one",
                )

    def _strongest(self, name: str, fitting: list[Registered]) -> tuple[Tier, list[Registered]]:
        def entitled(found: Registered) -> bool:
            # A third party that merely shares a built-in's name does not get it.
            shares = any(rival.origin.tier is Tier.BUILT_IN for rival in fitting)
            return not (shares and found.origin.tier is Tier.THIRD_PARTY and found.component.replaces != name)

        allowed = [found for found in fitting if entitled(found) or found.qualified_name == name]
        tier = max((found.origin.tier for found in allowed), default=Tier.BUILT_IN)
        return tier, [found for found in allowed if found.origin.tier is tier]

    def _not_found(self, kind: type[Component], name: str, where: str) -> PluginError:
        names = map(attrgetter("component.name"), self.of_kind(kind))
        failed = f" (not loaded: {'; '.join(self._missing)})" if self._missing else ""
        return PluginError(f"no {_noun(kind)} is named {name!r}", where=where, hint=did_you_mean(name, names) + failed)


def _noun(kind: type[Component]) -> str:
    return {"losses": "loss", "memory-strategies": "memory strategy", "targets": "targets record"}.get(
        kind.plural, kind.plural.removesuffix("s").replace("-", " ")
    )
