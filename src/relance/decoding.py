"""Values by annotation: a record's bytes become what the handler's first parameter says, or a DecodeError.

Promise: whatever bytes arrive (100,000 brackets, 5,000 digits, NaN, half a UTF-8 character), the answer is a
value of the annotated type or an error that says why not; never a crash, never a silently wrong value.

| annotation                      | the value is                                                     |
|---------------------------------|------------------------------------------------------------------|
| msgspec.Struct, dataclass,      | JSON, strictly typed ("3" is no int), by msgspec                 |
|   TypedDict, dict, list, int... |                                                                  |
| a pydantic model                | JSON that msgspec accepts, then validated by pydantic            |
| none, Any or object             | JSON as plain Python; a null value is None                       |
| str                             | the bytes as UTF-8, strictly; not a JSON string                  |
| bytes                           | the bytes                                                        |
| X | None                        | X, or None where the record's value is null (a tombstone)        |

A null value is refused unless the annotation allows None. JSON's own `null` is not a tombstone: for
`Order | None` it is an error. Empty bytes are not null either. Where a JSON object repeats a key the last
one counts, and unknown fields of a struct are ignored, as in msgspec.

The decoder is chosen once, when the handler is registered. For msgspec types it is the C method itself, so
the hot path enters no Python frame of ours.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from relance.errors import DecodeError, SettingsError
from relance.record import Record

__all__ = ["Decoding", "HandlerShape", "decoder_for", "handler_shape"]

_JSON_KINDS: Final = (dict, list, str, int, float, bool, type(None))
_LONGEST_PROBLEM: Final = 1000


@dataclass(frozen=True, slots=True)
class Decoding:
    """How one handler's values are decoded.

    The engine calls `decode(raw)`, catches `errors`, and turns what it caught into a DecodeError with
    `as_error`. Everything that building a value raises counts: a user's own validator fails on the bytes,
    so it would fail again.
    """

    decode: Callable[[Any], Any]
    """From bytes, or None for a null value, to the handler's value."""
    expects: str
    """The annotation, for messages."""
    errors: tuple[type[Exception], ...] = (Exception,)
    """What a failed decode may raise."""

    def as_error(self, error: BaseException, raw: bytes | None) -> DecodeError:
        """The DecodeError to report; `error` is chained to it as its cause."""
        decode_error = DecodeError(f"{self._problem(error, raw)} (the handler takes {self.expects})")
        decode_error.__cause__ = error
        return decode_error

    def _problem(self, error: BaseException, raw: bytes | None) -> str:
        if raw is None:
            return "null value, which `| None` would allow"
        if not raw:
            return "empty value, which is not null"
        if isinstance(error, RecursionError):
            return "the value is nested too deeply"
        if isinstance(error, UnicodeDecodeError):
            return f"the value is not valid UTF-8: {error.reason} at byte {error.start} of a text"
        if isinstance(error, msgspec.MsgspecError):
            return str(error)
        return _told_by_pydantic(error) or _shorten(f"{type(error).__name__}: {error}")


def decoder_for(annotation: Any) -> Decoding:
    """The decoding for an annotation; `inspect.Parameter.empty` stands for none.

    Raises SettingsError for a type that could never be decoded from JSON.
    """
    if annotation in (inspect.Parameter.empty, Any, object):
        return Decoding(_or_none(msgspec.json.Decoder().decode), "any JSON")
    inner, nullable = _without_none(annotation)
    decode = _decode_for(inner)
    name = _name(inner)
    return Decoding(_or_none(decode), f"{name} | None") if nullable else Decoding(decode, name)


def _decode_for(annotation: Any) -> Callable[[Any], Any]:
    if annotation is str:
        return bytes.decode  # UTF-8, strict; as a C method it costs no frame, and refuses None
    if annotation is bytes:
        return bytes  # the same object, unless it is None
    if _mentions_pydantic(annotation):
        return _pydantic_decode(annotation)
    try:
        decoder = msgspec.json.Decoder(annotation)
        custom = next(_undecodable(msgspec.inspect.type_info(annotation), set()), None)
    except (TypeError, ValueError, NameError) as error:
        raise SettingsError("handler", f"cannot decode JSON into {_name(annotation)}: {error}") from error
    if custom is not None:
        problem = (
            f"cannot decode JSON into {_name(custom)}; annotate with a msgspec.Struct, a dataclass,"
            " a TypedDict, a pydantic model, dict, list, str or bytes"
        )
        raise SettingsError("handler", problem)
    return decoder.decode


def _undecodable(info: Any, seen: set[int]) -> Iterator[Any]:
    """The classes that msgspec would only refuse when a record arrives, then for every record."""
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        if not any(issubclass(kind, info.cls) for kind in _JSON_KINDS):  # `object` takes them all
            yield info.cls
    elif isinstance(info, msgspec.inspect.Field):
        if info.required:  # with a default, the field need not be in the JSON at all
            yield from _undecodable(info.type, seen)
    elif isinstance(info, msgspec.inspect.Type):
        for name in info.__struct_fields__:
            yield from _undecodable(getattr(info, name), seen)
    elif isinstance(info, tuple):
        for entry in info:
            yield from _undecodable(entry, seen)


def _or_none(decode: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decode_or_none(raw: bytes | None) -> Any:
        return None if raw is None else decode(raw)

    return decode_or_none


def _without_none(annotation: Any) -> tuple[Any, bool]:
    annotation = _resolve(annotation)
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation, False
    arms = typing.get_args(annotation)
    rest = [arm for arm in arms if arm is not type(None)]
    if len(rest) == len(arms):
        return annotation, False
    return typing.Union[tuple(rest)], True  # noqa: UP007  the arms are only known now


def _resolve(annotation: Any) -> Any:
    # `type Name = ...` (3.12) and NewType: the name stands for the type behind it.
    while True:
        if type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        else:
            return annotation


def _mentions_pydantic(annotation: Any) -> bool:
    if isinstance(annotation, type) and hasattr(annotation, "__pydantic_validator__"):
        return True
    return any(_mentions_pydantic(arg) for arg in typing.get_args(annotation))


def _pydantic_decode(annotation: Any) -> Callable[[Any], Any]:
    import pydantic  # only where a handler names one of its models: it costs 60 ms and is no dependency

    try:
        validate = pydantic.TypeAdapter(annotation).validate_json
    except pydantic.errors.PydanticUserError as error:
        raise SettingsError("handler", f"cannot decode JSON into {_name(annotation)}: {error}") from error
    # pydantic takes NaN and Infinity, which are not JSON, and reads 1e400 as infinity. The same bytes must be
    # right or wrong whichever library the handler's author prefers.
    check = msgspec.json.Decoder().decode

    def decode(raw: bytes | None) -> Any:
        check(raw)  # type: ignore[arg-type]  # None is refused there
        return validate(raw)  # type: ignore[arg-type]

    return decode


def _told_by_pydantic(error: BaseException) -> str | None:
    if type(error).__module__.partition(".")[0] != "pydantic_core" or not hasattr(error, "errors"):
        return None
    # Its str() is many lines and quotes the input. Places and reasons are enough: the value itself is kept.
    found = error.errors(include_url=False, include_context=False, include_input=False)
    places = (("$" + "".join(f".{part}" for part in item["loc"]), item["msg"]) for item in found)
    return _shorten("; ".join(f"{problem} - at `{place}`" for place, problem in places))


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_PROBLEM else f"{text[: _LONGEST_PROBLEM - 3]}..."


def _name(annotation: Any) -> str:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "")


# -- the handler --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HandlerShape:
    """What the engine must know of a handler to call it."""

    name: str
    """Module and qualified name, for messages."""
    annotation: Any
    """Of the first parameter, strings resolved; `inspect.Parameter.empty` where there is none."""
    takes_record: bool
    """Whether to call `handler(value, record)` rather than `handler(value)`."""
    is_async: bool
    """Whether the call returns a coroutine."""


def handler_shape(
    handler: Callable[..., Any], localns: Mapping[str, Any] | None = None, *, batch: bool = False
) -> HandlerShape:
    """Look a handler over: `handler(value)` or `handler(value, record)`, sync or async.

    A second parameter gets the record if it is required, or named `record`, or annotated with Record. Names
    in a string annotation are looked up in the handler's module and in `localns`.

    With `batch` it takes lists, `handler(values)` or `handler(values, records)`, and the annotation told is
    that of one value.

    Raises SettingsError, naming the handler, for anything that could not be called so.
    """
    name = _handler_name(handler)
    key = f"handler {name}"
    if isinstance(handler, type) or not callable(handler):
        raise SettingsError(key, "must be a function, handler(value) or handler(value, record)")
    code = _code_of(handler)
    if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
        raise SettingsError(key, "has a yield in it, so calling it would do nothing; return instead")
    positional: list[inspect.Parameter] = []
    for parameter in inspect.signature(handler).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            positional.append(parameter)
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            problem = f"needs {parameter.name!r}, which nobody passes; it gets (value) or (value, record)"
            raise SettingsError(key, problem)
    if not positional:
        raise SettingsError(key, "takes no value; write handler(value) or handler(value, record)")
    extra = [p.name for p in positional[2:] if p.default is p.empty]
    if extra:
        problem = f"needs {', '.join(map(repr, extra))} too; it gets (value) or (value, record)"
        raise SettingsError(key, problem)
    annotation = _annotation_of(positional[0], code, key, localns)
    if annotation is Record:
        raise SettingsError(key, "takes the record second: handler(value, record)")
    if batch:
        annotation = _element_of(annotation, key)
    return HandlerShape(
        name=name,
        annotation=annotation,
        takes_record=len(positional) > 1 and _wants_record(positional[1], batch),
        is_async=inspect.iscoroutinefunction(code),
    )


def _element_of(annotation: Any, key: str) -> Any:
    kind, of = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if kind is inspect.Parameter.empty:
        return kind
    if kind in (list, Sequence, Iterable) and len(of) <= 1:
        return of[0] if of else inspect.Parameter.empty
    raise SettingsError(key, f"with batch= it gets a list of values: list[{_name(annotation)}]")


def _wants_record(parameter: inspect.Parameter, batch: bool) -> bool:
    if parameter.default is parameter.empty or parameter.name == ("records" if batch else "record"):
        return True
    wanted = (list[Record], "list[Record]") if batch else (Record, "Record")
    return parameter.annotation in wanted


def _code_of(handler: Any) -> Any:
    """The function behind partials, methods, decorators that say what they wrap, and callable objects."""
    handler = inspect.unwrap(handler)
    while hasattr(handler, "func") and hasattr(handler, "keywords"):  # functools.partial
        handler = inspect.unwrap(handler.func)
    if not inspect.isroutine(handler):
        handler = type(handler).__call__
    return getattr(handler, "__func__", handler)


def _handler_name(handler: Any) -> str:
    code = _code_of(handler) if callable(handler) and not isinstance(handler, type) else handler
    name = getattr(code, "__qualname__", None)
    return f"{code.__module__}.{name}" if name else repr(handler)


def _annotation_of(
    parameter: inspect.Parameter, code: Any, key: str, localns: Mapping[str, Any] | None
) -> Any:
    if parameter.annotation is parameter.empty:
        return parameter.empty

    def holder() -> None:
        """Carries this one annotation: others may name what is imported for the type checker only."""

    holder.__annotations__ = {"value": parameter.annotation}
    names = getattr(code, "__globals__", {})
    try:
        return typing.get_type_hints(holder, names, dict(localns or {}), include_extras=True)["value"]
    except (NameError, SyntaxError, TypeError, AttributeError) as error:
        problem = (
            f"cannot resolve the annotation {parameter.annotation!r} of {parameter.name!r} ({error}); define"
            f" the type at module level, before the handler, and import it outside of TYPE_CHECKING"
        )
        raise SettingsError(key, problem) from error
