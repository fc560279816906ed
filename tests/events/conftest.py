"""A log of a few lines, read as a user's would be."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from watchnext.events.log import EventLog, read_log
from watchnext.events.mapping import read_log_file

EVENT_HEADER = "user_id,video_id,timestamp,watch_seconds\n"

ReadLog = Callable[..., EventLog]


@pytest.fixture
def read(tmp_path: Path) -> Iterator[ReadLog]:
    """Gives `read(toml, {file: text})`: writes the files, then reads the log that the TOML text describes."""
    with ExitStack() as opened:

        def read_files(toml: str, files: dict[str, str] | None = None) -> EventLog:
            for name, text in (files or {}).items():
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_text(text)
            (tmp_path / "log.toml").write_text(toml)
            mapping, _ = read_log_file(tmp_path / "log.toml")
            return opened.enter_context(read_log(mapping, memory_gigabytes=0.5))

        yield read_files


@pytest.fixture
def read_watches(read: ReadLog) -> ReadLog:
    """Gives `read_watches(lines)`: a log with one CSV file of watches."""

    def read_lines(lines: str, toml: str = "") -> EventLog:
        return read('[watches]\nfiles = "watches.csv"\n' + toml, {"watches.csv": EVENT_HEADER + lines})

    return read_lines


@pytest.fixture
def rows() -> Callable[[EventLog, str], list[tuple[Any, ...]]]:
    """Gives `rows(log, "SELECT …")`."""
    return lambda log, sql: log.connection.execute(sql).fetchall()
