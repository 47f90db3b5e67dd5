"""The exception tree, the handler's words, and the Kafka error table."""

import math
import pickle

import pytest

from relance import errors
from relance.errors import (
    KAFKA_ERRORS,
    AssignmentError,
    BrokerUnavailableError,
    DecodeError,
    Fatal,
    HandlerWord,
    HandoffError,
    KafkaErrorKind,
    MaxRetriesExceededError,
    Reject,
    RelanceError,
    Retry,
    SendError,
    SettingsError,
    TopicMissingError,
    TransientError,
    kafka_error,
)

TREE = [
    SettingsError("retries", "must be an integer"),
    DecodeError("bad byte"),
    MaxRetriesExceededError(4, ValueError("no")),
    SendError("no acknowledgement", maybe_written=True, code=-192),
    HandoffError("no acknowledgement", maybe_written=False),
    BrokerUnavailableError("localhost:9092 does not answer"),
    TopicMissingError("orders", partitions=6),
    AssignmentError("orders-0 is not ours"),
]
WORDS = [Retry(2.5, "busy"), Reject("no amount"), Fatal("no table")]


def test_everything_exported_exists_and_is_listed_once() -> None:
    assert len(errors.__all__) == len(set(errors.__all__))
    assert all(hasattr(errors, name) for name in errors.__all__)


@pytest.mark.parametrize("error", TREE, ids=lambda e: type(e).__name__)
def test_every_error_of_the_tree_is_a_relance_error_and_says_something(error: RelanceError) -> None:
    assert isinstance(error, RelanceError)
    assert str(error)


@pytest.mark.parametrize("error", [*TREE, *WORDS], ids=lambda e: type(e).__name__)
def test_every_error_survives_the_way_to_another_process(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert {k: str(v) for k, v in vars(copy).items()} == {k: str(v) for k, v in vars(error).items()}


@pytest.mark.parametrize("word", WORDS, ids=lambda e: type(e).__name__)
def test_a_handlers_word_is_not_swallowed_by_an_except_for_relances_errors(word: Exception) -> None:
    assert isinstance(word, HandlerWord)
    assert not isinstance(word, RelanceError)


def test_a_settings_error_names_the_key_and_the_way_out() -> None:
    error = SettingsError("max_delay", "is below initial_delay; raise it")
    assert (error.key, error.problem) == ("max_delay", "is below initial_delay; raise it")
    assert str(error) == "max_delay: is below initial_delay; raise it"


def test_a_missing_topic_is_reported_with_the_command_that_makes_it() -> None:
    text = str(TopicMissingError("orders.DLT", partitions=3, bootstrap_servers="kafka:9092"))
    assert "'orders.DLT' does not exist on kafka:9092" in text
    assert "relance topics create orders.DLT --partitions 3 --bootstrap kafka:9092" in text
    assert "scripts" not in text, "a user of the library has no checkout of it"


def test_all_missing_topics_are_told_in_one_command() -> None:
    error = TopicMissingError("orders", "orders.DLT", partitions=6, replication_factor=3)
    assert "topics 'orders', 'orders.DLT' do not exist on localhost:9092" in str(error)
    assert "create orders orders.DLT --partitions 6 --replication-factor 3" in error.command
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.topic, copy.topics, str(copy)) == ("orders", ("orders", "orders.DLT"), str(error))


def test_a_send_error_says_whether_the_record_may_be_in_the_topic() -> None:
    assert str(SendError("timed out", maybe_written=True)).endswith("(it may have been written all the same)")
    assert str(SendError("too large", maybe_written=False)).endswith("(it was not written)")


def test_exhausted_attempts_are_counted_in_words_that_agree() -> None:
    assert str(MaxRetriesExceededError(1)) == "gave up after 1 attempt"
    assert str(MaxRetriesExceededError(4, TransientError("down"))) == (
        "gave up after 4 attempts; the last: TransientError: down"
    )
    assert str(MaxRetriesExceededError(4, "Timeout: x")) == "gave up after 4 attempts; the last: Timeout: x"


def test_an_unavailable_broker_is_a_connection_error_so_the_default_policy_retries_it() -> None:
    assert isinstance(BrokerUnavailableError("x"), ConnectionError)


@pytest.mark.parametrize("after", [None, 0, 0.0, 1, 2.5, errors.MAX_WAIT])
def test_retry_takes_seconds_or_nothing(after: float | None) -> None:
    assert Retry(after).after == after


@pytest.mark.parametrize(
    ("after", "held"),
    [
        (-1, 0),
        (-0.1, 0),
        (-math.inf, 0),
        *((n, errors.MAX_WAIT) for n in (math.inf, 10**400, errors.MAX_WAIT * 2)),
    ],
)
def test_a_wait_that_is_past_or_absurd_is_held_to_a_day(after: float, held: float) -> None:
    assert Retry(after).after == held


@pytest.mark.parametrize("after", [math.nan, True, "3"])
def test_retry_refuses_what_is_not_a_wait(after: object) -> None:
    with pytest.raises(SettingsError, match=r"Retry\.after"):
        Retry(after)  # type: ignore[arg-type]


def test_the_table_has_a_row_for_every_code_the_client_names() -> None:
    from confluent_kafka import KafkaError

    named = {
        getattr(KafkaError, name): name
        for name in dir(KafkaError)
        if name.lstrip("_").isupper() and isinstance(getattr(KafkaError, name), int)
    }
    assert len(named) > 150
    assert {code: row.name for code, row in KAFKA_ERRORS.items()} == named


def test_every_row_is_keyed_by_its_own_code_and_no_code_is_in_two_groups() -> None:
    from relance import kafka_errors

    assert all(code == row.code for code, row in KAFKA_ERRORS.items())
    assert sum(len(codes) for _, _, codes in kafka_errors._GROUPS) == len(KAFKA_ERRORS)
    assert KAFKA_ERRORS.keys() >= kafka_errors._NOT_WRITTEN


def test_every_action_is_a_sentence() -> None:
    for row in KAFKA_ERRORS.values():
        assert row.action[0].isupper(), row
        assert row.action.endswith("."), row


BRANCHES = {
    "retriable by the producer": [
        "REQUEST_TIMED_OUT",
        "_MSG_TIMED_OUT",
        "NOT_ENOUGH_REPLICAS",
        "LEADER_NOT_AVAILABLE",
    ],
    "retriable by the consumer": [
        "REBALANCE_IN_PROGRESS",
        "OFFSET_OUT_OF_RANGE",
        "COORDINATOR_NOT_AVAILABLE",
    ],
    "fatal": ["_AUTHENTICATION", "INVALID_CONFIG", "_VALUE_SERIALIZATION", "UNKNOWN_TOPIC_OR_PART"],
}


def test_the_documents_own_examples_are_on_the_branches_it_draws() -> None:
    kinds = {row.name: row.kind for row in KAFKA_ERRORS.values()}
    for name in BRANCHES["retriable by the producer"]:
        assert kinds[name] is KafkaErrorKind.RETRIABLE_PRODUCER, name
    for name in BRANCHES["retriable by the consumer"]:
        assert kinds[name] in (KafkaErrorKind.RETRIABLE_CONSUMER, KafkaErrorKind.REBALANCE), name
    for name in BRANCHES["fatal"]:
        assert kinds[name] in (KafkaErrorKind.FATAL, KafkaErrorKind.RECORD), name
        assert not kinds[name].retriable


def test_the_three_commit_errors_of_a_rebalance_are_told_as_one() -> None:
    for code in (22, 27, 113):
        assert kafka_error(code).kind is KafkaErrorKind.REBALANCE
        assert "still owned" in kafka_error(code).action


def test_what_may_have_been_written_is_not_called_unwritten() -> None:
    for name in (
        "_MSG_TIMED_OUT",
        "REQUEST_TIMED_OUT",
        "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
        "_PURGE_INFLIGHT",
    ):
        assert next(row for row in KAFKA_ERRORS.values() if row.name == name).maybe_written, name
    for name in ("MSG_SIZE_TOO_LARGE", "_QUEUE_FULL", "_PURGE_QUEUE", "TOPIC_AUTHORIZATION_FAILED"):
        assert not next(row for row in KAFKA_ERRORS.values() if row.name == name).maybe_written, name


@pytest.mark.parametrize("code", [-9999, 98, 9999])
def test_an_unknown_code_fails_fast_and_says_so(code: int) -> None:
    row = kafka_error(code)
    assert row.kind is KafkaErrorKind.FATAL
    assert row.maybe_written
    assert "does not know" in str(row)
    assert str(code) in str(row)
