"""What went wrong as an HTTP answer: status, title, a sentence, and a way on.

Promise: whatever is raised, a visitor gets one sentence and never a stack trace; scripts get the same as
problem+json (RFC 9457).
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relance.console.asks import NotInTimeError, StoppingError
from relance.console.params import BadInputError
from relance.errors import BrokerUnavailableError, RelanceError, SettingsError, TopicMissingError
from relance.kafka.admin import GroupMissingError

__all__ = ["Problem", "problem_json", "problem_of", "wants_json"]

_TITLES = {400: "That address can't be read", 404: "There is nothing here", 405: "The console only reads"}


@dataclass(frozen=True, slots=True)
class Problem:
    """One answer that is not the one hoped for. `retry` seconds: it may be better then."""

    status: int
    title: str
    detail: str
    retry: int | None = None
    command: str = ""
    """What to type to make it right, where there is such a thing."""
    missing_topic: str = ""


def problem_of(error: Exception) -> Problem:
    """What to tell about an exception."""
    match error:
        case BadInputError():
            title = _TITLES[400] if error.status == 400 else "That value can't be used"
            return Problem(error.status, title, str(error))
        case TopicMissingError():
            command = f"relance topics create {error.topic} --partitions {error.partitions}"
            detail = f"topic {error.topic!r} does not exist on {error.bootstrap_servers}"
            return Problem(404, "No such topic", detail, command=command, missing_topic=error.topic)
        case GroupMissingError():
            return Problem(404, "No such group", str(error))
        case SettingsError():
            return Problem(422, "That value can't be used", str(error))
        case BrokerUnavailableError():
            text = str(error).partition(" Is it running?")[0]
            return Problem(503, "The broker is away", text, retry=2, command=error.command)
        case HTTPException():
            title = _TITLES.get(error.status_code, "That didn't work")
            return Problem(error.status_code, title, error.detail)
        case StoppingError():
            return Problem(503, "The console stops", str(error), retry=2)
        case NotInTimeError():
            return Problem(503, "Not read in time", str(error), retry=2)
        case RelanceError():
            return Problem(502, "The cluster refused", str(error))
        case _:
            # The server logs it, with its stack.
            return Problem(500, "The console made a mistake", f"{type(error).__name__}; its log says more")


def wants_json(request: Request) -> bool:
    """Scripts: whatever lies under /api/, and health checks."""
    return request.url.path.startswith("/api/") or request.url.path == "/health"


def problem_json(problem: Problem) -> Response:
    """RFC 9457."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.command:
        body["command"] = problem.command
    headers = {"Retry-After": str(problem.retry)} if problem.retry else None
    return JSONResponse(body, problem.status, headers, media_type="application/problem+json")
