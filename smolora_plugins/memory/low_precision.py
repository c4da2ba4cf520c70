"""A frozen base in 16 bits, whatever is fastest."""

from typing import Any

import torch

from smolora_core import RunContext


class LowPrecisionBase:
    """Lets the weights be loaded in half of float32's memory; what is trained stays float32."""

    def load_kwargs(self, run: RunContext) -> dict[str, Any]:
        """Name bfloat16, whose range is float32's, or float16 where the device computes no bfloat16."""
        try:
            some = torch.ones(1, 1, dtype=torch.bfloat16, device=run.device)
            known = run.device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
            return {"dtype": (some @ some).dtype if known else torch.float16}
        except (TypeError, RuntimeError):
            return {"dtype": torch.float16}
