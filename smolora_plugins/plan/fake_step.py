"""A training step without its memory: the real step on tensors that have a shape but no data, with every byte counted.

Allocations are added when a tensor is made and subtracted when it is freed, whatever the architecture, the loss and the
strategies. Labels, and everything computed from the batch alone, keep their data, because some shapes depend on it.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from smolora_core import TrainingError, first_line
from smolora_plugins.plan.fake_model import replace_parameters

_aten = torch.ops.aten
_META = torch.device("meta")
# An operation without tensor arguments does not show whether its result will meet tensors without data: small ones are real.
_SMALL = 2**16
_INDEXING = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default)


@attrs.frozen
class StepCost:
    """What a micro-batch costs besides weights, gradients and optimizer state.

    Attributes:
        activations: peak bytes of the forward pass up to the head, and of the backward pass.
        loss: further bytes while the loss is computed.
        operations: floating-point operations of matrix products and attention.
    """

    activations: int
    loss: int
    operations: int


def fake_step(model: nn.Module, objective: Callable[..., Any], batch: Mapping[str, Any], *, trains: bool = True) -> StepCost:
    """Compute a micro-batch's loss and gradient without data.

    Args:
        model: the model with its adapter, `without_data`.
        objective: the objective made for it.
        batch: a micro-batch of real tensors on the CPU.
        trains: whether to run the backward pass.

    Raises:
        TrainingError: the model or the loss depends on the data of a tensor.
    """
    account = _Account(next(model.parameters()).device)
    account.leave_out((*model.parameters(), *model.buffers()))
    model.train(trains)
    hook = model.register_forward_hook(lambda *_: account.enter("loss"))
    try:
        with account, torch.set_grad_enabled(trains):
            measured = objective(model, batch)
            account.enter("model")
            if trains:
                measured.sum.backward()
    except (NotImplementedError, RuntimeError) as error:
        raise TrainingError(
            f"the step cannot run without data ({first_line(error)})", hint="its memory is known once it runs"
        ) from error
    finally:
        hook.remove()
        model.zero_grad()
    peak = account.peaks["model"]
    return StepCost(peak, max(0, account.peaks["loss"] - peak), account.operations)


def without_data(model: nn.Module, device: torch.device) -> None:
    """Replace a model's parameters by ones without data, which report the given device."""
    empty = {id(each): torch.empty(each.shape, dtype=each.dtype, device=_META) for each in model.parameters()}
    with _Account(device):
        replace_parameters(model, lambda parameter: _Shape(empty[id(parameter)], device))


class _Shape(Tensor):
    """A tensor with the shape and strides of a meta tensor, and no data."""

    like: Tensor

    @staticmethod
    def __new__(cls, like: Tensor, device: torch.device) -> "_Shape":
        self: _Shape = Tensor._make_wrapper_subclass(
            cls, like.shape, like.stride(), like.storage_offset(), dtype=like.dtype, device=device
        )
        self.like = like
        return self

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise NotImplementedError(f"{func} on a tensor without data, outside of a fake step")


class _Account(TorchDispatchMode):
    """Computes shapes instead of data, and counts live bytes."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peaks = {"model": 0, "loss": 0}
        self.operations = 0
        self._device, self._phase, self._bytes = device, "model", 0
        self._storages: weakref.WeakSet[Any] = weakref.WeakSet()

    def leave_out(self, tensors: Iterable[Tensor]) -> None:
        """Do not count these tensors or views of them."""
        self._storages.update(_storage_of(each) for each in tensors)

    def enter(self, phase: str) -> None:
        """Count towards another phase from now on."""
        self._phase = phase
        self._change(0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [*_tensors(args), *_tensors(kwargs.values())]
        if given and not any(type(each) is _Shape for each in given):
            found = func(*args, **kwargs)
        else:
            found = self._shaped(func, args, kwargs, bool(given))
        for each in _tensors((found,)):
            self._add(_storage_of(each))
        return found

    def _shaped(self, func: Any, args: Any, kwargs: dict[str, Any], given: bool) -> Any:
        if func is _aten._fused_sdp_choice.default:
            # The device chooses the attention kernel; memory that is never touched is not resident.
            return func(*_mapped(args, _untouched), **{name: _mapped(each, _untouched) for name, each in kwargs.items()})
        if func in _INDEXING:
            args = (args[0], [part for index in args[1] for part in _positions(index)], *args[2:])
        named = {name: _mapped(each, _like) for name, each in kwargs.items()}
        if "device" in kwargs or (not given and any(each.name == "device" for each in func._schema.arguments)):
            named["device"] = _META
        found = func(*_mapped(args, _like), **named)
        if count := flop_registry.get(func._overloadpacket):
            self.operations += count(*_mapped(args, _like), **named, out_val=found)
        if func._schema.is_mutable:
            return kwargs.get("out", args[0])
        if not given and all(each.numel() <= _SMALL for each in _tensors((found,))):
            return func(*args, **kwargs)
        device = torch.device(kwargs.get("device") or self._device)
        return _mapped(found, lambda each: _Shape(each, device))

    def _add(self, storage: Any) -> None:
        if storage not in self._storages:
            self._storages.add(storage)
            self._change(storage.nbytes())
            weakref.finalize(storage, self._change, -storage.nbytes())

    def _change(self, by: int) -> None:
        self._bytes += by
        self.peaks[self._phase] = max(self.peaks[self._phase], self._bytes)


def _storage_of(tensor: Tensor) -> Any:
    return (tensor.like if type(tensor) is _Shape else tensor).untyped_storage()


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _mapped(value: Any, make: Any) -> Any:
    if isinstance(value, Tensor):
        return make(value)
    if isinstance(value, list | tuple):
        return type(value)(_mapped(each, make) for each in value)
    return value


def _like(tensor: Tensor) -> Tensor:
    return tensor.like if type(tensor) is _Shape else tensor.to(_META)


def _untouched(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)


def _positions(index: Tensor | None) -> tuple[Tensor | None, ...]:
    """Give the positions where a mask is true; none for a mask without data, as such masks look for invalid values."""
    if index is None or index.dtype is not torch.bool:
        return (index,)
    if type(index) is _Shape:
        return tuple(torch.empty(0, dtype=torch.int64) for _ in range(index.dim()))
    return index.nonzero().unbind(1)
