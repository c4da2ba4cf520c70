"""A frozen base model in 16 bits, whichever precision is fastest."""

from typing import Any

import torch

from smolora_core import RunContext


class LowPrecisionBase:
    """Load the base model in half the memory of float32; trainable weights stay in float32."""

    def load_kwargs(self, run: RunContext) -> dict[str, Any]:
        """Choose bfloat16, which has float32's range, or float16 if the device does not support it."""
        try:
            some = torch.ones(1, 1, dtype=torch.bfloat16, device=run.device)
            known = run.device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
            return {"dtype": (some @ some).dtype if known else torch.float16}
        except (TypeError, RuntimeError):
            return {"dtype": torch.float16}
