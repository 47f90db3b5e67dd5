"""The bytes of what users send; the promise: what cannot be written is refused at once, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from relance.errors import SendError
from relance.text import is_unicode

__all__ = ["checked_headers", "checked_topic", "encode", "encode_key", "is_topic_name"]

_VALUE_SERIALIZATION: Final = -161  # librdkafka's code: the record is at fault, so nothing is retried


def encode(value: Any) -> bytes | None:
    """The bytes to send for a value; None is a null value (a tombstone).

    bytes are sent as they are, str as UTF-8, a pydantic model as its `model_dump_json`, all else as JSON by
    msgspec, in which NaN and infinities become null. Raises SendError (not written) for what has no JSON.
    """
    if value is None or type(value) is bytes:
        return value
    try:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        if hasattr(value, "model_dump_json"):
            text: str = value.model_dump_json()
            return text.encode()
        return msgspec.json.encode(value, enc_hook=_plain)
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


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise NotImplementedError(f"no JSON for {type(value).__name__}")
