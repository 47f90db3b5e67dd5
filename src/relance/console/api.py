"""The console's answers for scripts: the same facts as the pages, as JSON.

Promise: no byte is lost (what isn't UTF-8 comes as base64 and says so), and an error is problem+json.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from relance.console.asks import Asks
from relance.console.params import cursor_text, look
from relance.console.show import json_value
from relance.errors import BrokerUnavailableError
from relance.kafka.admin import GroupInfo, GroupSummary, PartitionInfo, TopicInfo
from relance.kafka.browse import FetchedRecord
from relance.text import iso

__all__ = ["routes"]


async def health(request: Request) -> Response:
    """{"status": "UP"}, or 503 and the reason while no broker answers."""
    asks: Asks = request.app.state.asks
    try:
        brokers = await asks.brokers()
    except BrokerUnavailableError as error:
        return JSONResponse({"status": "DOWN", "reasons": [str(error)]}, 503, {"Retry-After": "2"})
    return JSONResponse({"status": "UP", "bootstrapServers": asks.bootstrap_servers, "brokers": brokers})


async def topics(request: Request) -> Response:
    """All topics with partition and record counts."""
    asks: Asks = request.app.state.asks
    return JSONResponse({"topics": [_topic(each) for each in await asks.topics()]})


async def topic(request: Request) -> Response:
    """One topic: its partitions with offsets, and the settings that are its own."""
    asks: Asks = request.app.state.asks
    found = await asks.topic(request.path_params["topic"])
    return JSONResponse(
        {
            "name": found.name,
            "records": found.records,
            "partitions": [_partition(each) for each in found.partitions],
            "configs": dict(found.configs),
        }
    )


async def records(request: Request) -> Response:
    """Records newest first: `?limit=&partition=&offset=&key=&before=`; `next` is the `before` of the next."""
    asks: Asks = request.app.state.asks
    page = await asks.page(request.path_params["topic"], look(request.query_params))
    return JSONResponse(
        {
            "records": [_record(each) for each in page.records],
            "next": cursor_text(page.before) or None,
            "scanned": page.scanned,
            "cut": page.cut or None,
        }
    )


async def groups(request: Request) -> Response:
    """All groups with the number of members and the lag."""
    asks: Asks = request.app.state.asks
    return JSONResponse({"groups": [_group_line(*each) for each in await asks.groups()]})


async def group(request: Request) -> Response:
    """One group: members, assignment, lag per partition."""
    asks: Asks = request.app.state.asks
    return JSONResponse(_group(await asks.group(request.path_params["group"])))


def routes() -> list[Route]:
    """In the order in which they must be tried: a name may hold a slash, if only to be refused."""
    return [
        Route("/health", health),
        Route("/api/topics", topics),
        Route("/api/topics/{topic:path}/records", records),
        Route("/api/topics/{topic:path}", topic),
        Route("/api/groups", groups),
        Route("/api/groups/{group:path}", group),
    ]


def _topic(info: TopicInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "partitions": info.partitions,
        "records": info.records,
        "internal": info.internal,
        "offlinePartitions": info.offline,
    }


def _partition(info: PartitionInfo) -> dict[str, Any]:
    return {
        "partition": info.partition,
        "beginOffset": info.begin,
        "endOffset": info.end,
        "records": info.records,
        "leader": info.leader,
        "replicas": info.replicas,
        "inSync": info.in_sync,
    }


def _record(record: FetchedRecord) -> dict[str, Any]:
    key, key_encoding = json_value(record.key)
    value, value_encoding = json_value(record.value)
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp and iso(record.timestamp),
        "key": key,
        "keyEncoding": key_encoding,
        "value": value,
        "valueEncoding": value_encoding,
        "headers": [[name, *json_value(raw)] for name, raw in record.headers],
        **_problem(record.problem),
    }


def _problem(text: str) -> dict[str, str]:
    """What could not be read, where there is such a thing."""
    return {"problem": text} if text else {}


def _group_line(summary: GroupSummary, info: GroupInfo | None) -> dict[str, Any]:
    return {
        "name": summary.name,
        "state": info.state if info and info.members is not None else summary.state,
        "protocol": summary.protocol,
        "members": None if info is None or info.members is None else len(info.members),
        "lag": info.lag if info else None,
        **_problem(info.problem if info else ""),
    }


def _group(info: GroupInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "state": info.state,
        "protocol": info.protocol,
        "assignor": info.assignor,
        "coordinator": info.coordinator,
        "lag": info.lag,
        "members": [
            {
                "memberId": member.member_id,
                "clientId": member.client_id,
                "host": member.host,
                "instanceId": member.instance_id,
                "assignment": [[tp.topic, tp.partition] for tp in member.assignment],
            }
            for member in info.members
        ]
        if info.members is not None
        else None,
        "partitions": [
            {
                "topic": row.topic,
                "partition": row.partition,
                "committed": row.committed,
                "endOffset": row.end,
                "lag": row.lag,
                "memberId": row.member_id,
            }
            for row in info.partitions
        ]
        if info.partitions is not None
        else None,
        **_problem(info.problem),
    }
