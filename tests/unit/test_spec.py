"""What a consumer may not be asked for: each is refused when the handler is registered, the option named."""

from __future__ import annotations

from typing import Any

import pytest

from relance import App, CircuitBreaker, RetryPolicy, Settings
from relance.errors import SettingsError
from relance.spec import checked_max_crashes, feeds_of, plan_of

RETRY = RetryPolicy.immediate()


def an_app() -> App:
    return App("g", settings=Settings(bootstrap_servers="localhost:1"))


async def orders(value: dict) -> None:  # type: ignore[type-arg]
    pass


async def payments(value: dict) -> None:  # type: ignore[type-arg]
    pass


# -- beside the consumers that the App has already ---------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "option", "topic"),
    [
        ({"topics": ["orders"]}, {"topics": ["orders"]}, "topics", "orders"),
        ({"topics": ["a", "orders"]}, {"topics": ["orders", "b"]}, "topics", "orders"),
        (
            {"topics": ["a"], "retry": RETRY, "retry_topic": "retries"},
            {"topics": ["b"], "retry": RETRY, "retry_topic": "retries"},
            "retry_topic",
            "retries",
        ),
        ({"topics": ["a"], "retry": RETRY, "retry_topic": "b"}, {"topics": ["b"]}, "topics", "b"),
        ({"topics": ["a"]}, {"topics": ["b"], "retry": RETRY, "retry_topic": "a"}, "retry_topic", "a"),
    ],
    ids=[
        "its topic",
        "one of its topics",
        "its retry topic",
        "a topic of its retries",
        "retries in its topic",
    ],
)
def test_a_topic_that_another_consumer_of_the_app_reads_is_refused_with_the_option_named(
    first: dict[str, Any], second: dict[str, Any], option: str, topic: str
) -> None:
    app = an_app()
    app.consumer(*first.pop("topics"), **first)(orders)
    with pytest.raises(SettingsError, match=f"'{topic}' is read by .*orders of the same App") as caught:
        app.consumer(*second.pop("topics"), **second)(payments)
    assert caught.value.key == option


def test_a_refused_consumer_is_not_registered() -> None:
    app = an_app()
    app.consumer("orders")(orders)
    with pytest.raises(SettingsError):
        app.consumer("orders")(payments)
    assert [spec.handler for spec in app._specs] == [orders]


def test_consumers_of_one_app_may_share_a_dead_letter_topic_and_read_topics_of_their_own() -> None:
    app = an_app()
    app.consumer("a", retry=RETRY, retry_topic="a.retry", dead_letter_topic="dlt")(orders)
    app.consumer("b", retry=RETRY, retry_topic="b.retry", dead_letter_topic="dlt")(payments)
    assert [spec.topics for spec in app._specs] == [("a",), ("b",)]


def test_consumers_of_two_apps_may_share_what_they_read() -> None:
    for handler in (orders, payments):
        an_app().consumer("a", retry=RETRY, retry_topic="a.retry")(handler)


# -- options by themselves ---------------------------------------------------------------------------


def test_the_decorator_without_its_parentheses_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"write @app\.consumer\('orders'\)") as caught:
        an_app().consumer(orders)  # type: ignore[arg-type]
    assert caught.value.key == "topics"


@pytest.mark.parametrize("option", ["start", "on_out_of_range"])
@pytest.mark.parametrize("word", ["bogus", "Earliest", "beginning", "", 0])
def test_a_word_that_is_no_place_to_start_is_refused(option: str, word: object) -> None:
    with pytest.raises(SettingsError) as caught:
        an_app().consumer("orders", **{option: word})  # type: ignore[arg-type]
    assert caught.value.key == option


@pytest.mark.parametrize("word", ["earliest", "latest", "fail"])
def test_the_words_for_a_place_to_start_are_taken_as_they_are(word: Any) -> None:
    app = an_app()
    app.consumer("orders", start=word, on_out_of_range=word)(orders)
    assert [(spec.start, spec.on_out_of_range) for spec in app._specs] == [(word, word)]


@pytest.mark.parametrize(
    ("lost", "of_retries"), [("fail", "fail"), ("earliest", "earliest"), ("latest", "earliest")]
)
def test_no_retry_is_skipped_wherever_the_source_goes_on(lost: Any, of_retries: str) -> None:
    app = an_app()
    app.consumer("orders", start="latest", on_out_of_range=lost, retry=RETRY, retry_topic="orders.retry")(
        orders
    )
    source, retry = feeds_of(app._specs[0], "g")
    assert (source.group, source.start, source.on_out_of_range) == ("g", "latest", lost)
    assert (retry.topics, retry.group) == (("orders.retry",), "g.retry")
    assert (retry.start, retry.on_out_of_range) == ("earliest", of_retries)


@pytest.mark.parametrize(
    "topics",
    [
        (),
        ("",),
        ("^orders.*",),
        ("orders/eu",),
        ("größe",),
        (".",),
        ("x" * 250,),
        (3,),
        (None,),
        (b"orders",),
        ("orders", "orders"),
    ],
    ids=repr,
)
def test_what_is_no_topic_and_a_topic_named_twice_are_refused(topics: tuple[Any, ...]) -> None:
    with pytest.raises(SettingsError) as caught:
        an_app().consumer(*topics)
    assert caught.value.key == "topics"


def test_a_list_of_topics_in_place_of_the_topics_is_refused() -> None:
    with pytest.raises(SettingsError) as caught:
        an_app().consumer(["orders", "payments"])  # type: ignore[arg-type]
    assert caught.value.key == "topics"


@pytest.mark.parametrize("option", ["retry_topic", "dead_letter_topic"])
@pytest.mark.parametrize("topic", ["", "^orders.*", "a b", 3, b"dlt", "orders"])
def test_a_topic_that_cannot_be_written_to_is_refused(option: str, topic: object) -> None:
    with pytest.raises(SettingsError) as caught:
        an_app().consumer("orders", **{option: topic})  # type: ignore[arg-type]
    assert caught.value.key == option


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("retry", 3),
        ("retry", RetryPolicy),
        ("max_in_memory_wait", "3"),
        ("max_in_memory_wait", None),
        ("max_in_memory_wait", float("nan")),
        ("max_in_memory_wait", -1),
        ("max_in_memory_wait", 3601),
        ("max_in_memory_wait", True),
        ("concurrency", "3"),
        ("concurrency", 0),
        ("concurrency", 2.0),
        ("concurrency", True),
        ("ordering", "keys"),
        ("ordering", None),
        ("assignor", "stickiest"),
        ("max_crashes", "2"),
        ("max_crashes", -1),
        ("max_crashes", True),
        ("max_crashes", 1001),
    ],
)
def test_a_value_that_an_option_cannot_mean_is_refused(option: str, value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        an_app().consumer("orders", **{option: value})  # type: ignore[arg-type]
    assert caught.value.key == option


@pytest.mark.parametrize("wait", [0, 3, 0.5, 3600])
def test_a_wait_in_memory_may_be_a_whole_number_or_not(wait: float) -> None:
    app = an_app()
    app.consumer("orders", retry=RETRY, retry_topic="r", max_in_memory_wait=wait)(orders)
    assert app._specs[0].paths.max_in_memory_wait == wait


# -- what would be taken and never used --------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "option", "way_out"),
    [
        ({"retry_topic": "r"}, "retry_topic", r"add retry=RetryPolicy\.exponential\(\), or leave it out"),
        ({"max_in_memory_wait": 0}, "max_in_memory_wait", "add retry_topic=, or leave it out"),
        ({"retry": RETRY, "max_in_memory_wait": 60.0}, "max_in_memory_wait", "all waits are in memory"),
        ({"dead_letter_pointer": True}, "dead_letter_pointer", "no dead_letter_topic: add it"),
        ({"strict_order": True, "ordering": "none"}, "strict_order", "exclude each other"),
        ({"strict_order": True, "retry": RETRY, "retry_topic": "r"}, "strict_order", "leave out retry_topic"),
        ({"strict_order": "yes"}, "strict_order", "neither True nor False"),
        (
            {"dead_letter_topic": "d", "dead_letter_pointer": 1},
            "dead_letter_pointer",
            "neither True nor False",
        ),
        (
            {"timeout": 5.0, "breaker": CircuitBreaker(slow_call_duration=6.0)},
            "breaker",
            "lower it, or raise timeout",
        ),
    ],
    ids=str,
)
def test_what_would_be_taken_and_never_used_is_refused_with_the_way_out(
    given: dict[str, Any], option: str, way_out: str
) -> None:
    with pytest.raises(SettingsError, match=way_out) as caught:
        an_app().consumer("orders", **given)(orders)
    assert caught.value.key == option


def test_what_lies_in_a_retry_topic_can_be_worked_off_without_adding_to_it() -> None:
    an_app().consumer("orders", retry=RetryPolicy.immediate(max_attempts=1), retry_topic="r")(orders)


def test_a_thread_may_take_longer_than_its_timeout_so_it_may_be_slow() -> None:
    def blocking(value: dict) -> None:  # type: ignore[type-arg]
        pass

    slow = CircuitBreaker(slow_call_duration=6.0)
    an_app().consumer("orders", timeout=5.0, breaker=slow)(blocking)
    with pytest.raises(SettingsError, match="ended before it is slow"):
        an_app().consumer("orders", timeout=5.0, breaker=slow, workers="processes")(blocking)


def test_an_assignor_is_refused_where_the_broker_shares_out() -> None:
    app = App("g", bootstrap_servers="localhost:1", client={"group.protocol": "consumer"})
    app.consumer("payments")(payments)
    with pytest.raises(SettingsError, match=r"group\.protocol=consumer the broker shares out") as caught:
        app.consumer("orders", assignor="range")(orders)
    assert caught.value.key == "assignor"


def test_inline_a_sync_handler_runs_one_record_at_a_time() -> None:
    def blocking(value: dict) -> None:  # type: ignore[type-arg]
        pass

    with pytest.raises(SettingsError, match="blocking runs one record at a time") as caught:
        an_app().consumer("orders", workers="inline", concurrency=2)(blocking)
    assert caught.value.key == "concurrency"


@pytest.mark.parametrize(("given", "meant"), [(None, 0), (0, 0), (1, 1)])
def test_no_number_of_deaths_means_that_none_are_counted(given: int | None, meant: int) -> None:
    assert checked_max_crashes(given) == meant


# -- circuit breakers --------------------------------------------------------------------------------


def test_a_breaker_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="True is no CircuitBreaker") as caught:
        an_app().consumer("orders", breaker=True)  # type: ignore[arg-type]  # that is the point
    assert caught.value.key == "breaker"


def test_breakers_of_one_name_must_be_alike_and_the_error_names_both_handlers_and_both_breakers() -> None:
    app = an_app()
    app.consumer("orders", breaker=CircuitBreaker(name="bank", open_for=30.0))(orders)
    with pytest.raises(SettingsError, match="'bank' is one breaker") as caught:
        app.consumer("payments", breaker=CircuitBreaker(name="bank", open_for=5.0))(payments)
    assert caught.value.key == "breaker"
    for part in ("orders of the same App", "payments wants it otherwise", "open_for=30.0", "open_for=5.0"):
        assert part in str(caught.value)


def test_breakers_of_one_name_that_are_alike_and_breakers_without_a_name_are_taken() -> None:
    app = an_app()
    app.consumer("orders", breaker=CircuitBreaker(name="bank"))(orders)
    app.consumer("payments", breaker=CircuitBreaker(name="bank"))(payments)
    app.consumer("a", breaker=CircuitBreaker(open_for=1.0))(orders)
    app.consumer("b", breaker=CircuitBreaker(open_for=2.0))(payments)


# -- hand-offs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("handoff", ["transaction", None, True])
def test_hand_offs_are_acknowledged_or_transactional_and_nothing_else(handoff: Any) -> None:
    with pytest.raises(SettingsError, match="none of acknowledged, transactional") as caught:
        an_app().consumer("orders", handoff=handoff)
    assert caught.value.key == "handoff"


def test_transactions_are_refused_where_the_consumer_would_read_what_may_yet_be_aborted() -> None:
    app = App("g", bootstrap_servers="localhost:1", client={"isolation.level": "read_uncommitted"})
    app.consumer("orders", handoff="acknowledged")
    with pytest.raises(SettingsError, match="exclude each other"):
        app.consumer("orders", handoff="transactional")


@pytest.mark.parametrize(
    ("asked", "concurrency", "ready"), [(None, 1, 2_500), (None, 1000, 32_000), (500, 1000, 500)]
)
def test_as_many_records_are_buffered_as_asked_for_or_enough_to_keep_all_handlers_busy(
    asked: int | None, concurrency: int, ready: int
) -> None:
    app = an_app()
    app.consumer("orders", ordering="key", concurrency=concurrency)(orders)
    [spec] = app._specs
    assert plan_of(spec, Settings(max_buffered_records=asked)).limits.ready == ready


def test_a_topic_for_the_letters_of_one_and_the_retries_of_another_is_refused_either_way_round() -> None:
    for second, option in (
        ({"retry": RETRY, "retry_topic": "d", "dead_letter_topic": "x"}, "retry_topic"),
        ({"retry": RETRY, "retry_topic": "x", "dead_letter_topic": "r"}, "dead_letter_topic"),
    ):
        app = an_app()
        app.consumer("a", retry=RETRY, retry_topic="r", dead_letter_topic="d")(orders)
        with pytest.raises(SettingsError, match=r"the dead letters of .* and the retries of") as caught:
            app.consumer("b", **second)(orders)
        assert caught.value.key == option
