"""Values by annotation: a record's bytes become what the handler's first parameter says, or a DecodeError.

Promise: whatever bytes arrive (100,000 brackets, 5,000 digits, NaN, half a UTF-8 character), the answer is a
value of the annotated type or an error that says why not; never a crash, never a silently wrong value.

| annotation                      | the value is                                                     |
|---------------------------------|------------------------------------------------------------------|
| msgspec.Struct, dataclass,      | JSON, strictly typed ("3" is no int), by msgspec                 |
|   TypedDict, dict, list, int... |                                                                  |
| a pydantic model, or what says  | JSON that msgspec accepts, then validated by pydantic            |
|   something in pydantic's words |                                                                  |
| none, Any or object             | JSON as plain Python; a null value is None                       |
| str                             | the bytes as UTF-8, strictly; not a JSON string                  |
| bytes                           | the bytes                                                        |
| X | None                        | X, or None where the record's value is null (a tombstone)        |

Names (NewType, aliases) and `Annotated` are seen through first: see `annotations`. A null value is refused
unless the annotation allows None. JSON's own `null` is not a tombstone: for `Order | None` it is an error.
Empty bytes are not null either. Where a JSON object repeats a key the last one counts, and unknown fields of
a struct are ignored, as in msgspec.

The decoder is chosen once, when the handler is registered. For msgspec types it is the C method itself, so
the hot path enters no Python frame of ours.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from relance.annotations import Words, expanded, is_word, unwrapped, without_none, words_of
from relance.errors import DecodeError, SettingsError
from relance.record import Record
from relance.text import said

__all__ = ["Decoding", "HandlerShape", "code_of", "decoder_for", "handler_shape"]

_JSON_KINDS: Final = (dict, list, str, int, float, bool, type(None))
_LONGEST_PROBLEM: Final = 1000
_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")


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
        return _told_by_pydantic(error) or _shorten(said(error))


def decoder_for(annotation: Any) -> Decoding:
    """The decoding for an annotation; `inspect.Parameter.empty` stands for none.

    Raises SettingsError for a type that could never be decoded from JSON, and for a constraint in words that
    the library which reads the type does not know.
    """
    given = Any if annotation is inspect.Parameter.empty else annotation
    rest, nullable = without_none(given)
    inner, added = unwrapped(rest)
    if inner is typing.Never:
        return Decoding(_or_none(_refuse), "null only")
    untyped = inner in (Any, object)
    name = "any JSON" if untyped else _name(rest)
    words = words_of(rest)
    if words.foreign:
        decode = _by_pydantic(rest, inner, words, name, nullable and not untyped)
    else:
        decode = _by_msgspec(expanded(rest), inner, added, name)
    if not nullable:
        return Decoding(decode, name)
    expects = name if untyped else f"{name} | None"
    if any(is_word(word) for word in unwrapped(given)[1]):
        # A validator around the whole annotation may refuse a null value, or replace it.
        return Decoding(_or_none(decode, _pydantic(name).null_decode(given, name)), expects)
    return Decoding(_or_none(decode), expects)


def _by_msgspec(annotation: Any, inner: Any, added: tuple[Any, ...], name: str) -> Callable[[Any], Any]:
    if inner in (str, bytes):
        # C methods cost no frame, and both refuse None: UTF-8, strict; or the same object.
        raw: Callable[[Any], Any] = bytes.decode if inner is str else bytes
        if not any(isinstance(word, msgspec.Meta) for word in added):
            return raw
        return lambda value: msgspec.convert(raw(value), annotation)
    try:
        decoder = msgspec.json.Decoder(annotation)
        custom = next(_undecodable(msgspec.inspect.type_info(annotation), set()), None)
    except (TypeError, ValueError, NameError, RecursionError) as error:
        raise SettingsError("handler", f"cannot decode JSON into {name}: {error}") from error
    if custom is not None:
        problem = (
            f"cannot decode JSON into {_name(custom)}; annotate with a msgspec.Struct, a dataclass,"
            " a TypedDict, a pydantic model, dict, list, str or bytes"
        )
        raise SettingsError("handler", problem)
    return decoder.decode


def _by_pydantic(
    annotation: Any, inner: Any, words: Words, name: str, nullable: bool
) -> Callable[[Any], Any]:
    if words.structs:
        struct, word = words.structs[0].__name__, words.foreign[0]
        place = f" at {word.place}" if word.place else ""
        problem = (
            f"cannot decode JSON into {name}: {word.what}{place} is a word of pydantic's, which msgspec does"
            f" not know, and {struct} is a msgspec.Struct, which pydantic does not read: say it in msgspec's"
            f" words (Annotated[int, msgspec.Meta(gt=0)]), or let {struct} be a dataclass or a pydantic model"
        )
        raise SettingsError("handler", problem)
    pydantic_values = _pydantic(name)
    decode: Callable[[Any], Any]
    if inner in (str, bytes):
        decode = pydantic_values.raw_decode(expanded(annotation), name, inner)
    else:
        decode = pydantic_values.pydantic_decode(expanded(annotation), name, nullable=nullable)
    return decode


def _pydantic(name: str) -> Any:
    # Only where a handler uses its words: it costs 60 ms and is no dependency.
    try:
        from relance import pydantic_values
    except ImportError as error:
        problem = f"{name} is annotated in words of pydantic or annotated_types: install pydantic ({error})"
        raise SettingsError("handler", problem) from error
    return pydantic_values


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


def _nothing() -> None:
    return None


def _or_none(
    decode: Callable[[Any], Any], null: Callable[[], Any] = _nothing
) -> Callable[[bytes | None], Any]:
    def decode_or_none(raw: bytes | None) -> Any:
        return null() if raw is None else decode(raw)

    return decode_or_none


def _refuse(raw: bytes) -> Any:
    raise msgspec.ValidationError("a value, where the annotation allows only null")


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
    # Without what differs from process to process (addresses): fingerprints are made of these texts.
    if typing.get_origin(annotation) is typing.Annotated:
        return _name(typing.get_args(annotation)[0])
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return _ADDRESS.sub("", str(annotation).replace("typing.", ""))


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
    code = code_of(handler)
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
    if unwrapped(annotation)[0] is Record:
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
    values, added = unwrapped(annotation)
    kind, of = typing.get_origin(values) or values, typing.get_args(values)
    if kind is inspect.Parameter.empty:
        return kind
    if kind not in (list, Sequence, Iterable, Collection) or len(of) > 1:
        raise SettingsError(key, f"with batch= it gets a list of values: list[{_name(annotation)}]")
    if word := next((word for word in added if is_word(word) or isinstance(word, msgspec.Meta)), None):
        problem = f"{word!r} is said of the list of a batch, which is not checked: say it of the values in it"
        raise SettingsError(key, problem)
    return of[0] if of else inspect.Parameter.empty


def _wants_record(parameter: inspect.Parameter, batch: bool) -> bool:
    if parameter.default is parameter.empty or parameter.name == ("records" if batch else "record"):
        return True
    wanted = (list[Record], "list[Record]") if batch else (Record, "Record")
    return parameter.annotation in wanted


def code_of(handler: Any) -> Any:
    """The function behind partials, methods, decorators that say what they wrap, and callable objects."""
    handler = inspect.unwrap(handler)
    while hasattr(handler, "func") and hasattr(handler, "keywords"):  # functools.partial
        handler = inspect.unwrap(handler.func)
    if not inspect.isroutine(handler):
        handler = type(handler).__call__
    return getattr(handler, "__func__", handler)


def _handler_name(handler: Any) -> str:
    code = code_of(handler) if callable(handler) and not isinstance(handler, type) else handler
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
