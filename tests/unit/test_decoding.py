"""Values by annotation, the shapes a handler may have, and what is sent for a value."""

import functools
import inspect
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NewType, Optional, TypedDict, Union
from uuid import UUID

import msgspec
import pydantic
import pytest

from relance.decoding import Decoding, decoder_for, handler_shape
from relance.encoding import encode
from relance.errors import DecodeError, SendError, SettingsError
from relance.policies.classify import classify
from relance.policies.retry import RetryPolicy
from relance.record import Record

if TYPE_CHECKING:
    from collections.abc import Sequence


class Order(msgspec.Struct):
    orderId: str
    amount: float = 0.0


@dataclass
class OrderData:
    orderId: str
    amount: float = 0.0


class OrderDict(TypedDict):
    orderId: str


class OrderModel(pydantic.BaseModel):
    orderId: str
    amount: float = 0.0
    note: Any = None


class Opaque:
    def __init__(self, x: int) -> None:
        self.x = x


def read(decoding: Decoding, raw: bytes | None) -> Any:
    try:
        return decoding.decode(raw)
    except decoding.errors as error:
        raise decoding.as_error(error, raw) from error


RAW = b'{"orderId":"A-1"}'


@pytest.mark.parametrize(
    ("annotation", "raw", "value"),
    [
        (Order, RAW, Order("A-1")),
        (OrderData, RAW, OrderData("A-1")),
        (OrderDict, RAW, {"orderId": "A-1"}),
        (OrderModel, RAW, OrderModel(orderId="A-1")),
        (list[OrderModel], b"[" + RAW + b"]", [OrderModel(orderId="A-1")]),
        (dict, RAW, {"orderId": "A-1"}),
        (dict[str, str], RAW, {"orderId": "A-1"}),
        (list, b"[1,2.5,null]", [1, 2.5, None]),
        (list[Order], b"[" + RAW + b"]", [Order("A-1")]),
        (Order | list[int], b"[1]", [1]),
        (int, b"3", 3),
        (UUID, b'"0c0c0c0c-0000-4000-8000-000000000000"', UUID("0c0c0c0c-0000-4000-8000-000000000000")),
        (str, RAW, RAW.decode()),
        (str, "é\ufeff".encode(), "é\ufeff"),
        (str, b"", ""),
        (NewType("Name", str), b"x", "x"),
        (bytes, b"\xff\x00", b"\xff\x00"),
        (bytes, b"", b""),
        (Any, b'{"a":[1]}', {"a": [1]}),
        (object, b'{"a":[1]}', {"a": [1]}),
        (dict[str, object], b'{"a":[1]}', {"a": [1]}),
        (inspect.Parameter.empty, b'"x"', "x"),
        (Annotated[int, msgspec.Meta(ge=0)], b"3", 3),
    ],
    ids=str,
)
def test_a_value_becomes_what_the_annotation_says(annotation: Any, raw: bytes, value: Any) -> None:
    assert read(decoder_for(annotation), raw) == value


@pytest.mark.parametrize(
    "annotation",
    [Order, OrderData, OrderDict, OrderModel, dict, list, str, bytes, int, list[OrderModel]],
    ids=str,
)
def test_a_null_value_is_refused_where_the_annotation_does_not_allow_it(annotation: Any) -> None:
    with pytest.raises(DecodeError, match=r"null value, which `\| None` would allow"):
        read(decoder_for(annotation), None)


@pytest.mark.parametrize(
    "annotation",
    [
        Order | None,
        Optional[Order],  # noqa: UP045  users write these too
        Union[None, Order],  # noqa: UP007
        OrderModel | None,
        str | None,
        bytes | None,
        dict | None,
        Any,
    ],
    ids=str,
)
def test_a_tombstone_is_none_where_the_annotation_allows_it(annotation: Any) -> None:
    assert read(decoder_for(annotation), None) is None


def test_an_optional_type_still_decodes_its_values() -> None:
    assert read(decoder_for(Order | None), RAW) == Order("A-1")
    assert read(decoder_for(OrderModel | None), RAW) == OrderModel(orderId="A-1")
    assert read(decoder_for(str | None), b"null") == "null"
    assert read(decoder_for(Order | list[int] | None), b"[1]") == [1]


def test_the_text_null_is_not_a_tombstone() -> None:
    with pytest.raises(DecodeError, match="got `null`"):
        read(decoder_for(Order | None), b"null")


@pytest.mark.parametrize("annotation", [Order, Order | None, dict, Any, OrderModel])
def test_empty_bytes_are_not_null(annotation: Any) -> None:
    with pytest.raises(DecodeError, match="empty value, which is not null"):
        read(decoder_for(annotation), b"")


POISON = {
    "not JSON": b"{",
    "two values": b"{} {}",
    "NaN": b'{"orderId":"x","amount":NaN,"note":NaN}',
    "infinity": b'{"orderId":"x","amount":-Infinity}',
    "1e400": b'{"orderId":"x","amount":1e400}',
    "1e400 in a field nobody types": b'{"orderId":"x","note":1e400}',
    "100,000 open brackets": b'{"orderId":' + b"[" * 100_000,
    "100,000 deep": b'{"orderId":"x","note":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100,000 deep objects": b'{"note":' * 100_000,
    "5,000 digits": b'{"orderId":"x","amount":' + b"9" * 5_000 + b"}",
    "half a character": b'{"orderId":"\xc3"}',
    "not UTF-8": b"\xff\xfe{\x00}\x00",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a lone surrogate": b'{"orderId":"\\ud800"}',
    "NUL": b"\x00",
}


UNREAD = "1e400 in a field nobody types"
READERS = [Order, OrderData, OrderModel, dict, Any, Order | None]
# A struct skips a field that it doesn't name, without reading its number.
CASES = [(n, a) for n in POISON for a in READERS if n != UNREAD or a in (OrderModel, dict, Any)]


@pytest.mark.parametrize(("name", "annotation"), CASES, ids=str)
def test_poison_gets_a_decode_error_and_never_a_crash(name: str, annotation: Any) -> None:
    with pytest.raises(DecodeError) as caught:
        read(decoder_for(annotation), POISON[name])
    assert len(str(caught.value)) < 1200
    assert caught.value.__cause__ is not None
    assert not classify(caught.value, RetryPolicy.fixed(retry_on=Exception)).retryable


@pytest.mark.parametrize("raw", [b"\xff", b"\xc3", b"a\x80", b"\xed\xa0\x80"])
def test_str_is_strict_utf8_and_says_where_it_broke(raw: bytes) -> None:
    with pytest.raises(DecodeError, match=r"not valid UTF-8: .* at byte \d"):
        read(decoder_for(str), raw)


def test_the_message_says_where_and_what_was_expected() -> None:
    with pytest.raises(
        DecodeError, match=r"Expected `float`, got `str` - at `\$\.amount` \(the handler takes Order\)"
    ):
        read(decoder_for(Order), b'{"orderId":"x","amount":"3"}')
    with pytest.raises(DecodeError, match="missing required field `orderId`"):
        read(decoder_for(OrderData), b"{}")


def test_pydantics_report_is_one_line_and_does_not_quote_the_value() -> None:
    with pytest.raises(DecodeError) as caught:
        read(decoder_for(OrderModel), b'{"orderId":3,"amount":"secret"}')
    text = str(caught.value)
    assert "$.orderId" in text
    assert "$.amount" in text
    assert "secret" not in text
    assert "\n" not in text


def test_an_error_in_a_users_own_validator_is_a_decode_error_too() -> None:
    class Picky(msgspec.Struct):
        x: int

        def __post_init__(self) -> None:
            raise KeyError("rate of " + "x" * 5000)

    with pytest.raises(DecodeError, match="KeyError") as caught:
        read(decoder_for(Picky), b'{"x":1}')
    assert len(str(caught.value)) < 1200


def test_a_repeated_key_counts_the_last_time_and_unknown_fields_are_ignored() -> None:
    raw = b'{"orderId":"a","orderId":"b","colour":"red"}'
    assert read(decoder_for(Order), raw) == Order("b")
    assert read(decoder_for(dict), raw) == {"orderId": "b", "colour": "red"}
    assert read(decoder_for(OrderModel), raw).orderId == "b"


def test_the_hot_path_calls_c_and_no_frame_of_ours() -> None:
    for annotation in (Order, OrderData, OrderDict, dict, list, int, str, bytes):
        assert not inspect.isfunction(decoder_for(annotation).decode), annotation


class Holder(msgspec.Struct):
    inner: list[Opaque]


class Node(msgspec.Struct):
    next: "Node | None" = None
    extra: Opaque | None = None


@pytest.mark.parametrize(
    "annotation", [Opaque, list[Opaque], dict[str, Opaque], Opaque | None, Holder, set[int] | list[int]]
)
def test_a_type_that_could_never_be_decoded_is_refused_when_the_handler_is_registered(
    annotation: Any,
) -> None:
    with pytest.raises(SettingsError, match="cannot decode JSON into"):
        decoder_for(annotation)


def test_a_recursive_type_and_an_optional_field_are_no_obstacle() -> None:
    assert read(decoder_for(Node), b'{"next":{"next":null}}') == Node(Node(None))


# -- the handler --------------------------------------------------------------------------------------


def plain(value):
    pass


def typed(value: Order) -> None:
    pass


async def with_record(value: Order | None, record: Record) -> None:
    pass


def quoted(value: "Order", record: "Record") -> None:
    pass


def other_annotation_unresolvable(value: Order, rows: "Sequence[int]" = ()) -> None:
    pass


def optional_record(value: dict, record: Record | None = None) -> None:
    pass


def default_second(value: dict, db: object = None) -> None:
    pass


def by_keyword(value: dict, *rest: object, flag: bool = False, **more: object) -> None:
    pass


class Service:
    async def handle(self, value: Order, record: Record) -> None:
        pass

    def __call__(self, value: Order) -> None:
        pass

    @staticmethod
    def static(value: Order) -> None:
        pass


def logged(fn: Any) -> Any:
    @functools.wraps(fn)
    async def wrapper(*args: Any) -> Any:
        return await fn(*args)

    return wrapper


def with_client(client: str, value: Order, record: Record) -> None:
    pass


@pytest.mark.parametrize(
    ("handler", "annotation", "takes_record", "is_async"),
    [
        (plain, inspect.Parameter.empty, False, False),
        (typed, Order, False, False),
        (with_record, Order | None, True, True),
        (quoted, Order, True, False),
        (other_annotation_unresolvable, Order, False, False),
        (optional_record, dict, True, False),
        (default_second, dict, False, False),
        (by_keyword, dict, False, False),
        (Service().handle, Order, True, True),
        (Service(), Order, False, False),
        (Service.static, Order, False, False),
        (logged(with_record), Order | None, True, True),
        (functools.partial(with_client, "x"), Order, True, False),
        (lambda value: None, inspect.Parameter.empty, False, False),
    ],
)
def test_a_handlers_shape_is_read_off(
    handler: Any, annotation: Any, takes_record: bool, is_async: bool
) -> None:
    shape = handler_shape(handler)
    assert (shape.annotation, shape.takes_record, shape.is_async) == (annotation, takes_record, is_async)


def test_a_handler_is_named_by_module_and_qualified_name() -> None:
    assert handler_shape(Service().handle).name == f"{__name__}.Service.handle"


def test_a_local_type_is_found_where_the_caller_offers_its_names() -> None:
    class Local(msgspec.Struct):
        x: int

    def handler(value: "Local") -> None:
        pass

    assert handler_shape(handler, locals()).annotation is Local
    with pytest.raises(SettingsError, match=r"cannot resolve the annotation 'Local' of 'value'"):
        handler_shape(handler)


def no_value() -> None:
    pass


def star_only(*args: object) -> None:
    pass


def three(value: Order, record: Record, db: object) -> None:
    pass


def keyword_only(value: Order, *, db: object) -> None:
    pass


def generator(value: Order) -> Any:
    yield value


async def async_generator(value: Order) -> Any:
    yield value


def record_first(record: Record) -> None:
    pass


def nonsense(value: "1 +") -> None:  # type: ignore[syntax]  # noqa: F722
    pass


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (no_value, "takes no value"),
        (star_only, "takes no value"),
        (three, "needs 'db' too"),
        (keyword_only, "needs 'db', which nobody passes"),
        (generator, "has a yield"),
        (async_generator, "has a yield"),
        (record_first, "takes the record second"),
        (nonsense, "cannot resolve the annotation"),
        (Order, "must be a function"),
        (3, "must be a function"),
    ],
)
def test_a_handler_that_could_not_be_called_is_refused_by_name(handler: Any, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as caught:
        handler_shape(handler)
    assert getattr(handler, "__name__", "3") in caught.value.key


# -- sending ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        (None, None),
        (b"\xff", b"\xff"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        ("é", "é".encode()),
        ("", b""),
        (Order("x", 1.5), b'{"orderId":"x","amount":1.5}'),
        (OrderData("x"), b'{"orderId":"x","amount":0.0}'),
        ({"a": [1, None]}, b'{"a":[1,null]}'),
        (OrderModel(orderId="x"), b'{"orderId":"x","amount":0.0,"note":null}'),
        ({"a": OrderModel(orderId="x")}, b'{"a":{"orderId":"x","amount":0.0,"note":null}}'),
        (3, b"3"),
        (True, b"true"),
    ],
    ids=repr,
)
def test_a_value_is_sent_as_it_would_be_read(value: Any, raw: bytes | None) -> None:
    assert encode(value) == raw


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    "value",
    [Opaque(1), {"a": Opaque(1)}, "\ud800", {"a": "\ud800"}, nested(100_000)],
    ids=["o", "do", "s", "ds", "n"],
)
def test_what_has_no_json_is_refused_before_it_is_sent_and_not_retried(value: Any) -> None:
    with pytest.raises(SendError, match="cannot be encoded") as caught:
        encode(value)
    assert not caught.value.maybe_written
    assert not classify(caught.value, RetryPolicy()).retryable


def test_what_was_encoded_decodes_to_an_equal_value() -> None:
    order = Order("é-1", 2.5)
    raw = encode(order)
    assert raw is not None
    assert json.loads(raw) == {"orderId": "é-1", "amount": 2.5}
    assert read(decoder_for(Order), raw) == order
