"""What passes between a worker process and its child: records there, answers and exceptions back.

Promise: an exception arrives as what the policy would have judged at home, wherever that can be: as itself,
else as its class without its constructor's help, else as the nearest class that both sides know. It never
keeps an answer from arriving.
"""

from __future__ import annotations

import contextlib
import pickle
import traceback
from itertools import pairwise
from typing import Any, NamedTuple

from relance.errors import DecodeError
from relance.record import HeaderList, Outgoing
from relance.text import clip, said, shown

__all__ = ["Answer", "Packed", "Sent", "packed", "unpacked"]

_CAUSES = 8  # of a chain, as many as a fingerprint looks at
_LONGEST = 1_000  # characters of what stands for a value that cannot travel


class Sent(NamedTuple):
    """A record as it travels to a child; also its message there."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    raw: bytes | None
    attempt: int
    own_headers: HeaderList | None
    """None where they cannot be read, which only matters to a handler that asks for them."""
    at: tuple[int, int]

    def __repr__(self) -> str:
        return f"<{self.topic}-{self.partition} offset {self.offset}, attempt {self.attempt}>"

    def headers(self) -> HeaderList:
        """Raises DecodeError where the parent could not read them."""
        if self.own_headers is None:
            raise DecodeError("a header's name is not UTF-8, so the headers cannot be read")
        return self.own_headers

    def timestamp(self) -> tuple[int, int]:
        """The origin's."""
        return self.at


class Packed(NamedTuple):
    """An exception on its way, and its traceback as text: frames cannot travel."""

    forms: list[bytes]
    """The exception, then its chain of causes."""
    trace: str


class Answer(NamedTuple):
    """How one record went, and whether the child goes on with the next one that it was sent."""

    error: Packed | None
    outbox: list[Outgoing] | None
    goes_on: bool
    returned: str | None = None
    """The class of what the handler returned in place of None."""


class _Parts(NamedTuple):
    """An exception taken apart, because its constructor wants something else than its `args`."""

    kind: type[Exception]
    args: tuple[Any, ...]
    state: dict[str, Any]


def packed(error: Exception) -> Packed:
    """`error`, ready to be sent; never raises."""
    forms: list[bytes] = []
    seen: set[int] = set()
    step: BaseException | None = error
    while step is not None and id(step) not in seen and len(forms) <= _CAUSES:
        seen.add(id(step))
        forms.append(_form(step if isinstance(step, Exception) else RuntimeError(shown(step, _LONGEST))))
        step = step.__cause__
    try:
        trace = "".join(traceback.format_exception(error))
    except Exception as problem:  # noqa: BLE001  hostile attributes, or a chain too deep to walk
        trace = f"<no stack trace: formatting it raised {type(problem).__name__}>"
    return Packed(forms, trace)


def unpacked(found: Packed) -> Exception:
    """The exception at home again; never raises."""
    chain = [_loaded(form) for form in found.forms]
    for error, cause in pairwise(chain):
        with contextlib.suppress(Exception):
            error.__cause__ = cause
    with contextlib.suppress(Exception):
        chain[0].add_note("in the worker process:\n" + found.trace)
    return chain[0]


def _form(error: Exception) -> bytes:
    for form in (_whole, _in_parts, _as_a_base):
        with contextlib.suppress(Exception):
            return form(error)
    return pickle.dumps(RuntimeError(f"{clip(said(error), _LONGEST)} (it cannot be pickled)"))


def _whole(error: Exception) -> bytes:
    raw = pickle.dumps(error)
    if type(pickle.loads(raw)) is not type(error):
        raise TypeError("it comes back as something else")
    return raw


def _in_parts(error: Exception) -> bytes:
    state = {name: value for name, value in vars(error).items() if name != "__notes__" and _travels(value)}
    raw = pickle.dumps(_Parts(type(error), tuple(_portable(arg) for arg in error.args), state))
    _put_together(pickle.loads(raw))
    return raw


def _as_a_base(error: Exception) -> bytes:
    """For a class that only the child knows: what it derives from may say whether to try again."""
    base = next(kind for kind in type(error).__mro__[1:] if _travels(kind))
    if base is Exception or not issubclass(base, Exception):
        raise TypeError("no class of its own says anything")
    raw = pickle.dumps(_Parts(base, (said(error),), {}))
    _put_together(pickle.loads(raw))
    return raw


def _portable(value: Any) -> Any:
    if isinstance(value, Exception):
        return _Nested(_form(value))
    if isinstance(value, list | tuple) and any(isinstance(one, Exception) for one in value):
        return [_portable(one) for one in value]  # the members of a group
    return value if _travels(value) else shown(value, _LONGEST)


class _Nested(NamedTuple):
    """An exception among the arguments of another."""

    form: bytes


def _unwrapped(value: Any) -> Any:
    if isinstance(value, _Nested):
        return _loaded(value.form)
    if type(value) is list:
        return [_unwrapped(one) for one in value]
    return value


def _put_together(parts: _Parts) -> Exception:
    args = tuple(_unwrapped(arg) for arg in parts.args)
    error = parts.kind.__new__(parts.kind, *args)
    error.__dict__.update(parts.state)
    return error


def _travels(value: Any) -> bool:
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:  # noqa: BLE001  a user's object may do anything
        return False
    return True


def _loaded(form: bytes) -> Exception:
    try:
        found = pickle.loads(form)
        error = _put_together(found) if isinstance(found, _Parts) else found
    except Exception as problem:  # noqa: BLE001  a module that only the child has, or anything
        return RuntimeError(f"an error of the worker process that cannot be read here: {said(problem)}")
    return error if isinstance(error, Exception) else RuntimeError(shown(error, _LONGEST))
