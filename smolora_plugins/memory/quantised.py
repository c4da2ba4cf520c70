"""A frozen base model in 4 or 8 bits with an adapter in float32: QLoRA (https://arxiv.org/abs/2305.14314)."""

import logging
from importlib.util import find_spec
from typing import Any

from transformers import BitsAndBytesConfig, TorchAoConfig

from smolora_core import ConfigError, RunContext
from smolora_plugins.memory.embeddings import quantise_embeddings


class QuantisedBase:
    """Let transformers quantise the base model as it loads it; new heads are not quantised.

    Raises:
        ConfigError: the package for the format is not installed.
    """

    def __init__(self, *, format: str, double_quant: bool, embeddings: bool) -> None:  # noqa: A002 -- the option's name
        self._format, self._double_quant, self._embeddings = format, double_quant, embeddings
        package = "torchao" if format == "torchao-int8" else "bitsandbytes"
        if find_spec(package) is None:
            what = f"format {format} of quantised needs {package}, which is not installed"
            raise ConfigError(what, where="memory:", hint="pip install 'smolora[quant]'")
        # It warns at every matrix product whose inputs it casts.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)

    def load_kwargs(self, run: RunContext) -> dict[str, Any]:
        """Build the quantisation config."""
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
        """Compute nf4 layers in the model's own dtype, with correct gradients."""
        if self._embeddings:
            quantise_embeddings(model.get_base_model())
        for module in model.modules():
            if getattr(module, "compute_dtype", None) is not None:
                module.compute_dtype = model.get_base_model().dtype
                # On some CPUs an evaluation repacks the weights, and products with packed weights have no gradient.
                module.support_avx512bf16_for_cpu = False
