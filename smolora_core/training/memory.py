"""Ask the chosen memory strategies; the engine knows no device trick itself."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from smolora_core.components import MemoryStrategy, RunContext
from smolora_core.errors import ConfigError, Problem, SmoLoRAError
from smolora_core.plugins import Origin
from smolora_core.plugins.loading import clean_up, noting
from smolora_core.plugins.selection import Chosen, default_strategies
from smolora_core.training.oom import is_out_of_memory, out_of_memory


@attrs.frozen
class Strategies:
    """The strategies of a run, each with the methods it happens to have.

    Attributes:
        chosen: with where each is from.
        run: that they are of.
        lossy: those that change what is learned, and their options.
        unused: others that would help on the run's device.
    """

    chosen: tuple[tuple[Origin, Any], ...]
    run: RunContext
    lossy: str = ""
    unused: tuple[MemoryStrategy, ...] = ()

    def load_kwargs(self) -> dict[str, Any]:
        """Collect further arguments for loading the base model."""
        return {name: value for each in self._ask("load_kwargs", self.run) for name, value in (each or {}).items()}

    def model_ready(self, model: Any) -> None:
        """Tell that the adapter is attached and the model on its device."""
        self._ask("model_ready", model, self.run)

    def step_finished(self, step: int) -> None:
        """Tell that an optimizer step is done."""
        self._ask("step_finished", step, self.run)

    def out_of_memory(self, error: BaseException) -> bool:
        """Let them make room; whether any of them has something done that is worth another try."""
        return any(self._ask("out_of_memory", error, self.run))

    @contextmanager
    def released(self) -> Iterator[None]:
        """Tell the strategies when a block is over, however it ended, and say what to do where it ran out of memory.

        Raises:
            TrainingError: in place of an error that says that memory ran out.
        """
        try:
            yield
        except BaseException as error:
            clean_up(lambda: self._ask("run_finished", self.run), error, self.run.warn)
            if is_out_of_memory(error) and not isinstance(error, SmoLoRAError):
                raise out_of_memory("outside of a micro-batch", self.remedies(smaller_batch=False)) from error
            raise
        clean_up(lambda: self._ask("run_finished", self.run), None, self.run.warn)

    def remedies(self, *, smaller_batch: bool) -> str:
        """Say what to do against running out of memory, what changes nothing that is learned first.

        Args:
            smaller_batch: whether micro-batches can be smaller, and are not made so by themselves.
        """
        steps = ["lower training.per_device_train_batch_size"] * smaller_batch
        steps += [f"add {each.name} to memory" for each in self.unused if not each.lossy]
        steps += [f"lower data.max_seq_length from {self.run.config.data.max_seq_length}"]
        steps += [f"add {each.name} to memory" for each in self.unused if each.lossy]
        return f"in this order: {', '.join(steps)}" if len(steps) > 1 else steps[0]

    def _ask(self, method: str, *arguments: Any) -> list[Any]:
        answers = []
        for origin, strategy in self.chosen:
            if hasattr(strategy, method):
                with noting(origin, f"running {method}"):
                    answers.append(getattr(strategy, method)(*arguments))
        return answers


def build_strategies(
    chosen: Sequence[Chosen[MemoryStrategy]] | None, run: RunContext, where: Callable[[str], str]
) -> Strategies:
    """Make the strategies of a run.

    Args:
        chosen: those that the config names; None for those that help on the run's device.
        run: that they are of.
        where: says where the user wrote a key.

    Raises:
        ConfigError: a strategy that was asked for does nothing on the device.
    """
    device = run.device.type
    used = default_strategies(run.plugins.registry, device) if chosen is None else chosen
    problems, lossy = [], []
    for index, each in enumerate(used):
        strategy = each.component
        lossy += [spelt(each)] * strategy.lossy
        if device not in strategy.devices:
            what = f"the memory strategy {each.title} is for {' and '.join(strategy.devices)}, and the run computes on {device}"
            problems.append(Problem(what, where=where(f"memory.{index}"), hint="leave it out"))
    if problems:
        raise ConfigError.of(problems)
    if used:
        run.emit("memory", strategies=[spelt(each) for each in used])
    names = {each.name for each in used}
    helpful = (found.component for found in run.plugins.registry.in_force(MemoryStrategy) if device in found.component.devices)
    return Strategies(
        tuple((each.origin, each.build()) for each in used),
        run,
        ", ".join(sorted(lossy)),
        tuple(each for each in helpful if each.name not in names),
    )


def spelt(chosen: Chosen[MemoryStrategy]) -> str:
    """Write a strategy with its options."""
    kind = chosen.component.options
    options = attrs.asdict(chosen.options or kind()) if kind else {}
    return " ".join([chosen.name, *(f"{name}={value}" for name, value in options.items())])
