import os
import socket
from pathlib import Path

import pytest

from orders.ports import PortTakenError, holder, listen


def test_a_free_port_is_taken_and_answers() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        pass


def test_a_taken_port_is_named_with_the_process_that_holds_it() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortTakenError) as caught:
            listen("127.0.0.1", port)
    text = str(caught.value)
    assert f"port {port} on 127.0.0.1 is in use by pid {os.getpid()} (" in text
    assert "pytest" in text
    assert "SERVER_PORT" in text
    assert "\n" not in text


def test_a_port_is_free_again_at_once() -> None:
    with listen("127.0.0.1", 0) as listener:
        address = listener.getsockname()
        with socket.create_connection(address):
            listener.accept()[0].close()
    listen(*address).close()


def test_an_address_that_is_not_ours_is_said() -> None:
    with pytest.raises(PortTakenError, match=r"can't listen on 192\.0\.2\.1 port 0: .*SERVER_HOST"):
        listen("192.0.2.1", 0)


def test_a_holder_that_is_not_visible_is_said(tmp_path: Path) -> None:
    assert holder(80, tmp_path) == "another process, whose pid is not visible to this user"


def test_the_holder_of_another_state_or_port_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1F90 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 111\n"
        "   1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222\n"
    )
    fd = tmp_path / "4711" / "fd"
    fd.mkdir(parents=True)
    (fd / "3").symlink_to("socket:[111]")
    (fd / "4").symlink_to("socket:[222]")
    (tmp_path / "4711" / "cmdline").write_bytes(b"python\0-m\0orders\0")
    assert holder(8081, tmp_path) == "pid 4711 (python -m orders)"
    assert "not visible" in holder(8080, tmp_path)
