"""No body whatever gets more from the orders API than one of its three words, or loses a digit on its way."""

from __future__ import annotations

import json
import math

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mutation import mutated, mutations
from orders.model import MalformedBodyError, ValidationError, WrongShapeError, read_submission

texts = st.text(max_size=20)
numbers = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
almost_orders = st.fixed_dictionaries(
    {},
    optional={
        "orderId": texts | anything,
        "amount": numbers | anything,
        "status": texts | anything,
        "more": anything,
    },
).map(lambda value: json.dumps(value).encode())


@given(st.binary(max_size=200) | almost_orders | st.builds(mutated, almost_orders, mutations))
def test_any_body_is_an_order_or_wrong_in_one_of_three_ways(body: bytes) -> None:
    try:
        submission = read_submission(body)
        submission.order.check()
    except (MalformedBodyError, WrongShapeError, ValidationError) as error:
        str(error).encode()  # what it quotes can be sent
        return
    assert msgspec.json.decode(submission.value)["status"] == submission.order.status
    assert submission.key == submission.order.order_id.encode()
    assert submission.order.amount is not None
    assert math.isfinite(submission.order.amount)


@given(almost_orders)
def test_what_is_taken_is_written_as_it_came(body: bytes) -> None:
    try:
        submission = read_submission(body)
    except (MalformedBodyError, WrongShapeError):
        return
    assert {"status": "PENDING"} | json.loads(body) == json.loads(submission.value)
