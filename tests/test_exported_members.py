import watchnext
import watchnext.cli


def test_the_promised_names_are_these():
    assert watchnext.__all__ == [
        "Recommendation",
        "Recommender",
        "Run",
        "Visitor",
        "Watch",
        "WatchnextError",
        "build_index",
        "check",
        "evaluate",
        "make_bundle",
        "prepare",
        "run_all",
        "train_ranking",
        "train_retrieval",
    ]
    assert len(watchnext.__all__) <= 15


def test_every_promised_name_is_there_and_explained():
    assert all(getattr(watchnext, name).__doc__ for name in watchnext.__all__)


def test_the_command_line_exports_its_entry_point():
    assert watchnext.cli.__all__ == ["app", "main"]
