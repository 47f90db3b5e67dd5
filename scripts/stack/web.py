"""The smallest HTTP client that the scripts need: one request, one answer, no proxy, no exception.

Promise: whatever happens on the wire comes back as an `Answer`; status 0 means that nobody answered, and why.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

# A proxy set for the machine must not get requests for localhost.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Answer:
    """`status` 0: no answer, `text` says why."""

    status: int
    text: str

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def json(self) -> dict[str, Any]:
        """The body as an object; {} if it is anything else."""
        try:
            value = json.loads(self.text)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def __str__(self) -> str:
        text = " ".join(self.text.split())
        short = text if len(text) <= 200 else f"{text[:199]}…"
        return f"HTTP {self.status}: {short}" if self.status else short


def get(url: str, timeout: float = 5.0) -> Answer:
    return _ask(urllib.request.Request(url), timeout)


def post(url: str, value: Any = None, timeout: float = 15.0) -> Answer:
    """A POST with a JSON body, or with an empty one."""
    body = b"" if value is None else json.dumps(value).encode()
    headers = {} if value is None else {"Content-Type": "application/json"}
    return _ask(urllib.request.Request(url, data=body, headers=headers, method="POST"), timeout)


def _ask(request: urllib.request.Request, timeout: float) -> Answer:
    try:
        with _opener.open(request, timeout=timeout) as response:
            return Answer(response.status, response.read().decode(errors="replace"))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read().decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        return Answer(0, f"no answer from {request.full_url}: {reason}")
