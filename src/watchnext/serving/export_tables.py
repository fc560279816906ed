"""What an export makes of answers and events: the SQL of its tables, and the TOML file that names them."""

REMEMBERED = """
    CREATE TABLE events AS
    SELECT * FROM journal LEFT JOIN forgotten USING (user_id) WHERE timestamp > coalesce(forgotten_at, -1)
"""
SHOWN = """
    CREATE TABLE shown AS
    WITH told AS (
        SELECT user_id, video_id, page_id, min(timestamp) AS timestamp, max(watch_seconds) AS watch_seconds,
               bool_or(clicked) AS clicked, bool_or(completed) AS completed, bool_or(liked) AS liked,
               max(nullif(position, 0)) AS position, max(surface) AS surface
        FROM events WHERE kind = 'impression' AND user_id IS NOT NULL AND video_id IS NOT NULL
        GROUP BY user_id, video_id, coalesce(page_id, CAST(sequence AS VARCHAR)), page_id
    ), answered AS (
        SELECT * FROM places LEFT JOIN forgotten USING (user_id)
        WHERE user_id IS NOT NULL AND timestamp > coalesce(forgotten_at, -1)
    )
    SELECT row_number() OVER (ORDER BY timestamp, page_id, position, user_id, video_id) AS shown_row, *
    FROM (
        SELECT user_id, video_id, page_id, coalesce(told.timestamp, answered.timestamp) AS timestamp,
               told.watch_seconds, told.clicked, told.completed, told.liked,
               coalesce(told.position, answered.position) AS position,
               coalesce(told.surface, answered.surface) AS surface, bundle, variant
        FROM told FULL JOIN answered USING (user_id, video_id, page_id)
    )
"""
"""SQL: what was shown. An impression that a client sent stands for the answer's row; several of one place are one."""

EXPLAINED = """
    CREATE TABLE explained AS
    WITH watches AS (
        SELECT * FROM events WHERE kind = 'watch' AND user_id IS NOT NULL AND video_id IS NOT NULL
    ), by_page AS (
        SELECT shown_row, sequence, watches.timestamp AS watched_at
        FROM watches JOIN shown USING (user_id, video_id, page_id)
    ), windows AS (
        SELECT shown_row, user_id, video_id, timestamp AS shown_at,
               least(lead(timestamp) OVER later, timestamp + 86401) AS open_until
        FROM shown WINDOW later AS (PARTITION BY user_id, video_id ORDER BY timestamp, shown_row)
    ), by_time AS (
        SELECT shown_row, sequence, timestamp AS watched_at
        FROM (SELECT * FROM watches ANTI JOIN by_page USING (sequence)) JOIN windows USING (user_id, video_id)
        WHERE timestamp >= shown_at AND timestamp < open_until AND shown_row NOT IN (SELECT shown_row FROM by_page)
    )
    SELECT DISTINCT ON (shown_row) shown_row, sequence
    FROM (FROM by_page UNION ALL FROM by_time) ORDER BY shown_row, watched_at, sequence
"""
"""SQL: which watch came of what was shown: the first of the same page, or else the first of the next day."""

IMPRESSIONS = """
    SELECT shown.user_id, shown.video_id, shown.timestamp,
           CASE WHEN sequence IS NULL THEN coalesce(shown.watch_seconds, 0)
                WHEN watched.watch_seconds IS NULL THEN nullif(shown.watch_seconds, 0)
                ELSE greatest(watched.watch_seconds, shown.watch_seconds) END AS watch_seconds,
           sequence IS NOT NULL OR coalesce(shown.clicked OR shown.watch_seconds > 0, false) AS clicked,
           nullif(coalesce(shown.completed, false) OR coalesce(watched.completed, false), false) AS completed,
           coalesce(shown.liked, false) OR coalesce(watched.liked, false) AS liked,
           shown.position, coalesce(shown.surface, watched.surface) AS surface, shown.page_id,
           bundle, variant, true AS shown
    FROM shown LEFT JOIN explained USING (shown_row) LEFT JOIN events watched USING (sequence)
    UNION ALL
    SELECT user_id, video_id, timestamp, watch_seconds, true, nullif(completed, false), liked, nullif(position, 0),
           surface, page_id, NULL, NULL, false
    FROM events ANTI JOIN explained USING (sequence)
    WHERE kind = 'watch' AND user_id IS NOT NULL AND video_id IS NOT NULL
    ORDER BY timestamp, user_id, video_id
"""
"""SQL: one row per place shown, and one, not `shown`, per watch that none of them explains.

That something was not completed is left open: the log's rule decides.
"""

SEARCHES = """
    SELECT user_id, timestamp, "query" FROM events
    WHERE kind = 'search' AND user_id IS NOT NULL AND trim("query") <> '' ORDER BY timestamp, sequence
"""
LATEST_UPLOADS = """
    CREATE TABLE uploads AS
    SELECT DISTINCT ON (video_id) video_id, timestamp,
           CAST(CAST(coalesce(upload, '{}') AS JSON) AS MAP(VARCHAR, JSON)) AS upload
    FROM events WHERE kind = 'upload' AND video_id IS NOT NULL ORDER BY video_id, sequence DESC
"""
KEYS = """
    SELECT key, list_sort(list(DISTINCT json_type(value))) AS types
    FROM (SELECT unnest(map_keys(upload)) AS key, unnest(map_values(upload)) AS value FROM uploads)
    WHERE json_type(value) <> 'NULL' GROUP BY key ORDER BY key
"""
LOG_TOML = """\
# What a server answered and what came of it, written by watchnext's export. These tables may be pasted into the TOML
# file of your own log; 'files' are relative to it. Leave out what your own files have by now, the uploads first of all.

[log]
name = "served"

# What was shown, and for how long it was watched.
[[impressions]]
files = "impressions.parquet"
where = "shown AND watch_seconds IS NOT NULL"

# Watched, but nobody knows for how long.
[[impressions]]
files = "impressions.parquet"
where = "shown AND watch_seconds IS NULL"
[impressions.columns]
watch_seconds = "NULL"

# Watches that no answer explains: somebody came by another way.
[[watches]]
files = "impressions.parquet"
where = "NOT shown AND watch_seconds IS NOT NULL"

[[watches]]
files = "impressions.parquet"
where = "NOT shown AND watch_seconds IS NULL"
[watches.columns]
watch_seconds = "NULL"

[searches]
files = "searches.parquet"

[videos]
files = "videos.parquet"
"""
