import pytest

from watchnext.events.schema import TABLES


@pytest.mark.parametrize(
    ("table", "required"),
    [
        ("watches", ["user_id", "video_id", "timestamp", "watch_seconds"]),
        ("impressions", ["user_id", "video_id", "timestamp", "watch_seconds"]),
        ("searches", ["user_id", "timestamp", "query"]),
        ("users", ["user_id"]),
        ("videos", ["video_id"]),
    ],
)
def test_a_table_requires_these_columns(table: str, required: list[str]) -> None:
    assert [column.name for column in TABLES[table] if column.required] == required


def test_a_column_means_the_same_in_every_table() -> None:
    kinds = {(column.name, column.kind) for columns in TABLES.values() for column in columns}
    assert len(kinds) == len({name for name, _ in kinds})
