"""What pydantic reads of a record is what stands there, and where the two libraries differ a page says so."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, RootModel
from pydantic_core import SchemaValidator

from relance import App, Record, Settings, pydantic_values
from relance.decoding import Decoding, decoder_for
from relance.encoding import encode
from relance.errors import DecodeError
from relance.testing import World

LONG = "12345678901234567.89"


def read(decoding: Decoding, raw: bytes | None) -> Any:
    try:
        return decoding.decode(raw)
    except decoding.errors as error:
        raise decoding.as_error(error, raw) from error


# -- exact numbers -------------------------------------------------------------------------------------


class Inner(BaseModel):
    amount: Decimal


class Order(BaseModel):
    amount: Decimal = Decimal(0)
    inner: Inner | None = None
    parts: list[Decimal] = []
    by_name: dict[str, Decimal] = {}
    count: int = 0
    rate: float = 0.0
    note: Any = None
    price: Annotated[Decimal, Field(gt=0)] = Decimal(1)
    aliased: Decimal = Field(Decimal(0), alias="aliasedAmount")
    next: Order | None = None


@dataclasses.dataclass
class Data:
    amount: Annotated[Decimal, Field(gt=0)]


@pydantic.dataclasses.dataclass
class Checked:
    amount: Decimal


class Tagged(BaseModel):
    kind: Literal["a"]
    amount: Decimal


class Other(BaseModel):
    kind: Literal["b"]


class Lazy(BaseModel):
    model_config = ConfigDict(defer_build=True)

    amount: Decimal


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    amount: Decimal
    text: Decimal = Decimal(0)
    whole: Decimal = Decimal(0)
    at: datetime | None = None
    count: int = 0


@pytest.mark.parametrize(
    ("annotation", "raw", "pick"),
    [
        (Order, '{"amount":%s}', lambda v: v.amount),
        (Order | None, '{"amount":%s}', lambda v: v.amount),
        (Order, '{"inner":{"amount":%s}}', lambda v: v.inner.amount),
        (Order, '{"parts":[1,%s]}', lambda v: v.parts[1]),
        (Order, '{"by_name":{"x":%s}}', lambda v: v.by_name["x"]),
        (Order, '{"price":%s}', lambda v: v.price),
        (Order, '{"aliasedAmount":%s}', lambda v: v.aliased),
        (Order, '{"next":{"next":{"amount":%s}}}', lambda v: v.next.next.amount),
        (Order, '{"note":1.5,"rate":2.5,"amount":%s}', lambda v: v.amount),
        (list[Order], '[{"amount":%s}]', lambda v: v[0].amount),
        (Data, '{"amount":%s}', lambda v: v.amount),
        (Checked, '{"amount":%s}', lambda v: v.amount),
        (Lazy, '{"amount":%s}', lambda v: v.amount),
        (Strict, '{"amount":%s}', lambda v: v.amount),
        (RootModel[Decimal], "%s", lambda v: v.root),
        (Tagged | Other, '{"kind":"a","amount":%s}', lambda v: v.amount),
        (
            Annotated[Tagged | Other, Field(discriminator="kind")],
            '{"kind":"a","amount":%s}',
            lambda v: v.amount,
        ),
        (Annotated[Decimal, Field(gt=0)], "%s", lambda v: v),
    ],
    ids=str,
)
def test_a_decimal_is_the_number_that_stands_there(
    annotation: Any, raw: str, pick: Callable[[Any], Decimal]
) -> None:
    for number in (LONG, "0.1", "1e-3", "0.1234567890123456789", "3", "123456789012345678901234567890.1"):
        assert pick(read(decoder_for(annotation), (raw % number).encode())) == Decimal(number)


def test_an_int_is_not_rounded_either() -> None:
    decoding = decoder_for(Order)
    assert read(decoding, b'{"count":12345678901234567.0}').count == 12345678901234567
    assert read(decoding, b'{"count":12345678901234567890123}').count == 12345678901234567890123
    for raw in (b'{"count":9007199254740993.5}', b'{"count":1e-400}'):
        with pytest.raises(DecodeError, match="fractional part"):
            read(decoding, raw)


def test_beside_an_exact_number_all_else_is_read_as_ever() -> None:
    raw = f'{{"amount":{LONG},"rate":{LONG},"note":{LONG},"count":"3","parts":["1.50",2]}}'
    order = read(decoder_for(Order), raw.encode())
    assert (order.rate, order.note) == (float(LONG), float(LONG))
    assert (order.count, order.parts) == (3, [Decimal("1.50"), Decimal(2)])


def test_strictness_and_jsons_leniency_stay_beside_an_exact_number() -> None:
    decoding = decoder_for(Strict)
    raw = f'{{"amount":{LONG},"text":"1.5","whole":3,"at":"2026-01-01T00:00:00Z"}}'
    assert read(decoding, raw.encode()) == Strict(
        amount=Decimal(LONG), text=Decimal("1.5"), whole=Decimal(3), at=datetime(2026, 1, 1, tzinfo=UTC)
    )
    for wrong in ('"count":"3"', '"count":3.0', '"text":"x"', '"text":true'):
        with pytest.raises(DecodeError):
            read(decoding, f'{{"amount":{LONG},{wrong}}}'.encode())


def test_two_numbers_that_only_a_decimal_tells_apart_are_refused_and_not_mixed_up() -> None:
    decoding = decoder_for(Order)
    raw = b'{"amount":1.000000000000000001,"price":1.000000000000000002}'
    with pytest.raises(DecodeError, match="write them as strings"):
        read(decoding, raw)
    text = read(decoding, raw.replace(b"1.000000000000000002", b'"1.000000000000000002"'))
    assert (text.amount, text.price) == (Decimal("1.000000000000000001"), Decimal("1.000000000000000002"))
    assert read(decoding, b'{"rate":1.000000000000000001,"note":1.000000000000000002}').rate == 1.0


def test_a_validator_of_the_users_may_look_first_or_later() -> None:
    class Rounded(BaseModel):
        amount: Annotated[Decimal, BeforeValidator(lambda value: value)]
        later: Annotated[Decimal, AfterValidator(lambda value: value + 1)] = Decimal(0)

    got = read(decoder_for(Rounded), f'{{"amount":{LONG},"later":{LONG}}}'.encode())
    assert (got.amount, got.later) == (Decimal(LONG), Decimal(LONG) + 1)


def test_a_number_beyond_all_floats_is_refused_as_without_a_decimal() -> None:
    for raw in (b'{"amount":1e400}', b'{"amount":-1e400}', b'{"note":1e400}'):
        with pytest.raises(DecodeError, match="out of range"):
            read(decoder_for(Order), raw)
    assert read(decoder_for(Order), b'{"amount":1e-400}').amount == Decimal("1e-400")


def test_pydantics_that_do_not_know_our_word_are_exact_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def older(schema: Any) -> Any:
        return SchemaValidator(schema)

    monkeypatch.setattr(pydantic_values, "SchemaValidator", older)
    raw = f'{{"inner":{{"amount":{LONG}}},"next":{{"amount":{LONG}}}}}'.encode()
    order = read(decoder_for(Order), raw)
    assert (order.inner.amount, order.next.amount) == (Decimal(LONG), Decimal(LONG))
    assert Order.__pydantic_complete__


def test_threads_do_not_see_each_others_numbers() -> None:
    decoding, wrong = decoder_for(Order), []

    def reads(last: int) -> None:
        for _ in range(300):
            number = f"12345678901234567.8{last}"
            if read(decoding, f'{{"amount":{number}}}'.encode()).amount != Decimal(number):
                wrong.append(number)

    threads = [threading.Thread(target=reads, args=(last,)) for last in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_validator_that_decodes_another_record_leaves_the_numbers_of_this_one() -> None:
    inner = decoder_for(Inner)

    def decodes(value: Any) -> Any:
        read(inner, b'{"amount":1.234567890123456789}')
        return value

    class Outer(BaseModel):
        text: Annotated[str, AfterValidator(decodes)]
        amount: Decimal

    got = read(decoder_for(Outer), f'{{"text":"x","amount":{LONG}}}'.encode())
    assert got.amount == Decimal(LONG)


# -- there and back ------------------------------------------------------------------------------------


class Card(BaseModel):
    number: str = Field(alias="cardNumber")


class Wallet(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    cards: list[Card] = Field(alias="theCards")
    owner: str = Field("x", validation_alias="ownedBy", serialization_alias="ownedBy")


class ByName(BaseModel):
    model_config = ConfigDict(validate_by_alias=False, validate_by_name=True)

    number: str = Field(alias="cardNumber")


class SaysSo(BaseModel):
    model_config = ConfigDict(serialize_by_alias=False, populate_by_name=True)

    number: str = Field(alias="cardNumber")


@pydantic.dataclasses.dataclass
class CheckedCard:
    number: str = Field(alias="cardNumber")


@dataclasses.dataclass
class DataCard:
    number: Annotated[str, Field(alias="cardNumber")]
    secret: bytes = b""


@dataclasses.dataclass
class Pocket:
    card: Card
    other: CheckedCard


class Renamed(msgspec.Struct, rename="camel"):
    card_number: str
    inner: list[Renamed] = []


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Card, Card(cardNumber="1")),
        (Wallet, Wallet(theCards=[Card(cardNumber="1")], ownedBy="me")),
        (ByName, ByName(number="1")),
        (SaysSo, SaysSo(number="1")),
        (list[Card], [Card(cardNumber="1")]),
        (dict[str, Card], {"a": Card(cardNumber="1")}),
        (dict[str, list[Card]], {"a": [Card(cardNumber="1")]}),
        (CheckedCard, CheckedCard(cardNumber="1")),  # type: ignore[call-arg]  # pydantic's own __init__
        (list[CheckedCard], [CheckedCard(cardNumber="1")]),  # type: ignore[call-arg]
        (dict[str, CheckedCard], {"a": CheckedCard(cardNumber="1")}),  # type: ignore[call-arg]
        (DataCard, DataCard("1", "é".encode())),
        (list[DataCard], [DataCard("1", b"abc")]),
        (Pocket, Pocket(Card(cardNumber="1"), CheckedCard(cardNumber="2"))),  # type: ignore[call-arg]
        (Renamed, Renamed("1", [Renamed("2")])),
        (RootModel[list[Card]], RootModel[list[Card]]([Card(cardNumber="1")])),
        (Order, Order(amount=Decimal(LONG), count=3)),
    ],
    ids=str,
)
def test_what_was_sent_is_read_by_the_type_that_it_was_sent_as(annotation: Any, value: Any) -> None:
    assert read(decoder_for(annotation), encode(value)) == value


def test_a_model_is_sent_under_the_names_under_which_it_is_read() -> None:
    assert encode({"a": Card(cardNumber="1")}) == b'{"a":{"cardNumber":"1"}}'
    assert encode(CheckedCard(cardNumber="1")) == b'{"cardNumber":"1"}'  # type: ignore[call-arg]
    assert encode(SaysSo(number="1")) == b'{"number":"1"}'
    assert encode(Renamed("1")) == b'{"cardNumber":"1","inner":[]}'


def test_what_a_handler_sends_on_is_read_by_the_next_one() -> None:
    app, got = App("g", settings=Settings(bootstrap_servers="localhost:1")), []

    @app.consumer("in", dead_letter_topic="dlt")
    def passes_on(card: Card, record: Record) -> None:
        record.send("out", card)
        record.send("out", CheckedCard(cardNumber="2"))  # type: ignore[call-arg]

    @app.consumer("out", dead_letter_topic="dlt")
    def takes(card: Card) -> None:
        got.append(card.number)

    with World(app) as world:
        world.produce("in", Card(cardNumber="1"))
        world.finish()
        assert world.dead_letters() == []
    assert sorted(got) == ["1", "2"]


def test_what_holds_nothing_of_pydantics_goes_to_msgspec_as_it_is() -> None:
    @dataclasses.dataclass
    class Plain:
        raw: bytes

    assert encode(Plain(b"abc")) == b'{"raw":"YWJj"}'
    assert encode([Plain(b"abc"), (1, 2)]) == b'[{"raw":"YWJj"},[1,2]]'


# -- where they differ: docs/handlers.md ---------------------------------------------------------------


class Gone(msgspec.Struct):
    pass


def differs(kind: Any, raw: str, *, by: Literal["msgspec", "pydantic"]) -> Any:
    """What a field `x` of that kind becomes; "refused" where it does not."""
    made: Any
    if by == "msgspec":
        made = msgspec.defstruct("Made", [("x", kind)])
    else:
        made = pydantic.create_model("Made", x=(kind, ...))
    try:
        return read(decoder_for(made), f'{{"x":{raw}}}'.encode()).x
    except DecodeError:
        return "refused"


AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECONDS = str(int(AT.timestamp()))
DIFFERENCES: dict[str, tuple[Any, str, Any, Any]] = {
    "`int` from `\"3\"`": (int, '"3"', "refused", 3),
    "`int` from `3.0`": (int, "3.0", "refused", 3),
    "`int` from `true`": (int, "true", "refused", 1),
    "`int` from `12345678901234567.0`": (int, "12345678901234567.0", "refused", 12345678901234567),
    "`float` from `\"1.5\"`": (float, '"1.5"', "refused", 1.5),
    "`float` from `\"NaN\"`": (float, '"NaN"', "refused", "nan"),
    "`bool` from `1`, `\"yes\"`": (bool, '"yes"', "refused", True),
    "`str` from `3`": (str, "3", "refused", "refused"),
    "`Decimal` from `12345678901234567.89`": (Decimal, LONG, Decimal(LONG), Decimal(LONG)),
    "`Decimal` from `1e400`": (Decimal, "1e400", Decimal("1e400"), "refused"),
    "`bytes` from `\"YWJj\"`": (bytes, '"YWJj"', b"abc", b"YWJj"),
    "`datetime` from a number": (datetime, SECONDS, "refused", AT),
    "`timedelta` from a number": (timedelta, "3", "refused", timedelta(seconds=3)),
    "`NaN`, `Infinity` in the JSON": (float, "NaN", "refused", "refused"),
    "`1e400` as a `float`": (float, "1e400", "refused", "refused"),
    "`null` for a field with a default": (int, "null", "refused", "refused"),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENCES)
def test_where_the_two_libraries_differ_is_known(case: str) -> None:
    kind, raw, ours, theirs = DIFFERENCES[case]
    assert differs(kind, raw, by="msgspec") == ours
    found = differs(kind, raw, by="pydantic")
    assert (str(found) if theirs == "nan" else found) == theirs


def test_the_page_tells_each_difference() -> None:
    page = (Path(__file__).parents[2] / "docs" / "handlers.md").read_text(encoding="utf-8")
    table = page.partition("## Two libraries")[2].partition("\n## ")[0]
    rows = {cells[1].strip(): cells for line in table.splitlines() if (cells := line.split("|"))[2:]}
    for case, (_, _, *answers) in DIFFERENCES.items():
        for cell, answer in zip(rows[case][2:4], answers, strict=True):
            assert (answer == "refused") == cell.strip().startswith("refused"), (case, cell)


def test_defaults_and_unknown_fields_are_treated_alike() -> None:
    class Theirs(BaseModel):
        x: int = 3
        items: list[int] = []

    class Ours(msgspec.Struct):
        x: int = 3
        items: list[int] = []

    for kind in (Ours, Theirs):
        decoding = decoder_for(kind)
        one, two = read(decoding, b'{"unknown":1}'), read(decoding, b"{}")
        assert (one.x, one.items) == (3, [])
        one.items.append(1)
        assert two.items == []


@pytest.mark.parametrize(
    "value",
    [
        msgspec.defstruct("S", [("x", float)])(float("nan")),
        pydantic.create_model("M", x=(float, ...))(x=float("nan")),
        {"x": float("inf")},
    ],
    ids=["struct", "model", "dict"],
)
def test_nan_and_infinity_are_sent_as_null_by_both(value: Any) -> None:
    raw = encode(value)
    assert raw is not None
    assert json.loads(raw) == {"x": None}


def test_bytes_that_are_no_text_are_refused_by_a_model_when_it_is_sent() -> None:
    made = pydantic.create_model("Made", x=(bytes, ...))
    with pytest.raises(Exception, match=re.escape("cannot be encoded")):
        encode(made(x=b"\xff"))
