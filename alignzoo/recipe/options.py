"""Options of plug-ins: the fields of a frozen dataclass, checked, built and described."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.errors import PydanticUserError

from alignzoo.contract.errors import AlignzooError, PluginError, Problem, RecipeError
from alignzoo.recipe.faults import Block, Fault, Path, validate

T = TypeVar("T")
_BOUNDS = {"gt": ">", "ge": ">=", "le": "<="}
MISSING = "is missing"  # begins the fault of an option that must be given
_FIELD = "option_"  # a prefix: pydantic refuses names such as "copy" or "_x"


@dataclass(frozen=True)
class OptionDoc:
    """One option for a reader: `type` holds its range too, e.g. "float, > 0"."""

    name: str
    type: str
    default: Any
    doc: str
    required: bool


def build_options(cls: type[T], given: Mapping[str, Any]) -> T:
    """An instance of a plug-in class from its options in a recipe.

    Raises RecipeError with every wrong option, located as "<plug-in>.<option>".
    """
    built, faults = try_options(cls, given)
    if built is None:
        raise RecipeError(
            [Problem(".".join(map(str, (_name(cls), *f.path))), f.what) for f in faults]
        )
    return built


def option_faults(cls: type[Any], given: Mapping[str, Any]) -> tuple[Fault, ...]:
    """What is wrong with the options of a plug-in class; paths start at the option's name."""
    return try_options(cls, given)[1]


def try_options(cls: type[T], given: Mapping[str, Any]) -> tuple[T | None, tuple[Fault, ...]]:
    """The instance, or what is wrong; a ValueError of `__post_init__` is the user's fault too."""
    names = tuple(f.name for f in _fields(cls))
    block = Block("option", _name(cls), names)
    values, faults = validate(_model(cls), given, lambda path: block)
    if values is None:
        return None, tuple(_explained(fault, cls) for fault in faults)
    try:
        return cls(**{name: getattr(values, _FIELD + name) for name in names}), ()
    except (ValueError, AlignzooError) as error:
        return None, (Fault((), str(error)),)


def option_table(cls: type[Any]) -> list[OptionDoc]:
    """Every option in the order of the class, with its meaning."""
    hints = _hints(cls)
    return [
        OptionDoc(
            f.name,
            ", ".join([type_name(hints[f.name]), *_ranges(f)]),
            None if _required(f) else _default(f),
            f.metadata.get("doc", ""),
            _required(f),
        )
        for f in _fields(cls)
    ]


def options_schema(cls: type[Any], ref_template: str = "#/$defs/{model}") -> dict[str, Any]:
    """JSON Schema of the options."""
    schema = _model(cls).model_json_schema(ref_template=ref_template)
    return {**schema, "title": f"options of {_name(cls)}"}


def type_name(hint: Any) -> str:
    """A type as a reader would say it: "float", "half | l1", "int | null", "list of float"."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " | ".join(map(str, args))
    if origin in (Union, types.UnionType):
        return " | ".join(type_name(arg) for arg in args)
    if origin in (tuple, list):
        return "list of " + " and ".join(dict.fromkeys(type_name(a) for a in args if a is not ...))
    if origin is not None and hasattr(hint, "__metadata__"):
        return type_name(args[0])
    names = {type(None): "null", str: "text", bool: "true | false"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _name(cls: type[Any]) -> str:
    return str(getattr(cls, "name", cls.__name__))


def _fields(cls: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    if any(isinstance(value, dataclasses.Field) for value in vars(cls).values()):
        raise PluginError(f"plug-in class {cls.__qualname__} needs @dataclass(frozen=True)")
    return tuple(f for f in dataclasses.fields(cls) if f.init) if _is_dataclass(cls) else ()


def _is_dataclass(cls: type[Any]) -> bool:
    return dataclasses.is_dataclass(cls)


def _required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _default(f: dataclasses.Field[Any]) -> Any:
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


def _ranges(f: dataclasses.Field[Any]) -> list[str]:
    return [f"{sign} {f.metadata[key]:g}" for key, sign in _BOUNDS.items() if key in f.metadata]


def _hints(cls: type[Any]) -> dict[str, Any]:
    try:
        return get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise PluginError(f"options of '{_name(cls)}': cannot read the types: {error}") from error


def _model(cls: type[Any]) -> type[BaseModel]:
    hints = _hints(cls)
    fields: dict[str, Any] = {
        _FIELD + f.name: (hints[f.name], _pydantic_field(f)) for f in _fields(cls)
    }
    config = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=False)
    try:
        return create_model(cls.__name__, __config__=config, **fields)
    except (PydanticUserError, TypeError) as error:
        raise PluginError(f"options of '{_name(cls)}' cannot be checked: {error}") from error


def _pydantic_field(f: dataclasses.Field[Any]) -> Any:
    bounds = {key: f.metadata[key] for key in _BOUNDS if key in f.metadata}
    default: dict[str, Any] = {} if _required(f) else {"default": _default(f)}
    return Field(alias=f.name, description=f.metadata.get("doc") or None, **default, **bounds)


def _explained(fault: Fault, cls: type[Any]) -> Fault:
    """Say what a missing option means."""
    if fault.what != MISSING:
        return fault
    docs: dict[Path, str] = {(row.name,): row.doc for row in option_table(cls)}
    doc = docs.get(fault.path, "")
    return dataclasses.replace(fault, what=f"{MISSING}{': ' if doc else ''}{doc}")
