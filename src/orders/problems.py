"""Every failure of the HTTP side as problem+json (RFC 9457); promise: no answer is a bare 500 page.

A problem's `type` is `about:blank` where the status says all, else a URN that a program can compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from relance import SendError

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 5


class ProblemError(Exception):
    """An answer that is not the asked one; raised anywhere below a route."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str | None = None,
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.type = f"urn:relance:orders:{kind}" if kind else "about:blank"
        self.title = title if title is not None and kind is not None else HTTPStatus(status).phrase
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})


def kafka_unavailable(detail: str, **extra: Any) -> ProblemError:
    """503: Kafka can't be asked now; try again in a few seconds."""
    return ProblemError(
        503,
        detail,
        kind="kafka-unavailable",
        title="Kafka is not available",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        extra=extra,
    )


def maybe_written(error: SendError | TimeoutError) -> bool:
    """Whether the record may be in its topic although nobody has acknowledged it."""
    # A timeout of ours says nothing about the record, which may still be on its way.
    return error.maybe_written if isinstance(error, SendError) else True


def topic_missing(topics: Sequence[str], what: str = "", **extra: Any) -> ProblemError:
    """503: a topic is gone. How many partitions it should have is the stack's knowledge, not the broker's."""
    names = ", ".join(topics)
    return ProblemError(
        503,
        f"{what}there is no topic {names}; ./scripts/up.sh makes it (with Docker: docker compose up topics)",
        kind="topic-missing",
        title="A topic is missing",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        extra=extra,
    )


def not_sent(error: SendError | TimeoutError, what: str, missing: Sequence[str] = ()) -> ProblemError:
    """503 for a write that was not acknowledged; it says whether a second try may make a duplicate.

    `missing` are the topics that are known to be gone.
    """
    if missing:
        return topic_missing(
            missing, f"{what} was not acknowledged: ", orderMayHaveBeenWritten=maybe_written(error)
        )
    why = str(error) if isinstance(error, SendError) else "no acknowledgement in time"
    return kafka_unavailable(
        f"{what} was not acknowledged: {why}", orderMayHaveBeenWritten=maybe_written(error)
    )


def problem_response(request: Request, problem: ProblemError) -> Response:
    """The problem as RFC 9457 writes it; `instance` is the path that was asked."""
    members = {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "instance": quote(request.url.path, safe="/:@!$&'()*+,;=~"),
        **problem.extra,
    }
    return Response(
        msgspec.json.encode(members),
        status_code=problem.status,
        headers=problem.headers,
        media_type=MEDIA_TYPE,
    )


def install(api: FastAPI) -> None:
    """Answer every failure of `api` by a problem."""

    @api.exception_handler(ProblemError)
    async def _problem(request: Request, problem: ProblemError) -> Response:
        return problem_response(request, problem)

    @api.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        detail = str(error.detail)
        if error.status_code == 405:
            allowed = _methods_of(api, request.url.path)
            headers["Allow"] = ", ".join(allowed)
            detail = f"{request.method} is not possible here, but {', '.join(allowed)}"
        elif error.status_code == 404:
            detail = "there is nothing at this path; /docs lists what there is"
        return problem_response(request, ProblemError(error.status_code, detail, headers=headers))

    @api.exception_handler(RequestValidationError)
    async def _query(request: Request, error: RequestValidationError) -> Response:
        # The input itself is not repeated: it may be anything, and any length.
        wrong = [
            {"in": str(item["loc"][0]), "name": ".".join(map(str, item["loc"][1:])), "problem": item["msg"]}
            for item in error.errors()
        ]
        detail = "; ".join(f"{item['name']}: {item['problem']}" for item in wrong)
        return problem_response(request, ProblemError(422, detail, extra={"errors": wrong}))

    @api.exception_handler(ClientDisconnect)
    async def _gone(request: Request, error: ClientDisconnect) -> Response:
        # Nobody is left to read it; without this the server would log a traceback for each of them.
        return problem_response(
            request, ProblemError(400, "the client went away before the body was complete")
        )

    @api.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> Response:
        # Starlette raises the error again after this answer, and the server logs it with its traceback.
        return problem_response(
            request, ProblemError(500, "an error of the service itself; its log says which")
        )


def _methods_of(api: FastAPI, path: str) -> list[str]:
    # The framework names the methods of one route only, and a path may have several. What the document
    # doesn't list (the page that shows it, its files) can only be read.
    operations = api.openapi()["paths"].get(path, {"get": None})
    return sorted(method.upper() for method in operations)
