"""Values that pydantic validates; imported only where a handler's annotation uses pydantic's words.

Promise: the bytes are JSON by msgspec's rules, whichever library the handler's author prefers; and no number
is changed in silence. pydantic-core reads every JSON number with a point or an exponent as a float of 64 bits
before it makes a Decimal or an int of it. So each such number is looked at, in types that have these; a
record in which one does not fit into a float (rare: 16 digits and more) is read again, and the exact number
handed to each Decimal and int at its place.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec
import pydantic
from pydantic_core import CoreSchema, PydanticCustomError, SchemaValidator, core_schema

from relance.errors import SettingsError

__all__ = ["adapter_of", "null_decode", "pydantic_decode", "raw_decode"]

# Where a core schema holds others (pydantic_core.core_schema), but for keys: in JSON they are texts.
_HOLDERS: Final = frozenset((
    "schema", "items_schema", "extras_schema", "values_schema", "json_schema", "python_schema", "lax_schema",
    "strict_schema", "arguments_schema", "arguments", "var_args_schema", "var_kwargs_schema", "steps",
    "choices", "fields", "definitions",
))  # fmt: skip
_EXACT: Final = ("decimal", "int")
_SURE_DIGITS: Final = 15  # a decimal number of so many digits comes back from a float unchanged

_READY: Final = "__pydantic_complete__"
_building = threading.Lock()  # held while classes look as if they were not ready

Decode = Callable[[Any], Any]
_Wrap = Callable[[Any, bool], Any]


def pydantic_decode(annotation: Any, name: str, *, nullable: bool) -> Decode:
    """From JSON to what `annotation` says; with `nullable` JSON's null is refused. Raises SettingsError."""
    adapter = adapter_of(annotation, name)
    validate = adapter.validate_json
    exact = _exact_decode(adapter.core_schema)
    # pydantic takes NaN and Infinity, which are not JSON, and reads 1e400 as infinity.
    check = msgspec.json.Decoder(float_hook=None if exact is None else _refuse_too_fine).decode

    def decode(raw: bytes) -> Any:
        try:
            plain = check(raw)
        except _TooFine:
            return exact(raw)  # type: ignore[misc]  # only raised where there is one
        if plain is None and nullable:
            raise msgspec.ValidationError(f"Expected `{name}`, got `null`")
        return validate(raw)

    return decode


def raw_decode(annotation: Any, name: str, kind: type) -> Decode:
    """From the bytes themselves, or their text, to what `annotation` says. Raises SettingsError."""
    validate = adapter_of(annotation, name).validate_python
    first: Decode = bytes.decode if kind is str else bytes  # both refuse None
    return lambda raw: validate(first(raw))


def null_decode(annotation: Any, name: str) -> Callable[[], Any]:
    """What a validator around the whole annotation makes of a null value. Raises SettingsError."""
    validate = adapter_of(annotation, name).validate_python
    return lambda: validate(None)


def adapter_of(annotation: Any, name: str) -> pydantic.TypeAdapter[Any]:
    """pydantic's reader and writer. Raises SettingsError."""
    try:
        adapter = pydantic.TypeAdapter(annotation)
        if not isinstance(adapter.core_schema, dict):  # put off by defer_build=True
            adapter.rebuild(force=True)
        return adapter
    except (pydantic.errors.PydanticUserError, TypeError, NameError, RecursionError) as error:
        raise SettingsError("handler", f"cannot decode JSON into {name}: {error}") from error


# -- exact numbers -------------------------------------------------------------------------------------


class _TooFine(Exception):  # noqa: N818  no error: the record is read in another way
    """A number that a float does not hold."""


def _refuse_too_fine(text: str) -> None:
    if len(text) <= _SURE_DIGITS and "e" not in text and "E" not in text:
        return
    if Decimal(text) != Decimal(repr(_in_range(text))):
        raise _TooFine


def _in_range(text: str) -> float:
    found = float(text)
    if math.isinf(found):
        raise msgspec.ValidationError("Number out of range")
    return found


def _exact_decode(schema: CoreSchema) -> Decode | None:
    """The slow way, for records with a number that a float does not hold; None where no type asks for it."""
    if not any(node.get("type") in _EXACT for node in _nodes(schema)):
        return None
    current = threading.local()

    def exact(value: float) -> float | Decimal:
        numbers = current.numbers.get(value, {value})
        if len(numbers) > 1:
            raise PydanticCustomError(
                "ambiguous_number",
                "Two numbers of the record differ only beyond the digits of a float, which is how pydantic"
                " reads them: write them as strings, or annotate with a msgspec.Struct",
            )
        [number] = numbers
        return value if number == Decimal(repr(value)) else number

    def lax(value: object) -> object:
        return exact(value) if type(value) is float else value

    def strict_decimal(value: object) -> object:
        # Behind a function pydantic-core takes only Decimals here; in JSON it takes these.
        if type(value) is float:
            return Decimal(str(exact(value)))
        if type(value) is int or type(value) is str:
            with contextlib.suppress(InvalidOperation):
                return Decimal(value)
        return value

    def wrap(node: Any, strict: bool) -> Any:
        look = strict_decimal if strict and node["type"] == "decimal" else lax
        return core_schema.no_info_before_validator_function(look, node)

    validate = _built_anew(_wrapped(schema, wrap)).validate_json

    def decode(raw: bytes) -> Any:
        numbers: dict[float, set[Decimal]] = {}

        def note(text: str) -> None:
            numbers.setdefault(_in_range(text), set()).add(Decimal(text))

        msgspec.json.Decoder(float_hook=note).decode(raw)
        outer, current.numbers = getattr(current, "numbers", {}), numbers
        try:
            return validate(raw)
        finally:
            current.numbers = outer

    return decode


def _built_anew(schema: CoreSchema) -> SchemaValidator:
    """A validator in which no model uses the one that it has already, which does not call our functions."""
    try:
        return SchemaValidator(schema, _use_prebuilt=False)
    except TypeError:  # the parameter came with pydantic 2.13
        return _built_of_incomplete(schema)


def _built_of_incomplete(schema: CoreSchema) -> SchemaValidator:
    """The same before pydantic 2.13, which builds a validator anew only for a class that is not ready."""
    ready = {
        node["cls"]: complete
        for node in _nodes(schema)
        if "cls" in node and (complete := vars(node["cls"]).get(_READY)) is not None
    }
    with _building:
        try:
            for kind in ready:
                type.__setattr__(kind, _READY, False)
            return SchemaValidator(schema)
        finally:
            for kind, complete in ready.items():
                type.__setattr__(kind, _READY, complete)


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every part of a core schema."""
    if isinstance(schema, dict):
        yield schema
        for key in _HOLDERS & schema.keys():
            yield from _nodes(list(schema[key].values()) if _by_name(key, schema[key]) else schema[key])
    elif isinstance(schema, list | tuple):
        for part in schema:
            yield from _nodes(part)


def _by_name(key: str, held: object) -> bool:
    return key in ("fields", "choices") and isinstance(held, dict)


def _wrapped(schema: Any, wrap: _Wrap, strict: bool = False) -> Any:
    """A copy of a core schema with `wrap(node, strict)` in place of each Decimal and int."""
    if isinstance(schema, list | tuple):
        return type(schema)(_wrapped(part, wrap, strict) for part in schema)
    if not isinstance(schema, dict):
        return schema  # the label of a choice
    strict = schema.get("strict", schema.get("config", {}).get("strict", strict))
    if schema.get("type") in _EXACT:
        node = {key: value for key, value in schema.items() if key != "ref"}
        found = wrap(node, strict)
        return found | {"ref": schema["ref"]} if "ref" in schema else found
    copy = dict(schema)
    for key in _HOLDERS & schema.keys():
        held = schema[key]
        if _by_name(key, held):
            copy[key] = {name: _wrapped(part, wrap, strict) for name, part in held.items()}
        else:
            copy[key] = _wrapped(held, wrap, strict)
    return copy
