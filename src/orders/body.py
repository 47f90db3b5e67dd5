"""Reads a request's body within limits; promise: memory stays bounded whatever a client sends.

The checks run in the order of their cost: encoding and type by the headers alone, then the size while
the body streams in, so that a chunked body without a length is held to the same limit.
"""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import Request

from orders.problems import ProblemError

MAX_BODY: Final = 256 * 1024
"""Bytes of a body. An order takes a hundred; a record of Kafka's default limit holds four of the largest."""
MAX_DISCARDED: Final = 4 * 1024 * 1024
"""Bytes of a too large body that are still read, so that the client reads the answer and no broken pipe."""
BODY_DEADLINE: Final = 10.0
"""Seconds in which a body must have come in."""


async def read_json_body(request: Request) -> bytes:
    """The bytes of a JSON body. Raises ProblemError 408, 413 or 415, and ClientDisconnect."""
    _check_encoding(request)
    _check_type(request)
    try:
        async with asyncio.timeout(BODY_DEADLINE):
            return await _read(request)
    except TimeoutError:
        raise ProblemError(
            408,
            f"the body was not complete within {BODY_DEADLINE:g} seconds",
            headers={"Connection": "close"},
        ) from None


def _check_encoding(request: Request) -> None:
    for encoding in request.headers.get("content-encoding", "identity").split(","):
        if encoding.strip().lower() not in ("", "identity"):
            raise ProblemError(
                415,
                f"a body with Content-Encoding {encoding.strip()[:40]!r} is not read; send it uncompressed",
                headers={"Accept-Encoding": "identity"},
            )


def _check_type(request: Request) -> None:
    declared = request.headers.get("content-type")
    if declared is None:
        raise ProblemError(415, "Content-Type is missing; it must be application/json")
    media_type, *parameters = (part.strip().lower() for part in declared.split(";"))
    if media_type != "application/json":
        raise ProblemError(415, f"Content-Type must be application/json, not {media_type[:80]!r}")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in ("utf-8", "utf8"):
            raise ProblemError(415, "JSON is UTF-8 (RFC 8259); another charset is not read")


async def _read(request: Request) -> bytes:
    too_large = ProblemError(
        413, f"the body is larger than {MAX_BODY} bytes", headers={"Connection": "close"}
    )
    declared = request.headers.get("content-length", "")
    announced = int(declared) if declared.isdecimal() and len(declared) < 20 else 0
    if announced > MAX_BODY and (announced > MAX_DISCARDED or "expect" in request.headers):
        # One that asks first (Expect: 100-continue) has not sent it yet; one this large is not worth reading.
        raise too_large
    body = bytearray()
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_DISCARDED:
            raise too_large
        if size <= MAX_BODY:
            body += chunk
    if size > MAX_BODY:
        raise too_large
    return bytes(body)
