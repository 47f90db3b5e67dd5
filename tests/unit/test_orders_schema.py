"""The order API against its own OpenAPI document: requests drawn from it, and drawn to break it.

Whatever comes, no answer is a 5xx, each has a status, a type and a body that the document declares, and what
breaks the document's rules is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from orders_fakes import FakeApp, Running

from orders.api import create_api
from orders.service import OrdersService
from orders.settings import Settings

DOCUMENT = create_api(OrdersService(Settings.load({"ORDERS_ROLE": "api"}), FakeApp())).openapi()  # type: ignore[arg-type]
OPERATIONS = {
    found.label: found
    for found in (result.ok() for result in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations())
}
CASES = [
    (label, mode)
    for label, operation in OPERATIONS.items()
    for mode in schemathesis.GenerationMode
    # Where nothing can be said, nothing wrong can.
    if mode is schemathesis.GenerationMode.POSITIVE
    or {"parameters", "requestBody"} & operation.definition.raw.keys()
]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    service = Running(FakeApp())
    yield service
    service.close()


@pytest.mark.parametrize(("label", "mode"), CASES, ids=[f"{label}, {mode.value}" for label, mode in CASES])
def test_no_request_breaks_what_the_document_says(
    label: str, mode: schemathesis.GenerationMode, running: Running
) -> None:
    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    def holds(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=f"http://127.0.0.1:{running.port}")

    holds()
