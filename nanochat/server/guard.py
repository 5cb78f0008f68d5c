"""Who is answered: programs of this machine, and the one page that this server sent itself.

A browser sends requests here for any page that is open in it, so each request says where it is
from, and what it says is checked before anything else looks at it.
"""

from __future__ import annotations

import re
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

THIS_MACHINE = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
RETRY_AFTER_S = 2
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class Refused(Exception):
    """A request that can't be answered: HTTP status and one plain sentence.

    param is the field that is wrong and code OpenAI's name of what is wrong, for programs.
    """

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's shape."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        if self.status == 429:
            kind = "rate_limit_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> Response:
        """The error as an answer."""
        headers = {"Retry-After": str(RETRY_AFTER_S)} if self.status == 429 else {}
        return JSONResponse(self.body(), self.status, headers)


def short(value: object) -> str:
    """A value as an error quotes it: at most 100 characters.

    >>> short("x" * 900)[-5:]
    'xx...'
    """
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


class Guard:
    """Middleware around everything, so that errors and what is not there are guarded as well."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse; what goes out says what a browser may do with it."""

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY)
            await send(message)

        try:
            check(scope["method"], Headers(scope=scope))
        except Refused as error:
            await error.response()(scope, receive, secured)
        else:
            await self.app(scope, receive, secured)


def check(method: str, headers: Headers) -> None:
    """Raise Refused for what another site's page sends here, or reaches by a name of its own."""
    host = headers.get("host", "").lower()
    if not THIS_MACHINE.fullmatch(host):
        raise Refused(403, f"this server answers to localhost, not to {short(host)}")
    # With the port: another program's page on this machine is another site as well.
    for origin in headers.getlist("origin"):
        if origin != f"http://{host}":
            raise Refused(403, f"this server answers its own page, not one of {short(origin)}")
    foreign = {"cross-site", "same-site"} & set(headers.getlist("sec-fetch-site"))
    followed_link = method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
    if foreign and not followed_link:
        raise Refused(403, "this server answers its own page, not one of another site")
    media_type = headers.get("content-type", "").partition(";")[0].strip()
    # A browser sends other types to any server without asking it first.
    if method == "POST" and media_type.lower() != "application/json":
        raise Refused(415, f"send Content-Type: application/json, not {short(media_type)}")
