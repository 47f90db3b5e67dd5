"""How texts and times of others are written: nothing invisible passes unseen, and a time is UTC."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256

__all__ = [
    "indented",
    "is_unicode",
    "iso",
    "iso_ms",
    "key_name",
    "message_of",
    "name_of",
    "one_line",
    "plain",
    "said",
    "visible",
]


def visible(text: str) -> str:
    """The text with what a reader can't see made visible: controls as ␀…, and U+202E and the like by name."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in "\n\t" or c.isprintable() or c == "\u00a0" else _named(c) for c in text)


def one_line(text: str) -> str:
    """The same in one line, for logs: what a record holds can't forge another one."""
    return visible(text).replace("\n", "␊").replace("\t", "␉")


def plain(text: str) -> str:
    """The text without lone surrogates, which UTF-8 (and so JSON) can't hold; they become `\\udc80`."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def message_of(error: BaseException) -> str:
    """What the error says of itself; but for a KeyboardInterrupt, which is a person's, never raises."""
    try:
        return plain(str(error))
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # noqa: BLE001  a user's __str__ may raise anything
        return f"<no text: its __str__ raised {type(problem).__name__}>"


def said(error: BaseException) -> str:
    """`ClassName: text`, or its class alone; as `message_of`."""
    text = message_of(error)
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def indented(text: str) -> str:
    """The same with all its lines, none of which passes for one of the log."""
    return "\n".join(f"    {line}" for line in visible(text).rstrip("\n").split("\n"))


def key_name(key: bytes | None) -> str:
    """A key as logs name it: the same for the same key, and not the key."""
    return "no key" if key is None else f"key #{sha256(key).hexdigest()[:8]}"


def shown(value: object, longest: int = 200) -> str:
    """The `repr` of a user's object, at most so many characters; never raises."""
    try:
        text = repr(value)
    except Exception as problem:  # noqa: BLE001  it may be of any class
        text = f"<{type(value).__name__}: its __repr__ raised {type(problem).__name__}>"
    return clip(text, longest)


def clip(text: str, limit: int) -> str:
    """At most `limit` characters of the text; an ellipsis stands for what is cut off."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def name_of(called: object) -> str:
    """What a user's callable is called; never raises."""
    try:
        name = getattr(called, "__qualname__", None)
    except Exception:  # noqa: BLE001  it may be of any class
        name = None
    return clip(name, 200) if isinstance(name, str) else shown(called)


def _named(c: str) -> str:
    code = ord(c)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if unicodedata.category(c) == "Zs":
        return c  # a wide or thin space is seen well enough
    return f"⟨U+{code:04X}⟩"


def is_unicode(text: str) -> bool:
    """False where bytes that are no UTF-8 came in as lone surrogates, which no name in Kafka holds."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def iso(moment: datetime) -> str:
    """UTC to the millisecond, in ISO 8601: 2026-11-23T20:16:34.307Z. A time without a zone counts as UTC."""
    utc = moment.astimezone(UTC) if moment.tzinfo else moment
    return utc.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def iso_ms(ms: float) -> str:
    """The same of milliseconds since the epoch. Raises ValueError or OverflowError past the year 9999."""
    seconds, rest = divmod(int(round(ms, 3)), 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=64)  # a burst of failures shares its few seconds
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
