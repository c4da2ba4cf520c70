"""A frozen base in 4 or 8 bits, under an adapter in float32: QLoRA (https://arxiv.org/abs/2305.14314)."""

import logging
from importlib.util import find_spec
from typing import Any

from transformers import BitsAndBytesConfig, TorchAoConfig

from smolora_core import ConfigError, RunContext
from smolora_plugins.memory.embeddings import quantise_embeddings


class QuantisedBase:
    """Lets transformers quantise the weights while it loads them; new heads stay as they are."""

    def __init__(self, *, format: str, double_quant: bool, embeddings: bool) -> None:  # noqa: A002 -- the option's name
        """Choose the format.

        Raises:
            ConfigError: the package that quantises is not installed.
        """
        self._format, self._double_quant, self._embeddings = format, double_quant, embeddings
        package = "torchao" if format == "torchao-int8" else "bitsandbytes"
        if find_spec(package) is None:
            hint = "pip install 'smolora[quant]'"
            raise ConfigError(f"quantised needs {package} for {format}, and it is not installed", where="memory:", hint=hint)
        # Of every product that it casts the inputs of.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)

    def load_kwargs(self, run: RunContext) -> dict[str, Any]:
        """Name the quantisation."""
        if self._format == "nf4":
            config = BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=self._double_quant
            )
        elif self._format == "int8":
            config = BitsAndBytesConfig(load_in_8bit=True)
        else:
            from torchao.quantization import Int8WeightOnlyConfig

            config = TorchAoConfig(Int8WeightOnlyConfig())
        return {"quantization_config": config}

    def model_ready(self, model: Any, run: RunContext) -> None:
        """Let products with nf4 weights be computed in the format of everything else, and their gradients be right."""
        if self._embeddings:
            quantise_embeddings(model.get_base_model())
        for module in model.modules():
            if getattr(module, "compute_dtype", None) is not None:
                module.compute_dtype = model.get_base_model().dtype
                # On some processors an evaluation would repack the weights, and products with packed weights have no gradient.
                module.support_avx512bf16_for_cpu = False
