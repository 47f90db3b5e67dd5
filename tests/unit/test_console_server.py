"""Where the console may listen."""

from __future__ import annotations

import inspect
import os
import socket

import pytest

from relance.cli.console import console
from relance.console.server import PortInUseError, check_host, listen, serve
from relance.errors import SettingsError


def test_it_listens_on_this_machine_alone_unless_told() -> None:
    for front in (serve, console):
        assert inspect.signature(front).parameters["host"].default == "127.0.0.1"
        assert inspect.signature(front).parameters["insecure_bind"].default is False


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.9"])
def test_this_machine_alone_is_fine(host: str) -> None:
    assert check_host(host, insecure_bind=False) is False


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_more_than_this_machine_needs_a_word_and_is_told_why(host: str) -> None:
    with pytest.raises(SettingsError, match=r"no login.*--insecure-bind"):
        check_host(host, insecure_bind=False)
    assert check_host(host, insecure_bind=True) is True


@pytest.mark.parametrize("host", ["no such host", "", "a" * 300])
def test_what_is_no_address_is_a_setting_to_correct(host: str) -> None:
    with pytest.raises(SettingsError, match="no address"):
        check_host(host, insecure_bind=False)


def test_a_port_in_use_is_named_with_its_holder() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortInUseError, match=rf"port {port} is in use by pid {os.getpid()} \("):
            listen("127.0.0.1", port)


def test_a_free_port_is_taken() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockname()[1] > 0
