"""Save and restore the states of the random number generators, as tensors."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from smolora_core.errors import CheckpointError

RNG_FILE = "rng.safetensors"

RngState = dict[str, Tensor]


def capture() -> RngState:
    """Copy the states of Python, NumPy, and torch on the CPU and every device."""
    version, words, gauss = random.getstate()
    numpy = np.random.get_state(legacy=False)
    twister = numpy["state"]
    state = {
        "python": torch.tensor([version, *words], dtype=torch.int64),
        "python.gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.tensor([*twister["key"].tolist(), twister["pos"], numpy["has_gauss"]], dtype=torch.int64),
        "numpy.gauss": torch.tensor([numpy["gauss"]], dtype=torch.float64),
        "cpu": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state |= {f"cuda.{index}": each for index, each in enumerate(torch.cuda.get_rng_state_all())}
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore(state: Mapping[str, Tensor]) -> None:
    """Restore every generator in the state whose device is available."""
    version, *words = state["python"].tolist()
    gauss = state["python.gauss"].tolist()
    random.setstate((version, tuple(words), gauss[0] if gauss else None))
    *keys, position, has_gauss = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, state["numpy.gauss"].item()))
    torch.set_rng_state(state["cpu"])
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if (name := f"cuda.{index}") in state:
            torch.cuda.set_rng_state(state[name], index)
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


def write_rng(folder: Path, ranks: Sequence[Mapping[str, RngState]]) -> None:
    """Write each rank's states, by moment, into one file, as tensors like `rank0.now.cpu`."""
    save_file(
        {
            f"rank{rank}.{moment}.{generator}": tensor
            for rank, moments in enumerate(ranks)
            for moment, state in moments.items()
            for generator, tensor in state.items()
        },
        folder / RNG_FILE,
    )


def read_rng(folder: Path, rank: int) -> dict[str, RngState]:
    """Read the states of a rank, by moment.

    Raises:
        CheckpointError: the file cannot be read, or the run that saved it had fewer ranks.
    """
    file = folder / RNG_FILE
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot be read ({error})", where=str(file)) from error
    states: dict[str, RngState] = {}
    for name, tensor in tensors.items():
        owner, moment, generator = name.split(".", 2)
        if owner == f"rank{rank}":
            states.setdefault(moment, {})[generator] = tensor
    if not states:
        raise CheckpointError(f"has no state for rank {rank}", where=str(file), hint="resume with the same number of ranks")
    return states
