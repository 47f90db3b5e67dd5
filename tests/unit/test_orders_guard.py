"""Which pages may ask the service to do something."""

from __future__ import annotations

import pytest

from orders.guard import is_foreign


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "anything.example"),
        ("http://localhost:18082", "localhost:18082"),
        ("http://127.0.0.1:18082", "127.0.0.1:18082"),
        ("http://[::1]:18082", "[::1]:18082"),
        ("http://order-api:18082", "order-api:18082"),
    ],
)
def test_programs_and_the_service_s_own_pages_may(origin: str | None, host: str) -> None:
    assert not is_foreign(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "localhost:18082"),
        ("http://localhost:8080", "localhost:18082"),
        ("http://evil.example:18082", "evil.example:18082"),
        ("null", "localhost:18082"),
        ("", "localhost:18082"),
        ("http://[", "localhost:18082"),
        ("http://localhost:18082", ""),
    ],
)
def test_pages_of_other_sites_may_not(origin: str, host: str) -> None:
    assert is_foreign(origin, host)
