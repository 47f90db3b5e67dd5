"""Who may ask: the Host header, against pages of other sites that point their name here."""

from __future__ import annotations

import pytest

from relance.console.guard import host_allowed


@pytest.mark.parametrize(
    "header",
    ["localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:8080", "[::1]", "localhost.:80"],
)
def test_this_machine_is_allowed_under_all_its_names(header: str) -> None:
    assert host_allowed(header, ())


@pytest.mark.parametrize(
    "header",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost:8080@evil.example",
        "localhost:",
        "localhost:x",
        "localhost:١",
        "[::1",
        "[::1]x",
        "[]",
        "",
        " ",
        "192.168.1.7",
        "localhost, evil.example",
        "localhost/evil",
    ],
)
def test_other_names_are_not(header: str) -> None:
    assert not host_allowed(header, ())


def test_names_that_were_told_are_allowed() -> None:
    assert host_allowed("Kafka.example:8080", {"kafka.example"})


def test_a_console_on_all_addresses_is_allowed_under_each_but_under_no_other_name() -> None:
    assert host_allowed("192.168.1.7:8080", (), any_address=True)
    assert host_allowed("[fe80::1]:8080", (), any_address=True)
    assert not host_allowed("evil.example:8080", (), any_address=True)
    assert not host_allowed("192.168.1.7.evil.example", (), any_address=True)
