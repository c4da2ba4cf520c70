"""Call the chosen memory strategies; the core itself knows no device-specific trick."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from smolora_core.components import MemoryStrategy, RunContext
from smolora_core.errors import ConfigError, Problem, SmoLoRAError, TrainingError
from smolora_core.plugins import Origin
from smolora_core.plugins.loading import attributing_errors, clean_up
from smolora_core.plugins.selection import Chosen, default_strategies
from smolora_core.training.oom import is_out_of_memory


@attrs.frozen
class Strategies:
    """A run's memory strategies; each implements any of the methods of `Strategy`.

    Attributes:
        chosen: the strategies and their origins.
        run: the run they work for.
        lossy: the strategies that change the result of training, with their options.
        unused: other strategies for the run's device.
    """

    chosen: tuple[tuple[Origin, Any], ...]
    run: RunContext
    lossy: str = ""
    unused: tuple[MemoryStrategy, ...] = ()

    def load_kwargs(self) -> dict[str, Any]:
        """Collect extra arguments for loading the base model."""
        return {name: value for each in self._call("load_kwargs", self.run) for name, value in (each or {}).items()}

    def model_ready(self, model: Any) -> None:
        """Announce that the adapter is attached and the model is on its device."""
        self._call("model_ready", model, self.run)

    def step_finished(self, step: int) -> None:
        self._call("step_finished", step, self.run)

    def out_of_memory(self, error: BaseException) -> bool:
        """Let strategies free memory; return whether trying again is worthwhile."""
        return any(self._call("out_of_memory", error, self.run))

    @contextmanager
    def released(self) -> Iterator[None]:
        """Announce the end of the run when the block exits, and add remedies if it ran out of memory.

        Raises:
            TrainingError: in place of an out-of-memory error.
        """
        try:
            yield
        except BaseException as error:
            clean_up(lambda: self._call("run_finished", self.run), error, self.run.warn)
            if is_out_of_memory(error) and not isinstance(error, SmoLoRAError):
                raise TrainingError("out of memory outside a micro-batch", hint=self.remedies(smaller_batch=False)) from error
            raise
        clean_up(lambda: self._call("run_finished", self.run), None, self.run.warn)

    def remedies(self, *, smaller_batch: bool) -> str:
        """List what the user can do about running out of memory, lossless remedies first."""
        steps = ["lower training.per_device_train_batch_size"] * smaller_batch
        steps += [f"add {each.name} to memory" for each in self.unused if not each.lossy]
        steps += [f"lower data.max_seq_length from {self.run.config.data.max_seq_length}"]
        steps += [f"add {each.name} to memory" for each in self.unused if each.lossy]
        return f"try in this order: {', '.join(steps)}" if len(steps) > 1 else steps[0]

    def _call(self, method: str, *arguments: Any) -> list[Any]:
        results = []
        for origin, strategy in self.chosen:
            if hasattr(strategy, method):
                with attributing_errors(origin, f"running {method}"):
                    results.append(getattr(strategy, method)(*arguments))
        return results


def build_strategies(
    chosen: Sequence[Chosen[MemoryStrategy]] | None, run: RunContext, where: Callable[[str], str]
) -> Strategies:
    """Build the strategies that the config names, or, for None, the defaults of the run's device.

    Raises:
        ConfigError: a named strategy does not support the device.
    """
    device = run.device.type
    used = default_strategies(run.plugins.registry, device) if chosen is None else chosen
    problems = []
    for index, each in enumerate(used):
        if device not in each.component.devices:
            supported = " and ".join(each.component.devices)
            what = f"the memory strategy {each.title} supports {supported}, but the run uses {device}"
            problems.append(Problem(what, where=where(f"memory.{index}"), hint="remove it"))
    if problems:
        raise ConfigError.of(problems)
    if used:
        run.emit("memory", strategies=[describe_strategy(each) for each in used])
    names = {each.name for each in used}
    found = [each.component for each in run.plugins.registry.defaults(MemoryStrategy)]
    return Strategies(
        tuple((each.origin, each.build()) for each in used),
        run,
        ", ".join(sorted(describe_strategy(each) for each in used if each.component.lossy)),
        tuple(each for each in found if device in each.devices and each.name not in names),
    )


def describe_strategy(chosen: Chosen[MemoryStrategy]) -> str:
    """Format a strategy with its options: `quantised format=nf4`."""
    kind = chosen.component.options
    options = attrs.asdict(chosen.options or kind()) if kind else {}
    return " ".join([chosen.name, *(f"{name}={value}" for name, value in options.items())])
