"""A base in 16 bits, where float32 was asked for."""

import json

import torch

from smolora_core import train
from tests.support.runs import FILM_ROWS


def test_the_base_is_in_16_bits_and_the_adapter_in_32(llama, tmp_path):
    told = []
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, FILM_ROWS)))
    outcome = train(
        {
            "model": {"path": str(llama), "dtype": "float32", "device": "cpu"},
            "data": {"train": str(tmp_path / "rows.jsonl"), "max_seq_length": 64},
            "output_dir": str(tmp_path / "run"),
            "training": {"max_steps": 2, "gradient_accumulation_steps": 1},
            "memory": ["low-precision"],
        },
        listener=told.append,
    )
    dtypes = {(parameter.requires_grad, parameter.dtype) for parameter in outcome.model.parameters()}
    assert dtypes == {(True, torch.float32), (False, torch.bfloat16)}
    (base,) = [event.values for event in told if event.kind == "base"]
    assert (base["dtype"], base["reason"]) == ("bfloat16", "chosen by a memory strategy")
