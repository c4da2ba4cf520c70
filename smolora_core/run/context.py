"""Open a run: lock its folder, find the checkpoint to resume from, and close it on success or failure."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import attrs

from smolora_core.checkpoints.disk import replace_file
from smolora_core.checkpoints.identity import Identity
from smolora_core.checkpoints.resume_rules import check_overrides
from smolora_core.checkpoints.retention import Committed, Keep
from smolora_core.checkpoints.store import Store
from smolora_core.components import RunContext
from smolora_core.config import Resolved
from smolora_core.config.dump import dump, plain
from smolora_core.config.secrets import Mask
from smolora_core.model.device import pick_device
from smolora_core.plugins.loading import clean_up
from smolora_core.report.events import Event, EventLog
from smolora_core.run.finish import ERROR_FILE, close_failed
from smolora_core.run.folder import OpenFolder, follow_run, open_folder
from smolora_core.run.job import Job
from smolora_core.training.ranks import Ranks


@attrs.frozen(kw_only=True)
class OpenRun(RunContext):
    """A run that has locked its folder.

    Attributes:
        resolved: the config with nothing left to infer, and the source of each value.
        ranks: the run's processes.
        store: the run's checkpoints.
        checkpoint: the checkpoint to resume from; None if the run starts from scratch.
        identity: the facts that the run's checkpoints record.
        units_per_step: rows in an optimizer step over all processes; with `max_tokens_per_batch`, micro-batches.
    """

    resolved: Resolved
    ranks: Ranks
    store: Store
    checkpoint: Committed | None
    identity: Identity
    units_per_step: int

    def allow_resume(self, digests: Mapping[str, str | None]) -> None:
        """Record the content behind config keys; in a resumed run, compare it with the checkpoint's before anything is written.

        Raises:
            ConfigError: the content changed; the folder is untouched.
        """
        for key, digest in digests.items():
            self.identity.content(key, digest)
        if self.resumes:
            self.write_config()

    def write_config(self) -> None:
        """Write `run.yaml`, and remove the error of an earlier attempt."""
        if self.leads:
            replace_file(self.folder / "run.yaml", dump(self.resolved, self.mask).encode())
            (self.folder / ERROR_FILE).unlink(missing_ok=True)


@contextmanager
def open_run(job: Job, listener: Callable[[Event], None], resume: str, overrides: Collection[str]) -> Iterator[OpenRun]:
    """Open a run for a block; an error in the block is reported to plugins, recorded in the folder, and raised.

    The arguments are those of `execute`.

    Raises:
        ConfigError: another run locks the folder, the checkpoint does not exist, or a key may not change.
        CheckpointError: the checkpoint is damaged, or the file system failed.
    """
    device = pick_device(job.config.model.device, job.where("model.device"))
    check_overrides(overrides)
    mask, ranks = Mask.of(job.config), Ranks.join(device)
    with _hold(job.folder, resume, _keep(job), ranks) as held:
        identity = Identity(held.checkpoint, overrides, job.where)
        identity.config(plain(job.config, mask), job.plugins.plugins)
        training = job.config.training
        units_per_step = identity.units_per_step(training.effective_batch_size, training.units_per_step(ranks.size))
        run = OpenRun(
            config=job.config,
            folder=job.folder,
            device=ranks.device(device),
            plugins=job.plugins,
            emit=EventLog(job.folder / "events.jsonl", listener, mask).emit if ranks.leads else _ignore,
            mask=mask,
            leads=ranks.leads,
            resumes=held.checkpoint is not None,
            resolved=job.resolved,
            ranks=ranks,
            store=held.store,
            checkpoint=held.checkpoint,
            identity=identity,
            units_per_step=units_per_step,
        )
        held.store.warn = run.warn
        # A resumed run writes nothing until `allow_resume` has passed.
        if not run.resumes:
            run.write_config()
        for text in held.notes:
            run.emit("note", text=text)
        try:
            yield run
        except BaseException as error:
            clean_up(partial(close_failed, run, error, held.store), error, run.warn)
            raise


def _keep(job: Job) -> Keep:
    return Keep.of(plain(job.config), job.config.checkpoints.keep)


@contextmanager
def _hold(folder: Path, resume: str, keep: Keep, ranks: Ranks) -> Iterator[OpenFolder]:
    """Lock the run's folder in the first process, and share its checkpoint with the others."""
    if not ranks.leads:
        yield follow_run(folder, *ranks.share(("", None)))
        return
    with open_folder(folder, resume, keep=keep) as held:
        ranks.share((held.store.run_id, held.checkpoint.place if held.checkpoint else None))
        yield held


def _ignore(kind: str, **values: object) -> None:
    """Drop events in all processes but the first."""
