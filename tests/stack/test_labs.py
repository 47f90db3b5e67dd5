"""The five labs as the document has them, by HTTP, twice in a row on the same stack."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from typing import Any

import pytest
from stack_under_test import Stack

from stack import supervisor, web
from waiting import wait_until

NINE = {
    "originalTopic",
    "originalPartition",
    "originalOffset",
    "originalKey",
    "originalValue",
    "errorMessage",
    "errorTimestamp",
    "retryCount",
    "stackTrace",
}


def curl(
    stack: Stack, method: str, path: str, body: dict[str, Any] | None = None
) -> tuple[int, dict[str, Any]]:
    """The very command of the labs, with the status beside the answer."""
    command = ["curl", "-s", "-X", method, "-w", "\n%{http_code}"]
    if body is not None:
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    url = f"http://localhost:{stack.settings.api_port}{path}"
    text = subprocess.run([*command, url], capture_output=True, text=True, check=True, timeout=30).stdout
    answer, _, status = text.rpartition("\n")
    return int(status), json.loads(answer)


@pytest.mark.parametrize("round_number", [1, 2])
def test_the_five_labs_show_what_the_document_says(stack: Stack, round_number: int) -> None:
    settings = stack.settings
    topic_before = stack.cluster.count("orders")
    stats_before = curl(stack, "GET", "/api/v1/stats")[1]

    # Lab 1: five valid orders.
    for number in range(1, 6):
        order = {"orderId": f"ORD-{number}", "amount": number * 100, "status": "PENDING"}
        status, answer = curl(stack, "POST", "/api/v1/orders", order)
        assert (status, answer["status"], answer["orderId"]) == (200, "ACCEPTED", f"ORD-{number}")
        assert {"partition", "offset", "message"} <= answer.keys()
    assert stack.cluster.count("orders") == topic_before + 5
    page = web.get(f"http://localhost:{settings.console_port}/")
    assert page.ok
    assert "orders" in page.text

    # Lab 2: an invalid one goes to the DLT.
    dlt_before = stack.cluster.count("orders.DLT")
    with stack.cluster.reader("orders.DLT", stack.cluster.end_offsets("orders.DLT")) as dead_letters:
        status, answer = curl(
            stack, "POST", "/api/v1/orders", {"orderId": "ORD-INVALID", "amount": -50, "status": "PENDING"}
        )
        assert (status, answer["status"], answer["action"]) == (400, "REJECTED", "Sent to DLT")
        dead = dead_letters.wait_for(lambda record: record.key == b"ORD-INVALID", 10)
        assert dead is not None
        envelope = json.loads(dead.value or b"")
        assert envelope.keys() >= NINE
        assert (envelope["originalPartition"], envelope["originalOffset"]) == (None, None)

        # Lab 3: the transient error, retried and then dead.
        assert curl(stack, "POST", "/api/v1/config/simulate-transient-error?enabled=true")[1][
            "simulateTransientError"
        ]
        retry = {"orderId": "ORD-RETRY", "amount": 200, "status": "PENDING"}
        status, accepted = curl(stack, "POST", "/api/v1/orders", retry)
        assert (status, accepted["status"]) == (200, "ACCEPTED")
        dead = dead_letters.wait_for(lambda record: record.key == b"ORD-RETRY", 25)
        assert dead is not None
        envelope = json.loads(dead.value or b"")
        assert envelope["retryCount"] == 3
        assert "MaxRetriesExceeded" in envelope["errorMessage"] + str(envelope.get("errorClass"))
        assert envelope["originalPartition"] == accepted["partition"]
        assert envelope["originalOffset"] == accepted["offset"]
        assert curl(stack, "POST", "/api/v1/config/simulate-transient-error?enabled=false")[0] == 200
    place = f"P{accepted['partition']}:O{accepted['offset']}"
    seen = [
        line
        for line in stack.script("logs").stdout.splitlines()
        if re.search("(Retry|attempt|DLT)", line) and f"{place} " in line  # the document's own grep
    ]
    for words in ("Retry 1/3 (attempt 2/4)", "Retry 2/3 (attempt 3/4)", "Retry 3/3 (attempt 4/4)", "[DLT]"):
        assert any(words in line for line in seen), f"no {words} for {place} in {seen}"

    # Lab 4: one more consumer, orders meanwhile, and back.
    assert "partitions 2/2/2" in stack.up("--scale", "consumer=2")
    for name in ("order-consumer-1", "order-consumer-2"):
        assert "REBALANCE" in stack.script("logs", name, "--tail", "20").stdout
    for number in range(1, 11):
        order = {"orderId": f"ORD-REBAL-{number}", "amount": 100, "status": "PENDING"}
        assert curl(stack, "POST", "/api/v1/orders", order)[0] == 200
    assert "partitions 3/3" in stack.up("--scale", "consumer=1")
    assert "REBALANCE" in stack.script("logs", "order-consumer-1", "--tail", "20").stdout

    # Lab 5: the numbers.
    def counted() -> bool:
        stats = curl(stack, "GET", "/api/v1/stats")[1]
        return bool(
            stats["success"] == stats_before["success"] + 15 and stats["dlt"] == stats_before["dlt"] + 2
        )

    wait_until(
        counted, 15, lambda: f"stats are {curl(stack, 'GET', '/api/v1/stats')}, before: {stats_before}"
    )
    assert curl(stack, "GET", "/api/v1/dlt/count")[1]["dltCount"] == dlt_before + 2
    assert curl(stack, "GET", "/health")[1]["status"] == "UP"


def test_validate_ends_with_ok_and_leaves_flag_and_scale_as_they_were(stack: Stack) -> None:
    done = stack.script("validate")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "OK"
    assert done.stdout.count("✓") == 11
    assert curl(stack, "GET", "/api/v1/config/simulate-transient-error")[1]["simulateTransientError"] is False
    assert stack.settings.run_dir.joinpath("consumers").read_text() == "1\n"
    assert web.get(f"http://localhost:{stack.settings.consumer_port(2)}/health").status == 0


def test_the_cleanup_of_the_document_while_all_runs_is_survived(stack: Stack) -> None:
    for topic in ("orders", "orders.DLT", "orders.retry"):
        done = stack.script(
            "kafka",
            "kafka-topics",
            "--delete",
            "--topic",
            topic,
            "--bootstrap-server",
            stack.settings.bootstrap,
        )
        assert done.returncode == 0, done.stdout
    gone = {"orders", "orders.DLT", "orders.retry"}
    wait_until(lambda: not set(stack.cluster.topics()) & gone, 15, "the topics to be gone")
    assert web.get(f"http://localhost:{stack.settings.api_port}/health", timeout=10).status in (200, 503)
    before = {name: stack.find(name).who for name in ("order-api", "order-consumer-1")}
    stack.up()
    assert {name: stack.find(name).who for name in before} == before, (
        "the services go on, they aren't restarted"
    )
    done = stack.script("validate")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "OK"), done.stdout


def test_an_interrupted_validate_leaves_the_flag_off_and_the_scale_as_it_was(stack: Stack) -> None:
    validate = stack.begin("validate")
    with validate:
        assert validate.stdout is not None
        for line in validate.stdout:
            if "one more consumer" in line:
                os.killpg(validate.pid, signal.SIGINT)
                break
        validate.stdout.read()
    assert validate.returncode == 130
    assert curl(stack, "GET", "/api/v1/config/simulate-transient-error")[1]["simulateTransientError"] is False
    names = [running.name for running in supervisor.find_all(stack.settings)]
    assert names == ["console", "order-api", "order-consumer-1"]
    assert "partitions 3/3" in stack.up()


def test_validate_is_content_with_more_consumers_too_and_keeps_them(stack: Stack) -> None:
    stack.up("--scale", "consumer=2")
    done = stack.script("validate")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "OK"), done.stdout
    assert stack.find("order-consumer-2").alive
