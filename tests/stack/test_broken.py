"""validate.sh on stacks that are broken in known ways: it must say FAIL and name the cause."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from stack.settings import Topic
from stack_under_test import Stack

IGNORES_THE_FLAG = str(Path(__file__).with_name("ignores_the_flag.py"))


def failure(stack: Stack) -> str:
    """The last line of validate.sh, which must have failed."""
    done = stack.script("validate")
    last = done.stdout.splitlines()[-1]
    assert done.returncode == 1, done.stdout
    assert last.startswith("FAIL: "), done.stdout
    return last


def breaks(stack: Stack, **env: str) -> None:
    """Run the second consumer with other settings."""
    stack.replace(replace(stack.consumer, env={**stack.consumer.env, **env}))


def alter(stack: Stack, topic: str, key: str, value: str | None) -> None:
    admin = AdminClient({"bootstrap.servers": stack.settings.bootstrap})
    how = AlterConfigOpType.SET if value is not None else AlterConfigOpType.DELETE
    entry = ConfigEntry(key, value or "", incremental_operation=how)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(10)


def test_a_stopped_consumer_is_named_with_its_port_and_the_group(stack: Stack) -> None:
    stack.stop("order-consumer-1")
    cause = failure(stack)
    assert f"order consumer on {stack.consumer.port} is not in the group orders-consumer-group" in cause
    assert "up.sh" in cause


def test_a_consumer_in_another_group_is_a_missing_member(stack: Stack) -> None:
    breaks(stack, KAFKA_GROUP_ID="somebody-elses-group")
    cause = failure(stack)
    assert "1 of 2 members" in cause
    assert "somebody-elses-group" in cause
    assert f"order consumer on {stack.consumer.port}" in cause


def test_a_retry_topic_that_is_never_written_is_named(stack: Stack) -> None:
    breaks(stack, MAX_RETRIES="0")
    cause = failure(stack)
    assert "orders.retry is never written" in cause
    assert f"order consumer on {stack.consumer.port}" in cause


def test_retries_that_go_to_another_topic_are_found(stack: Stack) -> None:
    stack.cluster.create([Topic("elsewhere", 3)])
    breaks(stack, KAFKA_RETRY_TOPIC="elsewhere")
    cause = failure(stack)
    assert "orders.retry is never written" in cause
    assert f"order consumer on {stack.consumer.port}" in cause


def test_an_ignored_flag_is_blamed_on_the_consumer_that_ignores_it(stack: Stack) -> None:
    stack.replace(replace(stack.consumer, command=(sys.executable, IGNORES_THE_FLAG)))
    cause = failure(stack)
    assert f"the order consumer on {stack.consumer.port} ignores the simulation flag" in cause


def test_dead_letters_that_cannot_be_written_are_named(stack: Stack) -> None:
    alter(stack, "orders.DLT", "max.message.bytes", "1")
    try:
        cause = failure(stack)
    finally:
        alter(stack, "orders.DLT", "max.message.bytes", None)
    assert "the write to orders.DLT fails" in cause


def test_a_consumer_that_dead_letters_elsewhere_is_named(stack: Stack) -> None:
    stack.cluster.create([Topic("elsewhere", 3)])
    breaks(stack, KAFKA_DLT_TOPIC="elsewhere")
    cause = failure(stack)
    assert "the write to orders.DLT fails" in cause
    assert f"order consumer on {stack.consumer.port}" in cause


@pytest.mark.parametrize("topic", ["orders.DLT", "orders.retry"])
def test_a_missing_topic_is_named(stack: Stack, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": stack.settings.bootstrap})
    admin.delete_topics([topic], operation_timeout=10)[topic].result(15)
    assert f"topic {topic} does not exist" in failure(stack)


def test_a_fourth_topic_that_matches_orders_is_named(stack: Stack) -> None:
    stack.cluster.create([Topic("orders.extra", 1)])
    try:
        cause = failure(stack)
    finally:
        admin = AdminClient({"bootstrap.servers": stack.settings.bootstrap})
        admin.delete_topics(["orders.extra"], operation_timeout=10)["orders.extra"].result(15)
    assert "orders.extra" in cause


def test_after_all_these_the_mended_stack_is_fine(stack: Stack) -> None:
    done = stack.script("validate")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "OK"), done.stdout


def test_a_stack_of_another_folder_is_not_mistaken_for_this_one(stack: Stack, tmp_path: Path) -> None:
    elsewhere = Stack({**stack.env, "RELANCE_RUN_DIR": str(tmp_path)})
    cause = failure(elsewhere)
    assert f"order API on {stack.settings.api_port}" in cause
    assert f"pid {stack.find('order-api').who.pid}" in cause
