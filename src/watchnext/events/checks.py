"""What a column must hold: the SQL that gives it its stored type, and the SQL that finds what is wrong with it."""

from watchnext.events.schema import LATEST_TIME_SECONDS, SECONDS_OF_A_DAY, TABLES, Column

_INTEGERS = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "HUGEINT",
)
_FIT_BIGINT = tuple(kind for kind in _INTEGERS if kind not in ("UBIGINT", "HUGEINT"))
_NUMBERS = (*_INTEGERS, "FLOAT", "DOUBLE", "DECIMAL")
_SCHEMA_COLUMNS = {column for columns in TABLES.values() for column in columns}


def typed(column: Column, raw_type: str) -> tuple[str, str]:
    """The expression that gives a column its stored type, and that type."""
    raw = f'"{column.name}"'
    text = f"nullif(trim(CAST({raw} AS VARCHAR)), '')"
    number = f"TRY_CAST({raw} AS DOUBLE)"
    match column.kind:
        case "time":
            if raw_type.startswith(("TIMESTAMP", "DATE")):
                return f"CAST(floor(epoch({raw})) AS BIGINT)", "BIGINT"
            seconds = (
                number
                if raw_type.startswith(_NUMBERS)
                else (f"coalesce({number}, epoch(TRY_CAST({text} AS TIMESTAMPTZ)))")
            )
            return f"TRY_CAST(floor({seconds}) AS BIGINT)", "BIGINT"
        case "seconds" | "number":
            return number, "DOUBLE"
        case "flag":
            return f"TRY_CAST({raw} AS BOOLEAN)", "BOOLEAN"
        case "tags":
            if raw_type.endswith("[]"):
                return f"CAST({raw} AS VARCHAR[])", "VARCHAR[]"
            return (
                f"list_filter(regexp_split_to_array({text}, '\\s*[|,;]\\s*'), lambda tag: tag <> '')",
                "VARCHAR[]",
            )
        case "user id" | "video id" if raw_type in _FIT_BIGINT:
            return f"CAST({raw} AS BIGINT)", "BIGINT"
        case "category" if raw_type.startswith(_NUMBERS) and column not in _SCHEMA_COLUMNS:
            return number, "DOUBLE"
        case _ if raw_type in ("FLOAT", "DOUBLE"):  # ids that went through a tool without nullable integers
            whole = f"CASE WHEN {raw} = trunc({raw}) THEN CAST(TRY_CAST({raw} AS BIGINT) AS VARCHAR) END"
            return f"CASE WHEN NOT isnan({raw}) THEN coalesce({whole}, {text}) END", "VARCHAR"
        case _ if raw_type in _INTEGERS:
            return f"CAST({raw} AS VARCHAR)", "VARCHAR"
        case _:
            return text, "VARCHAR"


def checks_of(column: Column, value: str, required: bool) -> list[tuple[str, str, str]]:
    """What makes a value unacceptable: (column, SQL condition, SQL text of the reason), first match counts."""
    raw = f'"{column.name}"'
    checks = []
    if column.kind in ("time", "seconds", "number", "flag"):
        given = f"{raw} IS NOT NULL AND trim(CAST({raw} AS VARCHAR)) <> ''"
        what = {"time": "a time", "flag": "true or false"}.get(column.kind, "a number")
        checks.append(
            (
                column.name,
                f"({given}) AND ({value}) IS NULL",
                f"'not {what}: ' || left(CAST({raw} AS VARCHAR), 40)",
            )
        )
    if required:
        checks.append((column.name, f"({value}) IS NULL", "'missing'"))
    if column.kind == "time":
        late = f"({value}) > {LATEST_TIME_SECONDS}"
        hint = f"'after the year 2100, perhaps milliseconds (then map {column.name} / 1000): ' || ({value})"
        checks += [
            (column.name, late, hint),
            (column.name, f"({value}) < 0", f"'before 1970: ' || ({value})"),
        ]
    if column.kind == "seconds":
        checks += [
            (column.name, f"NOT isfinite({value})", "'not finite'"),
            (column.name, f"({value}) < 0", f"'negative: ' || ({value})"),
        ]
    if column.name == "watch_seconds":
        too_long = f"'longer than a day, perhaps milliseconds: ' || ({value})"
        checks.append((column.name, f"({value}) > {SECONDS_OF_A_DAY}", too_long))
    return checks
