"""What routes ask for: the server, and a token.

Asynchronous, though nothing is waited for: FastAPI would run each in a thread of its own.
"""

from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from watchnext.serving.server import Server

_bearer = HTTPBearer(auto_error=False, description="the token of the server's state folder, or of its environment")


def server_of(request: Request) -> Server:
    """Gives the server behind the application."""
    server: Server = request.app.state.server
    return server


async def running(request: Request) -> Server:
    """Gives the same, to a route."""
    return server_of(request)


async def may_write(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    """Lets only those pass who have the writers' token, or the admin's."""
    refuse_without_token(request, admin=False)


async def may_administrate(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    """Lets only those pass who have the admin's token."""
    refuse_without_token(request, admin=True)


def refuse_without_token(request: Request, *, admin: bool) -> None:
    """Answers 401 where the request has no token that is good enough."""
    if not server_of(request).tokens.allow(request.headers.get("authorization"), admin):
        raise HTTPException(
            401,
            f"this needs the {'admin' if admin else 'write'} token: send it as 'Authorization: Bearer TOKEN'.",
            {"WWW-Authenticate": "Bearer"},
        )


Running = Annotated[Server, Depends(running)]
WRITE = [Depends(may_write)]
ADMIN = [Depends(may_administrate)]
