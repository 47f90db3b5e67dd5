"""Which topics an application needs, with how many partitions, and what is said of those that are there."""

from __future__ import annotations

from relance import App, RetryPolicy
from relance.needs import NeededTopic, differences

SOURCE, RETRY = NeededTopic("orders", "source"), NeededTopic("orders.retry", "retry", ("orders", "more"))
TABLE = NeededTopic("state", "table")


def test_an_app_names_each_topic_once_with_its_part() -> None:
    app = App("shop")

    @app.consumer(
        "orders", "more", retry=RetryPolicy.fixed(), retry_topic="orders.retry", dead_letter_topic="shop.DLT"
    )
    def first(value: bytes) -> None: ...

    @app.consumer("payments", dead_letter_topic="shop.DLT")
    def second(value: bytes) -> None: ...

    @app.consumer("shop.DLT")
    def third(value: bytes) -> None: ...

    app.table("state")
    assert [(topic.name, topic.part, topic.like) for topic in app.needed_topics()] == [
        ("orders", "source", ()),
        ("more", "source", ()),
        ("payments", "source", ()),
        ("shop.DLT", "source", ()),  # it is read as well
        ("orders.retry", "retry", ("orders", "more")),
        ("state", "table", ()),
    ]


def test_a_dead_letter_topic_of_two_consumers_is_like_the_largest_of_their_sources() -> None:
    app = App("shop")

    @app.consumer("orders", dead_letter_topic="shop.DLT")
    def first(value: bytes) -> None: ...

    @app.consumer("payments", dead_letter_topic="shop.DLT")
    def second(value: bytes) -> None: ...

    letters = app.needed_topics()[-1]
    assert (letters.part, letters.partitions(1, {"orders": 3, "payments": 12})) == ("dead letter", 12)


def test_partitions_are_those_of_the_sources_and_of_a_table_one() -> None:
    assert SOURCE.partitions(6, {}) == 6
    assert RETRY.partitions(1, {"orders": 3, "more": 4}) == 4
    assert RETRY.partitions(6, {}) == 6
    assert TABLE.partitions(6, {"orders": 3}) == 1
    assert TABLE.configs["cleanup.policy"] == "compact"
    assert RETRY.configs == {}


def test_what_differs_is_said_in_words_and_what_does_not_is_not() -> None:
    assert differences(SOURCE, 6, 6, {"cleanup.policy": "compact"}) == []
    assert differences(RETRY, 1, 6, {"cleanup.policy": "delete"}) == ["it has 1 partition, not 6"]
    assert differences(RETRY, 6, 6, {"cleanup.policy": "compact,delete"}) == [
        "its cleanup.policy is compact,delete: records of one key replace each other"
    ]
    assert differences(TABLE, 3, 1, {"cleanup.policy": "delete"}) == [
        "it has 3 partitions, not 1",
        "its cleanup.policy is delete, not compact",
    ]
