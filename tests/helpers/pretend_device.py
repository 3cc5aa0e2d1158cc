"""An accelerator that is none: tensors that say they are elsewhere, with real values.

Every operation on such tensors is computed on the CPU, so a whole training run gives the numbers of
the CPU. What a real accelerator refuses is refused: operands on two devices, unless the other is a
number or a source of copies. It shows where a tensor was forgotten on the CPU, on a machine without
an accelerator. What it does not show: kernels, their rounding, streams, memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "pretend"
aten = torch.ops.aten
COPIES = (aten.copy_.default, aten._to_copy.default)
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
JOINED = (aten.cat.default, aten.stack.default)


class There(Tensor):
    """A tensor on the pretended device; `here` holds its values."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> There:
        shape = torch.empty_strided(here.size(), here.stride(), dtype=here.dtype, device="meta")
        made = Tensor._make_subclass(
            cls,
            shape,
            here.requires_grad,
            dispatch_device=True,
            device_for_backend_keys=torch.device(NAME, 0),
        )
        made.here = here.detach()
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _done(func, args, kwargs or {})

    def tolist(self) -> Any:
        """Waits for the device and copies."""
        return self.here.tolist()

    def numpy(self, **_: Any) -> Any:
        """As accelerators do."""
        raise TypeError(f"can't convert a tensor on {NAME} to numpy; copy it to the CPU first")

    def __repr__(self, **_: Any) -> str:
        return f"There({self.here!r})"


class Pretend(TorchDispatchMode):
    """Makes there what is asked for there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _done(func, args, kwargs or {})


class Made(TorchFunctionMode):
    """`torch.tensor` makes on the CPU and copies, which no dispatch mode sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor):
            device = kwargs.pop("device", None)
            made = func(*args, **kwargs)
            return made if device is None else made.to(device)
        if func is Tensor.new_tensor and isinstance(args[0], There):
            kwargs.setdefault("dtype", args[0].dtype)
            return torch.tensor(*args[1:], **kwargs).to(args[0].device)
        return func(*args, **kwargs)


def _done(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if func is torch.ops.prim.device.default:
        return torch.device(NAME, 0) if isinstance(args[0], There) else args[0].device
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = [x for x in given if isinstance(x, There)]
    asked = kwargs.get("device")
    to_there = bool(there) if asked is None else torch.device(asked).type == NAME
    _refuse_mixtures(func, args, given, there)
    if to_there and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: a generator of the CPU draws nothing on {NAME}")
    kept = {key: x for key, x in kwargs.items() if key != "device"}
    here_args, here_kwargs = tree_map(_values, (args, kept))
    out = func(*here_args, **here_kwargs, **({} if asked is None else {"device": "cpu"}))
    if func is aten.copy_.default:
        return args[0]
    if func is aten._to_copy.default and out is here_args[0]:
        out = out.clone()
    own = {id(_values(x)): x for x in given}  # what is changed in place stays the same tensor
    return tree_map(lambda x: _placed(x, own, to_there), out)


def _placed(x: Any, own: dict[int, Tensor], to_there: bool) -> Any:
    if not isinstance(x, Tensor):
        return x
    return own.get(id(x)) if id(x) in own else There(x) if to_there else x


def _values(x: Any) -> Any:
    return x.here if isinstance(x, There) else x


def _refuse_mixtures(func: Any, args: Any, given: list[Tensor], there: list[There]) -> None:
    """As an accelerator does: only numbers may come from the CPU, indices, and what is copied."""
    strangers = [x for x in given if not isinstance(x, There)]
    if not there or not strangers or func in COPIES:
        return
    if func in INDEXED and isinstance(args[0], There):
        values = args[2] if len(args) > 2 else args[0]
        if isinstance(values, There) or values.ndim == 0:
            return
    if func not in JOINED and all(x.ndim == 0 for x in strangers):
        return
    shapes = ", ".join(f"{tuple(x.shape)} on {x.device}" for x in given)
    raise RuntimeError(f"{func}: expected all tensors to be on the same device, but found {shapes}")


class _Module(_DummyBackendModule):
    """What autocast asks a backend."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


ROUNDED = ("linear", "matmul", "mm", "bmm", "addmm", "scaled_dot_product_attention")
LIBRARIES: list[torch.library.Library] = []  # what they register ends with them


def _rounding(name: str) -> Any:
    """An operation whose float operands autocast rounds, as on accelerators."""
    inside = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(inside):
            dtype = torch.get_autocast_dtype(NAME)
            args, kwargs = tree_map(lambda x: _cast(x, dtype), (args, kwargs))
            return getattr(aten, name)(*args, **kwargs)

    return run


def _cast(x: Any, dtype: torch.dtype) -> Any:
    return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x


def begin() -> torch.device:
    """The device; for the rest of the process, what is made for it is there."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    every = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    every.fallback(torch.library.fallthrough_kernel)
    some = torch.library.Library("aten", "IMPL")
    for name in ROUNDED:
        some.impl(name, _rounding(name), "AutocastPrivateUse1")
    LIBRARIES.extend([every, some])
    torch.__future__.set_swap_module_params_on_conversion(True)  # tied weights stay tied
    Made().__enter__()
    Pretend().__enter__()
    return torch.device(NAME, 0)
