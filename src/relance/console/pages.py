"""The console's pages: each asks the cluster for its facts and hands them to a template.

Promise: a page is complete without JavaScript; `console.js` fetches the same address again and changes what
has changed, which is why every page carries a digest (ETag) and an unchanged one is not sent twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from relance.console import show
from relance.console.asks import Asks
from relance.console.params import MAX_OFFSET, MAX_PARTITION, PAGE_SIZES, Look, cursor_text, integer, look
from relance.console.problems import Problem
from relance.console.show import RecordView
from relance.kafka.admin import Member, TopicInfo
from relance.text import visible

__all__ = ["problem_page", "routes"]

HERE = Path(__file__).parent
STATIC = {path.name: path.read_bytes() for path in sorted((HERE / "static").iterdir())}
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# The assets' addresses carry it, so that they may be kept for good.
VERSION = hashlib.sha256(b"".join(STATIC.values())).hexdigest()[:12]


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": show.number,
        "size": show.size,
        "when": show.when,
        "visible": visible,
        "segment": lambda text: quote(str(text), safe=""),
    }
    environment.globals |= {"version": VERSION}
    return environment


_ENVIRONMENT = _environment()


def render(request: Request, template: str, status: int = 200, **facts: Any) -> Response:
    """The page, or 304 where the browser already has exactly this one."""
    asks: Asks = request.app.state.asks
    html = _ENVIRONMENT.get_template(template).render(
        bootstrap=asks.bootstrap_servers, path=request.url.path, **facts
    )
    body = html.encode("utf-8", "replace")
    if status != 200:
        return Response(body, status, media_type="text/html")
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, status, headers, media_type="text/html")


def problem_page(request: Request, problem: Problem) -> Response:
    """The page for what didn't work."""
    response = render(request, "problem.html", problem.status, problem=problem)
    if problem.retry:
        response.headers["Retry-After"] = str(problem.retry)
    return response


async def overview(request: Request) -> Response:
    """Where one arrives: how much there is, and the ways in."""
    asks: Asks = request.app.state.asks
    brokers = await asks.brokers()
    topics = [each for each in await asks.topics() if not each.internal]
    groups = await asks.groups()
    return render(
        request,
        "overview.html",
        brokers=brokers,
        topics=topics,
        dead=[each for each in topics if is_dead_letter_topic(each.name)],
        groups=groups,
        records=sum(each.records for each in topics),
        lag=sum(info.lag or 0 for _, info in groups if info and info.members != ()),
        left=sum(info.lag or 0 for _, info in groups if info and info.members == ()),
    )


async def topics(request: Request) -> Response:
    """All topics."""
    asks: Asks = request.app.state.asks
    everything = await asks.topics()
    query = request.query_params.get("q", "")[:256]
    internal = request.query_params.get("internal") == "1"

    def wanted(topic: TopicInfo) -> bool:
        return (internal or not topic.internal) and query.lower() in topic.name.lower()

    return render(
        request,
        "topics.html",
        topics=[(each, is_dead_letter_topic(each.name)) for each in everything if wanted(each)],
        hidden=sum(each.internal for each in everything),
        any_topics=any(not each.internal for each in everything),
        query=query,
        internal=internal,
    )


async def topic(request: Request) -> Response:
    """One topic and some of its records."""
    asks: Asks = request.app.state.asks
    name = request.path_params["topic"]
    if not name:
        return RedirectResponse("/topics")
    asked = look(request.query_params)
    found = await asks.topic(name)
    if asked.partition is not None and asked.partition >= len(found.partitions):
        raise HTTPException(404, f"topic {name} has no partition {asked.partition}")
    page, rows = await asks.view(name, asked, show.INLINE)
    return render(
        request,
        "topic.html",
        topic=found,
        look=asked,
        offset=request.query_params.get("offset", ""),
        sizes=PAGE_SIZES,
        rows=rows,
        page=page,
        first=not asked.before,
        newest=_query(asked, None),
        older=_query(asked, cursor_text(page.before)) if page.before else "",
    )


async def record(request: Request) -> Response:
    """One record, whole."""
    asks: Asks = request.app.state.asks
    name = request.path_params["topic"]
    partition = integer(request.path_params, "partition", 0, MAX_PARTITION)
    offset = integer(request.path_params, "offset", 0, MAX_OFFSET - 1)
    if partition is None or offset is None:
        raise HTTPException(404)
    found = await asks.topic(name)
    if partition >= len(found.partitions):
        raise HTTPException(404, f"topic {name} has no partition {partition}")
    mark = found.partitions[partition]
    there = await asks.record(name, partition, offset)
    if there is None:
        raise HTTPException(
            404,
            f"{name}-{partition} holds no record at offset {offset}: it keeps {mark.begin} to {mark.end - 1},"
            " and in between compaction and transactions leave gaps"
            if mark.records
            else f"{name}-{partition} is empty",
        )
    return render(
        request,
        "record.html",
        topic=found,
        row=RecordView.of(there, show.WHOLE),
        previous=offset - 1 if offset > mark.begin else None,
        following=offset + 1 if offset + 1 < mark.end else None,
    )


async def groups(request: Request) -> Response:
    """All groups."""
    asks: Asks = request.app.state.asks
    return render(request, "groups.html", groups=[(line, info) for line, info in await asks.groups()])


async def group(request: Request) -> Response:
    """One group: who holds what, and how far behind."""
    asks: Asks = request.app.state.asks
    if not request.path_params["group"]:
        return RedirectResponse("/groups")
    found = await asks.group(request.path_params["group"])
    return render(
        request,
        "group.html",
        group=found,
        members=[(member, _held(member)) for member in found.members or ()],
        names={member.member_id: label for member, label in _labels(found.members or ())},
        most=max((row.lag or 0 for row in found.partitions or ()), default=0),
    )


async def static(request: Request) -> Response:
    """The style sheet, the script and the icon, from memory: no path to walk up."""
    name = request.path_params["name"]
    if name not in STATIC:
        raise HTTPException(404)
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(STATIC[name], headers=headers, media_type=_TYPES[Path(name).suffix])


async def favicon(_: Request) -> Response:
    """Where browsers look unasked."""
    return RedirectResponse(f"/static/icon.svg?v={VERSION}", 308)


def routes() -> list[Route]:
    """In the order in which they must be tried."""
    return [
        Route("/", overview),
        Route("/favicon.ico", favicon),
        Route("/static/{name}", static),
        Route("/topics", topics),
        Route("/topics/{topic}/{partition}/{offset}", record),
        Route("/topics/{topic:path}", topic),
        Route("/groups", groups),
        Route("/groups/{group:path}", group),
    ]


def is_dead_letter_topic(name: str) -> bool:
    """By the suffixes in use: ours and the course's `.DLT`, Spring's `-dlt`, and `.dlq`."""
    return name.lower().endswith((".dlt", "-dlt", ".dlq", "-dlq"))


def _query(asked: Look, before: str | None) -> str:
    pairs: dict[str, object] = {"limit": asked.limit}
    if asked.partition is not None:
        pairs["partition"] = asked.partition
    if asked.key:
        pairs["key"] = asked.key
    if before:
        pairs["before"] = before
    return urlencode(pairs)


def _held(member: Member) -> list[tuple[str, list[int]]]:
    """The assignment by topic."""
    by_topic: dict[str, list[int]] = {}
    for tp in member.assignment:
        by_topic.setdefault(tp.topic, []).append(tp.partition)
    return sorted(by_topic.items())


def _labels(members: Collection[Member]) -> list[tuple[Member, str]]:
    """The client id, told apart by the end of the member id where several share it."""
    ids = [member.client_id for member in members]
    return [
        (m, m.client_id if ids.count(m.client_id) == 1 else f"{m.client_id} …{m.member_id[-6:]}")
        for m in members
    ]
