"""The HTTP side over real sockets, with an App in memory: what a client sees for each kind of input."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from orders_fakes import FakeApp, Running

from orders import body as body_module
from orders import service as service_module
from orders.body import MAX_BODY, MAX_DISCARDED
from orders.service import OrdersService
from orders.settings import Settings
from orders.state import flag_key, share_key
from relance import BrokerUnavailableError, DeadLetter, SendError, TopicMissingError
from waiting import wait_until

GROUP = "orders-consumer-group"
FLAG = flag_key(GROUP)
GOOD = {"orderId": "ORD-1", "amount": 100, "status": "PENDING"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def app() -> FakeApp:
    return FakeApp()


@pytest.fixture
def running(app: FakeApp) -> Iterator[Running]:
    service = Running(app)
    yield service
    service.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """One service for the tests that leave nothing behind."""
    service = Running(FakeApp())
    yield service
    service.close()


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "instance"} <= problem.keys()
    assert problem["status"] == status
    return problem


# -- orders -----------------------------------------------------------------------------------------


def test_a_good_order_is_answered_with_where_it_lies(running: Running) -> None:
    answer = running.post(GOOD)
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ACCEPTED",
        "orderId": "ORD-1",
        "partition": 2,
        "offset": 0,
        "message": "Order written to orders",
    }
    sent = running.app.sent[0]
    assert (sent.topic, sent.key, json.loads(sent.value), sent.headers) == ("orders", b"ORD-1", GOOD, [])


def test_a_charset_of_utf_8_is_fine(shared: Running) -> None:
    assert shared.post(GOOD, **{"Content-Type": 'application/JSON; charset="UTF-8"'}).status_code == 200


@pytest.mark.parametrize(
    ("order", "key", "order_id", "error"),
    [
        (
            {"orderId": "ORD-INVALID", "amount": -50, "status": "PENDING"},
            b"ORD-INVALID",
            "ORD-INVALID",
            "amount must not be negative, it is -50",
        ),
        ({"orderId": "", "amount": 1}, None, "", "orderId must not be empty"),
        ({"orderId": " \t", "amount": 1}, None, " \t", "orderId must not be empty"),
        ({"amount": 1}, None, None, "orderId must not be empty"),
        ({"orderId": "a"}, b"a", "a", "amount is missing"),
    ],
)
def test_a_broken_rule_is_dead_lettered_and_said(
    running: Running, order: Any, key: bytes | None, order_id: str | None, error: str
) -> None:
    body = json.dumps(order).encode()
    answer = running.post(body)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    assert answer.json() == {
        "status": "REJECTED",
        "orderId": order_id,
        "error": f"Validation failed: {error}",
        "action": "Sent to DLT",
    }
    (letter,) = running.app.letters
    assert (letter.topic, letter.value, letter.key, letter.source_topic) == (
        "orders.DLT",
        body,
        key,
        "orders",
    )
    assert type(letter.error).__name__ == "ValidationError"
    assert running.app.sent == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"orderId":"a","amount":NaN}', 400),
        (b'{"orderId":"a","amount":1e400}', 400),
        (b'{"orderId":"a","amount":' + b"9" * 5000 + b"}", 400),
        (b"[" * 100_000 + b"]" * 100_000, 400),
        (b'{"orderId":"a","amount":1,"amount":2}', 400),
        (b'{"orderId":"a\xff","amount":1}', 400),
        (b"[1]", 422),
        (b'{"orderId":1,"amount":1}', 422),
        (b'{"orderId":"\\ud800","amount":1}', 422),
        (b'{"orderId":"' + b"a" * 5000 + b'","amount":1}', 422),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_anything_else_that_is_wrong_is_a_problem_and_no_dead_letter(
    shared: Running, body: bytes, status: int
) -> None:
    app = shared.app
    before = (len(app.sent), len(app.letters))
    problem = assert_problem(shared.post(body), status)
    assert problem["instance"] == "/api/v1/orders"
    assert (len(app.sent), len(app.letters)) == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": ""},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "identity, br"},
    ],
    ids=repr,
)
def test_another_type_or_a_compressed_body_is_refused(shared: Running, headers: dict[str, str]) -> None:
    assert_problem(shared.post(GOOD, **headers), 415)


def test_a_missing_content_type_is_refused(shared: Running) -> None:
    answer = shared.http.post("/api/v1/orders", content=b"{}")
    assert "content-type" not in answer.request.headers
    assert_problem(answer, 415)


@pytest.mark.parametrize("size", [MAX_BODY + 1, MAX_DISCARDED + 1])
def test_a_body_over_the_limit_is_refused(shared: Running, size: int) -> None:
    try:
        answer = shared.post(b" " * size)
    except httpx.WriteError:
        assert size > MAX_DISCARDED  # the answer came while the client still wrote, which httpx gives up on
        return
    assert_problem(answer, 413)


def test_a_body_of_exactly_the_limit_is_read(shared: Running) -> None:
    body = json.dumps(GOOD).encode()
    assert shared.post(body + b" " * (MAX_BODY - len(body))).status_code == 200


def test_the_limit_holds_for_a_body_without_a_length(shared: Running) -> None:
    chunks = (b" " * 50_000 for _ in range(6))
    answer = shared.http.post("/api/v1/orders", content=chunks, headers=JSON)
    assert "content-length" not in answer.request.headers
    assert_problem(answer, 413)


def test_a_client_that_asks_first_is_told_before_it_sends(shared: Running) -> None:
    with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as client:
        client.sendall(
            b"POST /api/v1/orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2000000\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == 413


@pytest.mark.parametrize(
    "sent",
    [
        b"G\x00T / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a client that speaks TLS
        b"POST /api/v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    ],
    ids=lambda sent: repr(sent[:30]),
)
def test_what_is_no_http_is_answered_400_and_harms_nobody(shared: Running, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(12) == b"HTTP/1.1 400"
    assert shared.post(GOOD).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_module, "BODY_DEADLINE", 0.1)
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
        client.sendall(
            b"POST /api/v1/orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 20\r\n\r\n{"
        )
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == 408


def test_a_client_that_goes_away_leaves_no_traceback(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
        client.sendall(
            b"POST /api/v1/orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 20\r\n\r\n{"
        )
    assert running.post(GOOD).status_code == 200
    assert not [record for record in caplog.records if record.exc_info]


# -- Kafka away -------------------------------------------------------------------------------------


@pytest.mark.parametrize("maybe", [True, False])
@pytest.mark.parametrize("order", [GOOD, GOOD | {"amount": -1}], ids=["good", "refused"])
def test_an_order_that_nobody_acknowledged_says_whether_it_may_be_written(
    running: Running, order: Any, maybe: bool
) -> None:
    running.app.outcome = lambda: SendError("no broker answers", maybe_written=maybe)
    answer = running.post(order)
    problem = assert_problem(answer, 503)
    assert problem["orderMayHaveBeenWritten"] is maybe
    assert "no broker answers" in problem["detail"]
    assert int(answer.headers["retry-after"]) > 0
    assert "Sent to DLT" not in answer.text


def test_a_topic_that_is_gone_is_named_with_what_makes_it(running: Running) -> None:
    running.app.outcome = lambda: SendError("_UNKNOWN_PARTITION", maybe_written=False)
    running.app.status.details["missing_topics"] = ["orders"]
    problem = assert_problem(running.post(GOOD), 503)
    assert problem["title"] == "A topic is missing"
    assert "there is no topic orders; ./scripts/up.sh makes" in problem["detail"]
    assert problem["orderMayHaveBeenWritten"] is False


def test_a_page_of_another_site_may_read_and_not_write(running: Running) -> None:
    headers = {"Origin": "http://evil.example"}
    assert running.http.get("/api/v1/stats", headers=headers).status_code == 200
    switch = "/api/v1/config/simulate-transient-error?enabled=true"
    assert_problem(running.http.post(switch, headers=headers), 403)
    own = {"Origin": str(running.http.base_url).rstrip("/")}
    assert running.http.post(switch, headers=own).status_code == 200


def test_an_acknowledgement_that_does_not_come_in_time_may_mean_a_written_order(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "ACK_TIMEOUT", 0.05)
    running.app.outcome = asyncio.Event
    assert assert_problem(running.post(GOOD), 503)["orderMayHaveBeenWritten"] is True


def test_before_kafka_is_reached_the_service_says_so(app: FakeApp) -> None:
    app.starting = asyncio.Event()
    running = Running(app, connect=False)
    try:
        health = running.http.get("/health")
        assert health.status_code == 503
        assert health.json()["status"] == "DOWN"
        assert "localhost:9092" in health.json()["reasons"][0]
        problem = assert_problem(running.post(GOOD), 503)
        assert "not connected" in problem["detail"]
        assert problem["orderMayHaveBeenWritten"] is False
        for path in ("/api/v1/stats", "/api/v1/dlt/count", "/api/v1/dlt/messages"):
            assert_problem(running.http.get(path), 503)
    finally:
        running.close()  # and a start that still waits doesn't hold the stop


def test_a_start_that_fails_ends_the_server_with_the_reason(
    app: FakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app.starting = BrokerUnavailableError("no broker at localhost:9092 for 60 s")
    running = Running(app, connect=False)
    try:
        assert running.ended.wait(10)
        assert isinstance(running.service.failure, BrokerUnavailableError)
        assert running.http.get("/health").json()["reasons"] == ["no broker at localhost:9092 for 60 s"]
        lines = [record for record in caplog.records if record.name == "orders.service"]
        assert len(lines) == 1
        assert lines[0].exc_info is None
    finally:
        running.close()


# -- batches ----------------------------------------------------------------------------------------


def test_a_batch_is_written_whole(running: Running) -> None:
    answer = running.http.post("/api/v1/orders/batch?count=1234").json()
    assert (answer["status"], answer["count"], answer["partitions"]) == ("ACCEPTED", 1234, {"2": 1234})
    assert len({sent.key for sent in running.app.sent}) == 1234
    assert running.http.post("/api/v1/orders/batch").json()["count"] == 10


def test_a_batch_that_breaks_off_says_how_many_are_written(running: Running) -> None:
    app = running.app
    app.outcome = lambda: SendError("gone", maybe_written=False) if len(app.sent) >= 7 else None
    problem = assert_problem(running.http.post("/api/v1/orders/batch?count=1000"), 503)
    assert (problem["accepted"], problem["orderMayHaveBeenWritten"]) == (7, False)


@pytest.mark.parametrize("count", ["0", "-1", "10001", "1e3", "ten", "", "9" * 5000])
def test_a_batch_is_bounded(shared: Running, count: str) -> None:
    problem = assert_problem(shared.http.post("/api/v1/orders/batch", params={"count": count}), 422)
    assert problem["errors"][0]["name"] == "count"
    assert len(problem["detail"]) < 300


# -- the switch -------------------------------------------------------------------------------------


def switch(running: Running, enabled: bool) -> dict[str, Any]:
    answer = running.http.post(
        "/api/v1/config/simulate-transient-error", params={"enabled": str(enabled).lower()}
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_switch_is_read_back(running: Running) -> None:
    url = "/api/v1/config/simulate-transient-error"
    assert running.http.get(url).json()["simulateTransientError"] is False
    assert switch(running, True)["simulateTransientError"] is True
    assert running.http.get(url).json()["simulateTransientError"] is True
    assert switch(running, False) == running.http.get(url).json()


def test_an_order_after_the_switch_is_stamped_with_it(running: Running) -> None:
    switch(running, True)
    written = [key for key, _ in running.app.state.log].index(FLAG)
    running.post(GOOD)
    assert running.app.sent[-1].headers == [("orders-state-offset", str(written).encode())]


def test_a_switch_on_the_consumer_is_seen_by_the_api_before_it_is_answered() -> None:
    log: list[Any] = []
    api, consumer = Running(FakeApp(log), "api", "api"), Running(FakeApp(log), "consumer", "consumer")
    try:
        wait_until(
            lambda: {share_key(GROUP, "api"), share_key(GROUP, "consumer")} <= {key for key, _ in log},
            message="both to show up",
        )
        api.app.state.behind = len(log)  # the API has not read on
        threading.Timer(0.2, lambda: setattr(api.app.state, "behind", None)).start()
        assert "not confirmed" not in switch(consumer, True)["message"]
        api.post(GOOD)
        assert api.app.sent[-1].headers, "an order after the answer must carry the switch"
    finally:
        api.close()
        consumer.close()


def test_a_switch_that_an_api_does_not_see_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "FLAG_ACK_TIMEOUT", 0.3)
    log: list[Any] = []
    api, consumer = Running(FakeApp(log), "api", "api"), Running(FakeApp(log), "consumer", "consumer")
    try:
        wait_until(
            lambda: {share_key(GROUP, "api"), share_key(GROUP, "consumer")} <= {key for key, _ in log},
            message="both to show up",
        )
        api.app.state.behind = len(log)
        assert "not confirmed" in switch(consumer, True)["message"]
    finally:
        api.close()
        consumer.close()


@pytest.mark.parametrize("query", ["", "?enabled=", "?enabled=yes", "?enabled=TRUE", "?enabled=1"])
def test_a_switch_wants_true_or_false(shared: Running, query: str) -> None:
    assert_problem(shared.http.post(f"/api/v1/config/simulate-transient-error{query}"), 422)


def test_a_switch_that_cannot_be_written_is_a_problem(running: Running) -> None:
    running.app.state.refuse = SendError("no broker", maybe_written=False)
    assert_problem(running.http.post("/api/v1/config/simulate-transient-error?enabled=true"), 503)


# -- numbers ----------------------------------------------------------------------------------------


def test_the_stats_are_the_groups_with_each_share_beside_them() -> None:
    log: list[Any] = []
    api, consumer = Running(FakeApp(log), "api", "api"), Running(FakeApp(log), "consumer", "consumer")
    try:
        consumer.app.numbers.handled = 5
        consumer.app.numbers.failed = 3
        consumer.app.numbers.retried = 2
        consumer.app.numbers.dead_lettered = 1
        api.app.numbers.handled = 1
        api.post(GOOD | {"amount": -1})
        stats = wait_until(
            lambda: (found := api.http.get("/api/v1/stats").json())["success"] == 6 and found,
            message="the consumer's share to arrive",
        )
        assert {key: value for key, value in stats.items() if key != "instances"} == {
            "success": 6,
            "errors": 3,
            "dlt": 2,
            "retries": 2,
            "messagesRetried": 2,
            "messagesSentToDlt": 2,
            "processingErrors": 3,
        }
        assert [(share["instance"], share["role"], share["up"]) for share in stats["instances"]] == [
            ("api", "api", True),
            ("consumer", "consumer", True),
        ]
        assert stats["instances"][1]["partitions"] == [0, 3]
        consumer.close()
        down = api.http.get("/api/v1/stats").json()
        assert (down["success"], down["instances"][1]["up"]) == (6, False)
    finally:
        api.close()
        consumer.close()


def test_what_is_handled_while_draining_is_counted(app: FakeApp) -> None:
    running = Running(app)
    app.draining = lambda: setattr(app.numbers, "handled", 9)
    running.close()
    key, last = app.state.log[-1]
    assert last is not None
    assert (key, last["counters"]["success"], last["stopped"]) == (share_key(GROUP, "one"), 9, True)


def test_the_consumers_own_numbers(running: Running) -> None:
    running.app.numbers.handled, running.app.numbers.dead_lettered = 4, 1
    stats = running.http.get("/api/v1/consumer/stats").json()
    assert stats["messagesProcessed"] == 5
    assert stats["partitionsAssigned"] == 2
    assert stats["rebalanceCount"] == 1
    assert stats["lastRebalanceTime"] == "2026-01-31T10:30:00.000Z"
    assert stats["circuitBreakerOpen"] is False


def test_the_partitions_are_those_of_the_orders_topic(shared: Running) -> None:
    assert shared.http.get("/api/v1/partitions").json() == {"partitions": [0, 3], "count": 2}


def test_the_dead_letters_are_counted_and_shown(running: Running) -> None:
    running.app.latest = [
        DeadLetter(
            original_topic="orders",
            original_partition=2,
            original_offset=16,
            original_key="ORD-RETRY",
            original_value="x" * 5000,
            error_message="MaxRetriesExceededError: gave up after 4 attempts",
            error_timestamp="2026-01-31T10:30:00.000Z",
            retry_count=3,
            error_class="relance.errors.MaxRetriesExceededError",
        ),
        DeadLetter(original_topic="orders", original_value=None),
    ]
    assert running.http.get("/api/v1/dlt/count").json() == {
        "dltTopic": "orders.DLT",
        "count": 2,
        "dltCount": 2,
    }
    found = running.http.get("/api/v1/dlt/messages?count=10").json()
    assert found["count"] == 2
    first = found["messages"][0]
    assert (first["key"], first["originalPartition"], first["originalOffset"]) == ("ORD-RETRY", 2, 16)
    assert (first["attempts"], first["retryCount"]) == (4, 3)
    assert (first["errorReason"], first["failedAt"]) == (
        "MaxRetriesExceededError: gave up after 4 attempts",
        "2026-01-31T10:30:00.000Z",
    )
    assert len(first["originalValue"]) == 4096
    assert found["messages"][1]["originalPartition"] is None
    assert running.http.get("/api/v1/dlt/messages?count=1").json()["count"] == 1


@pytest.mark.parametrize("count", ["0", "101", "1000000000", "x"])
def test_the_number_of_dead_letters_is_bounded(shared: Running, count: str) -> None:
    assert_problem(shared.http.get("/api/v1/dlt/messages", params={"count": count}), 422)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            TopicMissingError("orders.DLT", partitions=1),
            "there is no topic orders.DLT; ./scripts/up.sh makes it",
        ),
        (BrokerUnavailableError("no broker"), "no broker"),
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/dlt/count", "/api/v1/dlt/messages"])
def test_a_dead_letter_topic_that_cannot_be_asked_is_a_problem(
    running: Running, error: Exception, said: str, path: str
) -> None:
    running.app.asked = error
    detail = assert_problem(running.http.get(path), 503)["detail"]
    assert said in detail
    assert "--partitions" not in detail, "one that doesn't fit the stack's would stop its next start"


def test_health_is_up_and_then_down_with_its_reasons(running: Running) -> None:
    answer = running.http.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "UP")
    running.app.status.status = "DOWN"
    running.app.status.reasons = ["no broker has answered for 12 s"]
    answer = running.http.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "DOWN")
    assert answer.json()["reasons"] == ["no broker has answered for 12 s"]


# -- the edges --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/nothing", "/api/v1/orders/", "/static/none.js", "/%ff%00%0a", "/😀"])
def test_an_unknown_path_is_a_problem(shared: Running, path: str) -> None:
    problem = assert_problem(shared.http.get(path), 404)
    assert problem["instance"].isascii()


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/v1/orders", "POST"),
        ("PUT", "/api/v1/config/simulate-transient-error", "GET, POST"),
        ("DELETE", "/health", "GET"),
        ("TRACE", "/api/v1/stats", "GET"),
    ],
)
def test_a_wrong_method_names_the_right_ones(shared: Running, method: str, path: str, allowed: str) -> None:
    answer = shared.http.request(method, path)
    assert_problem(answer, 405)
    assert answer.headers["allow"] == allowed


def test_a_consumer_takes_no_orders() -> None:
    running = Running(FakeApp(), "consumer")
    try:
        assert_problem(running.post(GOOD), 404)
        assert running.http.get("/api/v1/partitions").status_code == 200
        assert "/api/v1/orders" not in running.http.get("/openapi.json").json()["paths"]
    finally:
        running.close()


def test_an_error_of_our_own_is_a_problem_too(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(running.service, "partitions", lambda: 1 / 0)
    problem = assert_problem(running.http.get("/api/v1/partitions"), 500)
    assert "division" not in problem["detail"]
    wait_until(lambda: any(record.exc_info for record in caplog.records), message="its traceback in the log")


def test_an_open_connection_does_not_hold_the_stop(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        running.close()
    assert running.app.stopped


# -- the handler ------------------------------------------------------------------------------------


def test_the_consumer_is_declared_as_the_course_draws_it(app: FakeApp) -> None:
    service = OrdersService(Settings.load({"KAFKA_AUTO_OFFSET_RESET": "latest"}), app)  # type: ignore[arg-type]
    (consumer,) = app.consumers
    assert consumer["topics"] == ("orders",)
    assert (consumer["retry_topic"], consumer["dead_letter_topic"]) == ("orders.retry", "orders.DLT")
    assert (consumer["ordering"], consumer["max_in_memory_wait"], consumer["start"]) == ("key", 0.0, "latest")
    assert consumer["retry"] == service.settings.retry_policy()


def test_what_changes_something_declares_that_pages_of_other_sites_are_refused(shared: Running) -> None:
    paths = shared.http.get("/openapi.json").json()["paths"]
    writing = [path["post"] for path in paths.values() if "post" in path]
    assert len(writing) == 3
    assert all("403" in operation["responses"] for operation in writing)
