"""What a record comes in: a client's own message, or values that are asked in the same way."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

from relance.errors import DecodeError

__all__ = ["Extras", "HeaderList", "Kept", "Message", "Unreadable", "headers_of", "mean_size"]

_T = TypeVar("_T")

HeaderList = list[tuple[str, bytes | None]]


class Extras(Protocol):
    """What most handlers never look at."""

    def headers(self) -> HeaderList | None:
        """All headers, in order; repeats and null values are kept."""

    def timestamp(self) -> tuple[int, int]:
        """(type, milliseconds since the epoch); -1 where there is none."""


class Message(Extras, Protocol):
    """A record as it lies in its topic: the part of a client's message that is used."""

    def topic(self) -> str:
        """Where it lies."""

    def partition(self) -> int:
        """In which partition."""

    def offset(self) -> int:
        """At which offset."""

    def key(self) -> bytes | None:
        """None where Kafka holds null."""

    def value(self) -> bytes | None:
        """None where Kafka holds null."""


_ASK: Final[Callable[[Extras], HeaderList | None]] = operator.methodcaller("headers")


def headers_of(message: Extras) -> HeaderList | None:
    """A message's headers, asked for in the only way that is safe; ask a client's message once.

    Where a name is no UTF-8, the client answers with an error and with a list that has a NULL in it. CPython
    looks at both when C code calls (decision 25); bytecode that has run often takes the list, and the process
    dies of it. Raises DecodeError.
    """
    try:
        return _ASK(message)
    except (SystemError, UnicodeDecodeError) as error:
        raise DecodeError(_UNREADABLE) from error


_UNREADABLE: Final = "a header's name is not UTF-8, so the headers cannot be read"


class Kept:
    """A message made of values; one who knows the rest is asked for it."""

    __slots__ = ("_key", "_place", "_value", "extras")

    def __init__(
        self, place: tuple[str, int, int], key: bytes | None, value: bytes | None, extras: Extras
    ) -> None:
        self._place = place
        self._key = key
        self._value = value
        self.extras = extras

    def topic(self) -> str:
        """Where it lies."""
        return self._place[0]

    def partition(self) -> int:
        """In which partition."""
        return self._place[1]

    def offset(self) -> int:
        """At which offset."""
        return self._place[2]

    def key(self) -> bytes | None:
        """None where Kafka holds null."""
        return self._key

    def value(self) -> bytes | None:
        """None where Kafka holds null."""
        return self._value

    def headers(self) -> HeaderList | None:
        """As the one who knows says."""
        return headers_of(self.extras)

    def timestamp(self) -> tuple[int, int]:
        """As the one who knows says."""
        return self.extras.timestamp()


class Unreadable(NamedTuple):
    """Stands for headers that the client cannot read."""

    at: tuple[int, int]

    def headers(self) -> HeaderList:
        """Raises DecodeError."""
        raise DecodeError(_UNREADABLE)

    def timestamp(self) -> tuple[int, int]:
        """The message's own."""
        return self.at


def mean_size(found: Sequence[_T], value: Callable[[_T], bytes | None]) -> float:
    """Mean bytes of a value, by some of `found` (not empty): to weigh each would cost too much."""
    some = found[:: max(1, len(found) // 8)]
    return sum(len(value(one) or b"") for one in some) / len(some)
