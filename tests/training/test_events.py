"""Callbacks see what transformers' Trainer would show them: the same events, in the same order, with the same arguments."""

import json
import shutil

import pytest
import transformers
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from tests.support.resumed import STEPS, make
from tests.support.scripted import scripted, steps_in, values_of, while_running
from tests.support.small_run import batch, cross_entropy, load, objective, rows, trainer

EVENTS = [name for name in dir(TrainerCallback) if name.startswith("on_")]
# An evaluation's metrics have no times, so that a resumed run logs the lines that it would have logged.
ONLY_TRAINERS = {"total_flos", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}


class Recorder(TrainerCallback):
    """Keeps every event, the step it comes after, the flags that are set, and the names of what it is given."""

    def __init__(self):
        self.seen = []

    def of(self, event):
        return [more for name, *_, more in self.seen if name == event]


def _record(event):
    def record(self, args, state, control, **more):
        flags = {name for name, value in vars(control).items() if name.startswith("should_") and value}
        self.seen.append((event, state.global_step, flags, more))

    return record


for _event in EVENTS:
    setattr(Recorder, _event, _record(_event))


def lines(recorder):
    """What both must show."""
    return [
        (event, step, flags, set(more), set(more.get("logs", ())) - ONLY_TRAINERS)
        for event, step, flags, more in recorder.seen
        if event != "on_init_end"
    ]


@pytest.fixture(scope="module")
def both(llama, tmp_path_factory):
    """Two epochs of two steps under the loop and under Trainer; the last micro-batch of an epoch is a single row."""
    data = [{name: row[name] for name in ("input_ids", "labels")} for row in rows()[:7]]
    folder, tokenizer = tmp_path_factory.mktemp("both"), transformers.AutoTokenizer.from_pretrained(llama)
    options = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "per_device_eval_batch_size": 2,
        "logging_steps": 2,
        "eval_steps": 3,
        "save_steps": 3,
        "final_adapter": "last",
    }
    ours, theirs, model = Recorder(), Recorder(), load(llama)
    made = trainer(
        model,
        objective(cross_entropy, model),
        folder,
        data,
        data[:3],
        save=lambda step, metrics, state: folder,
        tokenizer=tokenizer,
        **options,
    )
    made.add_callback(ours)
    made.train()
    transformers.Trainer(
        model=load(llama),
        args=made.args,
        train_dataset=data,
        eval_dataset=data[:3],
        data_collator=batch,
        processing_class=tokenizer,
        callbacks=[theirs],
    ).train()
    return ours, theirs


def test_events_come_in_trainers_order_with_its_steps_flags_arguments_and_logs(both):
    ours, theirs = both
    assert lines(ours) == lines(theirs)
    assert len(lines(ours)) == 39


def test_what_callbacks_are_given_is_of_trainers_kinds(both):
    for recorder in both:
        for event, *_, more in recorder.seen:
            if event == "on_init_end":
                continue
            assert isinstance(more["model"], PeftModel)
            assert isinstance(more["processing_class"], transformers.PreTrainedTokenizerBase)
            assert more["optimizer"].param_groups[0]["lr"] >= 0
            assert more["lr_scheduler"].get_last_lr()
    ours, theirs = ([more["train_dataloader"] for more in recorder.of("on_step_end")] for recorder in both)
    assert all(isinstance(each, DataLoader) for each in ours + theirs)
    assert len(ours[0]) == len(theirs[0]) == 4
    assert next(iter(ours[0])).keys() == next(iter(theirs[0])).keys()
    for recorder in both:
        (loader, *_) = [more["eval_dataloader"] for more in recorder.of("on_evaluate")]
        assert [len(each["input_ids"]) for each in loader] == [2, 1]
        assert all({"eval_loss"} <= metrics.keys() for metrics in (more["metrics"] for more in recorder.of("on_evaluate")))


def test_an_evaluation_that_improves_is_saved_at_once(llama, tmp_path):
    """The first of two differences from Trainer, which keeps the best only where an evaluation meets a save."""
    made, recorder = scripted(llama, tmp_path, [3, 4, 2, 5]), Recorder()
    made.add_callback(recorder)
    made.train()
    seen = [(event, step) for event, step, *_ in recorder.seen if event in ("on_evaluate", "on_save")]
    evaluated, last = ("on_evaluate", 2), [("on_evaluate", 4), ("on_save", 4)]
    assert seen == [("on_evaluate", 1), ("on_save", 1), evaluated, ("on_evaluate", 3), ("on_save", 3), *last]


@pytest.mark.parametrize("event", ["on_step_begin", "on_step_end", "on_log", "on_evaluate"])
def test_the_step_at_which_a_callback_ends_training_is_logged_evaluated_and_saved(llama, tmp_path, event):
    """The second difference: Trainer evaluates and saves a last step only if it is the last one of the config."""

    def stop(args, state, control, **more):
        control.should_training_stop |= state.global_step == (3 if event == "on_step_begin" else 4)

    made, recorder = make(llama, tmp_path, save_steps=500, eval_steps=4 if event == "on_evaluate" else 500), Recorder()
    made.add_callback(while_running(event, stop))
    made.add_callback(recorder)
    made.train()
    assert made.state.global_step == 4
    assert [step for name, step, *_ in recorder.seen if name == "on_evaluate"] == [4]
    assert [step for name, step, *_ in recorder.seen if name == "on_save"] == steps_in(tmp_path) == [4]
    assert list(values_of(made, "loss")) == [2, 4]


@pytest.mark.parametrize("eval_steps", [2, 4])
def test_a_step_is_evaluated_and_saved_once(llama, tmp_path, eval_steps):
    """Also the last one, be it one to evaluate anyway or not."""
    made, recorder, saved = make(llama, tmp_path, eval_steps=eval_steps, save_steps=3), Recorder(), []
    commit = made.save
    made.save = lambda step, *more: saved.append(step) or commit(step, *more)
    made.add_callback(recorder)
    made.train()
    assert [step for name, step, *_ in recorder.seen if name == "on_evaluate"] == sorted({*range(eval_steps, 6, eval_steps), 6})
    best = {step for name, step, *_ in recorder.seen if name == "on_save"}
    assert len(saved) == len(set(saved))
    assert set(saved) == best >= {3, 6}


def test_on_save_comes_for_what_was_written(llama, tmp_path):
    made, there = make(llama, tmp_path, held_out=(), save_steps=2), []
    commit = made.save
    made.save = lambda step, metrics, state: None if step == 4 else commit(step, metrics, state)

    def look(args, state, control, **more):
        there.append((state.global_step, (tmp_path / f"checkpoint-{state.global_step}" / "trainer_state.json").exists()))

    made.add_callback(while_running("on_save", look))
    made.train()
    assert there == [(2, True), (6, True)]


class Counting(TrainerCallback, ExportableState):
    """Counts steps, and keeps what it finds when training begins."""

    def __init__(self):
        self.count, self.found = 0, ()

    def on_train_begin(self, args, state, control, optimizer=None, lr_scheduler=None, **more):
        moments = len(optimizer.state_dict()["state"])
        self.found = (self.count, state.global_step, round(state.epoch, 3), moments, lr_scheduler.last_epoch)

    def on_step_end(self, args, state, control, **more):
        self.count += 1

    def state(self):
        return {"args": {}, "attributes": {"count": self.count}}


def test_training_begins_with_everything_restored(llama, tmp_path):
    """Of two callbacks of a kind, each has its own state again."""
    first, again = make(llama, tmp_path), make(llama, tmp_path)
    for made, start in ((first, (0, 100)), (again, (0, 0))):
        for count in start:
            made.add_callback(Counting())
            made.callbacks[-1].count = count
    first.train()
    again.train(resume_from=tmp_path / "checkpoint-4")
    one, other = again.callbacks[-2:]
    trained = sum(each.requires_grad for each in again.model.parameters())
    assert one.found == (4, 4, round(19 / 13, 3), trained, 4)
    assert other.found == (104, *one.found[1:])
    assert [one.count, other.count] == [STEPS, 100 + STEPS]


class Tracking(TrainerCallback):
    """What the integrations of trackers such as TensorBoard and MLflow do with what they are given."""

    def __init__(self, folder):
        self.folder, self.parameters, self.scalars, self.ended = folder, None, [], False

    def _set_up(self, args, state, model):
        if self.parameters is None and state.is_world_process_zero:
            self.parameters = {**json.loads(args.to_json_string()), **json.loads(model.config.to_json_string())}

    def on_train_begin(self, args, state, control, model=None, **more):
        self._set_up(args, state, model)

    def on_log(self, args, state, control, logs, model=None, **more):
        self._set_up(args, state, model)
        self.scalars += [(name, value, state.global_step) for name, value in logs.items() if isinstance(value, int | float)]
        assert len(logs) == len({name for name, _, step in self.scalars if step == state.global_step} & logs.keys())

    def on_save(self, args, state, control, **more):
        place = f"checkpoint-{state.global_step}"
        shutil.copytree(f"{args.output_dir}/{place}", self.folder / place)

    def on_train_end(self, args, state, control, **more):
        self.ended = True


def test_a_tracker_gets_parameters_numbers_and_files(llama, tmp_path):
    made, tracking = make(llama, tmp_path / "run", save_steps=3), Tracking(tmp_path / "tracked")
    made.add_callback(tracking)
    made.evaluate_now()
    made.train()
    assert (tracking.parameters["learning_rate"], tracking.parameters["model_type"], tracking.ended) == (1e-2, "llama", True)
    tracked = {name: [step for each, _, step in tracking.scalars if each == name] for name, *_ in tracking.scalars}
    assert tracked["loss"] == tracked["grad_norm"] == tracked["learning_rate"] == [2, 4, 6]
    assert (tracked["eval_loss"], tracked["train_loss"]) == ([0, 3, 6], [6])
    assert steps_in(tmp_path / "tracked") == [3, 6]
    assert (tmp_path / "tracked" / "checkpoint-6" / "adapter_model.safetensors").exists()
