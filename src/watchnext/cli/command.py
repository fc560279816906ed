"""Commands that need PyTorch when they run, not when they are explained."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import typer

from watchnext.loading import load

P = ParamSpec("P")


def command(app: typer.Typer, name: str | None = None) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Registers a command; the pipeline is there when it begins, and what it imports itself is imported then."""

    def register(function: Callable[P, None]) -> Callable[P, None]:
        @wraps(function)
        def run(*arguments: P.args, **options: P.kwargs) -> None:
            load("watchnext.pipeline")
            from watchnext.memory import keep_freed_memory

            keep_freed_memory()
            function(*arguments, **options)

        app.command(name)(run)
        return run

    return register
