import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tfrecord.writer import TFRecordWriter

from watchnext.errors import DataError

WATCHES = [
    {"user_id": "ann", "video_id": 7, "timestamp": 100, "watch_seconds": 1.5, "surface": "home"},
    {"user_id": "bob", "video_id": 8, "timestamp": 200, "watch_seconds": 2.5, "surface": "search"},
]
ACCEPTED = [("ann", 7, 100, 1.5, None, "home"), ("bob", 8, 200, 2.5, None, "search")]
KINDS = {str: "byte", int: "int", float: "float"}


def write_csv(path: Path, rows: list[dict[str, Any]], separator: str = ",") -> None:
    lines = [separator.join(rows[0]), *(separator.join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def write_tsv(path: Path, rows: list[dict[str, Any]]) -> None:
    write_csv(path, rows, "\t")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def feature(value: Any) -> tuple[Any, str]:
    first = value[0] if isinstance(value, list) else value
    encoded = [
        part.encode() if isinstance(part, str) else part for part in (value if isinstance(value, list) else [value])
    ]
    return encoded, KINDS[type(first)]


def write_tfrecord(path: Path, rows: list[dict[str, Any]]) -> None:
    writer = TFRecordWriter(str(path))
    for row in rows:
        writer.write({name: feature(value) for name, value in row.items()})
    writer.close()


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    "csv": write_csv,
    "tsv": write_tsv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
    "tfrecord": write_tfrecord,
}


@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_gives_the_same_table(tmp_path: Path, read: Any, rows: Any, ending: str) -> None:
    WRITERS[ending](tmp_path / f"w.{ending}", WATCHES)
    log = read(f'watches.files = "w.{ending}"')
    assert rows(log, "SELECT * FROM watches") == ACCEPTED
    assert log.rows("rejects") == 0


@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_counts_rows_from_one(tmp_path: Path, read: Any, rows: Any, ending: str) -> None:
    WRITERS[ending](tmp_path / f"w.{ending}", [WATCHES[0], WATCHES[1] | {"watch_seconds": -1.0}])
    log = read(f'watches.files = "w.{ending}"')
    assert rows(log, 'SELECT row, "column", reason FROM rejects') == [(2, "watch_seconds", "negative: -1.0")]


@pytest.mark.parametrize("ending", WRITERS)
def test_several_files_are_one_table(tmp_path: Path, read: Any, rows: Any, ending: str) -> None:
    WRITERS[ending](tmp_path / f"1.{ending}", WATCHES[:1])
    (tmp_path / "deep").mkdir()
    WRITERS[ending](tmp_path / "deep" / f"1.{ending}", WATCHES[1:])
    log = read(f'watches.files = ["1.{ending}", "deep/*.{ending}"]')
    assert rows(log, "SELECT * FROM watches ORDER BY timestamp") == ACCEPTED


@pytest.mark.parametrize("ending", WRITERS)
def test_leading_zeros_of_ids_stay(tmp_path: Path, read: Any, rows: Any, ending: str) -> None:
    WRITERS[ending](tmp_path / f"w.{ending}", [WATCHES[0] | {"user_id": "007"}, WATCHES[1] | {"user_id": "8"}])
    log = read(f'watches.files = "w.{ending}"')
    assert rows(log, "SELECT user_id FROM watches ORDER BY timestamp") == [("007",), ("8",)]


@pytest.mark.parametrize("ending", WRITERS)
def test_leading_zeros_of_words_stay(tmp_path: Path, read: Any, rows: Any, ending: str) -> None:
    WRITERS[ending](tmp_path / f"w.{ending}", [WATCHES[0] | {"surface": "01"}])
    assert rows(read(f'watches.files = "w.{ending}"'), "SELECT surface FROM watches") == [("01",)]


@pytest.mark.parametrize("ending", WRITERS)
def test_plain_integers_become_integers(tmp_path: Path, read: Any, ending: str) -> None:
    WRITERS[ending](tmp_path / f"w.{ending}", WATCHES)
    log = read(f'watches.files = "w.{ending}"')
    assert (log.columns("watches")["user_id"], log.columns("watches")["video_id"]) == ("VARCHAR", "BIGINT")


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "tfrecord"])
def test_lists_stay_lists(tmp_path: Path, read: Any, rows: Any, ending: str) -> None:
    WRITERS[ending](tmp_path / f"v.{ending}", [{"video_id": 7, "tags": ["a", "b"]}, {"video_id": 8, "tags": ["c"]}])
    write_csv(tmp_path / "w.csv", WATCHES)
    log = read(f'watches.files = "w.csv"\nvideos.files = "v.{ending}"')
    assert rows(log, "SELECT video_id, tags FROM videos") == [(7, ["a", "b"]), (8, ["c"])]


def test_tags_of_a_csv_file_are_split(tmp_path: Path, read: Any, rows: Any) -> None:
    (tmp_path / "v.csv").write_text('video_id,tags\n7,"a| b ;c"\n8,"d,,e"\n9,\n')
    write_csv(tmp_path / "w.csv", WATCHES)
    log = read('watches.files = "w.csv"\nvideos.files = "v.csv"')
    assert rows(log, "SELECT tags FROM videos") == [(["a", "b", "c"],), (["d", "e"],), (None,)]


def test_a_feature_that_some_records_lack_is_kept(tmp_path: Path, read: Any, rows: Any) -> None:
    bare = {name: value for name, value in WATCHES[0].items() if name != "surface"}
    write_tfrecord(tmp_path / "w.tfrecord", [bare, WATCHES[1]])
    log = read('watches.files = "w.tfrecord"')
    assert rows(log, "SELECT surface FROM watches ORDER BY timestamp") == [(None,), ("search",)]


def test_a_feature_without_values_is_missing(tmp_path: Path, read: Any, rows: Any) -> None:
    writer = TFRecordWriter(str(tmp_path / "w.tfrecord"))
    whole = {name: feature(value) for name, value in WATCHES[0].items()}
    writer.write(whole)
    writer.write(whole | {"user_id": ([], "byte"), "never": ([], "int")})
    writer.close()
    assert rows(read('watches.files = "w.tfrecord"'), 'SELECT row, "column", reason FROM rejects') == [
        (2, "user_id", "missing")
    ]


def test_a_long_tfrecord_file_is_read_in_chunks(tmp_path: Path, read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchnext.events.readers._TFRECORD_CHUNK", 2)
    write_tfrecord(tmp_path / "w.tfrecord", [WATCHES[0] | {"timestamp": second} for second in range(5)])
    assert read('watches.files = "w.tfrecord"').one("SELECT list(timestamp) FROM watches") == [0, 1, 2, 3, 4]


leaves_the_file_open = pytest.mark.filterwarnings(  # the tfrecord package, when it meets a broken file
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)


@leaves_the_file_open
@pytest.mark.parametrize("bytes_kept", [3, 10, 20, -1])
def test_a_truncated_tfrecord_file_is_refused(tmp_path: Path, read: Any, bytes_kept: int) -> None:
    write_tfrecord(tmp_path / "w.tfrecord", WATCHES)
    whole = (tmp_path / "w.tfrecord").read_bytes()
    (tmp_path / "w.tfrecord").write_bytes(whole[:bytes_kept])
    with pytest.raises(DataError, match=r"w\.tfrecord is not a whole TFRecord file of tf\.Example"):
        read('watches.files = "w.tfrecord"')


@leaves_the_file_open
def test_a_text_file_is_no_tfrecord_file(tmp_path: Path, read: Any) -> None:
    write_csv(tmp_path / "w.tfrecord", WATCHES)
    with pytest.raises(DataError, match="is not a whole TFRecord file"):
        read('watches.files = "w.tfrecord"')


def test_an_empty_tfrecord_file_is_refused(tmp_path: Path, read: Any) -> None:
    (tmp_path / "w.tfrecord").touch()
    with pytest.raises(DataError, match=r"w\.tfrecord holds no records"):
        read('watches.files = "w.tfrecord"')


def test_without_the_tfrecord_reader_the_message_says_what_to_install(
    tmp_path: Path, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tfrecord(tmp_path / "w.tfrecord", WATCHES)
    monkeypatch.setitem(sys.modules, "tfrecord.reader", None)
    with pytest.raises(DataError, match=r"pip install 'watchnext\[tfrecord\]'"):
        read('watches.files = "w.tfrecord"')


def test_a_file_name_with_a_quote_is_read(tmp_path: Path, read: Any) -> None:
    write_csv(tmp_path / "ann's.csv", WATCHES)
    assert read('watches.files = "ann\'s.csv"').rows("watches") == 2


def test_a_csv_file_that_is_no_parquet_file_is_refused(tmp_path: Path, read: Any) -> None:
    write_csv(tmp_path / "w.parquet", WATCHES)
    with pytest.raises(DataError, match=r"w\.parquet cannot be read as parquet"):
        read('watches.files = "w.parquet"')
