"""Where the stack lives, by environment; and which port a second consumer gets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts"))

from stack.settings import (
    MAX_CONSUMERS,
    ROOT,
    SIBLING_PORTS,
    UsageError,
    from_environment,
    parse_scale,
)


def test_without_environment_the_ports_are_the_courses() -> None:
    settings = from_environment({})
    assert (settings.api_port, settings.first_consumer_port, settings.console_port) == (18082, 18083, 8080)
    assert settings.bootstrap == "localhost:9092"
    assert settings.run_dir == ROOT / ".run"
    assert settings.group == "orders-consumer-group"


def test_consumers_are_numbered_around_the_ports_of_sibling_modules() -> None:
    settings = from_environment({})
    ports = [settings.consumer_port(number) for number in range(1, MAX_CONSUMERS + 1)]
    assert ports[:4] == [18083, 18085, 18086, 18087]
    assert not set(ports) & (SIBLING_PORTS | {18082, 8080})
    assert len(set(ports)) == MAX_CONSUMERS


def test_a_consumer_never_gets_the_port_of_the_api_or_the_console() -> None:
    settings = from_environment(
        {"RELANCE_CONSUMER_PORT": "20000", "RELANCE_API_PORT": "20001", "RELANCE_CONSOLE_PORT": "20002"}
    )
    assert [settings.consumer_port(number) for number in (1, 2, 3)] == [20000, 20003, 20004]


def test_a_relative_run_folder_lies_in_the_project() -> None:
    assert from_environment({"RELANCE_RUN_DIR": ".run/other"}).run_dir == ROOT / ".run" / "other"
    assert from_environment({"RELANCE_RUN_DIR": "/tmp/elsewhere"}).run_dir == Path("/tmp/elsewhere")


@pytest.mark.parametrize("value", ["0", "65536", "-1", "http", "80 80", "１８０８２", "1e4"])
def test_a_wrong_port_is_refused_with_its_key(value: str) -> None:
    with pytest.raises(UsageError, match="RELANCE_API_PORT"):
        from_environment({"RELANCE_API_PORT": value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("KAFKA_TOPIC", "a/b"),
        ("KAFKA_DLT_TOPIC", "orders"),
        ("KAFKA_BOOTSTRAP_SERVERS", "junk"),
        ("RELANCE_BOOTSTRAP_SERVERS", "junk"),
        ("MAX_RETRIES", "x"),
        ("RETRY_STRATEGY", "foo"),
        ("RETRY_JITTER", "9"),
    ],
)
def test_what_the_services_would_refuse_is_refused_before_anything_starts(key: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"^wrong setting: {key}="):
        from_environment({key: value})


def test_the_services_are_told_the_tuning_that_was_said() -> None:
    settings = from_environment({"MAX_RETRIES": "5", "RETRY_JITTER": "", "INSTANCE_NAME": "mine"})
    assert settings.max_retries == 5
    assert settings.service_env()["MAX_RETRIES"] == "5"
    assert not {"RETRY_JITTER", "INSTANCE_NAME"} & settings.service_env().keys()
    assert from_environment({}).max_retries == 3


def test_an_empty_variable_counts_as_unset() -> None:
    assert from_environment({"RELANCE_API_PORT": "", "KAFKA_TOPIC": ""}) == from_environment({})


def test_exactly_three_topics_have_orders_in_their_name() -> None:
    topics = from_environment({}).topics
    assert [topic.name for topic in topics if "orders" in topic.name] == [
        "orders",
        "orders.DLT",
        "orders.retry",
    ]
    assert [topic.partitions for topic in topics] == [6, 3, 3, 1]


@pytest.mark.parametrize(("text", "count"), [("consumer=0", 0), ("consumer=2", 2), ("order-consumer=3", 3)])
def test_a_scale_is_a_number_of_second_consumers(text: str, count: int) -> None:
    assert parse_scale(text) == count


@pytest.mark.parametrize(
    "text",
    ["", "2", "consumer", "consumer=", "consumer=-1", "consumer=1.5", "consumer=٣", "api=2", "consumer=21"],
)
def test_a_scale_that_makes_no_sense_says_what_was_given(text: str) -> None:
    with pytest.raises(UsageError, match="--scale"):
        parse_scale(text)
