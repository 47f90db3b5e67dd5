"""up.sh, down.sh and logs.sh as programs: what they start, keep, restart, take back, and say."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from stack_under_test import Stack

from relance.ports import port_is_free
from stack import supervisor, web
from waiting import wait_until


def services_of(stack: Stack) -> dict[str, int]:
    return {running.name: running.who.pid for running in supervisor.find_all(stack.settings)}


def broker_pids(stack: Stack) -> list[int]:
    """Processes of Kafka that hold this stack's folder in their command line."""
    listing = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    folder = str(stack.settings.run_dir)
    rows = [line.split(maxsplit=1) for line in listing.splitlines()]
    return [int(pid) for pid, command in rows if folder in command and "kafka" in command]


# -- up ------------------------------------------------------------------------------------------------


def test_up_prints_the_addresses_of_everything_it_started(stack: Stack) -> None:
    output = stack.up()
    settings = stack.settings
    for port in (settings.api_port, settings.first_consumer_port, settings.console_port):
        assert f"http://localhost:{port}" in output
        assert web.get(f"http://localhost:{port}/health").ok
    assert settings.bootstrap in output


def test_up_again_keeps_what_is_healthy_and_is_quick(stack: Stack) -> None:
    before = services_of(stack)
    since = time.monotonic()
    output = stack.up()
    assert services_of(stack) == before
    assert output.count("keeps running") == 3
    assert time.monotonic() - since < 10


def test_up_restarts_a_service_that_died(stack: Stack) -> None:
    before = services_of(stack)
    os.kill(before["order-consumer-1"], signal.SIGKILL)
    stack.up()
    after = services_of(stack)
    assert after["order-consumer-1"] != before["order-consumer-1"]
    assert after["order-api"] == before["order-api"]


def test_up_restarts_a_service_whose_settings_changed(stack: Stack) -> None:
    stack.env["MAX_RETRIES"] = "2"
    try:
        assert stack.up().count("its code or settings changed") == 2
        assert "keeps running" in stack.up()
    finally:
        del stack.env["MAX_RETRIES"]
    done = stack.script("validate")
    assert done.returncode == 0, done.stdout
    assert "2 records each" in done.stdout, "it expects what the stack was started with"
    assert stack.up().count("its code or settings changed") == 2, "back to the default"


def test_up_names_the_program_that_holds_a_port_and_starts_nothing(other_stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", other_stack.settings.api_port)):
        done = other_stack.script("up")
    assert done.returncode == 1
    assert f"port {other_stack.settings.api_port}" in done.stdout
    assert f"pid {os.getpid()}" in done.stdout
    assert "pytest" in done.stdout
    assert services_of(other_stack) == {}
    assert broker_pids(other_stack) == []


def test_a_service_that_fails_to_start_is_shown_by_its_log_and_leaves_nothing_running(
    other_stack: Stack,
) -> None:
    other_stack.env["SERVER_HOST"] = "no such host"
    done = other_stack.script("up")
    assert done.returncode == 1
    assert "SERVER_HOST" in done.stdout
    assert "order-" in done.stdout
    assert str(other_stack.settings.logs_dir) in done.stdout
    assert "nothing of this stack is running" in done.stdout
    assert services_of(other_stack) == {}
    assert broker_pids(other_stack) == []


@pytest.mark.parametrize(
    ("moment", "how", "status"),
    [
        ("starting Kafka", signal.SIGINT, 130),
        ("topics ", signal.SIGINT, 130),
        ("healthy on", signal.SIGTERM, 143),
    ],
)
def test_an_interrupt_at_any_moment_leaves_nothing_running(
    other_stack: Stack, moment: str, how: signal.Signals, status: int
) -> None:
    up = other_stack.begin("up")
    with up:
        assert up.stdout is not None
        lines = []
        for line in up.stdout:
            lines.append(line)
            if moment in line:
                os.killpg(up.pid, how)  # as the terminal does: everyone in the foreground gets it
                break
        lines += up.stdout.readlines()
    assert up.returncode == status, "".join(lines)
    assert "nothing of this stack is running" in "".join(lines)
    assert services_of(other_stack) == {}
    assert broker_pids(other_stack) == []


def test_an_interrupt_keeps_what_ran_before(stack: Stack) -> None:
    before = services_of(stack)
    up = stack.begin("up", "--scale", "consumer=2")
    with up:
        assert up.stdout is not None
        lines = []
        for line in up.stdout:
            lines.append(line)
            if "console keeps running" in line:
                os.killpg(up.pid, signal.SIGINT)
                break
        lines += up.stdout.readlines()
    assert up.returncode == 130, "".join(lines)
    assert "left running, as before" in "".join(lines)
    assert services_of(stack) == before


# -- scale ---------------------------------------------------------------------------------------------


def test_scaling_starts_and_stops_second_consumers_and_the_group_follows(stack: Stack) -> None:
    settings = stack.settings
    assert "partitions 2/2/2" in stack.up("--scale", "consumer=2")
    assert web.get(f"http://localhost:{settings.consumer_port(2)}/api/v1/partitions").json["count"] == 2
    assert "order-consumer-2" in services_of(stack)
    assert "partitions 2/2/2" in stack.up(), "without --scale the number stays"
    since = time.monotonic()
    output = stack.up("--scale", "consumer=1")
    assert "partitions 3/3" in output
    assert "order-consumer-2" in output
    assert time.monotonic() - since < 12
    assert "order-consumer-2" not in services_of(stack)


def test_scaling_to_none_leaves_the_order_api_alone_in_the_group(stack: Stack) -> None:
    assert "1 member, partitions 6" in stack.up("--scale", "consumer=0")
    assert set(services_of(stack)) == {"order-api", "console"}


@pytest.mark.parametrize(
    "scale", ["consumer=-1", "consumer=x", "consumer=", "consumer", "api=2", "consumer=999"]
)
def test_a_scale_that_makes_no_sense_ends_with_status_2_and_its_reason(stack: Stack, scale: str) -> None:
    done = stack.script("up", "--scale", scale)
    assert done.returncode == 2
    assert scale in done.stdout


# -- logs ----------------------------------------------------------------------------------------------


def test_a_log_is_shown_by_name_and_its_tail_alone_if_asked(stack: Stack) -> None:
    everything = stack.script("logs", "order-consumer-1").stdout.splitlines()
    tail = stack.script("logs", "order-consumer-1", "--tail", "2").stdout.splitlines()
    assert any("[REBALANCE] Partitions assigned" in line for line in everything)
    assert tail == everything[-2:]


def test_all_logs_are_shown_with_the_name_before_each_line(stack: Stack) -> None:
    lines = stack.script("logs", "--tail", "3").stdout.splitlines()
    names = {line.split("|")[0].strip() for line in lines}
    assert {"order-api", "order-consumer-1", "broker"} <= names


def test_an_unknown_log_lists_the_known_ones_with_status_2(stack: Stack) -> None:
    done = stack.script("logs", "nobody")
    assert done.returncode == 2
    for name in ("order-api", "order-consumer-1", "console", "broker"):
        assert name in done.stdout


def test_following_shows_what_is_written_from_now_on(stack: Stack) -> None:
    follow = stack.begin("logs", "order-api", "--tail", "1", "--follow")
    with follow:
        try:
            assert follow.stdout is not None
            assert follow.stdout.readline(), "the last line so far: now it is following"
            web.post(
                f"http://localhost:{stack.settings.api_port}/api/v1/config/simulate-transient-error?enabled=false"
            )
            assert follow.stdout.readline()
        finally:
            follow.terminate()


# -- down ----------------------------------------------------------------------------------------------


def test_down_stops_everything_and_purge_deletes_the_data(other_stack: Stack) -> None:
    other_stack.up()
    settings = other_stack.settings
    done = other_stack.script("down")
    assert done.returncode == 0, done.stdout
    assert services_of(other_stack) == {}
    assert broker_pids(other_stack) == []
    wait_until(lambda: port_is_free(settings.api_port), 10, "the API's port to be free")
    assert supervisor.log_path(settings, "order-api").exists()
    again = other_stack.script("down", "--purge")
    assert again.returncode == 0
    assert "nothing was running" in again.stdout
    assert not settings.logs_dir.exists()
    assert not list(settings.run_dir.glob("kafka/node-*"))


DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


def test_a_service_that_ignores_sigterm_is_killed_and_named(stack: Stack) -> None:
    service = replace(stack.consumer, name="order-consumer-9", command=(sys.executable, "-c", DEAF))
    running = supervisor.start(stack.settings, service)
    wait_until(lambda: "deaf" in supervisor.last_lines(stack.settings, service.name), 10)
    assert supervisor.stop(stack.settings, [running], patience=0.3) == ["order-consumer-9"]
    assert not running.alive


def test_a_reused_pid_is_never_taken_for_a_service(stack: Stack) -> None:
    running = stack.find("console")
    path = stack.settings.pids_dir / "console.json"
    kept = path.read_text()
    forged = re.sub(r'"pid": \d+', f'"pid": {os.getpid()}', kept)
    path.write_text(forged)
    try:
        assert supervisor.find(stack.settings, "console") is None, "this test's own pid, another start time"
    finally:
        Path(path).write_text(kept)
    assert running.alive
