from watchnext.cli import demonstration
from watchnext.events.mapping import read_log_file


def test_the_bundled_log_is_described_and_there():
    mapping, _ = read_log_file(demonstration.sample_log())
    assert mapping.name == "KuaiRand-Pure"


def test_the_demo_goes_from_the_log_to_recommendations(watchnext, quick_log, tmp_path, monkeypatch, capsys):
    log_file = quick_log()
    monkeypatch.setattr(demonstration, "sample_log", lambda: log_file)
    assert watchnext("demo", "--run", tmp_path / "demo") == 0
    told = capsys.readouterr()
    assert "small world" in told.out and "Ranking on the test period" in told.out
    assert told.out.count("for user") == 3
    assert f"watchnext serve --bundle {tmp_path / 'demo' / 'bundle'}" in told.err
    assert (tmp_path / "demo" / "evaluation" / "report.html").is_file()
