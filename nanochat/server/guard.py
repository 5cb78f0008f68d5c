"""Who is answered: programs on this machine, and the one page that this server sent itself.

Any page that is open in a browser can make it send requests to localhost. So a page of evil.example
could chat with the model, or, under a DNS name of its own that points to 127.0.0.1, read the
answers. The browser says in each request's headers where it comes from; they are checked before
anything else is looked at.
"""

from __future__ import annotations

import re
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

THIS_MACHINE = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
RETRY_AFTER_S = 2  # about one short answer
# Nothing from elsewhere and nothing inline: text of the model's that became markup would still not
# run. img-src is for the empty icon.
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class Refused(Exception):
    """A request that is not answered: HTTP status and one plain sentence.

    For programs: param is the field at fault, code OpenAI's name for the problem.
    """

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's format."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        if self.status == 429:
            kind = "rate_limit_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> Response:
        """The error as an HTTP response."""
        headers = {"Retry-After": str(RETRY_AFTER_S)} if self.status == 429 else {}
        return JSONResponse(self.body(), self.status, headers)


def short(value: object) -> str:
    """A value as an error quotes it, at most 100 characters: some are a megabyte long.

    >>> short("x" * 900)[-5:]
    'xx...'
    """
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


class Guard:
    """Middleware around everything: errors and unknown paths are guarded too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse; either way the response says what a browser may do with it."""

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
    """Raise Refused for a request that another site's page sent, or sent to a name of its own."""
    # Against DNS rebinding: a page may reach us as evil.example, but then its Host says so.
    host = headers.get("host", "").lower()
    if not THIS_MACHINE.fullmatch(host):
        raise Refused(403, f"this server answers to localhost, not to {short(host)}")
    # With the port: a page of another program on this machine is another site.
    for origin in headers.getlist("origin"):
        if origin != f"http://{host}":
            raise Refused(403, f"this server answers its own page, not one of {short(origin)}")
    # An image or a script tag sends no Origin, but it sends this. A link may lead here.
    foreign = {"cross-site", "same-site"} & set(headers.getlist("sec-fetch-site"))
    followed_link = method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
    if foreign and not followed_link:
        raise Refused(403, "this server answers its own page, not another site's")
    media_type = headers.get("content-type", "").partition(";")[0].strip()
    # Other types a browser sends to any server without asking it first, and the model would run.
    if method == "POST" and media_type.lower() != "application/json":
        raise Refused(415, f"send Content-Type: application/json, not {short(media_type)}")
