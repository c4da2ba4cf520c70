"""Close a run: notify plugins, and record an error with the command that resumes the run."""

import json
import os
import shlex
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import attrs

from smolora_core.checkpoints.disk import replace_file
from smolora_core.checkpoints.store import Store
from smolora_core.components import RunContext
from smolora_core.errors import ConfigError, SmoLoRAError
from smolora_core.hookspecs import Outcome
from smolora_core.plugins.loading import clean_up, describe_with_notes

ERROR_FILE = "last_error.json"


def close_finished(run: RunContext, outcome: Outcome) -> Outcome:
    """Notify plugins that a run finished."""
    _notify(run, outcome)
    return outcome


def close_failed(run: RunContext, error: BaseException, store: Store) -> None:
    """Notify plugins that a run failed or was interrupted, record the error, and note how to resume."""
    if isinstance(error, SmoLoRAError):
        error.problems = tuple(attrs.evolve(each, **run.mask(attrs.asdict(each))) for each in error.problems)
        error.args = tuple(map(run.mask, error.args))
    outcome = Outcome(status="interrupted" if isinstance(error, KeyboardInterrupt) else "failed", error=error)
    if not run.leads:
        _notify(run, outcome)
        return
    text = describe_with_notes(error)
    committed = []
    with suppress(OSError):
        committed = store.found()
    # A rejected resume left the folder untouched, and the same command would be rejected again.
    rejected = isinstance(error, ConfigError) and run.resumes
    command = shlex.join([*_program(), "train", str(run.folder / "run.yaml"), "--resume", "auto"]) if committed else None
    record = {
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": outcome.status,
        "type": type(error).__name__,
        "text": text,
        "step": committed[-1].manifest.step if committed else None,
        "resume": command,
    }
    content = json.dumps(run.mask(record), indent=1).encode()
    if not rejected:
        clean_up(lambda: replace_file(run.folder / ERROR_FILE, content), error, run.warn)
    clean_up(lambda: run.emit(outcome.status, text=text), error, run.warn)
    _notify(run, outcome)
    if command and not rejected:
        error.add_note(f"resume with: {command}")


def _notify(run: RunContext, outcome: Outcome) -> None:
    """Notify plugins, the built-in ones last: the page also shows what the others reported."""
    for plugin in reversed(run.plugins.plugins):
        clean_up(partial(plugin.call, "smolora_run_finished", run=run, outcome=outcome), outcome.error, run.warn)


def _program() -> list[str]:
    """Return the command that starts the program as this process was started."""
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return ["smolora"] if processes == "1" else ["torchrun", "--nproc_per_node", processes, "-m", "smolora_core"]
