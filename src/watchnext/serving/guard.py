"""What stands before every route: who may, how much, how often; and what is said when something breaks."""

import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage  # the other one starts a thread at each request
from limits.aio.strategies import FixedWindowRateLimiter
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watchnext.errors import ConfigurationError

_log = logging.getLogger(__name__)
_SHORTEST_TOKEN = 16
_ADMIN, _WRITE = "WATCHNEXT_ADMIN_TOKEN", "WATCHNEXT_WRITE_TOKEN"
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_POLICY = (
    b"content-security-policy",
    b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
)
_STYLED = ("/admin/report", "/docs")  # pages of others, whose styles and scripts are in the page, or elsewhere
_MOST_DIGITS = 20
FAULT = "this is a fault of the server; its log has the kind of error."
"""All that is said of an error that nobody foresaw."""


@dataclass(frozen=True)
class Tokens:
    """The secrets of those who may write, and of those who may do anything."""

    write: str
    admin: str

    @classmethod
    def found(cls, file: Path) -> "Tokens":
        """Reads WATCHNEXT_WRITE_TOKEN and WATCHNEXT_ADMIN_TOKEN, or the file: the admin's token in its first line.

        A second line is the writers' token, else the admin's is that of both. A file that is not there is made, with a
        token by chance, readable by its owner alone.

        Raises:
            ConfigurationError: a token of fewer than sixteen characters.
        """
        if not os.environ.get(_ADMIN) and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
                made.write(f"{secrets.token_urlsafe(24)}\n")
        return cls.known(file)

    @classmethod
    def known(cls, file: Path) -> "Tokens":
        """Reads what `found` does, and makes nothing.

        Raises:
            ConfigurationError: there is no token, or one of fewer than sixteen characters.
        """
        admin, write = (os.environ.get(name, "") for name in (_ADMIN, _WRITE))
        if not admin:
            if not file.exists():
                raise ConfigurationError(
                    f"there is no token in {file}: name the server's own folder by --state, or set {_ADMIN}."
                )
            lines = [*file.read_text().split(), "", ""]
            admin, write = lines[0], write or lines[1]
        write = write or admin
        if min(len(admin), len(write)) < _SHORTEST_TOKEN:
            raise ConfigurationError(
                f"a token of {min(len(admin), len(write))} characters came from the environment or {file}: at least "
                f"{_SHORTEST_TOKEN} were expected, say by: openssl rand -hex 16"
            )
        return cls(write, admin)

    def allow(self, header: str | None, admin: bool) -> bool:
        """Says whether a request with this Authorization header may."""
        kind, _, token = (header or "").partition(" ")
        given = token.strip().encode()
        mays = [hmac.compare_digest(given, one.encode()) for one in (self.admin, self.write)]
        return kind.lower() == "bearer" and (mays[0] or (mays[1] and not admin))


@dataclass
class Guard:
    """Middleware: bodies no longer than so much, requests no more often than so often per address, and headers.

    What breaks inside is answered by a 500 without a word of what it was about; the log has the kind of error. `told`
    learns of each request its scope, status and seconds.
    """

    app: ASGIApp
    most_bytes: int
    rate: str
    told: Callable[[Scope, int, float], None]

    def __post_init__(self) -> None:
        self._rate = rate_of(self.rate)
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, begun = time.perf_counter(), 500, False

        async def sent(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                own = [_POLICY] if not scope["path"].startswith(_STYLED) else []
                message["headers"] = [*message.get("headers", []), *_HEADERS, *own]
            await send(message)

        try:
            await self._limited(scope, receive, sent)
        except Exception as error:
            _log.error("a request failed: %s", type(error).__name__, exc_info=_log.isEnabledFor(logging.DEBUG))
            if begun:
                raise
            await _say(sent, 500, FAULT)
        finally:
            self.told(scope, status, time.perf_counter() - began)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = (scope.get("client") or ("unknown",))[0]
        if not await self._limiter.hit(self._rate, address):
            await _say(send, 429, f"more than {self.rate} came from this address: wait a little.", retry_seconds=1)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        too_long = f"a body of more than {self.most_bytes:,} bytes came: send it in parts."
        if len(length) > _MOST_DIGITS or not length.isdigit() or int(length) > self.most_bytes:
            await _say(send, 413, too_long)
            return
        left = self.most_bytes

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, too_long)
            return message

        await self.app(scope, counted, send)


def rate_of(text: str) -> RateLimitItem:
    """Gives the rate that a text like '100/second' says.

    Raises:
        ConfigurationError: it says none.
    """
    try:
        return parse(text)
    except ValueError:
        raise ConfigurationError(f"rate limit '{text}': something like '100/second' was expected.") from None


async def _say(send: Send, status: int, detail: str, retry_seconds: int | None = None) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if retry_seconds is not None:
        headers.append((b"retry-after", str(retry_seconds).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
