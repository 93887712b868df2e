"""Who is asking, how often, and what went wrong: the parts of REST that stand before every answer.

A token's secret is looked up by its hash in `state.sqlite`. Where people need not sign in (this machine only), reading
needs no token; writing always does, so that every change has a name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from limits import RateLimitItemPerMinute, storage, strategies
from prometheus_client import CollectorRegistry, Counter, Histogram

from app.access import Access
from app.saved import database, remarks

BEARER = "bearer "
MAX_BODY = 1_000_000  # bytes
HOSTS = ("127.0.0.1", "localhost", "[::1]", "::1")
Handler = Callable[[Request], Awaitable[Response]]


class Refused(Exception):
    """The request may not be served: HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever asks: the name that is written beside what they save, and what they may do."""

    name: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Door:
    """Decides who comes in. `state` is the workspace's state.sqlite."""

    access: Access
    state: Path

    def caller(self, request: Request, scope: str) -> Caller:
        """The caller, who has `scope`. Raises Refused: 401 without a living token, 403 without the scope."""
        found = self._found(request)
        if not found.name and scope not in found.scopes:
            raise Refused(401, f"a token that may {scope} is needed; make one with `plumb token create`.")
        if scope not in found.scopes:
            held = ", ".join(found.scopes) or "none"
            raise Refused(403, f"this token may not {scope}; its scopes are {held}.")
        return found

    def _found(self, request: Request) -> Caller:
        header = request.headers.get("authorization", "")
        if not header:
            if self.access.sign_in:
                raise Refused(401, "a token is needed: send it as 'Authorization: Bearer SECRET'.")
            return Caller("", ("read",))
        if not header.lower().startswith(BEARER):
            raise Refused(401, "the Authorization header must be 'Bearer SECRET'.")
        with database.reading(self.state) as con:
            token = remarks.find_token(con, header[len(BEARER) :].strip())
        if token is None:
            raise Refused(401, "this token is unknown, expired or revoked; make one with `plumb token create`.")
        return Caller(f"token:{token.name}", token.scopes)


class Limits:
    """At most `per_minute` requests of one token, or of one address where there is no token, in any minute."""

    def __init__(self, per_minute: int) -> None:
        self._rate = RateLimitItemPerMinute(per_minute)
        self._window = strategies.MovingWindowRateLimiter(storage.MemoryStorage())

    def refuse_hasty(self, request: Request) -> None:
        """Raises Refused (429) above the rate. A wrong token counts against its address."""
        address = request.client.host if request.client else "?"
        if not self._window.hit(self._rate, address):
            raise Refused(429, f"more than {self._rate.amount} requests in a minute; wait and ask again.")


class Meter:
    """Requests, errors and seconds by route, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "plumb_rest_requests", "Requests by route and status", ("route", "status"), registry=self.registry
        )
        self._seconds = Histogram("plumb_rest_seconds", "Seconds to answer", ("route",), registry=self.registry)

    def count(self, request: Request, status: int, seconds: float) -> None:
        """One finished request. Unknown addresses share one name, so nobody can fill the registry."""
        route = getattr(request.scope.get("route"), "path", "unknown")
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


def refuse_foreign_host(access: Access, request: Request) -> None:
    """Raises Refused (421) where a foreign page reaches this machine under a name of its own (DNS rebinding)."""
    host = request.headers.get("host", "")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if not access.sign_in and name not in HOSTS:
        raise Refused(421, "this explorer answers to this machine's own names only.")


def refuse_large(request: Request) -> None:
    """Raises Refused (411, 413) for a body without a length or above MAX_BODY."""
    if request.method in ("GET", "HEAD", "OPTIONS", "DELETE"):
        return
    length = request.headers.get("content-length", "")
    if not length.isascii() or not length.isdigit():
        raise Refused(411, "send a Content-Length.")
    if int(length) > MAX_BODY:
        raise Refused(413, f"the body is larger than {MAX_BODY} bytes.")


def problem(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The one form of every error."""
    extra = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "60"}}.get(status, {})
    return JSONResponse({"error": sentence}, status, headers={**extra, **(headers or {})})
