"""A small made-up world, written as a log, compiled, and trained once per session."""

import dataclasses
import fcntl
import os
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parent.parent / ".pytest_cache" / "numba")
    # Threads of several processes that wait for each other on the same cores take four times as long as one thread.
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from jaxtyping import config as type_checks
from numba.core import config
from numba.core.caching import FunctionCache
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher

from watchnext import pipeline
from watchnext.events.dataset import Dataset
from watchnext.simulation.log import open_world, write_log
from watchnext.simulation.settings import WorldConfig
from watchnext.simulation.world import START_SECOND, World

settings.register_profile("untimed", deadline=None)  # tests are not timed: the first call compiles, a machine is shared
settings.load_profile("untimed")

_compile = Dispatcher.compile
_compiling: set[Path] = set()


def _compile_once(self: Dispatcher, signature: object) -> object:
    """Compiles, or waits while another process that tests beside this one compiles the same loop, and reads it."""
    name = Path(config.CACHE_DIR) / f"{self.py_func.__module__}.{self.py_func.__qualname__}.lock"
    if not isinstance(self._cache, FunctionCache) or name in _compiling:
        return _compile(self, signature)
    with global_compiler_lock, locked(name):
        _compiling.add(name)
        try:
            return _compile(self, signature)
        finally:
            _compiling.remove(name)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Of all processes one at a time goes on."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if "PYTEST_XDIST_WORKER" in os.environ:
    Dispatcher.compile = _compile_once

FIRST_SECOND, DAYS = START_SECOND, 20
LONGEST = "test_recovery.py"
T = TypeVar("T")


def pytest_xdist_auto_num_workers() -> int:
    """One more than cores, as tests that wait for a browser or a server leave theirs to others."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lets the file that takes longest begin first: where tests run side by side, nobody waits for it in the end."""
    items.sort(key=lambda item: item.path.name != LONGEST)


LOG_TOML = """
[log]
name = "small world"

[impressions]
files = "events.parquet"

[searches]
files = "searches.parquet"

[users]
files = "users.parquet"

[videos]
files = "videos.parquet"

[retrieval]
tower = [32, 16]
embedding_dim = 16
batch_size = 256
max_epochs = 4
dropout = 0.1

[features]
horizons_seconds = [86400]

[ranking]
tower = [32, 16]
batch_size = 128
max_epochs = 8
patience = 3
max_watch_seconds = 60

[evaluation]
cutoffs = [5, 10]
bootstrap_draws = 50

[serving]
budget_ms = 60000  # what is left out for want of time is tested where time is
source_budget_ms = 60000
num_candidates = 20
"""

WORLD = WorldConfig(videos=100, users=240, events=5_760, days=DAYS, topics=4, page_size=4, new_share=0.0, seed=3)


def write_small_log(folder: Path, seed: int = 0) -> Path:
    """Writes the world's log, a file for each table, and gives its TOML file."""
    write_log(dataclasses.replace(WORLD, seed=WORLD.seed + seed), folder, workers=1)
    for table, name in (("impressions", "events"), ("searches", "searches")):
        pq.write_table(pq.read_table(folder / table), folder / f"{name}.parquet")
    (folder / "log.toml").write_text(LOG_TOML)
    return folder / "log.toml"


@dataclass(frozen=True)
class SmallRun:
    """The small world after every step of the pipeline."""

    run: pipeline.Run
    report: pipeline.Report

    @property
    def bundle(self) -> Path:
        return self.run.part("bundle")

    @property
    def log_folder(self) -> Path:
        return Path(self.run.log_file).parent

    @property
    def world(self) -> World:
        """The truth about the log; its users and videos are numbered as in the log."""
        return open_world(self.log_folder)


@contextmanager
def types_unchecked() -> Iterator[None]:
    """Calls are not checked for the shapes they promise while this lasts."""
    before = type_checks.jaxtyping_disable
    type_checks.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        type_checks.update("jaxtyping_disable", before)


@pytest.fixture(scope="module")
def unchecked_types() -> Iterator[None]:
    """For what the checks of each call make twice as long: the whole system, whose parts have tests, and statistics."""
    with types_unchecked():
        yield


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], T]) -> T:
    """What `make` gives for a new folder. Of processes that test side by side one makes it, the others wait for it."""
    every = factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else factory.getbasetemp()
    made = every / f"{name}.made"
    with locked(made.with_suffix(".lock")):
        if not made.exists():
            made.write_bytes(pickle.dumps(make(factory.mktemp(name))))
    return pickle.loads(made.read_bytes())  # type: ignore[no-any-return]  # whatever was made


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Trained once; tests must not change it (copy the folder to damage it)."""

    def make(folder: Path) -> SmallRun:
        run = pipeline.Run(write_small_log(folder / "log"), folder / "run")
        with types_unchecked():
            return SmallRun(run, pipeline.run_all(run))

    return made_once(tmp_path_factory, "small", make)


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The small world compiled, without training."""

    def make(folder: Path) -> Path:
        run = pipeline.Run(write_small_log(folder / "log"), folder / "run")
        pipeline.prepare(run)
        return run.part("dataset")

    return Dataset.open(made_once(tmp_path_factory, "dataset", make))


LogWriter = Callable[..., Path]


@pytest.fixture(scope="session")
def quick_log(tmp_path_factory: pytest.TempPathFactory) -> LogWriter:
    """Gives `quick_log((old, new), …, seed=0)`: the small world's TOML file, one pass of training, text replaced."""

    def write(*replacements: tuple[str, str], seed: int = 0) -> Path:
        toml = write_small_log(tmp_path_factory.mktemp("quick"), seed)
        text = re.sub(r"max_epochs = \d", "max_epochs = 1", toml.read_text())
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        toml.write_text(text)
        return toml

    return write


FOREIGN_NAMES = {"user_id": "uid", "video_id": "item", "timestamp": "ts_ms", "watch_seconds": "played"}
FOREIGN_COLUMNS = f"""files = "events.parquet"
[impressions.columns]
user_id = "uid"
video_id = "item"
timestamp = "ts_ms / 1000"
watch_seconds = "played"
[split]
ranking_start = {FIRST_SECOND + 9 * 86_400}
validation_start = {FIRST_SECOND + 16 * 86_400}
test_start = {FIRST_SECOND + 18 * 86_400}
"""


@pytest.fixture(scope="session")
def foreign_log(quick_log: LogWriter) -> LogWriter:
    """Gives `foreign_log(later=False)`: another world whose events have their own column names and fixed periods.

    With `later=True` all of it happens a second time, after the end of the first.
    """

    def write(later: bool = False) -> Path:
        toml = quick_log(('files = "events.parquet"\n', FOREIGN_COLUMNS), seed=7)
        events = pq.read_table(toml.parent / "events.parquet")
        when = events["timestamp"].to_numpy()
        tables = [events.set_column(2, "timestamp", pa.array(when * 1000))]
        if later:
            tables.append(events.set_column(2, "timestamp", pa.array((when + DAYS * 86_400) * 1000)))
        events = pa.concat_tables(tables).rename_columns(
            [FOREIGN_NAMES.get(name, name) for name in events.column_names]
        )
        pq.write_table(events, toml.parent / "events.parquet")
        return toml

    return write


@pytest.fixture(scope="session")
def foreign_run(foreign_log: LogWriter, tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """The foreign log after every step."""

    def make(folder: Path) -> SmallRun:
        run = pipeline.Run(foreign_log(), folder / "run")
        with types_unchecked():
            return SmallRun(run, pipeline.run_all(run))

    return made_once(tmp_path_factory, "foreign", make)
