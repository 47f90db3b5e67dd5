import json

import msgspec
import pytest

from orders.model import MalformedBodyError, Order, ValidationError, WrongShapeError, read_submission


def check(body: bytes) -> None:
    read_submission(body).order.check()


def test_a_good_order_is_read_whole() -> None:
    submission = read_submission(b'{"orderId": "ORD-1", "amount": 100, "status": "NEW"}')
    submission.order.check()
    assert submission.order == Order("ORD-1", 100, "NEW")
    assert submission.key == b"ORD-1"


def test_the_status_is_filled_in() -> None:
    assert json.loads(read_submission(b'{"orderId":"a","amount":1}').value)["status"] == "PENDING"


def test_every_other_field_is_written_as_it_came() -> None:
    value = read_submission(b'{"orderId":"a","amount":1.10,"x":[0.12345678901234567890]}').value
    assert b'"amount":1.10' in value
    assert b'"x":[0.12345678901234567890]' in value


def test_an_amount_of_zero_is_valid() -> None:
    check(b'{"orderId":"a","amount":0}')
    check(b'{"orderId":"a","amount":-0.0}')


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"amount":1}', "orderId must not be empty"),
        (b'{"orderId":"","amount":1}', "orderId must not be empty"),
        (b'{"orderId":" \\n\\u2003","amount":1}', "orderId must not be empty"),
        (b'{"orderId":"a"}', "amount is missing"),
        (b'{"orderId":"a","amount":-50}', "amount must not be negative, it is -50"),
        (b'{"orderId":"a","amount":-1e-300}', "amount must not be negative"),
    ],
)
def test_a_broken_rule_is_a_validation_error(body: bytes, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        check(body)


def test_an_order_without_an_id_has_no_key() -> None:
    assert read_submission(b'{"orderId":"  ","amount":1}').key is None
    assert not read_submission(b'{"amount":1}').has_order_id


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"orderId":"a","amount":NaN}',
        b'{"orderId":"a","amount":-Infinity}',
        b'{"orderId":"a","amount":1e400}',
        b'{"orderId":"a","amount":' + b"9" * 5000 + b"}",
        b'{"orderId":"a","amount":' + b"9" * 400 + b"}",
        b"[" * 100_000 + b"]" * 100_000,
        b"[" * 100_000,
        b'{"orderId":"a","amount":1,"orderId":"b"}',
        b'{"orderId":"a","amount":1,"x":{"y":1,"\\u0079":2}}',
        b'{"orderId":"a\xff","amount":1}',
        b"\xef\xbb\xbf{}",
        b'{"orderId":"a","amount":1} x',
    ],
    ids=lambda body: repr(body[:40]),
)
def test_what_cannot_be_read_without_loss_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        check(body)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"[]", None),
        (b"null", None),
        (b'"order"', None),
        (b"17", None),
        (b'{"orderId":7,"amount":1}', "orderId"),
        (b'{"orderId":null,"amount":1}', "orderId"),
        (b'{"orderId":"a","amount":"1"}', "amount"),
        (b'{"orderId":"a","amount":true}', "amount"),
        (b'{"orderId":"a","amount":null}', "amount"),
        (b'{"orderId":"a","amount":1,"status":2}', "status"),
        (b'{"orderId":"","amount":"x"}', "amount"),
        (b'{"orderId":"' + b"a" * 257 + b'","amount":1}', "orderId"),
        (b'{"orderId":"a\\u0000b","amount":1}', "orderId"),
        (b'{"orderId":"a\\nb","amount":-1}', "orderId"),
        (b'{"orderId":"a","amount":1,"status":"' + b"s" * 65 + b'"}', "status"),
        (b'{"orderId":"\\ud800","amount":1}', None),
        (b'{"orderId":"a\\udc00","amount":-1}', None),
        (b'{"orderId":"a","amount":1,"\\udfff":1}', None),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_a_json_value_that_is_no_order_has_the_wrong_shape(body: bytes, field: str | None) -> None:
    with pytest.raises(WrongShapeError) as caught:
        check(body)
    assert caught.value.field == field


def test_a_pair_of_surrogates_is_a_character_like_any_other() -> None:
    assert read_submission(b'{"orderId":"\\ud83d\\ude00","amount":1}').key == "😀".encode()


def test_a_record_without_a_field_is_judged_by_the_rules_and_not_by_the_decoder() -> None:
    order = msgspec.json.decode(b"{}", type=Order)
    with pytest.raises(ValidationError, match="orderId"):
        order.check()
