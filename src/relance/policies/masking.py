"""What nobody may read in a dead letter or a log line; the promise: in doubt a rule hides.

Values of records often hold what is nobody's business, and errors quote them. The rules say what becomes
`***` in what relance itself writes down. Records that are handled, retried or sent are never touched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from relance.errors import SettingsError

__all__ = ["HIDDEN", "Mask"]

HIDDEN: Final = "***"

_MAX_DEPTH: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """Rules for what is hidden; without any, nothing is. Raises SettingsError for one that cannot be meant.

    A letter in which something of the record was hidden says so (`masked`), and its `value_bytes` or
    `header_items` raise DecodeError: the record itself is where the letter says, as long as it is kept there.
    """

    patterns: tuple[str, ...] = ()
    """Regular expressions: what they match is hidden in the texts of errors: in dead letters (message, stack
    trace, attempts), retry headers, log lines of retries and dead letters, stats and health."""

    headers: tuple[str, ...] = ()
    """Names, in whatever case: the values of these headers are hidden in dead letters."""

    fields: tuple[str, ...] = ()
    """Names, in whatever case: the values of these fields are hidden in the JSON of dead letters, however
    deep they lie. A value that is no JSON, or has a name twice in one object, is hidden as a whole, because
    nobody knows what it holds for others."""

    _matching: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)
    _headers: frozenset[str] = field(init=False, repr=False, compare=False)
    _fields: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        put = object.__setattr__  # the class is frozen; only here values get their one form
        for key in ("patterns", "headers", "fields"):
            put(self, key, _texts(key, getattr(self, key)))
        put(self, "_matching", tuple(_compiled(pattern) for pattern in self.patterns))
        put(self, "_headers", frozenset(name.casefold() for name in self.headers))
        put(self, "_fields", frozenset(name.casefold() for name in self.fields))

    @property
    def hides_nothing(self) -> bool:
        """Whether it has no rule."""
        return not (self._matching or self._headers or self._fields)

    def text(self, text: str) -> str:
        """A text of an error, without what may not be read."""
        for pattern in self._matching:
            text = pattern.sub(HIDDEN, text)
        return text

    def hides_header(self, name: str) -> bool:
        """Whether the value of this header is hidden."""
        return name.casefold() in self._headers

    def value(self, raw: bytes | None) -> bytes | None:
        """A record's value as a letter may show it: `raw` itself where there is nothing to hide."""
        if raw is None or not self._fields:
            return raw
        try:
            found = msgspec.json.decode(raw)
            _refuse_names_used_twice(raw)
            shown = self._shown(found, _MAX_DEPTH)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
            return HIDDEN.encode()
        return raw if shown == found else msgspec.json.encode(shown)

    def _shown(self, value: Any, depth: int) -> Any:
        if depth == 0:
            return HIDDEN
        if isinstance(value, dict):
            return {
                name: HIDDEN if name.casefold() in self._fields else self._shown(item, depth - 1)
                for name, item in value.items()
            }
        if isinstance(value, list):
            return [self._shown(item, depth - 1) for item in value]
        return value


def _refuse_names_used_twice(raw: bytes) -> None:
    # Of a repeated name msgspec keeps the last; the first, perhaps what is to be hidden, is in the bytes too.
    def pairs(items: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in items}) < len(items):
            raise ValueError("a name stands twice in one object")

    json.loads(raw, object_pairs_hook=pairs, parse_int=_nothing, parse_float=_nothing)


def _nothing(_: str) -> None:
    return None


def _texts(key: str, given: object) -> tuple[str, ...]:
    if isinstance(given, str):
        raise SettingsError(f"mask.{key}", f"is a list of texts: write {key}=[{given!r}]")
    found = tuple(given) if isinstance(given, Iterable) else None
    if found is None or not all(isinstance(one, str) and one for one in found):
        raise SettingsError(f"mask.{key}", f"must be texts that are not empty, not {given!r:.60}")
    return found


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise SettingsError("mask.patterns", f"{pattern!r} is no regular expression: {error}") from error
    if found.match(""):
        raise SettingsError(
            "mask.patterns", f"{pattern!r} matches the empty text, so it would match everywhere"
        )
    return found
