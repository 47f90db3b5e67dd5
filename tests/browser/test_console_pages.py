"""The console in a real browser: the lab's way, refresh in place, payloads as text, and being away."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from playwright.sync_api import Browser, Page, expect
from tests.browser.console_process import RunningConsole, console

from relance.broker import LocalBroker
from relance.dead_letters import build, encode
from relance.kafka.admin import Admin

MakeTopic = Callable[..., str]
# Lists the visible texts with less contrast to their ground than WCAG AA asks for.
CONTRAST = (Path(__file__).parent / "contrast.js").read_text()
EVIL = "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"


def send(
    broker: LocalBroker, topic: str, *values: bytes | None, key: bytes | None = None, **options: object
) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for value in values:
        producer.produce(topic, value, key=key, **options)
    assert producer.flush(20) == 0


def open_all(page: Page) -> None:
    page.evaluate("document.querySelectorAll('main details').forEach(each => { each.open = true })")


def order(number: int) -> bytes:
    return json.dumps({"orderId": f"ORD-{number}", "amount": number * 100, "status": "PENDING"}).encode()


def test_the_lab_finds_its_five_messages(
    page: Page, web: RunningConsole, broker: LocalBroker, admin: Admin
) -> None:
    admin.ensure_topic("orders", 6)
    send(broker, "orders", *(order(n) for n in range(1, 6)))
    page.goto(web.url)
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Topics").click()
    row = page.get_by_role("row", name="orders 6 5")
    expect(row).to_be_visible()
    row.get_by_role("link", name="orders", exact=True).click()
    expect(page.get_by_role("heading", name="orders", exact=True)).to_be_visible()
    expect(page.locator(".records > ol > li")).to_have_count(5)
    page.locator("summary", has_text="ORD-5").click()
    expect(page.get_by_role("region", name="Value").locator("visible=true")).to_have_text(
        '{\n  "orderId": "ORD-5",\n  "amount": 500,\n  "status": "PENDING"\n}'
    )


def test_markup_in_payloads_keys_headers_and_names_is_text(
    page: Page, web: RunningConsole, broker: LocalBroker, make_topic: MakeTopic
) -> None:
    topic = make_topic("browser-evil")
    evil = EVIL.encode()
    letter = build(
        topic=EVIL, partition=0, offset=0, key=evil, value=evil, headers=[(EVIL, evil)], group=EVIL,
        error=type(EVIL, (Exception,), {})(EVIL), attempts=1, now=datetime.now(UTC),
    )  # fmt: skip
    send(broker, topic, evil, json.dumps({EVIL: EVIL}).encode(), key=evil, headers={EVIL: evil})
    send(broker, topic, encode(letter))
    group = f"{topic}{EVIL}"
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
    consumer.close()
    for address in (
        f"/topics/{topic}",
        f"/topics/{topic}/0/0",
        f"/topics/{topic}/0/1",
        f"/topics/{topic}/0/2",
    ):
        page.goto(web.url + address)
        open_all(page)
        assert EVIL in page.locator("main").inner_text().replace("\n", " ")
        assert page.locator("main img, main script").count() == 0
    page.goto(f"{web.url}/groups")
    page.get_by_role("link", name=group).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(group)
    page.goto(f"{web.url}/topics?q={EVIL.replace('#', '')}")
    assert "pwned" not in page.title().replace(EVIL, "")
    assert page.evaluate("document.title") != "pwned"


def test_a_dead_letter_is_told_before_its_raw_value(
    page: Page, web: RunningConsole, broker: LocalBroker, make_topic: MakeTopic
) -> None:
    topic = make_topic("browser") + ".DLT"
    Admin(broker.bootstrap).ensure_topic(topic, 1)
    origin = make_topic("browser-origin")
    send(broker, origin, order(1))
    letter = build(
        topic=origin, partition=0, offset=0, key=b"ORD-1", value=order(1), group="orders-consumer-group",
        error=ValueError("Invalid amount"), attempts=4, now=datetime.now(UTC),
    )  # fmt: skip
    send(broker, topic, encode(letter), key=b"ORD-1")
    page.goto(f"{web.url}/topics/{topic}")
    summary = page.locator(".records summary").first
    expect(summary).to_contain_text("ValueError Invalid amount")
    summary.click()
    told = page.get_by_role("region", name="Dead letter")
    expect(told).to_contain_text("Retries")
    expect(told.locator("dd").first).to_have_text("3")
    told.get_by_role("link", name=f"{origin}-0@0").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Partition 0, offset 0")


def test_new_records_appear_while_what_is_open_scrolled_and_typed_stays(
    page: Page, web: RunningConsole, broker: LocalBroker, make_topic: MakeTopic
) -> None:
    topic = make_topic("browser-live")
    send(broker, topic, *(order(n) for n in range(40)))
    page.goto(f"{web.url}/topics/{topic}")
    row = page.locator('[data-key="0-5"]')
    row.locator("summary").first.click()
    field = page.get_by_role("searchbox", name="Key contains")
    field.fill("half typed")
    row.scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    mark = "document.querySelector('[data-key=\"0-5\"]').mine = true"
    page.evaluate(mark)
    send(broker, topic, order(99))
    expect(page.locator('[data-key="0-40"]')).to_have_count(1)
    expect(row.locator("details").first).to_have_attribute("open", "")
    assert page.evaluate("document.querySelector('[data-key=\"0-5\"]').mine") is True, "the same node"
    assert page.evaluate("scrollY") >= before > 0
    expect(field).to_have_value("half typed")


def test_the_refresh_can_be_switched_off_and_stays_off(
    page: Page, web: RunningConsole, broker: LocalBroker, make_topic: MakeTopic
) -> None:
    topic = make_topic("browser-off")
    send(broker, topic, order(1))
    page.goto(f"{web.url}/topics/{topic}")
    toggle = page.get_by_role("switch", name="Refresh every 2 s")
    expect(toggle).to_be_checked()
    toggle.focus()
    page.keyboard.press("Space")
    expect(toggle).not_to_be_checked()
    page.reload()
    expect(toggle).not_to_be_checked()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.install()
    page.clock.run_for(30_000)
    assert asked == []


def test_every_page_is_complete_without_scripts(
    chromium: Browser, web: RunningConsole, broker: LocalBroker, make_topic: MakeTopic
) -> None:
    topic = make_topic("browser-plain", 2)
    send(broker, topic, *(order(n) for n in range(60)), partition=1)
    plain = chromium.new_context(java_script_enabled=False)
    page = plain.new_page()
    page.goto(f"{web.url}/topics/{topic}")
    expect(page.locator(".records > ol > li")).to_have_count(50)
    expect(page.get_by_role("switch")).to_have_count(0)
    page.get_by_role("link", name="Older →").click()
    expect(page.locator(".records > ol > li")).to_have_count(10)
    page.locator("select[name=partition]").select_option("0")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("heading", name="Partition 0 is empty")).to_be_visible()
    plain.close()


def test_the_keyboard_reaches_and_opens_a_record(
    page: Page, web: RunningConsole, broker: LocalBroker, make_topic: MakeTopic
) -> None:
    topic = make_topic("browser-keys")
    send(broker, topic, order(1))
    page.goto(f"{web.url}/topics/{topic}")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.records summary')"):
            break
    page.keyboard.press("Enter")
    expect(page.locator(".records details")).to_have_attribute("open", "")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(
    chromium: Browser, web: RunningConsole, broker: LocalBroker, make_topic: MakeTopic, scheme: str
) -> None:
    topic = make_topic("browser-contrast")
    letter = build(
        topic=topic, partition=0, offset=0, key=None, value=b"{}", group="g",
        error=ValueError("x"), attempts=1, now=datetime.now(UTC),
    )  # fmt: skip
    send(broker, topic, encode(letter), None, order(1))
    context = chromium.new_context(color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    for address in ("/", "/topics", f"/topics/{topic}", "/topics/nope", "/groups"):
        page.goto(web.url + address)
        open_all(page)
        assert page.evaluate(CONTRAST) == [], f"below 4.5:1 (WCAG AA) on {address}"
    context.close()


@pytest.mark.parametrize("width", [320, 390, 768, 1200])
def test_no_page_is_wider_than_its_screen(
    chromium: Browser, web: RunningConsole, broker: LocalBroker, make_topic: MakeTopic, width: int
) -> None:
    topic = make_topic("browser-" + "wide" * 40, 3)
    send(broker, topic, b"x" * 3000, order(1), key=b"k" * 500, headers={"h" * 200: b"v" * 500})
    context = chromium.new_context(viewport={"width": width, "height": 700})
    page = context.new_page()
    for address in ("/", "/topics", f"/topics/{topic}", f"/topics/{topic}/0/0", "/topics/nope", "/groups"):
        page.goto(web.url + address)
        open_all(page)
        too_wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert too_wide <= 0, f"{address} is {too_wide} px too wide"
    context.close()


def test_a_broker_that_goes_and_comes_back_is_told_and_the_page_goes_on(
    page: Page, tmp_path: Path, chromium: Browser
) -> None:
    own = LocalBroker(tmp_path / "broker", port=0, say=print)
    with own, console(own.bootstrap) as running:
        Admin(own.bootstrap, timeout=15.0).ensure_topic("steady", 1)
        send(own, "steady", order(1))
        page.goto(f"{running.url}/topics/steady")
        expect(page.locator(".records > ol > li")).to_have_count(1)
        own.stop()
        notice = page.get_by_role("status")
        expect(notice).to_contain_text("The broker is away: no Kafka broker answered at", timeout=30_000)
        expect(page.locator(".records > ol > li")).to_have_count(1)
        late = page.context.new_page()
        answer = late.goto(f"{running.url}/topics/steady")
        assert answer is not None
        assert answer.status == 503
        expect(late.get_by_role("heading", level=1)).to_have_text("The broker is away")
        expect(late.locator("main")).to_contain_text(own.bootstrap)
        own.start()
        send(own, "steady", order(2))
        for each in (page, late):
            each.bring_to_front()
            expect(each.locator(".records > ol > li")).to_have_count(2, timeout=30_000)
        expect(notice).to_be_hidden()
    own.purge()


def test_a_topic_that_is_deleted_is_told_and_so_is_its_return(
    page: Page, web: RunningConsole, admin: Admin, make_topic: MakeTopic
) -> None:
    topic = make_topic("browser-gone")
    page.goto(f"{web.url}/topics/{topic}")
    admin.delete_topic(topic)
    expect(page.get_by_role("status")).to_contain_text(re.compile(rf"No such topic: topic '{topic}'"))
    page.goto(f"{web.url}/topics/{topic}")
    expect(page.get_by_role("heading", level=1)).to_have_text("No such topic")
    expect(page.get_by_role("link", name="All topics")).to_be_visible()
    admin.ensure_topic(topic, 1)
    expect(page.get_by_role("heading", level=1)).to_have_text(topic)
