"""A model that nobody knows is trained by its structure; a name that a model does not have stops a run before it is loaded."""

import peft
import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.modeling_outputs import CausalLMOutput

import smolora_core
from smolora_core import ConfigError, LoRAConfig, SmoLoRA, TrainingConfig, hookimpl
from smolora_core.cli import main
from tests.support.models import save_tokenizer

ROWS = [{"text": f"the film was {word} and long"} for word in ("good", "bad", "short", "not bad")]


class StrangerConfig(transformers.PretrainedConfig):
    model_type = "stranger-of-a-test"
    vocab_size = 300
    hidden_size = 16
    num_hidden_layers = 2


class StrangerForCausalLM(transformers.PreTrainedModel, transformers.GenerationMixin):
    """A language model whose modules have names of their own: it mixes each token with the mean of those before it."""

    config_class = StrangerConfig

    def __init__(self, config):
        super().__init__(config)
        width = config.hidden_size
        self.words = nn.Embedding(config.vocab_size, width)
        self.floors = nn.ModuleList(
            nn.ModuleDict({"blend": nn.Linear(width, 3 * width), "back": nn.Linear(3 * width, width)})
            for _ in range(config.num_hidden_layers)
        )
        self.gateway = nn.Linear(width, width)
        self.speak = nn.Linear(width, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def get_output_embeddings(self):
        return self.speak

    def forward(self, input_ids, attention_mask=None, labels=None, **more):
        states = self.gateway(self.words(input_ids))
        count = torch.arange(1, input_ids.shape[1] + 1)[:, None]
        for floor in self.floors:
            states = states + floor["back"](torch.relu(floor["blend"](states.cumsum(1) / count)))
        return CausalLMOutput(logits=self.speak(states))


class Watch:
    """A plugin that keeps what a run has trained."""

    @hookimpl
    def smolora_adapter_attached(self, model):
        self.model = model


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    transformers.AutoConfig.register(StrangerConfig.model_type, StrangerConfig)
    transformers.AutoModelForCausalLM.register(StrangerConfig, StrangerForCausalLM)
    folder = tmp_path_factory.mktemp("stranger")
    save_tokenizer(folder)
    torch.manual_seed(0)
    StrangerForCausalLM(StrangerConfig(bos_token_id=0, eos_token_id=1)).save_pretrained(folder)
    return folder


def run_of(base, folder, **lora):
    watch, events = Watch(), []
    run = SmoLoRA(
        str(base),
        ROWS,
        output_dir=str(folder / "run"),
        lora=LoRAConfig(r=2, dropout=0.0, **lora),
        training=TrainingConfig(max_steps=3, learning_rate=0.1),
        model={"dtype": "float32", "device": "cpu"},
        plugins=[watch],
        listener=events.append,
    )
    return run, watch, events


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=torch.arange(3, 15).reshape(2, 6)).logits


def test_a_model_that_nobody_knows_is_trained_saved_and_merged_by_its_structure(stranger, tmp_path, monkeypatch):
    run, watch, events = run_of(stranger, tmp_path)
    run.train()
    told = next(event.values for event in events if event.kind == "targets")
    assert (sorted(told["patterns"]), told["modules"]) == (["back", "blend"], 4)
    assert told["reason"] == "[by structure: no plugin knows 'stranger-of-a-test']"
    adapted = {
        name for name, module in watch.model.get_base_model().named_modules() if isinstance(module, peft.tuners.lora.Linear)
    }
    assert adapted == {f"floors.{number}.{end}" for number in (0, 1) for end in ("blend", "back")}

    monkeypatch.chdir("/")
    trained = logits(watch.model.requires_grad_(False))
    again = peft.PeftModel.from_pretrained(StrangerForCausalLM.from_pretrained(stranger), tmp_path / "run" / "adapter")
    merged = StrangerForCausalLM.from_pretrained(run.merge(tmp_path / "merged"))
    assert not torch.allclose(trained, logits(StrangerForCausalLM.from_pretrained(stranger)), atol=1e-3)
    assert torch.equal(logits(again), trained)
    torch.testing.assert_close(logits(merged), trained, rtol=1e-5, atol=1e-5)


@pytest.fixture
def unloadable(llama, tmp_path):
    """A run of a model with the names and the sizes of a good one, of which no weights can be loaded."""
    base = tmp_path / "base"
    transformers.AutoTokenizer.from_pretrained(llama).save_pretrained(base)
    (base / "config.json").write_bytes((llama / "config.json").read_bytes())
    weights = {
        name: torch.zeros(7, 7) if each.dim() == 2 else each for name, each in load_file(llama / "model.safetensors").items()
    }
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    (tmp_path / "rows.jsonl").write_text('{"text": "the film was good"}\n' * 8)
    (tmp_path / "run.yaml").write_text(
        f"model: {base}\noutput_dir: {tmp_path / 'out'}\ndata: {{train: {tmp_path / 'rows.jsonl'}}}\n"
    )
    return tmp_path / "run.yaml"


def test_a_misspelt_name_is_refused_before_weights_are_loaded(unloadable, capfd):
    command = ["train", str(unloadable), "--lora.target_modules"]
    assert main([*command, "[q_proj, v_proj, o_porj]"]) == 2
    assert capfd.readouterr().err == "--lora.target_modules no layer is named 'o_porj'; did you mean 'o_proj'?\n"
    assert main([*command, "[q_proj, v_proj, o_proj]"]) != 0
    assert "cannot load" in capfd.readouterr().err


def test_so_is_one_from_python(unloadable):
    with pytest.raises(ConfigError) as error:
        smolora_core.train(
            {
                **yaml.safe_load(unloadable.read_text()),
                "lora": {"target_modules": ["q_proj", "o_porj"]},
            }
        )
    assert str(error.value) == "given from Python no layer is named 'o_porj'; did you mean 'o_proj'?"
