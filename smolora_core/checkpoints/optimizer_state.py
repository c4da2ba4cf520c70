"""What an optimizer step leaves in tensors: the trained parameters and the optimizer's slots, by the parameters' names.

transformers maps an optimizer's state to parameters by position, and fused kernels believe it: with other parameters that
is a write outside of their memory. Here names, shapes and dtypes are compared before anything is loaded.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import peft
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from smolora_core.errors import CheckpointError

ADAPTER_FILE = "adapter_model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
_METADATA = "state"
# Slots that a kernel walks through together with the parameter.
_SHAPED = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")


@attrs.frozen
class SavedTensors:
    """A checkpoint's tensors, found to fit the model.

    Attributes:
        adapter: by PEFT's names.
        slots: of the optimizer, by parameter and slot.
        kind: the optimizer's class.
        groups: its options, with the names of their parameters.
        where: they were read from.
    """

    adapter: Mapping[str, Tensor]
    slots: Mapping[str, Mapping[str, Any]]
    kind: str
    groups: list[dict[str, Any]]
    where: str


def refuse_non_finite(model: nn.Module, optimizer: Any = None, *, step: int) -> None:
    """Refuse to keep what cannot be trained on.

    Raises:
        CheckpointError: a trained parameter or a slot of the optimizer holds NaN or infinity.
    """
    tensors = dict(_trained(model))
    if optimizer is not None:
        tensors |= {f"{name}.{slot}": each for name, slot, each in _slots(optimizer, model) if isinstance(each, Tensor)}
    looked_at = {name: each for name, each in tensors.items() if each.is_floating_point()}
    if looked_at and not torch.stack([torch.isfinite(each).all() for each in looked_at.values()]).all():
        name = next(name for name, each in looked_at.items() if not torch.isfinite(each).all())
        raise CheckpointError(
            f"checkpoint of step {step} was not written: {name!r} has values that are not finite",
            hint="the checkpoints before it are kept; lower training.learning_rate",
        )


def write_optimizer(folder: Path, optimizer: Any, model: nn.Module) -> None:
    """Write slots as tensors `<parameter>.<slot>`, and the rest as JSON in the metadata.

    Raises:
        CheckpointError: the optimizer keeps something that is neither a tensor nor plain.
    """
    optimizer = _unwrapped(optimizer)
    names = _names(optimizer, model)
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for name, slot, value in _slots(optimizer, model):
        if isinstance(value, Tensor):
            tensors[f"{name}.{slot}"] = value.detach().to("cpu", copy=True).contiguous()
        else:
            plain.setdefault(name, {})[slot] = value
    groups = [{**group, "params": [names[id(each)] for each in group["params"]]} for group in optimizer.param_groups]
    contents = {
        "optimizer": type(optimizer).__name__,
        "parameters": {name: _described(each) for name, each in _trained(model)},
        "param_groups": groups,
        "plain": plain,
    }
    try:
        # One entry, for safetensors writes several in any order.
        metadata = {_METADATA: json.dumps(contents, default=float, sort_keys=True)}
        save_file(tensors, folder / OPTIMIZER_FILE, metadata)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the state of {type(optimizer).__name__} cannot be written ({error})") from error


def read_tensors(folder: Path, model: nn.Module) -> SavedTensors:
    """Read the adapter and the optimizer's state, if they are of the same parameters as the model; nothing is loaded.

    Raises:
        CheckpointError: a file cannot be read, or has other tensors, shapes or dtypes.
    """
    adapter, _ = _read(folder / ADAPTER_FILE)
    here = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    _compare(
        {name: _described(each) for name, each in adapter.items()},
        {name: _described(each) for name, each in here.items()},
        str(folder / ADAPTER_FILE),
    )
    file = folder / OPTIMIZER_FILE
    tensors, metadata = _read(file)
    try:
        contents = json.loads(metadata[_METADATA])
        kind, groups, plain, stored = (contents[name] for name in ("optimizer", "param_groups", "plain", "parameters"))
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"is not an optimizer's state ({error!r})", where=str(file)) from error
    parameters = dict(_trained(model))
    held = {each.data_ptr() for each in here.values()}
    if left := [name for name, each in parameters.items() if each.data_ptr() not in held]:
        raise CheckpointError(f"cannot hold {left[0]!r}, which this run trains", where=str(folder / ADAPTER_FILE))
    _compare(stored, {name: _described(each) for name, each in parameters.items()}, str(file))
    slots: dict[str, dict[str, Any]] = {name: dict(values) for name, values in plain.items()}
    for key, tensor in tensors.items():
        name, slot = key.rsplit(".", 1)
        if name not in parameters or (slot in _SHAPED and tensor.shape != parameters[name].shape):
            raise CheckpointError(f"{key!r} {_described(tensor)} belongs to no parameter", where=str(file))
        slots.setdefault(name, {})[slot] = tensor
    return SavedTensors(adapter, slots, kind, groups, str(file))


def load_adapter(saved: SavedTensors, model: nn.Module) -> None:
    """Copy the trained parameters, bit by bit."""
    with torch.no_grad():
        # PEFT gives the parameters themselves, under the names that it saves them by.
        for name, each in peft.get_peft_model_state_dict(model, save_embedding_layers=False).items():
            each.copy_(saved.adapter[name])


def load_optimizer(saved: SavedTensors, optimizer: Any, model: nn.Module) -> None:
    """Load the slots.

    Options that the optimizer was made with stay as they are, its learning rate among them: they come from the config of
    this run. What it has noted beside them continues.

    Raises:
        CheckpointError: it is another kind of optimizer, or groups parameters otherwise.
    """
    optimizer = _unwrapped(optimizer)
    names = _names(optimizer, model)
    if type(optimizer).__name__ != saved.kind:
        what = f"was written by {saved.kind}, and this run trains with {type(optimizer).__name__}"
        raise CheckpointError(what, where=saved.where, hint="resume with the same training.extra.optim")
    grouped = [{names[id(each)] for each in group["params"]} for group in optimizer.param_groups]
    if grouped != [set(group["params"]) for group in saved.groups]:
        raise CheckpointError("groups the parameters otherwise", where=saved.where, hint="resume with the same config")
    ordered = [names[id(each)] for group in optimizer.param_groups for each in group["params"]]
    groups, first = [], 0
    for group, stored in zip(optimizer.param_groups, saved.groups, strict=True):
        made_with = {key: value for key, value in group.items() if key in optimizer.defaults or key == "initial_lr"}
        count = len(group["params"])
        groups.append({**stored, **made_with, "params": list(range(first, first + count))})
        first += count
    state = {index: dict(saved.slots[name]) for index, name in enumerate(ordered) if name in saved.slots}
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot be read ({error})", where=str(file)) from error


def _compare(stored: Mapping[str, str], here: Mapping[str, str], where: str) -> None:
    hint = "resume with the checkpoint's own model, lora and task"
    for names, what in (
        (stored.keys() - here.keys(), "this run does not train"),
        (here.keys() - stored.keys(), "it does not hold"),
    ):
        if names:
            first, *others = sorted(names)
            more = f" and {len(others)} more" if others else ""
            raise CheckpointError(f"is of other parameters: {what} {first!r}{more}", where=where, hint=hint)
    for name, each in stored.items():
        if each != here[name]:
            raise CheckpointError(f"has {name!r} as {each}, and this run trains {here[name]}", where=where, hint=hint)


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _trained(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, each.detach()) for name, each in model.named_parameters() if each.requires_grad)


def _names(optimizer: Any, model: nn.Module) -> dict[int, str]:
    """Names of the optimizer's parameters by their identity."""
    names = {id(each): name for name, each in model.named_parameters()}
    return {id(each): names[id(each)] for group in optimizer.param_groups for each in group["params"]}


def _slots(optimizer: Any, model: nn.Module) -> Iterable[tuple[str, str, Any]]:
    optimizer = _unwrapped(optimizer)
    names = _names(optimizer, model)
    return ((names[id(each)], slot, value) for each, slots in optimizer.state.items() for slot, value in slots.items())


def _unwrapped(optimizer: Any) -> Any:
    """The optimizer itself, where accelerate has wrapped it."""
    return getattr(optimizer, "optimizer", optimizer)
