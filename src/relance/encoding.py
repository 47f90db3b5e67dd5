"""The bytes of what users send; the promise: what cannot be written is refused at once, with the reason."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from relance.errors import SendError

__all__ = ["encode"]

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


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise NotImplementedError(f"no JSON for {type(value).__name__}")
