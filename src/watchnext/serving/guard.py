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
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watchnext.errors import ConfigurationError

_log = logging.getLogger(__name__)
_SHORTEST_TOKEN = 16
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ),
)
_REPORT = b"/admin/report"


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
        admin, write = (os.environ.get(f"WATCHNEXT_{who}_TOKEN", "") for who in ("ADMIN", "WRITE"))
        if not admin:
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
                    made.write(f"{secrets.token_urlsafe(24)}\n")
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
        try:
            self._rate: RateLimitItem = parse(self.rate)
        except ValueError:
            raise ConfigurationError(f"rate limit '{self.rate}': something like '100/second' was expected.") from None
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if not scope["path"].encode().startswith(_REPORT):
                    message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        try:
            await self._limited(scope, receive, sent)
        except _TooLong:
            await _say(sent, 413, f"a body of more than {self.most_bytes:,} bytes came: send it in parts.")
        except Exception as error:
            _log.error("a request failed: %s", type(error).__name__, exc_info=_log.isEnabledFor(logging.DEBUG))
            await _say(sent, 500, "this is a fault of the server; its log has the kind of error.")
        finally:
            self.told(scope, status, time.perf_counter() - began)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = (scope.get("client") or ("unknown",))[0]
        if not self._limiter.hit(self._rate, address):
            await _say(send, 429, f"more than {self.rate} came from this address: wait a little.", retry_seconds=1)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.most_bytes:
            raise _TooLong
        left = self.most_bytes

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _TooLong
            return message

        await self.app(scope, counted, send)


class _TooLong(Exception):
    """A body that goes on for too long."""


async def _say(send: Send, status: int, detail: str, retry_seconds: int | None = None) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if retry_seconds is not None:
        headers.append((b"retry-after", str(retry_seconds).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
