"""A fingerprint of an error: the same for the same bug, so that dead letters can be counted by cause.

Its promise: ids, numbers, times and quoted values in the message, and line numbers in the stack, make no
difference; the class of the error, the words of its message and the functions it passed through do.

Pure, and stable between processes and releases: `SCHEME` is hashed too and changes when the rules do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import sha256
from types import TracebackType
from typing import Final

from relance.dead_letters.errortext import class_path, last_error
from relance.text import message_of

SCHEME: Final = "relance-fingerprint-1"

LENGTH: Final = 16
"""Hexadecimal characters: 64 bits, plenty for the few thousand bugs of a topic."""

_READ: Final = 4_096  # characters of a message that are looked at: a bound for the regular expressions
_KEPT: Final = (
    512  # characters of a normalised message that count, so that a cut in the raw text doesn't show
)
_CAUSES: Final = 8

# Not backticks: they quote the schema ("Expected `int`, got `str` - at `$.amount`"), not the record.
_QUOTED: Final = re.compile(
    r"""(?<!\w)(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|«[^»]*»|“[^”]*”|‘[^’]*’)(?!\w)""", re.DOTALL
)
_UNCLOSED: Final = re.compile(r"""(?<!\w)['"«“‘].*\Z""", re.DOTALL)
_TIME: Final = re.compile(
    r"(?<![\w-])\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?"
    r"(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?)?(?![\w-])",
    re.IGNORECASE,
)
# A word with a digit or a long hexadecimal run in it is an id, an amount, an address: "ORD-17", "P2:O16",
# "-50", "10.0.0.1:9092", a UUID. It goes as a whole, so that no two ids of one kind leave different rests.
_ID: Final = re.compile(
    r"(?<![^\s,;=()\[\]{}<>'\"])[^\s,;=()\[\]{}<>'\"]*(?:\d|\b[0-9a-f]{8,}\b)[^\s,;=()\[\]{}<>'\"]*",
    re.IGNORECASE,
)
_LIST: Final = re.compile(r"(<\w+>)(?:[,;]?\s*\1)+")
_SPACE: Final = re.compile(r"\s+")


def fingerprint(error: BaseException, shown: Callable[[str], str] = str) -> str:
    """The fingerprint of an exception; of exhausted attempts, that of the error of the last one.

    So a bug counts as one whether it was retried first or not. `shown` gives what may be seen of a
    text: what is hidden in it could be guessed from its hash.
    """
    last = last_error(error)
    subject = last if isinstance(last, BaseException) else error
    text = shown(message_of(subject)[: _READ + 1])
    return fingerprint_of(class_path(subject), text, [*_frames(subject), *_causes(subject)])


def fingerprint_of(error_class: str, text: str, stack: Iterable[str]) -> str:
    """The fingerprint of an error that is known only by its texts, `stack` being "module:function" names."""
    return _hashed(error_class, text[: _READ + 1], *stack)


@lru_cache(maxsize=256)  # a thousand poisoned records complain in the same words
def _hashed(error_class: str, text: str, *stack: str) -> str:
    parts = (SCHEME, error_class, normalise(text), *stack)
    return sha256("\0".join(parts).encode("utf-8", "backslashreplace")).hexdigest()[:LENGTH]


def normalise(text: str) -> str:
    """The message with placeholders for what differs from one record to the next."""
    cut = len(text) > _READ
    text = _QUOTED.sub("<text>", text[:_READ])
    if cut:  # a payload quoted at length must not show because its closing quote is out of sight
        text = _UNCLOSED.sub("<text>", text)
    text = _TIME.sub("<time>", text)
    text = _ID.sub("<id>", text)
    text = _SPACE.sub(" ", text).strip()
    return _LIST.sub(r"\1", text)[:_KEPT]


def _frames(error: BaseException) -> list[str]:
    """The functions the error came through, outermost first, each once.

    Each once, because how deep a recursion went depends on the data. Not relance's own, because which
    worker ran the handler, and in which release, is not part of the bug.
    """
    names: dict[str, None] = {}
    step: TracebackType | None = error.__traceback__
    while step is not None:
        module = str(step.tb_frame.f_globals.get("__name__", "?"))
        if module != "relance" and not module.startswith("relance."):
            names[f"{module}:{step.tb_frame.f_code.co_qualname}"] = None
        step = step.tb_next
    return list(names)


def _causes(error: BaseException) -> list[str]:
    """The classes of the explicit causes: `TransientError from ConnectionError` is not `… from KeyError`."""
    names: list[str] = []
    cause = error.__cause__
    while cause is not None and len(names) < _CAUSES:
        names.append(f"cause:{class_path(cause)}")
        cause = cause.__cause__
    return names
