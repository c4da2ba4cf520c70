"""Events for Python's logging, where nothing else listens."""

import logging
from collections.abc import Callable

from smolora_core.report.events import Event


def logged(level: str) -> Callable[[Event], None]:
    """Make a listener that logs events as `smolora`: warnings as such, all others as info.

    Args:
        level: the least that is logged; of `debug.log_level`.
    """
    logger = logging.getLogger("smolora")
    logger.setLevel(level)

    def listen(event: Event) -> None:
        text = event.values.get("text") or " · ".join(f"{name} {value}" for name, value in event.values.items())
        logger.log(logging.WARNING if event.kind == "warning" else logging.INFO, "%s: %s", event.kind, text)

    return listen
