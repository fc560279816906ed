"""What routes ask for: the server, and a token."""

from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from watchnext.serving.server import Server

_bearer = HTTPBearer(auto_error=False, description="the token of the server's state folder, or of its environment")


def server_of(request: Request) -> Server:
    """Gives the server behind the application."""
    server: Server = request.app.state.server
    return server


def may_write(request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
    """Lets only those pass who have the writers' token, or the admin's."""
    refuse_without_token(request, admin=False)


def may_administrate(
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


Running = Annotated[Server, Depends(server_of)]
WRITE = [Depends(may_write)]
ADMIN = [Depends(may_administrate)]
