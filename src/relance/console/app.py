"""Puts the console together: pages, JSON, errors, and the guard before them all.

Promise: `create_app` starts nothing and connects to nothing that a test could not replace; every route only
reads, and every error is answered by `problems`.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from relance.console import api, pages
from relance.console.asks import Asks
from relance.console.guard import Guard
from relance.console.params import BadInputError
from relance.console.problems import problem_json, problem_of, wants_json
from relance.errors import RelanceError

__all__ = ["create_app"]


def create_app(asks: Asks, *, allowed_hosts: Collection[str] = (), any_address: bool = False) -> ASGIApp:
    """The console as an ASGI application over `asks`, its way to the cluster.

    It answers under localhost and `allowed_hosts`; `any_address` adds every bare IP address, for a console
    that listens on all of them.
    """
    app = Starlette(
        routes=[*api.routes(), *pages.routes()],
        exception_handlers=dict.fromkeys((BadInputError, HTTPException, RelanceError, Exception), _answer),
    )
    app.state.asks = asks
    # Outside of everything, so that the page for a mistake of our own is guarded too.
    return Guard(app, allowed_hosts, any_address=any_address)


async def _answer(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    return problem_json(problem) if wants_json(request) else pages.problem_page(request, problem)
