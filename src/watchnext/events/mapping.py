"""How a user's own files and columns map onto the schema: the log part of the TOML file."""

import glob
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watchnext.config import Config, from_mapping, read_toml, refuse_unknown
from watchnext.errors import ConfigurationError, DataError
from watchnext.events.schema import EXTENSIBLE, TABLES

FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
}

COMPLETED_RULE = "watch_seconds >= 30 OR watch_seconds >= 0.5 * duration_seconds"


@dataclass(frozen=True)
class Source:
    """Some files that hold one table, and the expression that gives each of its columns."""

    table: str
    files: tuple[Path, ...]
    format: str
    columns: dict[str, str]
    where: str

    @property
    def name(self) -> str:
        """How messages call this source."""
        return f"[{self.table}]"


@dataclass(frozen=True)
class LogMapping:
    """Where a log lies and how to read it."""

    name: str
    sources: tuple[Source, ...]
    completed_rule: str
    max_reject_share: float

    @property
    def event_columns(self) -> dict[str, str]:
        """How the first source of events names its columns: rows to be scored later come in the same layout."""
        events = [source for source in self.sources if source.table in ("watches", "impressions")]
        return next((source.columns for source in events if source.table == "impressions"), events[0].columns)


def read_log_file(path: Path) -> tuple[LogMapping, Config]:
    """Gives the mapping and the settings that a TOML file states.

    Raises:
        ConfigurationError: an unknown or contradictory key.
        DataError: a named file does not exist.
    """
    tables = read_toml(path)
    settings = {key: value for key, value in tables.items() if key not in ("log", *TABLES)}
    refuse_unknown(settings, (*Config.__dataclass_fields__, "log", *TABLES), path.name)
    log = tables.get("log", {})
    if not isinstance(log, Mapping):
        raise ConfigurationError(f"[log] should be a table, but is {log!r}.")
    refuse_unknown(log, ("name", "completed", "max_reject_share"), "log")
    sources = tuple(_source(name, table, path.parent) for name in TABLES for table in _as_list(tables.get(name, [])))
    if not any(source.table in ("watches", "impressions") for source in sources):
        raise ConfigurationError(
            f"{path} names neither [watches] nor [impressions]; at least one of them is needed. "
            "docs/your-log.md has three complete examples."
        )
    share = log.get("max_reject_share", 0.01)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ConfigurationError(f"[log] max_reject_share = {share!r}: a number between 0 and 1 was expected.")
    mapping = LogMapping(
        str(log.get("name", path.stem)), sources, str(log.get("completed", COMPLETED_RULE)), float(share)
    )
    return mapping, from_mapping(Config, settings, "")


def _source(table: str, entry: Any, folder: Path) -> Source:
    if not isinstance(entry, Mapping):
        raise ConfigurationError(f"[{table}] should be a table with 'files', but is {entry!r}.")
    refuse_unknown(entry, ("files", "format", "columns", "where"), table)
    if "files" not in entry:
        raise ConfigurationError(f'[{table}] names no files: add, for example, files = "{table}.parquet".')
    files = _expanded(table, entry["files"], folder)
    columns = entry.get("columns", {})
    if not isinstance(columns, Mapping):
        raise ConfigurationError(f"[{table}.columns] should be a table, but is {columns!r}.")
    if table not in EXTENSIBLE:
        refuse_unknown(columns, (column.name for column in TABLES[table]), f"{table}.columns")
    expressions = {name: str(expression) for name, expression in columns.items()}
    return Source(table, files, _format(table, entry, files[0]), expressions, str(entry.get("where", "true")))


def _expanded(table: str, patterns: Any, folder: Path) -> tuple[Path, ...]:
    files: list[Path] = []
    for pattern in _as_list(patterns):
        found = sorted(glob.glob(str(pattern), root_dir=folder, recursive=True))
        if not found:
            raise DataError(
                f"[{table}] files = {str(pattern)!r}: there is no such file under {folder.absolute()}. "
                "Paths are relative to the TOML file; globs such as 'logs/*.parquet' are welcome."
            )
        files += (Path(folder, name).absolute() for name in found)
    if not files:
        raise ConfigurationError(f"[{table}] files = []: at least one file is needed.")
    return tuple(files)


def _format(table: str, entry: Mapping[str, Any], file: Path) -> str:
    known = sorted(set(FORMATS.values()))
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() not in (".gz", ".zst")]
    form = entry.get("format", FORMATS.get(suffixes[-1] if suffixes else ""))
    if form not in known:
        came = f"format = {form!r}" if form else f"the file ending of {file.name}"
        raise ConfigurationError(f"[{table}] {came} is not known: say format = one of {', '.join(known)}.")
    return str(form)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
