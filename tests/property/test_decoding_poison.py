"""No bytes whatever crash a decoder, and no library decides differently what is JSON."""

from decimal import Decimal

import msgspec
import pydantic
from hypothesis import given
from hypothesis import strategies as st

from mutation import mutated, mutations
from relance.decoding import decoder_for
from relance.encoding import encode
from relance.errors import DecodeError


class Order(msgspec.Struct):
    orderId: str
    amount: float = 0.0


class OrderModel(pydantic.BaseModel):
    orderId: str
    amount: float = 0.0


class ExactModel(pydantic.BaseModel):
    amount: Decimal
    rate: float = 0.0


DECODINGS = [
    decoder_for(a) for a in (Order, OrderModel, ExactModel, dict, list, str, bytes, int, Order | None, object)
]

# A few characters that matter, rather than all of Unicode, whose tables take a second to build.
texts = st.text(st.sampled_from('a1 é\u4e2d\U0001f600"\\/\n\x00\x7f\ufeff'), max_size=8)
numbers = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)


def damaged(value: object, at: float, inserted: bytes) -> bytes:
    raw = msgspec.json.encode(value)
    cut = round(at * len(raw))
    return raw[:cut] + inserted + raw[cut:]


almost_json = st.builds(damaged, plain, st.floats(0, 1), st.binary(max_size=3))


orders = st.builds(Order, texts, st.floats(allow_nan=False, allow_infinity=False)).map(msgspec.json.encode)
damaged_orders = st.builds(mutated, orders, mutations)


@given(st.none() | st.binary(max_size=200) | almost_json | damaged_orders)
def test_any_bytes_give_a_value_or_a_decode_error(raw: bytes | None) -> None:
    for decoding in DECODINGS:
        try:
            decoding.decode(raw)
        except decoding.errors as error:
            reported = decoding.as_error(error, raw)
            assert isinstance(reported, DecodeError)
            assert str(reported)


@given(plain)
def test_plain_values_come_back_as_they_were_sent(value: object) -> None:
    sent = {"v": value}
    assert decoder_for(dict).decode(encode(sent)) == sent


@given(texts, st.floats(allow_nan=False, allow_infinity=False))
def test_msgspec_and_pydantic_read_the_same_order(order_id: str, amount: float) -> None:
    raw = encode(Order(order_id, amount))
    ours, theirs = decoder_for(Order).decode(raw), decoder_for(OrderModel).decode(raw)
    assert (ours.orderId, ours.amount) == (theirs.orderId, theirs.amount) == (order_id, amount)


literals = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)


@given(literals)
def test_a_decimal_of_pydantics_is_the_number_that_stands_there(literal: str) -> None:
    raw = f'{{"amount":{literal},"rate":{literal}}}'.encode()
    got = decoder_for(ExactModel).decode(raw)
    assert (got.amount, got.rate) == (Decimal(literal), float(literal))
