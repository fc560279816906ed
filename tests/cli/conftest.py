"""The command line as a person meets it."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from watchnext.cli import main


@pytest.fixture
def watchnext(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Gives `watchnext(*arguments)`: runs the command and gives its exit status, 0 or the message."""

    def call(*arguments: Any) -> Any:
        monkeypatch.setattr(sys, "argv", ["watchnext", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    return call
