"""An exception as text: class path, one-line summary and stack trace, for a dead letter.

Its promise: it always gives valid Unicode of bounded length and never raises, whatever the exception does;
an error that can't be told must not keep its record from being dead-lettered.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from types import CodeType
from typing import Final

from relance.errors import MaxRetriesExceededError
from relance.text import clip, plain, said

MAX_SUMMARY: Final = 4_000
"""Characters kept of an error message; some hold the whole payload that they complain about."""

MAX_TRACE: Final = 16_000
"""Characters kept of a stack trace: the head says what went wrong first, the tail what came of it."""

_TRACE_HEAD: Final = 5_000

_HEADING: Final = "Traceback (most recent call last):\n"
_MORE_IS_SAID: Final = (SyntaxError, NameError, AttributeError, ImportError)
"""To these `traceback` adds a place or a suggestion."""

_CHAIN: Final = 8  # errors of a chain that `stack` keeps
_DEEPEST: Final = 20  # calls of each of them

_WORD: Final = 200  # characters of a word that is left out where it would be parted
_FIRST_WORD: Final = re.compile(r"\A\S+")
_LAST_WORD: Final = re.compile(r"\S+\Z")

_MAX_FRAMES: Final = 1_000
_FRAMES: Final[dict[tuple[int, int], tuple[CodeType, str]]] = {}
"""Lines of a stack trace, by what is called and where in it. The code is kept: its id is its name here."""


def class_path(error: BaseException) -> str:
    """The qualified name of the error's class, as a traceback prints it: a builtin without its module."""
    kind = type(error)
    module = str(kind.__module__)
    return plain(kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}")


def failure(error: BaseException) -> str:
    """`ClassName: text`, at most MAX_SUMMARY characters."""
    return clip(said(error), MAX_SUMMARY)


def last_error(error: BaseException) -> BaseException | str | None:
    """What the last attempt of an exhausted record failed with; None for any other error."""
    if isinstance(error, MaxRetriesExceededError):
        return error.__cause__ or error.last_error
    return None


def summary(
    error: BaseException,
    attempts: int,
    told: Callable[[BaseException], str] = failure,
    shown: Callable[[str], str] = str,
) -> str:
    """Class, colon, text; for exhausted attempts also how many there were and what the last one said.

    `told` gives what one error says, as `failure` does; `shown` gives what may be seen of a text.
    """
    last = last_error(error)
    if last is None:
        text = told(error)
    else:
        tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        told_last = told(last) if isinstance(last, BaseException) else shown(clip(last, MAX_SUMMARY))
        text = f"{type(error).__name__}: {tries} failed, last: {told_last}"
    return clip(plain(text), MAX_SUMMARY)


def trace(error: BaseException, *, whole_words: bool = False) -> str:
    """The formatted traceback with its causes; of a long one the middle is left out.

    With `whole_words` it is left out together with the words that its two ends would part.
    """
    last = last_error(error)
    parts = [_formatted(error)]
    if isinstance(last, BaseException) and error.__cause__ is None:
        # Not chained, as when it comes from another process; its stack is the one that matters.
        parts.insert(0, _formatted(last))
    text = plain("\n".join(parts))
    if len(text) <= MAX_TRACE:
        return text
    head, tail = text[:_TRACE_HEAD], text[len(text) - (MAX_TRACE - _TRACE_HEAD) :]
    if whole_words:
        head = head[:-_WORD] + _LAST_WORD.sub("", head[-_WORD:])
        tail = _FIRST_WORD.sub("", tail[:_WORD]) + tail[_WORD:]
    left_out = len(text) - len(head) - len(tail)
    return f"{head}\n… {left_out} characters left out …\n{tail}"


def stack(error: BaseException, text: str) -> str:
    """As `trace`, with `text` in place of what each error says; of a group, without its members."""
    parts: list[str] = []
    seen: set[int] = set()
    step: BaseException | None = error
    while step is not None and id(step) not in seen and len(seen) < _CHAIN:
        seen.add(id(step))
        try:
            frames = "".join(traceback.format_tb(step.__traceback__, _DEEPEST))
        except Exception as problem:  # noqa: BLE001 - hostile attributes, as in `_formatted`
            frames = f"<no stack: formatting it raised {type(problem).__name__}>\n"
        parts.append(f"{_HEADING}{frames}{class_path(step)}: {text}\n")
        last = last_error(step)
        cause = last if isinstance(last, BaseException) else step.__cause__
        step = cause or (None if step.__suppress_context__ else step.__context__)
    return clip("\n".join(reversed(parts)), MAX_TRACE)


def _quickly_formatted(error: BaseException) -> str | None:
    """The same, where the error stands alone and no call is in its stack twice; else None.

    A thousand poisoned records fail on the same few lines. To format one asks the file system for each of
    them and parses its source: a hundred microseconds, during which no record is handled.
    """
    context = None if error.__suppress_context__ else error.__context__
    if error.__cause__ or context or isinstance(error, (BaseExceptionGroup, SyntaxError)):
        return None
    stack: dict[tuple[int, int], str] = {}
    at = error.__traceback__
    while at is not None:
        code = at.tb_frame.f_code
        place = (id(code), at.tb_lasti)
        if place in stack:
            return None
        known = _FRAMES.get(place)
        if known is None:
            if len(_FRAMES) >= _MAX_FRAMES:
                _FRAMES.clear()
            known = _FRAMES[place] = (code, "".join(traceback.format_tb(at, 1)))
        stack[place] = known[1]
        at = at.tb_next
    if not stack:
        return None
    return "".join((_HEADING, *stack.values(), *_last_lines(error)))


def _last_lines(error: BaseException) -> list[str]:
    """As `traceback.format_exception_only`, which costs as much as all the rest of a letter."""
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - as in `message_of`; what the library makes of it is told
        text = ""
    if not text or isinstance(error, _MORE_IS_SAID) or hasattr(error, "__notes__"):
        return traceback.format_exception_only(error)
    kind = type(error)
    module = "" if kind.__module__ in ("__main__", "builtins") else f"{kind.__module__}."
    return [f"{module}{kind.__qualname__}: {text}\n"]


def _formatted(error: BaseException) -> str:
    try:
        return _quickly_formatted(error) or "".join(traceback.format_exception(error))
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # noqa: BLE001 - hostile attributes, or a chain too deep to walk
        return f"{said(error)}\n<no stack trace: formatting it raised {type(problem).__name__}>\n"
