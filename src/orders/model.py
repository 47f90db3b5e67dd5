"""An order, and the three ways of being wrong; promise: the API and the consumer judge an order alike.

* `MalformedBodyError`: not JSON that we read (syntax, depth, numbers out of range, a name twice).
* `WrongShapeError`: JSON, but not an order (not an object, a wrong type, a text too long or not printable).
* `ValidationError`: an order by its shape that breaks a rule of the business. Only this one is dead-lettered
  by the API; the consumer, which can't answer anybody, dead-letters all of them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from relance import Reject, TransientError

MAX_ORDER_ID: Final = 256
"""Characters of an orderId. It becomes the record's key and stands in log lines."""
MAX_STATUS: Final = 64
DEFAULT_STATUS: Final = "PENDING"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class MalformedBodyError(ValueError):
    """The body is not JSON, or not JSON that can be read without loss."""


class WrongShapeError(ValueError):
    """The body is JSON and not an order; `field` names the culprit, None where it is the whole body."""

    def __init__(self, field: str | None, problem: str) -> None:
        super().__init__(problem if field is None else f"{field} {problem}")
        self.field = field
        self.problem = problem


class ValidationError(Reject):
    """The order breaks a rule of the business; no second try can help, so it is dead-lettered at once."""


class SimulatedTransientError(TransientError):
    """The failure that lab 3 switches on; retried as any failing service would be."""


class Order(msgspec.Struct, frozen=True, rename="camel"):
    """The value of a record of the topic `orders`.

    Every field has a default, so that a record without one is rejected by `check` in words of the
    business and not by the decoder.
    """

    order_id: str = ""
    amount: int | float | None = None
    status: str = DEFAULT_STATUS

    def check(self) -> None:
        """Raise WrongShapeError or ValidationError unless this is a good order."""
        if len(self.order_id) > MAX_ORDER_ID:
            raise WrongShapeError(
                "orderId", f"must be at most {MAX_ORDER_ID} characters, not {len(self.order_id)}"
            )
        empty = not self.order_id.strip()
        if not empty and _CONTROL.search(self.order_id):
            # A line break in a key would forge log lines.
            raise WrongShapeError("orderId", "must not contain control characters")
        if len(self.status) > MAX_STATUS:
            raise WrongShapeError(
                "status", f"must be at most {MAX_STATUS} characters, not {len(self.status)}"
            )
        if empty:
            raise ValidationError("orderId must not be empty")
        if self.amount is None:
            raise ValidationError("amount is missing")
        if self.amount < 0:
            raise ValidationError(f"amount must not be negative, it is {self.amount}")


@dataclass(frozen=True, slots=True)
class Submission:
    """A body that is an order by its shape: the order, and the value to write for it."""

    order: Order
    value: bytes
    """The body's object with `status` filled in; every other field as it came, digit for digit."""
    has_order_id: bool
    """False where `orderId` is missing, which is not the same as empty."""

    @property
    def key(self) -> bytes | None:
        """The record's key; None where there is no orderId to key by."""
        return self.order.order_id.encode() if self.order.order_id.strip() else None


def read_submission(body: bytes) -> Submission:
    """Read a request body. Raises MalformedBodyError, WrongShapeError; business rules are `Order.check`'s."""
    found = _parse(body)
    if not isinstance(found, dict):
        raise WrongShapeError(None, f"the body must be a JSON object, not {_kind(found)}")
    for field, wanted, fits in (
        ("orderId", "a string", str),
        ("amount", "a number", int | float),
        ("status", "a string", str),
    ):
        # bool is an int to Python and not a number to JSON.
        if field in found and (isinstance(found[field], bool) or not isinstance(found[field], fits)):
            raise WrongShapeError(field, f"must be {wanted}, not {_kind(found[field])}")
    amount = found.get("amount")
    try:
        # As 1e400, such a number has no double, which is what every other reader would make of it.
        float(amount or 0)
    except OverflowError:
        raise MalformedBodyError("amount is a number out of range") from None
    order = Order(found.get("orderId", ""), amount, found.get("status", DEFAULT_STATUS))
    # Raw keeps the digits as they came: 1.10 stays 1.10, and twenty decimals stay twenty.
    raw: dict[str, Any] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    raw.setdefault("status", DEFAULT_STATUS)
    return Submission(order, msgspec.json.encode(raw), "orderId" in found)


def _parse(body: bytes) -> object:
    try:
        found: object = msgspec.json.decode(body)
        _refuse_names_used_twice(body)
    except RecursionError:
        raise MalformedBodyError("the body is nested too deeply") from None
    except UnicodeDecodeError:
        raise MalformedBodyError("the body is not UTF-8") from None
    except msgspec.DecodeError as error:
        if _holds_a_lone_surrogate(body):
            raise WrongShapeError(None, "a text holds a lone surrogate, which no UTF-8 can carry") from None
        raise MalformedBodyError(f"the body can't be read: {error}") from None
    return found


def _refuse_names_used_twice(body: bytes) -> None:
    # RFC 8259 leaves the meaning of a repeated name open, so two readers may see two different orders.
    # msgspec keeps the last one silently; the standard library lets us look, and the body is small.
    def pairs(items: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in items:
            if name in seen:
                raise MalformedBodyError(f"the name {name[:50]!r} stands twice in one object")
            seen.add(name)

    json.loads(body, object_pairs_hook=pairs, parse_int=_nothing, parse_float=_nothing)


def _nothing(_: str) -> None:
    return None


def _holds_a_lone_surrogate(body: bytes) -> bool:
    """Whether surrogates are all that is wrong: the standard library reads them where msgspec refuses."""
    try:
        found = json.loads(body.decode(), parse_constant=_refuse_constant)
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list():
            return "an array"
        case _:
            return "an object"
