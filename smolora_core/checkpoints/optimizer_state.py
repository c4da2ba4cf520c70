"""Save and restore the trainable parameters and the optimizer's state, keyed by parameter name.

transformers maps an optimizer's state to parameters by position, and fused kernels trust it: with different parameters they
write out of bounds. Here names, shapes and dtypes are compared before anything is loaded.
"""

import inspect
import json
from collections.abc import Iterable, Mapping
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
# Slots that fused kernels index like the parameter itself.
_PARAMETER_SHAPED = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")


@attrs.frozen
class SavedTensors:
    """A checkpoint's tensors, already checked against the model.

    Attributes:
        adapter: the adapter's tensors by PEFT's names.
        slots: the optimizer's slots by parameter and slot name.
        kind: the optimizer's class name.
        groups: the optimizer's param groups, with parameter names in `params`.
        where: the file they were read from.
    """

    adapter: Mapping[str, Tensor]
    slots: Mapping[str, Mapping[str, Any]]
    kind: str
    groups: list[dict[str, Any]]
    where: str


def refuse_non_finite(model: nn.Module, optimizer: Any = None, *, step: int) -> None:
    """Refuse to save a state that training cannot resume from.

    Raises:
        CheckpointError: a trainable parameter or an optimizer slot contains NaN or infinity.
    """
    tensors = _trainable(model)
    if optimizer is not None:
        tensors |= {f"{name}.{slot}": each for name, slot, each in _slots(optimizer, model) if isinstance(each, Tensor)}
    floats = {name: each for name, each in tensors.items() if each.is_floating_point()}
    # Stacked, so that the check syncs the device once.
    if floats and not torch.stack([torch.isfinite(each).all() for each in floats.values()]).all():
        name = next(name for name, each in floats.items() if not torch.isfinite(each).all())
        raise CheckpointError(
            f"the checkpoint of step {step} was not saved: {name!r} contains non-finite values",
            hint="earlier checkpoints are kept; lower training.learning_rate",
        )


def write_optimizer(folder: Path, optimizer: Any, model: nn.Module) -> None:
    """Write tensor slots as `<parameter>.<slot>`, and everything else as JSON in the file's metadata.

    Raises:
        CheckpointError: the optimizer's state contains a value that is neither a tensor nor JSON.
    """
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
        "parameters": _all_described(_trainable(model)),
        "param_groups": groups,
        "plain": plain,
    }
    try:
        # A single metadata entry keeps the file deterministic: safetensors does not order them.
        metadata = {_METADATA: json.dumps(contents, default=float, sort_keys=True)}
        save_file(tensors, folder / OPTIMIZER_FILE, metadata)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the state of {type(optimizer).__name__} cannot be saved ({error})") from error


def read_tensors(folder: Path, model: nn.Module) -> SavedTensors:
    """Read the adapter and the optimizer's state and compare them with the model; nothing is loaded yet.

    Raises:
        CheckpointError: a file cannot be read, or its parameters differ in name, shape or dtype.
    """
    adapter_file, optimizer_file = folder / ADAPTER_FILE, folder / OPTIMIZER_FILE
    adapter, _ = _read(adapter_file)
    adapter_here = _adapter_of(model)
    _compare(_all_described(adapter), _all_described(adapter_here), str(adapter_file))
    tensors, metadata = _read(optimizer_file)
    try:
        contents = json.loads(metadata[_METADATA])
        kind, groups, plain, stored = (contents[name] for name in ("optimizer", "param_groups", "plain", "parameters"))
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"is not an optimizer state ({error!r})", where=str(optimizer_file)) from error
    parameters = _trainable(model)
    saved_pointers = {each.data_ptr() for each in adapter_here.values()}
    if unsaved := [name for name, each in parameters.items() if each.data_ptr() not in saved_pointers]:
        raise CheckpointError(f"does not store {unsaved[0]!r}, which this run trains", where=str(adapter_file))
    _compare(stored, _all_described(parameters), str(optimizer_file))
    slots: dict[str, dict[str, Any]] = {name: dict(values) for name, values in plain.items()}
    for key, tensor in tensors.items():
        name, slot = key.rsplit(".", 1)
        if name not in parameters or (slot in _PARAMETER_SHAPED and tensor.shape != parameters[name].shape):
            raise CheckpointError(f"{key!r} {_described(tensor)} does not match any parameter", where=str(optimizer_file))
        slots.setdefault(name, {})[slot] = tensor
    return SavedTensors(adapter, slots, kind, groups, str(optimizer_file))


def load_adapter(saved: SavedTensors, model: nn.Module) -> None:
    """Copy the saved adapter into the model, bit for bit."""
    with torch.no_grad():
        for name, each in _adapter_of(model).items():
            each.copy_(saved.adapter[name])


def load_optimizer(saved: SavedTensors, optimizer: Any, model: nn.Module) -> None:
    """Load the optimizer's slots.

    Options the optimizer was constructed with, the learning rate among them, come from this run's config and stay. Anything
    else in its param groups is restored.

    Raises:
        CheckpointError: the optimizer is of another class, or groups the parameters differently.
    """
    names = _names(optimizer, model)
    if type(optimizer).__name__ != saved.kind:
        what = f"was written by {saved.kind}, but this run trains with {type(optimizer).__name__}"
        raise CheckpointError(what, where=saved.where, hint="resume with the same training.extra.optim")
    grouped = [{names[id(each)] for each in group["params"]} for group in optimizer.param_groups]
    if grouped != [set(group["params"]) for group in saved.groups]:
        raise CheckpointError("groups the parameters differently", where=saved.where, hint="resume with the same config")
    # Its defaults would do, but some optimizers keep what they count there, too.
    options = inspect.signature(type(optimizer)).parameters
    groups: list[dict[str, Any]] = []
    ordered: list[str] = []
    for group, stored in zip(optimizer.param_groups, saved.groups, strict=True):
        own = {key: value for key, value in group.items() if key in options or key == "initial_lr"}
        first = len(ordered)
        ordered += [names[id(each)] for each in group["params"]]
        groups.append({**stored, **own, "params": list(range(first, len(ordered)))})
    state = {index: dict(saved.slots[name]) for index, name in enumerate(ordered) if name in saved.slots}
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot be read ({error})", where=str(file)) from error


def _compare(stored: Mapping[str, str], here: Mapping[str, str], where: str) -> None:
    hint = "resume with the same model, lora and task as the checkpoint"
    for names, what in (
        (stored.keys() - here.keys(), "this run does not train"),
        (here.keys() - stored.keys(), "it does not contain"),
    ):
        if names:
            first, *others = sorted(names)
            more = f" and {len(others)} more" if others else ""
            raise CheckpointError(f"has different parameters: {what} {first!r}{more}", where=where, hint=hint)
    for name, each in stored.items():
        if each != here[name]:
            raise CheckpointError(f"has {name!r} as {each}, but this run trains {here[name]}", where=where, hint=hint)


def _adapter_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the adapter's parameters themselves, under the names PEFT saves them by."""
    parameters: dict[str, Tensor] = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    return parameters


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _all_described(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: _described(each) for name, each in tensors.items()}


def _trainable(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.detach() for name, each in model.named_parameters() if each.requires_grad}


def _names(optimizer: Any, model: nn.Module) -> dict[int, str]:
    """Map `id` of each of the optimizer's parameters to its name in the model."""
    names = {id(each): name for name, each in model.named_parameters()}
    return {id(each): names[id(each)] for group in optimizer.param_groups for each in group["params"]}


def _slots(optimizer: Any, model: nn.Module) -> Iterable[tuple[str, str, Any]]:
    names = _names(optimizer, model)
    return ((names[id(each)], slot, value) for each, slots in optimizer.state.items() for slot, value in slots.items())
