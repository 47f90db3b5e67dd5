"""What is hidden of a record stands in nothing that is written about it, however its error quotes it."""

from __future__ import annotations

import base64
import enum
import json
import logging
import pickle
import re
import traceback
import urllib.parse
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relance import App, BatchError, CircuitBreaker, CircuitBreakerOpen, Mask, Record, RetryPolicy
from relance.dead_letters import errortext
from relance.dead_letters.envelope import decode
from relance.dead_letters.ladder import fit
from relance.dead_letters.telling import teller_of
from relance.decoding import decoder_for
from relance.errors import BrokerUnavailableError, DecodeError, Reject, TransientError
from relance.hooks import Hooks
from relance.kafka.browse import FetchedRecord
from relance.outgoing import MAX_RECORD, dead_letter, retry_record
from relance.policies.secrets import HIDDEN
from relance.record import Outgoing, TopicPartition
from relance.runner import Runner
from relance.settings import Settings
from relance.testing import World
from relance.workers.travel import Sent, packed, unpacked
from waiting import wait_until
from world import DLT, ORDERS, Message, a_member

CARD, HOLDER, CVV, TOKEN = "4111111111111111", "Jane Ö'Roe", "secret-7f3a", "Bearer abcdef0123456789"
MASK = Mask(fields=["cardNumber", "holder", "cvv"], headers=["authorization"])
PAYMENT = {"id": 17, "payments": [{"cardNumber": CARD, "holder": HOLDER, "amount": 5}], "cvv": CVV}
VALUE = json.dumps(PAYMENT).encode()
HEADERS = [("authorization", TOKEN.encode()), ("trace", b"0af7")]
NOW = 1_700_000_000.0

PIECES = [CARD[:8], "Jane", "Roe", "secret-7", "abcdef01"]
"""What stands in no text; of the card, whose ends a receipt shows, half of it."""


class Card(pydantic.BaseModel):
    card_number: int = pydantic.Field(alias="cardNumber")
    holder: str
    amount: int


class Payment(pydantic.BaseModel):
    id: int
    payments: list[Card]
    cvv: int
    missing: str


class Kind(enum.Enum):
    ONE = "one"


class Bank(msgspec.Struct, tag_field="holder", tag="bank"):
    amount: int


class Cash(msgspec.Struct, tag_field="holder", tag="cash"):
    amount: int


class Paid(msgspec.Struct):
    payments: list[Bank | Cash]


class Coded(msgspec.Struct):
    cvv: Kind


class A(pydantic.BaseModel):
    cvv: Literal["a"]


class B(pydantic.BaseModel):
    cvv: Literal["b"]


class Tagged(pydantic.RootModel[Annotated[A | B, pydantic.Field(discriminator="cvv")]]):
    pass


class Checked(pydantic.BaseModel):
    cvv: str

    @pydantic.field_validator("cvv")
    @classmethod
    def known(cls, value: str) -> str:
        raise ValueError(f"{value.upper()} is not known")


def fails_as(annotation: Any) -> Callable[..., None]:
    """A handler whose value does not decode."""

    def handle(value: object, record: Record) -> None:
        raise AssertionError

    handle.__annotations__["value"] = annotation
    return handle


def raises(make: Callable[[Any, Record], BaseException]) -> Callable[..., None]:
    def handle(value: Any, record: Record) -> None:
        raise make(value, record)

    return handle


def chained(value: Any, record: Record) -> Exception:
    try:
        try:
            {}[HOLDER]
        except KeyError:
            raise ValueError(CARD)  # noqa: B904  its context is what is tested
    except ValueError as cause:
        error = TransientError("outer")
        error.__cause__ = cause
        error.add_note(f"it was {CVV}")
        return error


def grouped(value: Any, record: Record) -> Exception:
    return ExceptionGroup("several", [ValueError(CARD), ExceptionGroup("more", [KeyError(HOLDER)])])


class Odd(Exception):
    def __init__(self, **given: Any) -> None:
        super().__init__(given)

    def __str__(self) -> str:
        return f"odd: {self.args!r}"


def card(value: Any) -> Any:
    return value["payments"][0]["cardNumber"]


def holder(value: Any) -> Any:
    return value["payments"][0]["holder"]


QUOTED: dict[str, Callable[..., None]] = {
    "pydantic": fails_as(Payment),
    "pydantic list": fails_as(list[Payment]),
    "pydantic discriminator": fails_as(Tagged),
    "pydantic validator": fails_as(Checked),
    "msgspec enum": fails_as(Coded),
    "msgspec tagged union": fails_as(Paid),
    "as it is": raises(lambda v, r: ValueError(f"bad card {card(v)} of {holder(v)}, {v['cvv']}")),
    "as a whole": raises(lambda v, r: ValueError(v)),
    "repr": raises(lambda v, r: ValueError(f"bad {v!r}")),
    "as bytes": raises(lambda v, r: ValueError(f"bad {r.raw!r}")),
    "bytes of a text": raises(lambda v, r: ValueError(holder(v).encode(), card(v).encode())),
    "as JSON": raises(lambda v, r: ValueError(json.dumps(v))),
    "as JSON in JSON": raises(lambda v, r: ValueError(json.dumps(json.dumps(v)))),
    "as JSON in a repr": raises(lambda v, r: ValueError([json.dumps(v)])),
    "as a number": raises(lambda v, r: ValueError(int(card(v)))),
    "in a URL": raises(
        lambda v, r: OSError(f"GET /pay?{urllib.parse.urlencode({'h': holder(v), 'c': card(v)})}")
    ),
    "in upper case": raises(lambda v, r: ValueError(holder(v).upper())),
    "cut short": raises(lambda v, r: ValueError(f"bad {v!r:.60}")),
    "cut with an ellipsis": raises(lambda v, r: ValueError(f"bad card {card(v)[:7]}...")),
    "cut in the middle": raises(lambda v, r: ValueError(f"bad {card(v)[:7]}...{card(v)[-6:]}")),
    "a header": raises(lambda v, r: PermissionError(f"401 for {dict(r.headers)['authorization']!r}")),
    "cause, context and note": raises(chained),
    "a group": raises(grouped),
    "keyword arguments": raises(lambda v, r: Odd(**v["payments"][0])),
    "a rejection": raises(lambda v, r: Reject(f"no account for {holder(v)}")),
    "a long text": raises(lambda v, r: ValueError(f"{'x' * 3_990}{card(v)}{'y' * 100_000}{card(v)}")),
    "a long text before": raises(lambda v, r: ValueError(f"{'x ' * 2_350}{holder(v) * 20_000}")),
    "a long chain": raises(lambda v, r: ValueError(f"{card(v)}\n" * 20_000)),
}


def exposed(text: str) -> list[str]:
    return [piece for piece in PIECES if piece.lower() in text.lower()]


def all_that_is_written(
    handler: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    mask: Mask,
    values: list[bytes],
    **options: Any,
) -> dict[str, str]:
    """What a consumer with everything leaves behind when the handler fails for the value."""
    caplog.set_level(logging.DEBUG)
    found: dict[str, str] = {}
    app = App("g", bootstrap_servers="localhost:1", mask=mask)
    policy = RetryPolicy.fixed(5.0, max_attempts=3, retry_on=Exception)
    options = {"retry": policy, "retry_topic": "t.retry", "dead_letter_topic": "t.DLT"} | options
    if options["retry_topic"] is not None:
        options["max_in_memory_wait"] = 0.0
    app.consumer("t", **options)(handler)

    @app.on_breaker_open
    def opened(event: CircuitBreakerOpen) -> None:
        found["hook"] = repr(event)

    with World(app) as world:
        for value in values:
            world.produce("t", value, key=b"k", headers=HEADERS)
        try:
            world.run()
            found["health before"] = json.dumps(app.health().details) + str(app.health().reasons)
            found["stats before"] = repr(app.stats())
            if "breaker" not in options:  # with one, a record that is alone is tried for ever
                world.finish()
        except Exception as error:  # it stops: what the program is given is the error itself
            found["ended"] = type(error).__name__
        found["health"] = json.dumps(app.health().details, ensure_ascii=False) + str(app.health().reasons)
        found["stats"] = repr(app.stats())
        for at, record in enumerate(world.records("t.DLT") if options["dead_letter_topic"] else ()):
            assert record.value is not None
            letter = record.value.decode()
            found[f"letter {at}"] = letter.replace(str(decode(record.value).original_key), "", 1)
            found[f"letter {at} repr"] = repr(decode(record.value))
            found[f"letter {at} headers"] = str(record.headers())
        if options["retry_topic"]:
            for at, record in enumerate(world.records("t.retry")):
                ours = [(name, v) for name, v in record.sent_headers if name.startswith("relance-")]
                found[f"retry {at}"] = "\n".join((v or b"").decode() for _, v in ours)
    found["log"] = caplog.text
    return found


@pytest.mark.parametrize("name", QUOTED)
def test_no_text_shows_what_is_hidden_however_the_error_quotes_it(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = all_that_is_written(QUOTED[name], caplog, MASK, [VALUE])
    assert {where: exposed(text) for where, text in found.items() if exposed(text)} == {}
    assert "letter 0" in found
    assert ("retry 1" in found) == (not name.startswith(("pydantic", "msgspec", "a rejection")))
    assert '"amount":5' in found["letter 0"].replace("\\", "")


@pytest.mark.parametrize("name", ["as it is", "repr", "a long text", "a group", "a header"])
def test_nor_does_what_a_circuit_breaker_tells(name: str, caplog: pytest.LogCaptureFixture) -> None:
    breaker = CircuitBreaker(failure_rate=1.0, window=10, minimum_calls=1, errors=[Exception])
    found = all_that_is_written(QUOTED[name], caplog, MASK, [VALUE], breaker=breaker)
    assert {where: exposed(text) for where, text in found.items() if exposed(text)} == {}
    assert "last error" in found["log"]
    assert "last_error" in found["hook"]


@pytest.mark.parametrize("name", QUOTED)
def test_nor_does_the_reason_why_all_stops(name: str, caplog: pytest.LogCaptureFixture) -> None:
    options = {"dead_letter_topic": None, "retry_topic": None, "retry": None}
    found = all_that_is_written(QUOTED[name], caplog, MASK, [VALUE], **options)
    assert {where: exposed(text) for where, text in found.items() if exposed(text)} == {}
    assert "ended" in found
    assert "stopped by t-0, offset 0, key #8254c329: " in found["health"]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_nor_does_the_end_of_a_handler_that_ends_the_process(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    handle = raises(lambda v, r: kind(f"{card(v)} of {holder(v)}"))
    found = all_that_is_written(handle, caplog, MASK, [VALUE])
    assert {where: exposed(text) for where, text in found.items() if exposed(text)} == {}
    assert "handle at t-0 at offset 0" in found["health"]
    assert f"{kind.__name__}: *** of ***" in found["health"]


@pytest.mark.parametrize("options", [{}, {"retry": None, "retry_topic": None}])
def test_of_a_batch_no_record_s_error_shows_what_another_one_holds(
    caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    other = json.dumps({"id": 18, "cvv": "1"}).encode()

    def handle(values: list[Any]) -> None:
        raise BatchError({at: ValueError(f"one of {values}") for at, _ in enumerate(values)})

    for order in ([VALUE, other], [other, VALUE]):
        found = all_that_is_written(handle, caplog, MASK, order, batch=10, **options)
        assert {where: exposed(text) for where, text in found.items() if exposed(text)} == {}
        assert "letter 1" in found


def test_nor_where_the_batch_fails_as_a_whole_and_ends_all(caplog: pytest.LogCaptureFixture) -> None:
    def handle(values: list[Any]) -> None:
        raise PermissionError(f"none of {values}")

    policy = RetryPolicy.fixed(5.0, fatal=PermissionError)
    found = all_that_is_written(handle, caplog, MASK, [b"{}", VALUE], batch=10, retry=policy)
    assert {where: exposed(text) for where, text in found.items() if exposed(text)} == {}
    assert "stopped by t-0, offset 0" in found["health"]


@pytest.mark.parametrize(
    "value",
    [
        f"{CARD};{HOLDER};{CVV}".encode(),
        f"{CARD};{HOLDER};{CVV}".encode("latin-1"),
        f"{CARD};{HOLDER};{CVV}".encode("utf-16"),
        VALUE[:-1],
        VALUE + VALUE,
        b'{"cardNumber":1,' + VALUE[1:-1] + b',"cardNumber":2}',
        b"\x0a\x10" + CARD.encode() + b"\x12\x0b" + HOLDER.encode() + b"\x1a\x0b" + CVV.encode() + b"\xff",
    ],
)
def test_of_a_value_that_nobody_can_read_every_word_is_hidden(
    value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def handle(raw: bytes) -> None:
        for encoding in ("utf-8", "utf-16", "latin-1"):
            try:
                text = raw.decode(encoding)
                break
            except UnicodeDecodeError:
                continue
        raise ValueError(f"cannot read {raw!r}: {text}: card {CARD}")

    found = all_that_is_written(handle, caplog, MASK, [value])
    assert {where: exposed(text) for where, text in found.items() if exposed(text)} == {}
    assert "cannot read" in found["letter 0"]


def test_what_the_decoder_says_of_such_a_value_is_told_word_for_word() -> None:
    def shown(raw: bytes, annotation: Any = None) -> str:
        member = a_member(mask=MASK)
        member.broker.log(ORDERS).append(value=raw)
        member.read()

        def handle(record: Record) -> None:
            try:
                msgspec.json.decode(record.raw or b"")
            except msgspec.DecodeError as error:
                problem = DecodeError(str(error))
                problem.__cause__ = error
                raise problem from error

        member.work(handle)
        return decode(member.writes[0].outgoing.value).error_message

    assert (
        shown(b"JSON is malformed, not 4111") == "DecodeError: JSON is malformed: invalid character (byte 0)"
    )


def test_what_pydantic_quotes_is_left_out_since_a_validator_may_have_changed_it() -> None:
    class Turned(pydantic.BaseModel):
        cvv: Annotated[int, pydantic.BeforeValidator(lambda given: given[::-1])]

    decoding = decoder_for(Turned)
    with pytest.raises(pydantic.ValidationError) as caught:
        decoding.decode(VALUE)
    assert CVV[::-1] in str(caught.value)
    teller = teller_of(MASK, [(VALUE, list)])
    told = teller.trace(decoding.as_error(caught.value, VALUE))
    assert CVV[::-1] not in told
    assert "[type=int_parsing]" in told


def test_a_pattern_is_not_got_around_by_a_text_that_is_cut_in_its_middle() -> None:
    teller = teller_of(Mask(patterns=[r"\d{16}"]), [])
    told = teller.failure(ValueError("x " * 1_989 + CARD * 2))
    assert told.endswith("x …")
    assert CARD[:6] not in told


@pytest.mark.parametrize("what", ["a note", "a note of its cause", "a context", "a class of its own"])
def test_a_decode_error_that_says_more_than_the_decoder_is_told_under_the_mask(what: str) -> None:
    class Mine(DecodeError):
        pass

    raw = f"no json, {CARD}".encode()
    cause = msgspec.DecodeError("JSON is malformed")
    error = (Mine if what == "a class of its own" else DecodeError)(f"of {CARD}" if "class" in what else "x")
    error.__cause__ = cause
    if what == "a context":
        cause.__context__ = ValueError(CARD)
    elif what != "a class of its own":
        (error if what == "a note" else cause).add_note(CARD)
    teller = teller_of(MASK, [(raw, list)])
    assert CARD in "".join(traceback.format_exception(error))
    assert exposed(teller.failure(error) + teller.trace(error)) == []


def test_each_record_s_error_is_told_under_what_is_hidden_of_that_record() -> None:
    member = a_member(mask=MASK)
    names = ["Jane Roe", "John Doe"]
    for name in names:
        member.broker.log(ORDERS).append(value=json.dumps({"holder": name}).encode())
    member.read()
    member.work(lambda record: raises(lambda v, r: ValueError(record.raw, names))(None, record))
    letters = [decode(write.outgoing.value).error_message for write in member.writes]
    assert ["Jane" in letter for letter in letters] == [False, True]
    assert ["John" in letter for letter in letters] == [True, False]


def test_the_reason_why_a_partition_stops_is_told_under_the_patterns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    member = a_member(mask=Mask(patterns=["pin [0-9]+"]))
    member.broker.log(ORDERS).append()
    member.read()
    member.work(lambda record: raises(lambda v, r: ValueError("x"))(None, record))
    member.refuse(reason="no leader, pin 1234")
    assert "no leader, ***" in member.runtime.look().stopped["orders-0"]
    assert "no leader, ***" in caplog.text
    assert "1234" not in caplog.text


def test_an_app_s_mask_covers_its_hooks_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    app = App("g", bootstrap_servers="localhost:1", mask=Mask(patterns=["pin [0-9]+"]))

    @app.on_assigned
    def bad(tps: list[TopicPartition]) -> None:
        raise ValueError("pin 1234")

    app._hooks.assigned([TopicPartition("orders", 0)])
    wait_until(lambda: "ValueError: ***" in caplog.text)
    runner = app._run_once(owns_process=False)
    runner.fail(ValueError("of pin 1234"))
    assert runner.reason == "ValueError: of ***"
    assert "1234" not in caplog.text
    runner._start_ended.set()
    runner.finish()


def test_what_a_record_brought_along_is_told_again_under_the_mask() -> None:
    from relance.engine.deferral import Failure

    record = Message(3, b"k", VALUE, own_headers=HEADERS).as_record(ORDERS)
    record.history = (Failure(1, f"ValueError: {CARD}", NOW),)
    record.attempt = 2
    outgoing = dead_letter(record, Reject("no"), topic=DLT, group="g", now=NOW, mask=MASK)
    assert isinstance(outgoing, Outgoing)
    assert decode(outgoing.value).attempts[0].error == f"ValueError: {HIDDEN}"
    teller = teller_of(MASK, [(VALUE, lambda: HEADERS)])
    deferred = retry_record(record, ValueError("x"), topic="r", group="g", delay=1.0, now=NOW, teller=teller)
    assert deferred is not None
    assert CARD not in str(deferred.headers[2:])


def test_an_error_of_a_child_process_is_told_under_the_mask() -> None:
    class Unpicklable(Exception):
        pass

    teller = teller_of(MASK, [(VALUE, lambda: HEADERS)])
    for error in (ValueError(f"card {CARD}"), Unpicklable(f"{'x' * 980}{CARD}"), Unpicklable({"h": HOLDER})):
        home = unpacked(pickle.loads(pickle.dumps(packed(error))))
        told = teller.failure(home) + teller.trace(home)
        assert exposed(told) == []
        assert CARD[:4] not in told


def test_a_dead_letter_of_what_never_was_a_record_is_told_under_the_mask() -> None:
    app = App("g", bootstrap_servers="localhost:1", mask=MASK)

    @app.consumer("t")
    def handle(value: Any) -> None: ...

    with World(app) as world:
        world.topic("api.DLT")
        app.dead_letter(
            "api.DLT", PAYMENT, key="k", error=ValueError(PAYMENT), source_topic="t", headers=HEADERS
        )
        [letter] = world.records("api.DLT")
        assert exposed((letter.value or b"").decode()) == []
        assert "ValueError" in (letter.value or b"").decode()


def test_a_hook_that_raises_is_logged_under_the_mask(caplog: pytest.LogCaptureFixture) -> None:
    hooks = Hooks(Mask(patterns=[r"\d{16}"]))

    def bad(tps: list[TopicPartition]) -> None:
        raise ValueError(f"card {CARD}\nCRITICAL relance: forged")

    hooks.on_assigned.append(bad)
    hooks.assigned([TopicPartition("orders", 0)])
    wait_until(lambda: hooks.failures)
    wait_until(lambda: "card ***" in caplog.text)
    assert CARD not in caplog.text
    assert "\n    CRITICAL relance: forged" in caplog.text
    hooks.close()


def test_patterns_reach_the_reason_why_all_stops(caplog: pytest.LogCaptureFixture) -> None:
    def handle(value: Any) -> None:
        raise ValueError(f"card {CARD}")

    options = {"dead_letter_topic": None, "retry_topic": None, "retry": None}
    found = all_that_is_written(handle, caplog, Mask(patterns=[r"\d{16}"]), [VALUE], **options)
    assert "failed with ValueError: card ***" in found["health"]
    assert CARD not in "".join(found.values())


def test_the_log_names_record_handler_error_stack_and_the_way_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = a_member(mask=MASK, dead_letter_topic=None, handler="shop.pay")
    member.broker.log(ORDERS).append(value=VALUE)
    member.read()
    member.work(lambda record: raises(lambda v, r: ValueError(f"boom {CARD}\nforged"))(None, record))
    runner = Runner(Settings(), [], [], Hooks(), mask=MASK)
    monkeypatch.setattr(runner, "stop", lambda: None)
    runner.fail(member.failures[0], member.told[0])
    runner.fail(ValueError("later"))
    assert caplog.messages[-1] == (
        "stopping: orders-0, offset 0, key #8254c329: shop.pay failed with ValueError: boom ***␊forged;"
        " without a dead_letter_topic the record can't be given up: name one in @app.consumer, or mend the"
        " handler; nothing is committed past the record, and the next start handles it again"
    )
    assert [record.levelname for record in caplog.records[-2:]] == ["ERROR", "CRITICAL"]
    stack = caplog.messages[-2]
    assert "\n    Traceback (most recent call last):" in stack
    assert ", in handle\n" in stack
    assert stack.endswith("\n    ValueError: boom ***\n    forged")
    assert exposed(caplog.text) == []


def test_an_error_without_a_record_is_told_under_the_patterns(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Runner(Settings(), [], [], Hooks(), mask=Mask(patterns=[r"\d{16}"]))
    monkeypatch.setattr(runner, "stop", lambda: None)
    try:
        raise RuntimeError(f"broken {CARD}")
    except RuntimeError as error:
        runner.fail(error)
    stack, line = caplog.messages
    assert "in test_an_error_without_a_record_is_told_under_the_patterns" in stack
    assert line == "stopping: RuntimeError: broken ***"
    assert runner.reason == "RuntimeError: broken ***"
    assert CARD not in caplog.text


def test_an_error_that_says_all_itself_is_told_without_a_stack(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Runner(Settings(), [], [], Hooks())
    monkeypatch.setattr(runner, "stop", lambda: None)
    try:
        raise BrokerUnavailableError("no broker answers")
    except BrokerUnavailableError as error:
        runner.fail(error)
    assert caplog.messages == ["stopping: BrokerUnavailableError: no broker answers"]


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (KeyError("status"), "KeyError: 'status'"),
        (ValueError(f"no status for {CARD}"), "ValueError: no status for ***"),
        (SystemExit(3), "SystemExit: 3"),
        (GeneratorExit(), "GeneratorExit"),
        (Speechless(), "Speechless: <no text: its __str__ raised RuntimeError>"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"batch": 5}])
@pytest.mark.parametrize("key", ["retry_on", "errors"])
def test_a_rule_that_raises_is_told_by_its_name_beside_the_error_that_it_was_asked_about(
    caplog: pytest.LogCaptureFixture,
    problem: BaseException,
    said: str,
    options: dict[str, Any],
    key: str,
) -> None:
    def is_transient(error: Exception) -> bool:
        raise problem

    def handle(value: Any) -> None:
        raise TransientError(f"boom {CARD}")

    handle.__annotations__.clear()  # it takes one value, or a list of them
    rules = {
        "retry_on": {"retry": RetryPolicy.fixed(retry_on=is_transient)},
        "errors": {"breaker": CircuitBreaker(errors=[is_transient])},
    }
    found = all_that_is_written(handle, caplog, MASK, [VALUE], **options, **rules[key])
    assert found["ended"] == "SettingsError"
    reason = found["health"]
    assert "t-0, offset 0, key #8254c329: " in reason
    assert "handle failed with TransientError: boom ***; " in reason
    assert f"{key}: " in reason
    assert f"is_transient raised {said}; it must answer for every error" in reason
    assert {where: exposed(text) for where, text in found.items() if exposed(text)} == {}


def test_the_program_itself_is_given_both_errors_too() -> None:
    def is_transient(error: Exception) -> bool:
        raise KeyError("status")

    member = a_member(retry=RetryPolicy.fixed(retry_on=is_transient))
    member.broker.log(ORDERS).append()
    member.read()
    error = TransientError("boom")
    member.work(lambda record: raises(lambda v, r: error)(None, record))
    [failure] = member.failures
    assert "is_transient raised KeyError: 'status'" in str(failure)
    assert failure.__cause__ is not None
    assert failure.__cause__.__context__ is error
    told = member.told[0]
    assert told is not None
    assert "TransientError: boom" in told.trace
    assert "KeyError: 'status'" in told.trace


def test_a_keyboard_interrupt_within_a_rule_is_the_person_s() -> None:
    def interrupted(error: Exception) -> bool:
        raise KeyboardInterrupt

    member = a_member(retry=RetryPolicy.fixed(retry_on=interrupted))
    member.broker.log(ORDERS).append()
    member.read()
    with pytest.raises(KeyboardInterrupt):
        member.work(lambda record: raises(lambda v, r: TransientError("boom"))(None, record))
    assert member.failures == []


@pytest.mark.parametrize("answer", ["soon", b"yes", object()])
def test_a_rule_that_answers_what_it_may_not_is_told_the_same_way(
    caplog: pytest.LogCaptureFixture, answer: Any
) -> None:
    def is_transient(error: Exception) -> Any:
        return answer

    policy = RetryPolicy.fixed(retry_on=is_transient)
    handle = raises(lambda v, r: TransientError("boom"))
    found = all_that_is_written(handle, caplog, MASK, [VALUE], retry=policy)
    assert f"is_transient answered {answer!r:.10}" in found["health"]
    assert "TransientError: boom" in found["health"]


def test_the_same_bug_has_the_same_fingerprint_whatever_is_hidden() -> None:
    def fingerprint(name: str) -> str | None:
        value = json.dumps({"holder": name}).encode()
        record = Message(3, b"k", value).as_record(ORDERS)
        outgoing = dead_letter(
            record, ValueError(f"no account of {name} here"), topic=DLT, group="g", now=NOW, mask=MASK
        )
        assert isinstance(outgoing, Outgoing)
        return decode(outgoing.value).fingerprint

    assert fingerprint("Jane Roe") == fingerprint("John Doe-Smith")


def test_where_there_is_too_much_to_hide_only_classes_and_calls_are_told() -> None:
    names = [f"name {n:012d}" for n in range(20_000)]
    value = json.dumps({"holder": names}).encode()
    record = Message(3, b"k", value).as_record(ORDERS)

    def fail() -> None:
        try:
            raise KeyError(names[17])
        except KeyError as cause:
            raise ValueError(names[18]) from cause

    try:
        fail()
    except ValueError as error:
        outgoing = dead_letter(record, error, topic=DLT, group="g", now=NOW, mask=MASK)
    assert isinstance(outgoing, Outgoing)
    found = decode(outgoing.value)
    assert found.error_message == "ValueError: ***"
    assert found.attempts[0].error == "ValueError: ***"
    assert found.stack_trace is not None
    assert "in fail" in found.stack_trace
    assert found.stack_trace.index("KeyError: ***") < found.stack_trace.index("ValueError: ***")
    assert "0000001" not in (outgoing.value or b"").decode()


def test_what_records_and_letters_print_of_themselves_holds_neither_key_nor_value() -> None:
    record = Message(3, CARD.encode(), VALUE, own_headers=HEADERS).as_record(ORDERS)
    outgoing = dead_letter(record, Reject("no"), topic=DLT, group="g", now=NOW)
    assert isinstance(outgoing, Outgoing)
    letter = decode(outgoing.value)
    fetched = FetchedRecord("orders", 0, 3, CARD.encode(), VALUE, tuple(HEADERS), None)
    fitted = fit(letter, MAX_RECORD, False)
    sent = Sent("orders", 0, 3, CARD.encode(), VALUE, 1, HEADERS, (1, 0))
    for one in (record, outgoing, letter, letter.original_headers, {"a": letter}, fetched, fitted, sent):
        assert exposed(repr(one)) == []
        assert "orders" in repr(one) or one is letter.original_headers
    assert repr(letter) == "<DeadLetter of orders-0 offset 3: relance.errors.Reject, 0 retries>"


NAMES = st.text(min_size=4, max_size=30).filter(lambda s: len(s.strip()) >= 4)


@given(NAMES, st.text(max_size=20), st.sampled_from(["{}", "{!r}", "{!a}", "<{}>", "x{}y"]))
def test_whatever_a_hidden_value_is_no_error_that_quotes_it_shows_it(
    value: str, around: str, form: str
) -> None:
    raw = json.dumps({"cvv": value}).encode()
    teller = teller_of(MASK, [(raw, list)])
    told = teller.failure(ValueError(f"{around} {form.format(value)} {around}"))
    assert value not in told.replace(around, "") or value in HIDDEN


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_no_value_and_no_header_keeps_an_error_from_being_told(raw: bytes, header: bytes) -> None:
    teller = teller_of(MASK, [(raw, lambda: [("authorization", header)])])
    assert teller.failure(ValueError("x")).startswith(("ValueError", HIDDEN))
    assert isinstance(base64.b64encode(teller.trace(ValueError(raw)).encode()), bytes)


@pytest.mark.parametrize("side", ["head", "tail"])
def test_a_long_trace_shows_no_part_of_a_word_that_a_pattern_matches(side: str) -> None:
    teller = teller_of(Mask(patterns=[r"\b\d{16}\b"]), [])

    def trace_of(message: str) -> str:
        try:
            raise ValueError(message)
        except ValueError as error:
            return teller.trace(error)

    before = len(trace_of("").rstrip("\n")) + len(": ")
    for at in range(0, 17, 2):  # where the text is cut, in the card
        if side == "head":
            text = "x" * (errortext._TRACE_HEAD - before - at - 1) + f" {CARD} " + "y " * errortext.MAX_TRACE
        else:
            rest = errortext.MAX_TRACE - errortext._TRACE_HEAD
            text = "y " * errortext.MAX_TRACE + f"{CARD} " + "x" * (rest - (16 - at) - 2)
        found = trace_of(text)
        assert "characters left out" in found
        assert not re.search("41111|11111", found), at
