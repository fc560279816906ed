"""What people read on the terminal."""

from fnmatch import fnmatchcase
from pathlib import Path

from rich.console import Console
from rich.table import Table

from watchnext.evaluation.bootstrap import Estimate
from watchnext.evaluation.reliability import GroupReliability
from watchnext.evaluation.report import Report, Scores, shown
from watchnext.evaluation.towers import TowerScore
from watchnext.events.summary import LogSummary
from watchnext.pipeline.feature_table import FeatureRow
from watchnext.pipeline.trial import SYSTEM, ArmResult
from watchnext.serving.recommendation import Recommendation

_OUT = Console(markup=False)  # a title such as '[/b]' is not ours to interpret


def print_summary(summary: LogSummary, rejects: Path) -> None:
    """Prints what a log holds."""
    table = Table(title=summary.name, show_header=False)
    for name, count in summary.rows.items():
        table.add_row(name, f"{count:,} rows")
    table.add_row("users", f"{summary.num_users:,} with events")
    table.add_row("videos", f"{summary.num_videos:,} with events")
    table.add_row("first event", summary.first_event)
    table.add_row("last event", summary.last_event)
    table.add_row("completed", "by rule" if summary.completed_share is None else f"{summary.completed_share:.1%}")
    table.add_row("watch time known", f"{summary.timed_share:.1%}")
    for reason, count in summary.rejected.items():
        table.add_row("rejected", f"{count:,} × {reason}")
    if summary.rejected:
        table.add_row("", f"row by row in {rejects}")
    _OUT.print(table)


def print_report(report: Report) -> None:
    """Prints the figures of both stages beside their baselines."""
    stages: tuple[tuple[str, Scores], ...] = (
        ("Retrieval on the test period", {name: dict(row) for name, row in report.retrieval.items()}),
        ("Ranking on the test period", report.ranking),
    )
    for title, scores in stages:
        if not scores:
            continue
        table = Table(title=f"{title} (95 % intervals)", show_lines=False)
        table.add_column("")
        for name in scores:
            table.add_column(name, justify="right")
        for metric in next(iter(scores.values())):
            table.add_row(metric, *(shown(row[metric]).replace(" [", "\n[") for row in scores.values()))
        _OUT.print(table)
    if report.reliability_by_group:
        _OUT.print(_table_by_group(report.reliability_by_group))
    for note in report.notes:
        _OUT.print(note)


def _table_by_group(tables: dict[str, list[GroupReliability]]) -> Table:
    table = Table(title="Expected watch seconds by group of impressions (95 % intervals)")
    for name in ("", "shown", "expected", "watched", "expected / watched"):
        table.add_column(name, justify="right" if name else "left")
    for kind, groups in tables.items():
        table.add_section()
        table.add_row(kind.replace("_", " "))
        for one in groups:
            means = f"{one.expected_watch_seconds:.1f}", f"{one.watch_seconds:.1f}"
            table.add_row(f"  {one.name}", f"{one.num_impressions:,}", *means, shown(one.ratio))
    return table


def print_recommendations(title: str, found: list[Recommendation]) -> None:
    """Prints a list with expected watch time and sources."""
    table = Table(title=title)
    columns = ("", "video", "title", "channel", "expected watch", "nominated by")
    kept = [True, True, any(one.title for one in found), any(one.channel for one in found), True, True]
    for name in (name for name, keep in zip(columns, kept, strict=True) if keep):
        table.add_column(name, justify="right" if name in ("", "expected watch") else "left")
    for place, one in enumerate(found, start=1):
        cells = (
            str(place),
            str(one.video_id),
            one.title or "",
            one.channel or "",
            "-" if one.expected_watch_seconds is None else _minutes(one.expected_watch_seconds),
            ", ".join(one.sources),
        )
        table.add_row(*(cell for cell, keep in zip(cells, kept, strict=True) if keep))
    _OUT.print(table)


def print_features(rows: list[FeatureRow], pattern: str) -> None:
    """Prints the inputs of the ranker whose names match."""
    table = Table(title="Inputs of the ranker")
    for name in ("", "of each", "enters as"):
        table.add_column(name)
    chosen = [row for row in rows if fnmatchcase(row.name, pattern)]
    for row in chosen:
        table.add_row(row.name, row.of, row.enters)
    _OUT.print(table)
    of_requests = sum(row.of == "request" for row in chosen)
    of_candidates = len(chosen) - of_requests
    _OUT.print(f"{len(chosen)} of {len(rows)} inputs: {of_requests} of the request, {of_candidates} of each candidate")


def print_towers(scores: list[TowerScore]) -> None:
    """Prints the weighted loss of every tower beside the paper's."""
    table = Table(title="Weighted loss on the test period (95 % intervals)")
    for name in ("tower", "weighted loss", "above the deepest", "the paper's"):
        table.add_column(name, justify="left" if name == "tower" else "right")
    for one in scores:
        table.add_row(one.name, shown(one.weighted_loss), shown(one.above_the_deepest), f"{one.papers:.3f}")
    _OUT.print(table)


def print_trial(arms: dict[str, ArmResult]) -> None:
    """Prints what every arm of an A/B test earned."""
    table = Table(title="Watch seconds of a session (95 % intervals over visitors)")
    columns = ("", "watched", "watchnext is ahead by", "expected", "share of the ideal", "clicks")
    for name in columns:
        table.add_column(name, justify="left" if not name else "right")
    for name, arm in arms.items():
        ahead = "" if name == SYSTEM else _interval(arm.ahead_seconds, ".0f")
        figures = (_interval(arm.watch_seconds, ".0f"), ahead, f"{arm.expected_watch_seconds.value:.0f}")
        table.add_row(name, *figures, _interval(arm.share_of_ideal, ".0%"), f"{arm.clicks.value:.2f}")
    _OUT.print(table)
    _OUT.print(
        "Every visitor is played on every arm with the same luck. 'expected' is the truth's own expectation of the "
        "same pages; shares of the ideal are of it."
    )


def _interval(estimate: Estimate, form: str) -> str:
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
