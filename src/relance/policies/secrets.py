"""Values that no text may show: found in whatever way an error quotes them; the promise: in doubt it hides.

An error quotes a value as its `repr`, in JSON, in a URL, in lower case, without its dashes, or cut short. So
a text is searched for the value in each of these forms, and for pieces of it: of eight characters, or of all
but one where the value is shorter. Next to an ellipsis, where something cut the value, four are enough.

The cost grows with the text and with the values, never with their product; beyond `BUDGET` nothing is
searched for, and the text is hidden as a whole.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from base64 import b64decode
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

from relance.text import plain

__all__ = ["BUDGET", "HIDDEN", "SHORTEST", "Secrets"]

HIDDEN: Final = "***"

SHORTEST: Final = 4
"""Characters of a value that is searched for: shorter ones stand everywhere."""

BUDGET: Final = 200_000
"""Characters of all values in all their forms."""

_PIECE: Final = 8  # characters that are too many to be there by chance
_FEW: Final = 400  # pieces; more are looked up by each place of the text instead
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]{6,}={0,2}")
_DATE: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)")
_SEPARATORS: Final = re.compile(r"[\s.\-/]+")
_CUT: Final = re.compile(r"""[\s\[(<'"]{0,3}(?:…|\.{3})[\s\])>'"]{0,3}""")
_MARKED: Final = re.compile(rb"\x01+")


class Secrets:
    """What is hidden of one record, or of a batch."""

    __slots__ = ("_heads", "_pieces", "_tails", "too_many")

    def __init__(self, values: Iterable[str] = ()) -> None:
        self.too_many = False
        """There is more to hide than can be searched for: hide the whole text."""
        self._pieces: dict[int, set[str]] = {}
        self._heads: set[str] = set()
        self._tails: set[str] = set()
        known: set[str] = set()
        size = 0
        for value in values:
            for form in _forms(value):
                low = _lower(form)
                if len(low) < SHORTEST or low.isspace() or low in known:
                    continue
                size += len(low)
                if size > BUDGET:
                    self.too_many = True
                    return
                known.add(low)
        for low in known:
            self._learn(low)

    def __bool__(self) -> bool:
        return self.too_many or bool(self._pieces)

    def hide(self, text: str) -> str:
        """The text without them."""
        if self.too_many:
            return HIDDEN if text else text
        if not self._pieces:
            return text
        low = _lower(text)
        marks = bytearray(len(low))
        for size, pieces in self._pieces.items():
            for piece in _present(pieces, size, low):
                at = low.find(piece)
                while at >= 0:
                    marks[at : at + size] = b"\x01" * size
                    at = low.find(piece, at + 1)
        for cut in _CUT.finditer(low):
            self._mark_beside(low, marks, cut.start(), cut.end())
        parts: list[str] = []
        end = 0
        for found in _MARKED.finditer(marks):
            parts += (text[end : found.start()], HIDDEN)
            end = found.end()
        return "".join((*parts, text[end:])) if parts else text

    def _learn(self, low: str) -> None:
        size = min(_PIECE, max(SHORTEST, len(low) - 1))
        pieces = self._pieces.setdefault(size, set())
        pieces.update(piece for i in range(len(low) - size + 1) if not (piece := low[i : i + size]).isspace())
        for length in range(SHORTEST, min(size, len(low))):
            self._heads.add(low[:length])
            self._tails.add(low[-length:])

    def _mark_beside(self, low: str, marks: bytearray, start: int, end: int) -> None:
        for length in range(_PIECE, SHORTEST - 1, -1):
            if low[start - length : start] in self._heads:
                marks[start - length : start] = b"\x01" * length
                break
        for length in range(_PIECE, SHORTEST - 1, -1):
            if low[end : end + length] in self._tails:
                length = min(length, len(low) - end)
                marks[end : end + length] = b"\x01" * length
                break


def _present(pieces: set[str], size: int, text: str) -> Iterable[str]:
    if len(pieces) <= _FEW:
        return [piece for piece in pieces if piece in text]
    return {piece for i in range(len(text) - size + 1) if (piece := text[i : i + size]) in pieces}


def _lower(text: str) -> str:
    """Without case, and as long as before: a place in it is a place in the text."""
    low = text.lower() if text.isascii() else text.casefold()
    if len(low) == len(text):
        return low
    return "".join(c if len(found := c.casefold()) != 1 else found for c in text)


def _forms(value: str) -> Iterator[str]:
    """The value as errors quote it."""
    yield value
    if value.isspace() or len(value) > BUDGET:  # nothing, or too much already
        return
    if len(value) % 4 == 0 and _BASE64.fullmatch(value):  # to JSON decoders, bytes
        yield repr(b64decode(value))[2:-1]
    if value.isascii() and value.isalnum():
        return
    if (date := _DATE.match(value)) is not None:
        yield ", ".join(str(int(part)) for part in date.groups())
    yield value.strip()
    yield " ".join(value.split())
    yield _SEPARATORS.sub("", value)
    unicode = plain(value)  # as letters have it
    raw = unicode.encode()
    in_json = json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]
    for form in (value, *in_json):
        yield form
        escaped = repr(form)[1:-1]
        yield escaped
        yield escaped.replace("'", "\\'")
        yield repr(escaped)[1:-1]
    yield ascii(value)[1:-1]
    yield repr(raw)[2:-1]
    yield quote(raw, safe="")
    yield quote(raw)
    yield quote_plus(raw)
    yield html.escape(unicode)
    if not value.isascii():
        yield unicodedata.normalize("NFC", unicode)
        yield unicodedata.normalize("NFD", unicode)
        yield unicodedata.normalize("NFKC", unicode)
