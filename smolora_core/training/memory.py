"""Ask the chosen memory strategies; the engine knows no device trick itself."""

from typing import Any

import attrs

from smolora_core.plugins import Origin
from smolora_core.plugins.loading import noting

__all__ = ["Strategies"]


@attrs.frozen
class Strategies:
    """The strategies of a run, each with the methods it happens to have."""

    chosen: tuple[tuple[Origin, Any], ...]
    run: Any

    def load_kwargs(self) -> dict[str, Any]:
        """Collect further arguments for loading the base model."""
        return {name: value for each in self._ask("load_kwargs", self.run) for name, value in (each or {}).items()}

    def model_ready(self, model: Any) -> None:
        """Tell that the adapter is attached and the model on its device."""
        self._ask("model_ready", model, self.run)

    def step_finished(self, step: int) -> None:
        """Tell that an optimizer step is done."""
        self._ask("step_finished", step, self.run)

    def run_finished(self) -> None:
        """Tell that training is over, however it ended."""
        self._ask("run_finished", self.run)

    def _ask(self, method: str, *arguments: Any) -> list[Any]:
        answers = []
        for origin, strategy in self.chosen:
            if hasattr(strategy, method):
                with noting(origin, f"running {method}"):
                    answers.append(getattr(strategy, method)(*arguments))
        return answers
