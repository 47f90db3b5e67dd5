"""What nobody may read in a dead letter or a log line; the promise: in doubt a rule hides.

Values of records often hold what is nobody's business, and errors quote them. The rules say what becomes
`***` in what relance itself writes down. Records that are handled, retried or sent are never touched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from relance.errors import SettingsError
from relance.policies.secrets import HIDDEN

__all__ = ["HIDDEN", "Mask"]

_MAX_DEPTH: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """Rules for what is hidden; without any, nothing is. Raises SettingsError for one that cannot be meant.

    A letter in which something of the record was hidden says so (`masked`), and its `value_bytes` or
    `header_items` raise DecodeError: the record itself is where the letter says, as long as it is kept there.
    """

    patterns: tuple[str, ...] = ()
    """Regular expressions: what they match is hidden in the texts of errors: in dead letters (message, stack
    trace, attempts), retry headers, log lines, stats and health."""

    headers: tuple[str, ...] = ()
    """Names, in whatever case: the values of these headers are hidden in dead letters, and those of four
    characters or more in the texts of errors, too."""

    fields: tuple[str, ...] = ()
    """Names, in whatever case: the values of these fields are hidden in the JSON of dead letters, however
    deep they lie, and those of four characters or more in the texts of errors, too. A value that is no JSON,
    or has a name twice in one object, is hidden as a whole, because nobody knows what it holds for others;
    then each of its words is hidden in the texts of errors."""

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

    @property
    def hides_values(self) -> bool:
        """Whether what it hides depends on the record, so that `values` has to be asked."""
        return bool(self._headers or self._fields)

    def text(self, text: str) -> str:
        """A text without what the patterns match."""
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
            _parsed(raw)
            shown = self._shown(found, _MAX_DEPTH)
        except _NO_JSON:
            return HIDDEN.encode()
        return raw if shown == found else msgspec.json.encode(shown)

    def values(self, raw: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> Iterator[str]:
        """Of a record, the texts that the texts of its errors may not show, for `Secrets`."""
        for name, value in headers:
            if value is not None and self.hides_header(name):
                yield from _readings(value)
        if raw is None or not self._fields:
            return
        try:
            msgspec.json.decode(raw)
            found = list(self._leaves(_parsed(raw)))
        except _NO_JSON:
            yield from _words(raw)
            return
        yield from found
        if found and b"\\" in raw:
            yield from _spellings(raw, set(found))

    def _leaves(self, value: Any) -> Iterator[str]:
        """Texts and numbers below the fields that are hidden."""
        waiting = [(value, False)]  # not by recursion: the JSON may be nested deeper than Python recurses
        while waiting:
            one, hidden = waiting.pop()
            if isinstance(one, dict):
                for name, item in one.items():
                    if hidden and not _NAME.fullmatch(name):
                        yield name
                    waiting.append((item, hidden or name.casefold() in self._fields))
            elif isinstance(one, list):
                waiting.extend((item, hidden) for item in one)
            elif hidden and isinstance(one, str):
                yield from _numbers(one) if isinstance(one, _Number) else (one,)

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


_NO_JSON: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""A key that is a name; another one, in an object that is hidden, may be an address or a number."""

_WORD: Final = re.compile(r"""[^\s"'\\,;:={}\[\]()<>|&\x00-\x1f\x7f\ufffd]{4,}""")
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


def _parsed(raw: bytes) -> Any:
    """The JSON, its numbers as they are written. Raises ValueError where an object has a name twice.

    Of a repeated name msgspec keeps the last; the first, perhaps what is to be hidden, is in the bytes too.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            raise ValueError("a name stands twice in one object")
        return found

    return json.loads(raw, object_pairs_hook=pairs, parse_int=_Number, parse_float=_Number)


def _numbers(written: str) -> Iterator[str]:
    """A number as texts show it: without its sign, which is no part of what is to be hidden."""
    written = written.lstrip("-")
    yield written
    number = float(written)
    yield repr(number)
    if written.isdecimal():
        yield f"{int(written):,}"
    elif number.is_integer():
        yield str(int(number))


def _readings(raw: bytes) -> Iterator[str]:
    """Bytes as a handler may have read them."""
    try:
        yield raw.decode("utf-8")
    except UnicodeDecodeError:
        yield raw.decode("utf-8", "replace")
        yield raw.decode("latin-1")
    encoding = json.detect_encoding(raw)
    if not encoding.startswith("utf-8"):
        yield raw.decode(encoding, "replace")


def _words(raw: bytes) -> Iterator[str]:
    """All that bytes of an unknown kind hold."""
    for text in _readings(raw):
        yield text
        yield from _WORD.findall(text)


def _spellings(raw: bytes, values: set[str]) -> Iterator[str]:
    """The values as they are written in `raw`, which may escape any letter."""
    for found in _STRING.findall(raw):
        if b"\\" in found and json.loads(found) in values:
            yield found[1:-1].decode("utf-8")


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
