"""The command line: one command for each arrow of the journey."""

from watchnext.cli.main import app, main

__all__ = ["app", "main"]
