"""The first signal ends a run with its step committed, the second one at once."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch

from smolora_core.training.signals import STOPPING, Interrupted, catch_signals
from tests.support.injector import fail_at
from tests.support.resumed import SPLIT, disturb, dropping_out, end_of, make
from tests.support.small_run import cross_entropy, load, objective, rows


def stopped(llama, folder, hook, kind, step=2, **changes):
    """Run until a signal comes at a step; return the trainer and the steps it has saved."""
    made = make(llama, folder, **changes)
    made.add_callback(fail_at(step, hook, kind))
    made.train()
    return made, sorted(int(path.name.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*"))


@pytest.mark.parametrize("kind", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_in_a_step_ends_the_run_after_it(llama, tmp_path, kind):
    made, saved = stopped(llama, tmp_path, "on_substep_end", kind, save_steps=500)
    assert (made.stopped_by, saved) == (getattr(signal, kind), [2])


@pytest.mark.parametrize("hook", ["on_step_end", "on_log", "on_evaluate", "on_save"])
def test_a_signal_between_steps_ends_the_run_there(llama, tmp_path, hook):
    made, saved = stopped(llama, tmp_path, hook, "SIGTERM", save_steps=2, eval_steps=2)
    assert (made.stopped_by, made.state.global_step, saved) == (signal.SIGTERM, 2, [2])


def test_a_signal_in_a_save_ends_the_run_there(llama, tmp_path):
    made, saved = stopped(llama, tmp_path, "on_save", "SIGTERM", save_steps=2, held_out=())
    assert (made.stopped_by, made.state.global_step, saved) == (signal.SIGTERM, 2, [2])


def test_a_run_that_ends_by_itself_was_not_stopped(llama, tmp_path):
    made = make(llama, tmp_path, max_steps=1)
    made.train()
    assert made.stopped_by is None


def killed_in_evaluation(model, step):
    """Make an objective that a signal comes to in the second batch of an evaluation."""
    batches = {"trained": 0, "evaluated": []}

    def counting(logits, targets):
        if torch.is_grad_enabled():
            batches["trained"] += 1
        elif batches["trained"] == (7 * step + 2) // 3:
            batches["evaluated"].append(len(targets))
            if len(batches["evaluated"]) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
        return cross_entropy(logits, targets)

    return objective(counting, model), batches["evaluated"]


def test_a_signal_cuts_an_evaluation_short(llama, tmp_path):
    model = load(llama)
    measure, evaluated = killed_in_evaluation(model, 1)
    made = make(llama, tmp_path, model=model, measure=measure, eval_steps=1, per_device_eval_batch_size=1)
    made.train()
    assert (len(evaluated), made.state.global_step, made.stopped_by) == (2, 1, signal.SIGTERM)


@pytest.fixture(scope="module")
def uninterrupted(llama, tmp_path_factory):
    """How a run ends that evaluates every step."""
    whole = make(llama, tmp_path_factory.mktemp("whole"), eval_steps=1)
    return end_of(whole, whole.train())


@pytest.mark.slow
@pytest.mark.parametrize("hook", ["on_step_begin", "on_step_end", "on_evaluate", "evaluation"])
@pytest.mark.parametrize("step", [3, 6])
def test_a_run_that_a_signal_has_ended_goes_on_exactly(llama, tmp_path, uninterrupted, hook, step):
    """Both steps end an epoch, and are evaluated."""
    model = dropping_out(llama)
    changes = {"model": model, "measure": killed_in_evaluation(model, step)[0]} if hook == "evaluation" else {}
    made = make(llama, tmp_path / "stopped", eval_steps=1, save_steps=500, **changes)
    if not changes:
        made.add_callback(fail_at(step, hook, "SIGTERM"))
    made.train()
    assert (made.stopped_by, made.state.global_step) == (signal.SIGTERM, step)
    again = make(llama, tmp_path / "again", eval_steps=1)
    disturb()
    assert end_of(again, again.train(resume_from=tmp_path / "stopped" / f"checkpoint-{step}")) == uninterrupted


def test_an_interruption_says_by_what_and_where():
    error = Interrupted(signal.SIGTERM, 12)
    assert str(error) == "stopped by SIGTERM after step 12"
    assert [Interrupted(by, 1).exit_code for by in STOPPING] == [143, 130, 129]
    assert isinstance(error, KeyboardInterrupt)


def test_handlers_of_others_are_called_and_put_back():
    called = []

    def theirs(number, frame):
        called.append(number)

    before = signal.signal(signal.SIGTERM, theirs)
    try:
        with catch_signals() as caught:
            os.kill(os.getpid(), signal.SIGTERM)
        assert (called, caught.first) == ([signal.SIGTERM], signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_a_handler_of_others_raises_comes_at_the_end():
    def theirs(number, frame):
        raise SystemExit(7)

    def work():
        with catch_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append(True)

    before, reached = signal.signal(signal.SIGTERM, theirs), []
    try:
        with pytest.raises(SystemExit):
            work()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert reached


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with catch_signals() as caught:
            os.kill(os.getpid(), signal.SIGHUP)
        assert caught.first is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_second_interrupt_raises():
    def work():
        with catch_signals():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.6)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(("kind", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_the_second_signal_ends_the_process(kind, code):
    program = f"""
        import os, signal, time
        from smolora_core.training.signals import catch_signals
        try:
            with catch_signals():
                os.kill(os.getpid(), signal.{kind})
                time.sleep(0.6)
                os.kill(os.getpid(), signal.{kind})
        finally:
            os._exit(1)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=60).returncode == code


def test_the_same_signal_at_once_is_an_echo():
    with catch_signals() as caught:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.first is signal.SIGTERM


def test_another_thread_catches_nothing():
    found = []

    def work():
        with catch_signals() as caught:
            found.append(caught.first)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]


class _Hit(torch.utils.data.Dataset):
    """Rows that send a signal to the process that reads them."""

    def __len__(self):
        return 13

    def __getitem__(self, index):
        for each in STOPPING:
            os.kill(os.getpid(), each)
        return rows()[index % 8]


def test_workers_leave_signals_to_the_run(llama, tmp_path):
    made = make(llama, tmp_path, extra={"dataloader_num_workers": 1}, max_steps=2, held_out=(), **SPLIT)
    made.train_dataset = _Hit()
    made.train()
    assert (made.state.global_step, made.stopped_by) == (2, None)


@pytest.mark.slow
def test_a_run_that_fails_with_workers_ends(llama, tmp_path):
    """Also while somebody holds on to the error, and by it to the workers."""
    program = f"""
        from pathlib import Path
        from tests.support.injector import fail_at
        from tests.support.resumed import make

        made = make(Path({str(llama)!r}), Path({str(tmp_path)!r}), extra={{"dataloader_num_workers": 1}})
        made.add_callback(fail_at(2, "on_step_end", "raise"))
        try:
            made.train()
        except BaseException as error:
            held = error
            print("failed", flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.stdout.splitlines()[-1], done.returncode) == ("failed", 0), done.stderr
