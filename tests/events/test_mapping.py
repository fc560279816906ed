from pathlib import Path

import pytest

from watchnext.config import Config
from watchnext.errors import ConfigurationError, DataError
from watchnext.events.mapping import LogMapping, read_log_file


def read_text(folder: Path, toml: str, files: tuple[str, ...] = ("w.csv",)) -> tuple[LogMapping, Config]:
    folder.mkdir(exist_ok=True)
    for name in files:
        (folder / name).touch()
    (folder / "mine.toml").write_text(toml)
    return read_log_file(folder / "mine.toml")


def test_a_log_is_called_like_its_file_unless_it_has_a_name(tmp_path: Path) -> None:
    assert read_text(tmp_path, 'watches.files = "w.csv"')[0].name == "mine"
    assert read_text(tmp_path, 'log.name = "ours"\nwatches.files = "w.csv"')[0].name == "ours"


def test_one_percent_of_rejects_is_allowed_unless_said_otherwise(tmp_path: Path) -> None:
    assert read_text(tmp_path, 'watches.files = "w.csv"')[0].max_reject_share == 0.01
    assert read_text(tmp_path, 'log.max_reject_share = 1\nwatches.files = "w.csv"')[0].max_reject_share == 1


def test_half_a_video_or_thirty_seconds_is_completed_unless_said_otherwise(tmp_path: Path) -> None:
    rule = read_text(tmp_path, 'watches.files = "w.csv"')[0].completed_rule
    assert rule == "watch_seconds >= 30 OR watch_seconds >= 0.5 * duration_seconds"
    assert read_text(tmp_path, 'log.completed = "clicked"\nwatches.files = "w.csv"')[0].completed_rule == "clicked"


def test_settings_stand_beside_the_log(tmp_path: Path) -> None:
    assert read_text(tmp_path, 'watches.files = "w.csv"\nretrieval.batch_size = 7')[1].retrieval.batch_size == 7


@pytest.mark.parametrize("share", ["-0.1", "1.1", "nan", "true", '"1 %"'])
def test_a_reject_share_outside_zero_to_one_is_refused(tmp_path: Path, share: str) -> None:
    with pytest.raises(ConfigurationError, match=r"max_reject_share = .* a number between 0 and 1 was expected"):
        read_text(tmp_path, f'log.max_reject_share = {share}\nwatches.files = "w.csv"')


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('watchs.files = "w.csv"', r"unknown key 'watchs' in \[mine.toml\]: did you mean 'watches'"),
        ('watches.files = "w.csv"\nlog.complete = "true"', r"'complete' in \[log\]: did you mean 'completed'"),
        ('watches.file = "w.csv"', r"'file' in \[watches\]: did you mean 'files'"),
        (
            'watches.files = "w.csv"\nwatches.columns.user = "u"',
            r"'user' in \[watches.columns\]: did you mean 'user_id'",
        ),
        (
            'watches.files = "w.csv"\nretrieval.batchsize = 3',
            r"'batchsize' in \[retrieval\]: did you mean 'batch_size'",
        ),
        ('log = 3\nwatches.files = "w.csv"', r"\[log\] should be a table, but is 3"),
        ("watches = 3", r"\[watches\] should be a table with 'files', but is 3"),
        ("watches = {}", r'\[watches\] names no files: add, for example, files = "watches.parquet"'),
        ("watches.files = []", r"\[watches\] files = \[\]: at least one file is needed"),
        (
            'watches = {files = "w.csv", columns = "user_id"}',
            r"\[watches.columns\] should be a table, but is 'user_id'",
        ),
        ('users.files = "w.csv"', r"names neither \[watches\] nor \[impressions\]"),
        (
            'watches = {files = "w.csv", format = "xml"}',
            "format = 'xml' is not known: say .* csv, jsonl, parquet, tfrecord",
        ),
        ('watches.files = "mine.toml"', "the file ending of mine.toml is not known"),
        ('watches.files = "noending"', "the file ending of noending is not known"),
    ],
)
def test_a_mistake_in_the_file_is_explained(tmp_path: Path, toml: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_text(tmp_path, toml, files=("w.csv", "noending"))


def test_a_missing_file_is_named_with_its_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"\[watches\] files = 'x.csv': there is no such file under {tmp_path}"):
        read_text(tmp_path, 'watches.files = ["w.csv", "x.csv"]')


def test_users_and_videos_take_further_columns(tmp_path: Path) -> None:
    mapping, _ = read_text(tmp_path, 'watches.files = "w.csv"\nusers = {files = "w.csv", columns = {plan = "plan"}}')
    assert mapping.sources[1].columns == {"plan": "plan"}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("a.parquet", "parquet"),
        ("a.csv", "csv"),
        ("a.CSV", "csv"),
        ("a.tsv", "csv"),
        ("a.csv.gz", "csv"),
        ("a.b.jsonl.zst", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.json", "jsonl"),
        ("a.tfrecord", "tfrecord"),
        ("a.tfrecords", "tfrecord"),
    ],
)
def test_the_file_ending_tells_the_format(tmp_path: Path, file: str, expected: str) -> None:
    mapping, _ = read_text(tmp_path, f'watches.files = "{file}"', (file,))
    assert mapping.sources[0].format == expected


def test_a_stated_format_wins_over_the_ending(tmp_path: Path) -> None:
    mapping, _ = read_text(tmp_path, 'watches = {files = "w.csv", format = "jsonl"}')
    assert mapping.sources[0].format == "jsonl"


def test_a_glob_takes_all_its_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    files = ("b.csv", "a.csv", "deep/c.csv", "deep/er/d.csv")
    mapping, _ = read_text(tmp_path, 'watches.files = "**/*.csv"', files)
    assert [str(file.relative_to(tmp_path)) for file in mapping.sources[0].files] == sorted(files)


def test_a_glob_leaves_hidden_files_alone(tmp_path: Path) -> None:
    mapping, _ = read_text(tmp_path, 'watches.files = "*.csv"', ("a.csv", ".a.csv.unfinished.csv"))
    assert [file.name for file in mapping.sources[0].files] == ["a.csv"]


def test_files_may_be_absolute_or_in_a_neighbouring_folder(tmp_path: Path) -> None:
    (tmp_path / "there.csv").touch()
    mapping, _ = read_text(tmp_path / "here", f'watches.files = ["{tmp_path}/there.csv", "../there.csv"]')
    assert all(file.samefile(tmp_path / "there.csv") for file in mapping.sources[0].files)


def test_a_folder_whose_name_looks_like_a_glob_is_no_glob(tmp_path: Path) -> None:
    mapping, _ = read_text(tmp_path / "run[1]", 'watches.files = "*.csv"')
    assert [file.name for file in mapping.sources[0].files] == ["w.csv"]


def test_several_sources_may_fill_one_table(tmp_path: Path) -> None:
    mapping, _ = read_text(tmp_path, '[[watches]]\nfiles = "w.csv"\n[[watches]]\nfiles = "v.csv"', ("w.csv", "v.csv"))
    assert [(source.name, source.files[0].name) for source in mapping.sources] == [
        ("[watches]", "w.csv"),
        ("[watches]", "v.csv"),
    ]


def test_event_columns_are_those_of_the_impressions_where_there_are_any(tmp_path: Path) -> None:
    watches = 'watches = {files = "w.csv", columns = {user_id = "u"}}'
    impressions = 'impressions = {files = "w.csv", columns = {user_id = "i"}}'
    assert read_text(tmp_path, watches)[0].event_columns == {"user_id": "u"}
    assert read_text(tmp_path, f"{watches}\n{impressions}")[0].event_columns == {"user_id": "i"}
