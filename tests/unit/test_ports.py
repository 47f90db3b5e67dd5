"""Ports: whether one is free, and who holds one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from relance.ports import command_of, free_ports, holder_of, port_is_free
from waiting import wait_until


def test_the_holder_of_a_port_is_named_with_pid_and_command():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert holder_of(port).startswith(f"pid {os.getpid()} (")
        assert not port_is_free(port)
    assert port_is_free(port)


def test_a_holder_that_cannot_be_found_is_said_to_be_hidden():
    assert holder_of(1) == "a process that this user may not look at"


def test_a_command_is_shown_without_control_characters_and_not_at_full_length():
    with subprocess.Popen(
        [sys.executable, "-c", "input()", "\x1b[31mred" + "x" * 200], stdin=subprocess.PIPE
    ) as process:
        shown = wait_until(lambda: command_of(process.pid) if "red" in command_of(process.pid) else "", 5.0)
        process.kill()
    assert len(shown) == 80
    assert "\x1b" not in shown


def test_free_ports_differ_and_are_no_ports_for_outgoing_connections():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(20_000 <= port < 32_000 for port in ports)
