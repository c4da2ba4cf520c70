"""What `training.extra` sets takes effect in the loop, as it does in transformers' Trainer."""

from pathlib import Path

import pytest
import torch
import transformers
from torch.utils.data import IterableDataset
from transformers.integrations import integration_utils

from smolora_core import hookimpl, train
from smolora_core.training.randomness import noisy_embeddings
from tests.support.models import save_t5
from tests.support.resumed import end_of, make
from tests.support.runs import config_of, events, rows_in
from tests.support.small_run import Watch, batch, cross_entropy, load, objective, rows, trainer

STEP = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}


def made_with(llama, folder, extra, **changes):
    model = load(llama)
    options = {"train": rows(), "max_steps": 3, **STEP, **changes}
    return trainer(model, objective(cross_entropy, model), folder, extra=extra, **options)


@pytest.mark.parametrize(
    ("extra", "name", "value"),
    [
        ({"weight_decay": 0.3}, "weight_decay", 0.3),
        ({"adam_beta1": 0.7}, "betas", (0.7, 0.999)),
        ({"adam_beta2": 0.8}, "betas", (0.9, 0.8)),
        ({"adam_epsilon": 1e-3}, "eps", 1e-3),
        ({"optim": "sgd", "optim_args": "momentum=0.5"}, "momentum", 0.5),
    ],
)
def test_the_optimizer_gets_its_options(llama, tmp_path, extra, name, value):
    made = made_with(llama, tmp_path, extra, max_steps=1)
    made.train()
    assert made.optimization.optimizer.param_groups[0][name] == value


def test_gradients_are_clipped(llama, tmp_path):
    watch = Watch()
    made_with(llama, tmp_path, {"max_grad_norm": 1e-3}, watch=watch).train()
    norms = [torch.stack([each.norm() for each in gradients.values()]).norm().item() for gradients in watch.gradients]
    assert norms == pytest.approx([1e-3] * 3, rel=1e-4)


@pytest.mark.parametrize(
    ("extra", "rates"),
    [
        ({"warmup_steps": 2}, [0, 0.5, 1, 0.5]),
        ({"warmup_steps": 0.5}, [0, 0.5, 1, 0.5]),
        ({"lr_scheduler_type": "constant"}, [1, 1, 1, 1]),
        ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2.0, "lr_end": 0.0}}, [1, 9 / 16, 1 / 4, 1 / 16]),
    ],
)
def test_the_rate_follows_the_schedule(llama, tmp_path, extra, rates):
    made = made_with(llama, tmp_path, extra, max_steps=4, learning_rate=1e-3)
    made.train()
    assert [line["learning_rate"] / 1e-3 for line in made.state.log_history if "loss" in line] == pytest.approx(rates)


@pytest.mark.parametrize(("drops", "steps"), [(False, 3), (True, 2)])
def test_the_last_step_of_an_epoch_may_be_left_out(llama, tmp_path, drops, steps):
    extra = {"dataloader_drop_last": drops}
    made = made_with(llama, tmp_path, extra, per_device_train_batch_size=3, num_train_epochs=1, max_steps=-1)
    assert made.train().global_step == steps


class Stream(IterableDataset):
    def __iter__(self):
        return iter(rows())


@pytest.mark.parametrize(("drops", "sizes"), [(False, [3, 3, 2, 3]), (True, [3, 3, 3, 3])])
def test_so_may_the_last_step_of_a_stream(llama, tmp_path, drops, sizes):
    made = made_with(llama, tmp_path, {"dataloader_drop_last": drops}, per_device_train_batch_size=3, max_steps=4)
    made.train_dataset, seen = Stream(), []
    made.data_collator = lambda these: seen.append(len(these)) or batch(these)
    made.train()
    assert seen == sizes


def rows_seen(llama, folder, extra, **changes):
    made, seen = made_with(llama, folder, extra, **changes), []
    made.data_collator = lambda these: seen.extend(row["weight"] for row in these) or batch(these)
    made.train()
    return seen


def test_the_order_of_rows_has_a_seed_of_its_own(llama, tmp_path):
    everything = {"max_steps": 4}
    shuffled = rows_seen(llama, tmp_path, {}, **everything)
    other = rows_seen(llama, tmp_path, {"data_seed": 7}, **everything)
    in_order = rows_seen(llama, tmp_path, {"train_sampling_strategy": "sequential"}, **everything)
    assert in_order == [row["weight"] for row in rows()] == sorted(shuffled) == sorted(other)
    assert len({tuple(shuffled), tuple(other), tuple(in_order)}) == 3


def test_workers_load_the_same_steps(llama, tmp_path):
    workers = {
        "dataloader_num_workers": 1,
        "dataloader_prefetch_factor": 1,
        "dataloader_multiprocessing_context": "fork",
    }
    alone, together = (made_with(llama, tmp_path, extra) for extra in ({}, workers))
    assert together.train().training_loss == alone.train().training_loss


def test_noise_is_added_to_embeddings_only_while_training(llama, tmp_path):
    noisy, plain = (made_with(llama, tmp_path, extra, held_out=rows()) for extra in ({"neftune_noise_alpha": 50.0}, {}))
    assert noisy.evaluate() == plain.evaluate()
    assert noisy.train().training_loss != pytest.approx(plain.train().training_loss, rel=1e-4)
    ids = {name: each for name, each in batch(rows()[:2]).items() if name != "weight"}
    losses = [noisy.model.train()(**ids).loss for _ in range(2)]
    assert losses[0] == losses[1]


def test_noise_reaches_both_sides_of_an_encoder_and_decoder(tmp_path):
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(save_t5(tmp_path / "t5")).train()
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        before = model(input_ids=ids, labels=ids)
        with noisy_embeddings(model, 50.0):
            within = model(input_ids=ids, labels=ids)
        after = model(input_ids=ids, labels=ids)
    assert not torch.allclose(within.encoder_last_hidden_state, before.encoder_last_hidden_state, rtol=1e-3)
    assert torch.equal(after.logits, before.logits)


def logged_at(made):
    return [line["step"] for line in made.state.log_history if "loss" in line]


@pytest.mark.parametrize(
    ("extra", "steps"),
    [
        ({}, [3, 6]),
        ({"logging_first_step": True}, [1, 3, 6]),
        ({"logging_strategy": "epoch"}, [4, 7]),
        ({"logging_strategy": "no"}, []),
    ],
)
def test_when_to_log(llama, tmp_path, extra, steps):
    made = made_with(llama, tmp_path, extra, max_steps=7, logging_steps=3)
    made.train()
    assert logged_at(made) == steps


def test_evaluations_may_begin_late(llama, tmp_path):
    made = made_with(llama, tmp_path, {"eval_delay": 4}, held_out=rows(), max_steps=6, eval_steps=2)
    made.train()
    assert [line["step"] for line in made.state.log_history if "eval_loss" in line] == [4, 6]


@pytest.mark.parametrize("value", [False, True, "non_padding"])
def test_tokens_seen_are_logged(llama, tmp_path, value):
    extra = {"include_num_input_tokens_seen": value, "train_sampling_strategy": "sequential"}
    made = made_with(llama, tmp_path, extra, max_steps=2)
    made.train()
    lines = [line.get("num_input_tokens_seen") for line in made.state.log_history if "loss" in line]
    seen = [sum(len(row["input_ids"]) for row in rows()[:number]) for number in (2, 4)]
    assert lines == (seen if value else [None, None])


def test_an_optimizer_that_averages_its_parameters_knows_what_they_are_for(llama, tmp_path):
    modes = []

    class Averages(transformers.TrainerCallback):
        """Gives the optimizer the methods of schedule-free ones."""

        def on_train_begin(self, args, state, control, optimizer=None, **more):
            optimizer.train = lambda: modes.append("train")
            optimizer.eval = lambda: modes.append("eval")

        def on_pre_optimizer_step(self, args, state, control, **more):
            modes.append("step")

        def on_evaluate(self, args, state, control, **more):
            modes.append("evaluated")

        def on_save(self, args, state, control, **more):
            modes.append("saved")

    written = {"save": lambda step, metrics, state: tmp_path, "final_adapter": "last"}
    made = made_with(llama, tmp_path, {}, held_out=rows(), max_steps=2, eval_steps=1, save_steps=1, **written)
    made.add_callback(Averages())
    made.train()
    assert modes == ["train", "step", "eval", "evaluated", "eval", "saved"] * 2 + ["eval"]


@pytest.mark.parametrize("optim", ["schedule_free_adamw", "schedule_free_sgd"])
def test_a_schedule_free_run_resumes_as_if_it_had_not_stopped(llama, tmp_path, optim):
    pytest.importorskip("schedulefree")
    extra = {"optim": optim, "lr_scheduler_type": "constant"}
    whole = make(llama, tmp_path / "whole", extra=extra)
    expected = end_of(whole, whole.train())
    again = make(llama, tmp_path / "again", extra=extra)
    assert end_of(again, again.train(resume_from=tmp_path / "whole" / "checkpoint-2")) == expected


class Reports(transformers.TrainerCallback):
    """A tracker that transformers knows by name, and that writes to a folder, as TensorBoard's does."""

    logging_dir = None

    def on_log(self, args, state, control, logs=None, **more):
        folder = Path(self.logging_dir)
        folder.mkdir(exist_ok=True)
        with (folder / args.run_name).open("a") as file:
            print(state.global_step, *sorted(logs), file=file)


class Sees:
    """A plugin that looks at torch while the run trains."""

    def __init__(self):
        self.callback = transformers.TrainerCallback()
        self.callback.on_step_end = lambda *given, **more: setattr(self, "strict", torch.are_deterministic_algorithms_enabled())

    @hookimpl
    def smolora_callbacks(self):
        return [self.callback]


def run(llama, folder, *plugins, **training):
    values = config_of(llama, rows_in(folder), folder / "run", training={"max_steps": 3, **training})
    return train(values, plugins=plugins)


def test_a_run_reports_to_trackers(llama, tmp_path, monkeypatch):
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "tracker", Reports)
    run(llama, tmp_path, extra={"report_to": "tracker", "run_name": "first"})
    lines = (tmp_path / "run" / "tensorboard" / "first").read_text().splitlines()
    assert lines[0] == "0 epoch eval_loss eval_perplexity eval_token_accuracy"
    assert lines[1:4] == [f"{step} epoch grad_norm learning_rate loss" for step in (1, 2, 3)]


@pytest.mark.parametrize("strict", [False, True])
def test_a_run_may_use_deterministic_algorithms_only(llama, tmp_path, strict):
    sees = Sees()
    run(llama, tmp_path, sees, extra={"full_determinism": strict})
    assert sees.strict is strict
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_logging_strategy_beats_logging_steps_of_auto(llama, tmp_path):
    run(llama, tmp_path, logging_steps="auto", max_steps=7, extra={"logging_strategy": "epoch"})
    assert [line["step"] for line in events(tmp_path / "run", "log")] == [5, 7]


def test_a_run_with_noise_pads_its_rows(llama, tmp_path):
    run(llama, tmp_path, extra={"neftune_noise_alpha": 5})
    assert "micro-batches are grouped (as configured)" in [line["text"] for line in events(tmp_path / "run", "note")]
