"""The bytes of what users send; the promise: what cannot be written is refused at once, with the reason."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from typing import Any, Final

import msgspec

from relance.annotations import words_of
from relance.errors import SendError, SettingsError
from relance.text import is_unicode

__all__ = ["checked_headers", "checked_topic", "encode", "encode_key", "is_topic_name"]

_VALUE_SERIALIZATION: Final = -161  # librdkafka's code: the record is at fault, so nothing is retried

# Made once, for the hot path: `list | tuple` within a function would be made anew for each value.
_BYTES: Final = (bytes, bytearray, memoryview)
_SEQUENCES: Final = (list, tuple)
_PLAIN: Final = frozenset((str, int, float, bool, type(None), bytes))


def encode(value: Any) -> bytes | None:
    """The bytes to send for a value; None is a null value (a tombstone).

    bytes are sent as they are, str as UTF-8, all else as JSON: by msgspec, in which NaN and infinities become
    null; what is pydantic's, at any depth, by pydantic and with its aliases, so that the same model reads it.
    Raises SendError (not written) for what has no JSON.
    """
    if value is None or type(value) is bytes:
        return value
    try:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, _BYTES):
            return bytes(value)
        if (write := _writer_of(type(value))) is not None:
            return write(value)
        return msgspec.json.encode(_prepared(value), enc_hook=_by_pydantic)
    except (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError) as error:
        problem = f"a value of type {type(value).__name__} cannot be encoded: {error}"
        raise SendError(problem, maybe_written=False, code=_VALUE_SERIALIZATION) from error


def encode_key(key: object) -> bytes | None:
    """The bytes of a key: str as UTF-8. Raises SendError (not written) for what is neither."""
    if key is None or isinstance(key, bytes):
        return key
    try:
        if isinstance(key, str):
            return key.encode()
    except UnicodeEncodeError as error:
        raise _refused(f"a key cannot be encoded: {error}") from error
    raise _refused(f"a key is bytes, str or None, not {type(key).__name__}")


def checked_headers(headers: Sequence[tuple[str, bytes | None]]) -> list[tuple[str, bytes | None]]:
    """The headers as a list. Raises SendError (not written) for what Kafka has no place for."""
    given: Sequence[object] = headers
    found: list[tuple[str, bytes | None]] = []
    for header in given:
        if not isinstance(header, tuple | list) or len(header) != 2:
            raise _refused(f"a header is (name, value), not {header!r:.100}")
        name, value = header
        if not isinstance(name, str) or not is_unicode(name):
            raise _refused(f"a header's name is a text, not {name!r:.100}")
        if value is not None and not isinstance(value, bytes):
            raise _refused(f"header {name!r:.100}: a value is bytes or None, not {type(value).__name__}")
        found.append((name, value))
    return found


def checked_topic(topic: object) -> str:
    """The name of a topic. Raises SendError (not written) for what is none."""
    if not isinstance(topic, str) or not is_topic_name(topic):
        raise _refused(f"{topic!r:.100} is no topic name")
    return topic


def is_topic_name(topic: str) -> bool:
    """Whether Kafka could have a topic of that name (org.apache.kafka.common.internals.Topic).

    1 to 249 of [a-zA-Z0-9._-], not "." or "..".
    """
    legal = topic.isascii() and all(c.isalnum() or c in "._-" for c in topic)
    return legal and 0 < len(topic) <= 249 and topic not in {".", ".."}


def _refused(problem: str) -> SendError:
    return SendError(problem, maybe_written=False, code=_VALUE_SERIALIZATION)


# -- what is pydantic's --------------------------------------------------------------------------------


def _prepared(value: Any) -> Any:
    """The value as msgspec is to write it: in place of each dataclass that pydantic reads stands its JSON.

    msgspec would write those dataclasses by itself, without their aliases. A program that has imported
    neither of the two modules uses none of their words.
    """
    if not ("pydantic" in sys.modules or "annotated_types" in sys.modules):
        return value
    if isinstance(value, dict):
        changed = {}
        for key, old in value.items():
            if type(old) not in _PLAIN and (new := _prepared(old)) is not old:
                changed[key] = new
        return {**value, **changed} if changed else value
    if isinstance(value, _SEQUENCES):
        if _PLAIN.issuperset(map(type, value)):
            return value
        parts = [_prepared(part) for part in value]
        return value if all(map(operator.is_, parts, value)) else parts
    return _by_pydantic(value) if _writer_of(type(value)) is not None else value


def _by_pydantic(value: Any) -> msgspec.Raw:
    """The JSON of what pydantic would read; also msgspec's hook for what it cannot write."""
    if (write := _writer_of(type(value))) is None:
        raise NotImplementedError(f"no JSON for {type(value).__name__}")
    return msgspec.Raw(write(value))


def _find_writer(kind: Any) -> Callable[[Any], bytes] | None:
    """What writes such a value as pydantic reads it; None where msgspec does."""
    serializer: Any = getattr(kind, "__pydantic_serializer__", None)
    if serializer is None:
        if not is_dataclass(kind) or not words_of(kind).foreign:
            return None
        try:
            from relance.pydantic_values import adapter_of

            serializer = adapter_of(kind, f"{kind}").serializer
        except (SettingsError, ImportError):  # no handler could read it
            return None
    config = getattr(kind, "model_config", None) or getattr(kind, "__pydantic_config__", None) or {}
    # A model that reads its fields by their names only is written with these names, too.
    by_alias = config.get("serialize_by_alias", config.get("validate_by_alias", True))
    return functools.partial(serializer.to_json, by_alias=by_alias)


_writer_of: Callable[[type], Callable[[Any], bytes] | None] = functools.lru_cache(maxsize=1024)(_find_writer)
