"""What admin and browse clients say when nobody answers."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from relance.kafka.cluster import unreachable

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Stream:
    def __init__(self, is_terminal: bool) -> None:
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def told(monkeypatch: pytest.MonkeyPatch, servers: str, *, at_a_prompt: bool, reason: str = "") -> Any:
    for name in ("stdin", "stderr"):
        monkeypatch.setattr(sys, name, Stream(at_a_prompt))
    return unreachable(servers, "list topics", 3.0, NOW, NOW, reason)


@pytest.mark.parametrize(
    ("servers", "command"),
    [
        ("localhost:9092", "relance broker start"),
        ("127.0.0.1:9095", "relance broker start --port 9095"),
        ("[::1]:9092,localhost:9093", "relance broker start"),
    ],
)
def test_starting_a_broker_is_advice_at_a_prompt_about_this_machine(
    monkeypatch: pytest.MonkeyPatch, servers: str, command: str
) -> None:
    error = told(monkeypatch, servers, at_a_prompt=True)
    assert str(error).endswith(f"Start one with: {command}")
    assert error.command == command


@pytest.mark.parametrize(
    ("servers", "at_a_prompt", "hint"),
    [
        ("kafka:9092", True, "advertised.listeners"),
        ("localhost.example:9092", True, "advertised.listeners"),
        ("localhost:9092,kafka-2:9092", True, "advertised.listeners"),
        ("kafka:9092", False, "advertised.listeners"),
        ("localhost:9092", False, "In a container this address is the container's own"),
    ],
)
def test_elsewhere_the_advice_is_about_the_address_and_the_network(
    monkeypatch: pytest.MonkeyPatch, servers: str, at_a_prompt: bool, hint: str
) -> None:
    error = told(monkeypatch, servers, at_a_prompt=at_a_prompt)
    assert "broker start" not in str(error)
    assert hint in str(error)
    assert error.command == ""


def test_a_program_without_standard_streams_has_no_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert "broker start" not in str(unreachable("localhost:9092", "ask", 3.0, NOW, NOW, ""))


def test_a_failed_sign_in_is_told_first(monkeypatch: pytest.MonkeyPatch) -> None:
    error = told(monkeypatch, "localhost:9092", at_a_prompt=True, reason="SASL authentication failed")
    assert "security.protocol" in str(error)
    assert "broker start" not in str(error)
