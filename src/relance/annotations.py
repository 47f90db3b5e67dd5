"""What an annotation says, whatever it is wrapped in: names, `Annotated`, None; and whose words it uses.

Promise: an alias (`type Row = ...`, TypeAliasType, a generic one too), a NewType and an `Annotated` are seen
through at every depth, so `Annotated[bytes, "doc"]` is bytes and `Annotated[Row | None, ...]` allows None. A
constraint in words of pydantic or annotated_types is found wherever msgspec would overlook it: in metadata,
in a field's default, in the fields of dataclasses, TypedDicts, NamedTuples and structs.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

__all__ = ["Foreign", "Words", "expanded", "is_word", "unwrapped", "without_none", "words_of"]

_UNIONS: Final = (typing.Union, types.UnionType)
_PYDANTIC: Final = ("pydantic", "pydantic_core", "pydantic_extra_types", "annotated_types")
# What marks a TypedDict (of either module), a NamedTuple, a class of attrs.
_RECORDS: Final = ("__total__", "_fields", "__attrs_attrs__")
_DEEPEST: Final = 50  # aliases inside each other; an alias may contain itself, larger each time
_DOCUMENTATION: Final = ("DocInfo", "Unit")  # of annotated_types: said to readers, checked by nobody


def expanded(annotation: Any, within: tuple[Any, ...] = ()) -> Any:
    """The same type without the names that stand for others: aliases and NewTypes, at every depth.

    An alias that contains itself stays as it is inside of itself.
    """
    if annotation in within or len(within) > _DEEPEST:
        return annotation
    if isinstance(annotation, typing.NewType):
        return expanded(annotation.__supertype__, within)
    if _is_alias(annotation):
        return expanded(annotation.__value__, (*within, annotation))
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is None or origin is typing.Literal:
        return annotation
    if _is_alias(origin):
        return expanded(_filled_in(origin, args), (*within, annotation))
    if origin is Annotated:
        inner = expanded(args[0], within)
        return annotation if inner is args[0] else Annotated[(inner, *args[1:])]
    inside = tuple(expanded(arg, within) for arg in args)
    if all(new is old for new, old in zip(inside, args, strict=True)):
        return annotation
    return typing.Union[inside] if origin in _UNIONS else origin[inside]  # noqa: UP007  only known now


def unwrapped(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type behind names and `Annotated`, and what `Annotated` adds."""
    added: tuple[Any, ...] = ()
    for _ in range(_DEEPEST):
        origin = typing.get_origin(annotation)
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif _is_alias(annotation):
            annotation = annotation.__value__
        elif _is_alias(origin):
            annotation = _filled_in(origin, typing.get_args(annotation))
        elif origin is Annotated:
            annotation, *words = typing.get_args(annotation)
            added = (*words, *added)
        else:
            break
    return annotation, added


def without_none(annotation: Any) -> tuple[Any, bool]:
    """The annotation without the None that it allows, and whether it allows one; Never where nothing is left.

    Any and object allow None and stay what they are.
    """
    inner, added = unwrapped(annotation)
    if inner in (Any, object):
        return annotation, True
    if inner in (None, type(None)):
        return typing.Never, True
    if typing.get_origin(inner) is typing.Literal:
        values = typing.get_args(inner)
        kept = tuple(value for value in values if value is not None)
        if len(kept) == len(values):
            return annotation, False
        rest = typing.Literal[kept] if kept else typing.Never
    elif typing.get_origin(inner) in _UNIONS:
        arms = [without_none(arm) for arm in typing.get_args(inner)]
        if not any(allows for _, allows in arms):
            return annotation, False
        left = tuple(arm for arm, _ in arms if arm is not typing.Never)
        rest = typing.Union[left] if left else typing.Never  # noqa: UP007  only known now
    else:
        return annotation, False
    return (Annotated[(rest, *added)] if added and rest is not typing.Never else rest), True


def _is_alias(annotation: Any) -> bool:
    # Of typing (3.12) or of typing_extensions.
    return type(annotation).__name__ == "TypeAliasType"


def _filled_in(alias: Any, args: tuple[Any, ...]) -> Any:
    value = alias.__value__
    given = dict(zip(alias.__type_params__, args, strict=True))
    if value in given:
        return given[value]
    asked = getattr(value, "__parameters__", ())
    return value[tuple(given[parameter] for parameter in asked)] if asked else value


# -- whose words ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something that pydantic understands and msgspec does not."""

    place: str
    """The field, or "" for the annotation itself."""
    what: str


@dataclass(slots=True)
class Words:
    """What is found in an annotation."""

    foreign: list[Foreign]
    structs: list[type]
    """Classes of msgspec's, which pydantic does not read."""


def words_of(annotation: Any) -> Words:
    """What pydantic would have to read, at every depth."""
    found = Words([], [])
    _look(annotation, "", found, set())
    return found


def _look(annotation: Any, place: str, found: Words, seen: set[Any], depth: int = 0) -> None:
    if _is_alias(annotation) or _is_alias(typing.get_origin(annotation)):
        if annotation in seen or depth > _DEEPEST:
            return  # it contains itself
        seen.add(annotation)
    annotation, added = unwrapped(annotation)
    found.foreign.extend(Foreign(place, repr(word)) for word in added if is_word(word))
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return
    kind = annotation if origin is None else origin
    if isinstance(kind, type) and kind not in seen:
        seen.add(kind)
        _look_into(kind, place, found, seen)
    for arg in typing.get_args(annotation):
        _look(arg, place, found, seen, depth + 1)


def _look_into(kind: type, place: str, found: Words, seen: set[Any]) -> None:
    if hasattr(kind, "__get_pydantic_core_schema__") or hasattr(kind, "__pydantic_validator__"):
        found.foreign.append(Foreign(place, kind.__name__))
        return
    defaults: dict[str, Any] = {}
    if issubclass(kind, msgspec.Struct):
        found.structs.append(kind)
        defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}
    elif dataclasses.is_dataclass(kind):
        defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    elif not any(hasattr(kind, mark) for mark in _RECORDS):
        return
    for name, default in defaults.items():
        if _is_field(default):
            found.foreign.append(Foreign(f"{kind.__name__}.{name}", repr(default)))
    for name, hint in _hints(kind).items():
        _look(hint, f"{kind.__name__}.{name}", found, seen)


def _hints(kind: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError):
        return {}  # the library that decodes says so itself


def is_word(added: Any) -> bool:
    """Whether something that `Annotated` adds is for pydantic to look at."""
    kind = added if isinstance(added, type) else type(added)
    if hasattr(kind, "__get_pydantic_core_schema__"):
        return True
    if kind.__module__.partition(".")[0] not in _PYDANTIC or kind.__name__ in _DOCUMENTATION:
        return False
    return not _is_field(added) or _asks(added)


def _is_field(value: Any) -> bool:
    return type(value).__name__ == "FieldInfo" and type(value).__module__.startswith("pydantic.")


def _asks(field: Any) -> bool:
    """Whether pydantic's Field(...) says more than a title, a description or examples."""
    names = (field.alias, field.validation_alias, field.serialization_alias)
    asked = (field.metadata, *names, field.discriminator, field.exclude, field.validate_default)
    return any(asked) or not field.is_required()
