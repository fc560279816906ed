"""Many answers at once: files in, Parquet out."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from watchnext.artifacts import writing_file
from watchnext.events.rows import read_rows
from watchnext.progress import bar
from watchnext.serving.recommender import Recommender

_SCORE = "expected_watch_seconds"
_VECTORS_AT_ONCE = 4096


def recommend_to_file(
    recommender: Recommender,
    users: Path,
    output: Path,
    k: int,
    *,
    as_of: int | None = None,
    stage: str = "ranking",
    exclude_seen: bool | None = None,
) -> tuple[int, int]:
    """Writes user_id, video_id, rank (from 1), score, sources for every user of the file `users`.

    Gives the numbers of users with a list and of unknown users, who have none.

    Raises:
        DataError: the file has no column user_id.
        RequestError: an impossible k or stage.
    """
    dataset = recommender.bundle.dataset
    rows = read_rows(users, ("user_id",), (), dataset.facts["event_columns"])
    user_ids = list(dict.fromkeys(rows.columns["user_id"]))
    served = 0
    with writing_file(output) as aside, bar("recommending", len(user_ids)) as progress:
        schema = _schema(recommender)
        with pq.ParquetWriter(aside, schema) as writer:
            lists = recommender.recommend_many(user_ids, k, as_of=as_of, stage=stage, exclude_seen=exclude_seen)
            for users_at_once, ranked in lists:
                user, place = np.nonzero(ranked.video_row)
                columns = [
                    [users_at_once[one] for one in user],
                    dataset.vocabularies["videos"].ids_of(ranked.video_row[user, place]),
                    place + 1,
                    ranked.score[user, place],
                    [list(ranked.sources[one][nth]) for one, nth in zip(user, place, strict=True)],
                ]
                arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
                served += len(users_at_once)
                progress.advance(len(users_at_once))
    return served, len(user_ids) - served


def score_to_file(recommender: Recommender, impressions: Path, output: Path) -> int:
    """Adds `expected_watch_seconds` to each row, with features as of the row's own timestamp and never later.

    Rows have user_id, video_id, timestamp and, if known, surface; or the columns of the log that was prepared.
    Gives the number of rows.

    Raises:
        DataError: a column is absent, or a value in it.
    """
    layout = recommender.bundle.dataset.facts["event_columns"]
    rows = read_rows(impressions, ("user_id", "video_id", "timestamp"), ("surface",), layout)
    parts = []
    with bar("scoring", rows.table.num_rows) as progress:
        for part in recommender.score(
            rows.columns["user_id"], rows.columns["video_id"], rows.timestamps(), rows.columns.get("surface")
        ):
            parts.append(part)
            progress.advance(len(part))
    expected = np.concatenate([np.zeros(0, dtype=np.float32), *parts])
    with writing_file(output) as aside:
        others = rows.table.select([name for name in rows.table.column_names if name != _SCORE])
        pq.write_table(others.append_column(_SCORE, pa.array(expected)), aside)
    return len(expected)


def vectors_to_file(recommender: Recommender, output: Path, users: Path | None = None) -> int:
    """Writes video_id and vector of every video; or, for the file `users`, user_id and vector as of the log's end.

    A user's dot product with a video is the logit (times the temperature) of watching it next: any engine for
    nearest neighbours can serve them. Gives the number of rows; unknown users have none.

    Raises:
        DataError: the file has no column user_id.
    """
    dataset, network = recommender.bundle.dataset, recommender.bundle.generator.network
    kind = "videos" if users is None else "users"
    vocabulary = dataset.vocabularies[kind]
    rows = np.arange(1, dataset.num_videos)
    if users is not None:
        wanted = read_rows(users, ("user_id",), (), dataset.facts["event_columns"]).columns["user_id"]
        rows = vocabulary.rows_of(dict.fromkeys(wanted))
        rows = rows[rows > 0]
    width = network.video_vectors.shape[1]
    schema = pa.schema([(f"{kind[:-1]}_id", vocabulary.id_type), ("vector", pa.list_(pa.float32(), width))])
    with (
        writing_file(output) as aside,
        bar("vectors", len(rows)) as progress,
        pq.ParquetWriter(aside, schema) as writer,
    ):
        for start in range(0, len(rows), _VECTORS_AT_ONCE):
            part = rows[start : start + _VECTORS_AT_ONCE]
            vectors = network.video_vectors[part] if users is None else recommender.user_vectors(part)
            listed = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width)
            ids = pa.array(vocabulary.ids_of(part), vocabulary.id_type)
            writer.write_table(pa.Table.from_arrays([ids, listed], schema=schema))
            progress.advance(len(part))
    return len(rows)


def _schema(recommender: Recommender) -> pa.Schema:
    vocabularies = recommender.bundle.dataset.vocabularies
    return pa.schema(
        [
            ("user_id", vocabularies["users"].id_type),
            ("video_id", vocabularies["videos"].id_type),
            ("rank", pa.int32()),
            ("score", pa.float32()),
            ("sources", pa.list_(pa.string())),
        ]
    )
