"""A training step without its memory: the real step, of tensors with a shape and no numbers, and an account of their bytes.

What is allocated is added up when it is made and taken off when it is gone, whatever the architecture, the loss and the
strategies. Labels, and all else that is computed from the batch alone, keep their numbers: some shapes hang on them.
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from smolora_core.dry_run.fake_model import replace_parameters
from smolora_core.errors import TrainingError, first_line
from smolora_core.training.objective import Objective

_aten = torch.ops.aten
_META = torch.device("meta")
# Without an argument that is a tensor nothing says whether a new one will meet those without numbers. A small one is real.
_SMALL = 2**16
_INDEXING = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default)


@attrs.frozen
class StepCost:
    """What a micro-batch takes besides weights, gradients and optimizer state.

    Attributes:
        activations: bytes at most on the way forward to the head and back.
        loss: bytes more, while the loss is computed.
        operations: floating-point operations of matrix products and attention.
    """

    activations: int
    loss: int
    operations: int


def fake_step(model: nn.Module, objective: Objective, batch: Mapping[str, Any], *, trains: bool = True) -> StepCost:
    """Compute a micro-batch's loss and gradient without its numbers.

    Args:
        model: with its adapter, `without_numbers`.
        objective: made for it.
        batch: real tensors, on the processor.
        trains: whether there is a way back.

    Raises:
        TrainingError: the model or the loss looks at numbers.
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
            f"the step cannot be rehearsed ({first_line(error)})", hint="its memory is known when it runs"
        ) from error
    finally:
        hook.remove()
        model.zero_grad()
    peak = account.peaks["model"]
    return StepCost(peak, max(0, account.peaks["loss"] - peak), account.operations)


def without_numbers(model: nn.Module, device: torch.device) -> None:
    """Take the numbers of a model's parameters away; they say that they are on a device."""
    empty = {id(each): torch.empty(each.shape, dtype=each.dtype, device=_META) for each in model.parameters()}
    with _Account(device):
        replace_parameters(model, lambda parameter: _Shape(empty[id(parameter)], device))


class _Shape(Tensor):
    """A tensor of which nothing is there but what it is like."""

    like: Tensor

    @staticmethod
    def __new__(cls, like: Tensor, device: torch.device) -> "_Shape":
        """Make one of a tensor on the meta device."""
        self: _Shape = Tensor._make_wrapper_subclass(
            cls, like.shape, like.stride(), like.storage_offset(), dtype=like.dtype, device=device
        )
        self.like = like
        return self

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise NotImplementedError(f"{func} outside of a rehearsal")


class _Account(TorchDispatchMode):
    """Computes shapes in place of numbers, and counts the bytes that live."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peaks = {"model": 0, "loss": 0}
        self.operations = 0
        self._device, self._phase, self._bytes = device, "model", 0
        self._storages: weakref.WeakSet[Any] = weakref.WeakSet()

    def leave_out(self, tensors: Iterable[Tensor]) -> None:
        """Count these nowhere, and no view of them."""
        self._storages.update(_storage_of(each) for each in tensors)

    def enter(self, phase: str) -> None:
        """Say what is computed from now on."""
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
            # Which kernel computes attention is up to the device; memory that nobody touches is not taken.
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
    """Say where a mask is true; of one without numbers, nowhere: such masks look for what should not be."""
    if index is None or index.dtype is not torch.bool:
        return (index,)
    if type(index) is _Shape:
        return tuple(torch.empty(0, dtype=torch.int64) for _ in range(index.dim()))
    return index.nonzero().unbind(1)
