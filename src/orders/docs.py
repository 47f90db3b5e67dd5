"""The OpenAPI document's finish, and the page that shows it; promise: it opens without internet access."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from orders import problems, schemas

STATIC: Final = Path(__file__).parent / "static"

_MEANINGS: Final = {
    403: "A page of another site asks, and may not",
    400: "The body is not JSON that can be read",
    408: "The body did not come in time",
    413: "The body is too large",
    415: "The body is compressed, or not application/json",
    422: "A value is wrong",
    503: "Kafka is not available; Retry-After says when to try again",
}


def declares(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer with, as FastAPI's `responses` wants them."""
    return {
        status: {
            "description": _MEANINGS[status],
            "content": {problems.MEDIA_TYPE: {"schema": _ref("NotSent" if status == 503 else "Problem")}},
        }
        for status in statuses
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def install(api: FastAPI) -> None:
    """Serve /docs from our own files, and complete /openapi.json."""
    api.mount("/static", StaticFiles(directory=STATIC), name="static")

    @api.get("/docs", include_in_schema=False)
    async def page() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=api.title,
            swagger_js_url="/static/swagger-ui-bundle.js",
            swagger_css_url="/static/swagger-ui.css",
            swagger_favicon_url="/static/favicon-32x32.png",
            # The validator badge would ask a server on the internet.
            swagger_ui_parameters={"validatorUrl": None},
        )

    generate = api.openapi

    def complete() -> dict[str, Any]:
        if api.openapi_schema is None:
            document = generate()
            _complete(document)
            api.openapi_schema = document
        return api.openapi_schema

    # FastAPI's own way to extend the document (its docs: "Extending OpenAPI").
    api.openapi = complete  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    """Add the schemas that only references name, and drop FastAPI's word for a 422 that is never sent."""
    components = document.setdefault("components", {}).setdefault("schemas", {})
    models: list[type[BaseModel]] = [schemas.Problem, schemas.NotSent, schemas.Rejected]
    _, definitions = models_json_schema(
        [(model, "serialization") for model in models], ref_template="#/components/schemas/{model}"
    )
    components |= definitions["$defs"]
    components["Order"] = schemas.ORDER_SCHEMA
    for name in ("HTTPValidationError", "ValidationError"):
        components.pop(name, None)
