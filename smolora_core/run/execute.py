"""Execute a run: prepare rows, adapt the model, train, and commit the adapter."""

from collections.abc import Callable, Collection
from contextlib import nullcontext

from smolora_core.hookspecs import Outcome
from smolora_core.lora.attach import Adapted
from smolora_core.lora.saving import verify_saved
from smolora_core.report.events import Event
from smolora_core.run.assemble import MicroStep, load_and_adapt, make_loop, make_saver, micro_step
from smolora_core.run.check import Checked
from smolora_core.run.context import OpenRun, open_run
from smolora_core.run.finish import close_finished
from smolora_core.run.job import Job, resolve_job
from smolora_core.run.prepare import Dataset, inspect_rows, prepare_rows, write_ledger
from smolora_core.training.arguments import make_arguments
from smolora_core.training.best import describe_best, stopped_early
from smolora_core.training.guards import failing_at
from smolora_core.training.loop import TrainingLoop
from smolora_core.training.memory import Strategies, build_strategies
from smolora_core.training.profiling import profile_run
from smolora_core.training.randomness import deterministic
from smolora_core.training.signals import Interrupted, OutOfTime


def execute(
    checked: Checked,
    listener: Callable[[Event], None] = lambda event: None,
    *,
    resume: str = "never",
    overrides: Collection[str] = (),
) -> Outcome:
    """Run a checked config.

    Args:
        checked: the result of `check_run`.
        listener: receives every event.
        resume: `never`, `auto`, or the checkpoint to resume from.
        overrides: keys that may differ from the checkpoint's run.

    Raises:
        SmoLoRAError: an input cannot be used, or the run failed; plugins are notified first.
        Interrupted: a signal stopped the run after a committed step.
    """
    job = resolve_job(checked)
    with open_run(job, listener, resume, overrides) as run:
        # Fail before any row is read if transformers or a strategy rejects its options.
        arguments = make_arguments(job.config, run.folder, run.device, evaluates=job.config.data.eval is not None)
        strategies = build_strategies(job.choices.memory, run, job.where)
        dataset = prepare_rows(job, run)
        run.allow_resume({"memory": strategies.lossy, **job.digests, **dataset.digests})
        changes = inspect_rows(job, run, dataset)
        with strategies.released(), deterministic(arguments):
            adapted = load_and_adapt(job, run, changes, strategies)
            run.emit("status", text="preparing the first step")
            with micro_step(job, adapted.model, dataset.collator) as micro:
                outcome = train(job, run, dataset, adapted, strategies, micro)
        return close_finished(run, outcome)


def train(job: Job, run: OpenRun, dataset: Dataset, adapted: Adapted, strategies: Strategies, micro: MicroStep) -> Outcome:
    """Train an adapted model on rows, evaluate it, and commit the adapter.

    Raises:
        TrainingError: there is nothing to train on, or training failed.
        Interrupted: a signal stopped the run after a committed step.
    """
    for text in micro.speed.describe():
        run.emit("note", text=text)
    saver = make_saver(job, run, dataset, adapted)
    loop = make_loop(job, run, dataset, adapted, strategies, micro, saver)
    run.identity.note("speed", list(micro.speed.describe()))
    streaming, evaluates = job.config.data.streaming, bool(dataset.held_out)
    if run.checkpoint is not None:
        run.emit("resumed", step=run.checkpoint.manifest.step, checkpoint=str(run.checkpoint.place))
        for text in run.identity.take_changes():
            run.emit("note", text=text)
    train_loss = _run_training(run, loop)
    step, after = loop.state.global_step, loop.evaluate_now() if evaluates else {}
    if streaming:
        # Whether a streamed row is kept is only known once it has been read.
        write_ledger(run, dataset.splits)
    before = {f"{name}_before": value for name, value in loop.position.metrics_before.items()}
    metrics, adapter = {"train_loss": train_loss, **after, **before}, run.folder / "adapter"
    if loop.kept_step is not None:
        run.emit("best", step=loop.kept_step, text=describe_best(loop.state, loop.args))
    if run.leads:
        saver.finish(loop.kept_step or step, metrics)
        run.emit("finished", steps=step, adapter=str(adapter), tensors_verified=verify_saved(adapted.model, adapter), **metrics)
    run.ranks.wait()
    model, tokenizer = adapted.model.eval(), dataset.tokenizer
    return Outcome(status="finished", steps=step, metrics=metrics, adapter=adapter, model=model, tokenizer=tokenizer)


def _run_training(run: OpenRun, loop: TrainingLoop) -> float:
    profiled = profile_run(run.folder / "profile.pstats", run.emit) if run.config.debug.profile_training else nullcontext()
    with profiled, failing_at(lambda: loop.state.global_step):
        result = loop.train(resume_from=run.checkpoint.place if run.checkpoint else None)
    step = loop.state.global_step
    if loop.stopped_by is not None:
        raise Interrupted(loop.stopped_by, step)
    if loop.cadence.is_out_of_time:
        raise OutOfTime(step)
    if step < loop.state.max_steps:
        text = f"training ended at step {step} of {loop.state.max_steps}"
        if patience := stopped_early(loop.callbacks):
            metric = run.config.training.metric
            run.emit("note", text=f"{text}: {metric} did not improve in {patience} evaluations")
        else:
            run.warn(text)
    return float(result.training_loss)
