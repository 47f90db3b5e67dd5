import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from orders_fakes import FakeApp, Running

from orders.api import create_api
from orders.docs import STATIC
from orders.service import OrdersService
from orders.settings import Settings


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    service = OrdersService(Settings.load({}), FakeApp())  # type: ignore[arg-type]
    found: dict[str, Any] = create_api(service).openapi()
    return found


def refs(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(refs(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(refs(item) for item in value))
    return set()


def test_every_reference_of_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert refs(document) <= schemas
    assert schemas <= refs(document), "a schema that nothing names is left over"


def test_the_document_has_every_route_of_the_course(document: dict[str, Any]) -> None:
    assert {path: sorted(methods) for path, methods in document["paths"].items()} == {
        "/api/v1/orders": ["post"],
        "/api/v1/orders/batch": ["post"],
        "/api/v1/config/simulate-transient-error": ["get", "post"],
        "/api/v1/stats": ["get"],
        "/api/v1/consumer/stats": ["get"],
        "/api/v1/partitions": ["get"],
        "/api/v1/dlt/count": ["get"],
        "/api/v1/dlt/messages": ["get"],
        "/health": ["get"],
    }


def test_the_body_and_all_answers_of_an_order_are_declared(document: dict[str, Any]) -> None:
    operation = document["paths"]["/api/v1/orders"]["post"]
    assert operation["requestBody"]["required"] is True
    assert set(operation["responses"]) == {"200", "400", "403", "408", "413", "415", "422", "503"}
    assert set(operation["responses"]["400"]["content"]) == {"application/json", "application/problem+json"}
    order = document["components"]["schemas"]["Order"]
    assert re.fullmatch(order["properties"]["orderId"]["pattern"], "ORD-1 é 😀")
    assert not re.fullmatch(order["properties"]["orderId"]["pattern"], " \t")


def test_every_failure_is_declared_as_a_problem(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and path != "/health":
                    assert "application/problem+json" in answer["content"], (path, method, status)


def test_every_number_of_the_stats_says_what_it_counts(document: dict[str, Any]) -> None:
    fields = document["components"]["schemas"]["GroupStats"]["properties"]
    assert all("description" in field for name, field in fields.items() if name != "instances")


def test_the_page_asks_nobody_but_this_server() -> None:
    running = Running(FakeApp())
    try:
        page = running.http.get("/docs").text
        assert "http" not in page
        paths = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert len(paths) == 3
        for path in paths:
            assert running.http.get(path).status_code == 200, path
        assert json.loads(running.http.get("/openapi.json").text)["openapi"].startswith("3.")
    finally:
        running.close()


def test_the_vendored_files_are_those_that_the_notes_name() -> None:
    notes = (STATIC / "README.md").read_text()
    named = dict(re.findall(r"\| `([^`]+)` \| `([0-9a-f]{64})` \|", notes))
    assert named.keys() == {path.name for path in Path(STATIC).iterdir()} - {"README.md"}
    for name, digest in named.items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest, name
