"""REST under /api/v1: the same views as SQL and the explorer, read from the same file, and the saved scenarios.

Every answer names the file that it came from in its ETag; a request that brings the tag back gets 304 and no body.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from app import store
from app.access import Access
from app.rest import guard, query, reader
from app.rest.guard import Door, Limits, Meter, Refused
from app.rest.saves import scenario_routes
from app.saved.files import STATE_NAME, Busy
from contracts.columns import View
from contracts.errors import ContractError, UserError
from contracts.tables import VIEWS

PREFIX = "/api/v1"
PER_MINUTE = 600  # requests of one address
_ERRORS: dict[int | str, dict[str, object]] = {
    status: {"description": text, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    for status, text in (
        (400, "A parameter is unknown or has an unusable value"), (401, "No living token"),
        (403, "The token lacks the scope"), (404, "There is no such view or scenario"), (409, "Changed meanwhile"),
        (411, "The body has no length"), (413, "The body is too large"), (421, "A foreign host name"),
        (422, "The body or a parameter has the wrong form"), (429, "Too many requests"),
        (503, "The warehouse cannot be read now"),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """The one workspace that this process serves."""

    warehouse: Path
    access: Access

    @property
    def state(self) -> Path:
        """The workspace's state.sqlite."""
        return self.warehouse.parent / STATE_NAME


def create_api(place: Place, *, per_minute: int = PER_MINUTE) -> FastAPI:
    """The REST application of one workspace, to be mounted at PREFIX."""
    door, limits, meter = Door(place.access, place.state), Limits(per_minute), Meter()
    api = FastAPI(title="Plumbline", version="1", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    _add_guards(api, place, limits, meter)
    _add_errors(api)
    router = APIRouter(responses=_ERRORS)
    _add_reading(router, place, door)
    scenario_routes(router, place.warehouse, place.state, door)
    api.include_router(router)

    @api.get("/metrics", response_class=PlainTextResponse, responses=_ERRORS)
    def metrics(request: Request) -> Response:
        """Requests, errors and seconds by route, for Prometheus."""
        door.caller(request, "read")
        return Response(generate_latest(meter.registry), media_type=CONTENT_TYPE_LATEST)

    _describe(api)
    return api


def _add_guards(api: FastAPI, place: Place, limits: Limits, meter: Meter) -> None:
    @api.middleware("http")
    async def before(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        begun = time.monotonic()
        try:
            guard.refuse_foreign_host(place.access, request)
            limits.refuse_hasty(request)
            guard.refuse_large(request)
            answer = await go_on(request)
        except Refused as refused:
            answer = guard.problem(refused.status, refused.sentence)
        meter.count(request, answer.status_code, time.monotonic() - begun)
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers.setdefault("Cache-Control", "private, no-cache")
        return answer


def _add_errors(api: FastAPI) -> None:
    @api.exception_handler(Refused)
    def refused(_: Request, error: Refused) -> JSONResponse:
        return guard.problem(error.status, error.sentence)

    @api.exception_handler(UserError)
    def user_error(_: Request, error: UserError) -> JSONResponse:
        status = 404 if isinstance(error, query.UnknownView) else 400 if isinstance(error, ContractError) else 503
        return guard.problem(status, str(error), {"Retry-After": "5"} if isinstance(error, Busy) else None)

    @api.exception_handler(RequestValidationError)
    def wrong_form(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return guard.problem(422, f"{place}: {first['msg']}.")

    @api.exception_handler(HTTPException)
    def of_http(_: Request, error: HTTPException) -> JSONResponse:
        return guard.problem(error.status_code, f"{error.detail}.", dict(error.headers or {}))


def _add_reading(router: APIRouter, place: Place, door: Door) -> None:
    @router.get("/health")
    def health(request: Request) -> dict[str, object]:
        """Whose figures these are, and how fresh they are."""
        door.caller(request, "read")
        meta = store.load_meta(place.warehouse)
        return {"status": "ok", "project": meta.project, "kpi": meta.kpi, "currency": meta.currency,
                "user_level": meta.user_level, "period_start": meta.period_start, "period_end": meta.period_end,
                "generated_at": meta.generated_at, "model_version": meta.model_version}  # fmt: skip

    @router.get("/views")
    def catalogue(request: Request) -> dict[str, object]:
        """Every view with its grain, its columns and their units, and the parameters that it knows."""
        door.caller(request, "read")
        return {"views": [_described(view) for view in VIEWS]}

    @router.get("/views/{name}")
    def rows(request: Request, name: str) -> Response:
        """Rows of one view; see the catalogue for its parameters."""
        door.caller(request, "read")
        return _answer(place.warehouse, request, name)


def _described(view: View) -> dict[str, object]:
    return {
        "name": view.name,
        "grain": view.grain,
        "key": list(view.key),
        "columns": [{"name": c.name, "type": c.type, "unit": c.unit, "text": c.text} for c in view.columns],
        "parameters": [*query.RESERVED, *query.filters(view)],
        "address": f"{PREFIX}/views/{view.name}",
    }


def _answer(warehouse: Path, request: Request, name: str) -> Response:
    given = request.query_params.multi_items()
    parameters = dict(given)
    if len(parameters) != len(given):
        raise ContractError("a parameter is given twice; join several values with ','.")
    view = query.view_named(name)
    asked, form = query.parse(view, parameters), _form(request, parameters)
    tag = _tag(store.fingerprint(warehouse), view.name, parameters, form)
    if tag in [t.strip() for t in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers={"ETag": tag})
    page = reader.read(warehouse, asked)
    more = asked.offset + page.table.num_rows < page.total and page.table.num_rows > 0
    following = _next(view, parameters, asked) if more else None
    headers = {"ETag": _tag(page.fingerprint, view.name, parameters, form), "X-Total-Count": str(page.total)}
    if following:
        headers["Link"] = f'<{following}>; rel="next"'
    if form == "json":
        units = [{"name": c.name, "type": c.type, "unit": c.unit} for c in view.columns if c.name in asked.columns]
        body = {"view": view.name, "total": page.total, "next": following, "columns": units,
                "rows": reader.rows(page.table)}  # fmt: skip
        return JSONResponse(body, headers=headers)
    headers["Content-Disposition"] = f'attachment; filename="{view.name}.{form}"'
    return Response(reader.encode(page.table, form), headers=headers, media_type=reader.TYPES[form])


def _form(request: Request, parameters: dict[str, str]) -> str:
    """Format of the answer: the parameter, else the Accept header, else JSON. Raises ContractError."""
    named = parameters.get("format")
    if named is not None and named not in query.FORMATS:
        raise ContractError(f"format is {named[:20]!r}; use one of {', '.join(query.FORMATS)}.")
    accepted = request.headers.get("accept", "")
    by_header = next((f for f in ("csv", "parquet", "arrow") if reader.TYPES[f].split(";")[0] in accepted), "json")
    return named or by_header


def _next(view: View, parameters: dict[str, str], asked: query.Query) -> str:
    page = {**parameters, "offset": str(asked.offset + asked.limit), "limit": str(asked.limit)}
    return f"{PREFIX}/views/{view.name}?{urlencode(page)}"


def _tag(mark: str, view: str, parameters: dict[str, str], form: str) -> str:
    text = "|".join([mark, view, form, *(f"{k}={v}" for k, v in sorted(parameters.items()))])
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def _describe(api: FastAPI) -> None:
    """Completes the OpenAPI document: the parameters of each view (one path a view), the error form, the token."""
    plain = api.openapi

    def document() -> dict[str, object]:
        found = plain()
        paths, parts = found["paths"], found.setdefault("components", {})
        parts.setdefault("schemas", {})["Problem"] = {
            "type": "object", "required": ["error"], "properties": {"error": {"type": "string"}},
        }  # fmt: skip
        parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}, {}]
        found["servers"] = [{"url": PREFIX}]
        shared = paths.pop("/views/{name}", None)
        if shared is not None:
            for view in VIEWS:
                paths[f"/views/{view.name}"] = {"get": _operation(view, shared["get"])}
        return found

    api.openapi = document  # type: ignore[method-assign]


def _operation(view: View, shared: dict[str, object]) -> dict[str, object]:
    texts = {"from": "first day", "to": "last day, inclusive", "confidence": "0.8 or 0.9: the interval leaves out 0",
             "latest": "newest row of each key", "as_of": "as it stood at this moment (UTC)",
             "columns": "columns, joined by ','", "limit": "rows of a page", "offset": "rows before the page",
             "format": "json, csv, parquet or arrow"}  # fmt: skip
    kinds: dict[str, dict[str, object]] = {
        "from": {"type": "string", "format": "date"}, "to": {"type": "string", "format": "date"},
        "confidence": {"type": "string", "enum": list(query.CONFIDENCE)}, "latest": {"type": "boolean"},
        "as_of": {"type": "string", "format": "date-time"}, "format": {"type": "string", "enum": list(query.FORMATS)},
        "limit": {"type": "integer", "minimum": 1, "maximum": query.MAX_ROWS},
        "offset": {"type": "integer", "minimum": 0, "maximum": 10**12},
    }  # fmt: skip
    parameters = [
        {"name": n, "in": "query", "required": False, "description": texts.get(n, f"{n}: values, joined by ','"),
         "schema": kinds.get(n, {"type": "string"})}
        for n in (*query.RESERVED, *query.filters(view))
    ]  # fmt: skip
    return {**shared, "summary": f"{view.name}: {view.grain}", "operationId": view.name, "parameters": parameters}
