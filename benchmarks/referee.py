"""An independent program that judges predictions, and other programs that are run in processes of their own."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Referee:
    """Think of it as the program of a folder with referee.py and splits.py, and the splits that it judges by."""

    folder: Path
    splits: Path

    @classmethod
    def with_splits(cls, folder: Path, data: Path, splits: Path) -> "Referee":
        """Makes the splits of the logs under `data`."""
        output_of([sys.executable, folder / "splits.py", "--data", data, "--out", splits])
        return cls(folder, splits)

    def judge(self, task: str, predictions: pa.Table, split: str) -> dict[str, float]:
        """Gives the figures that the program finds, by its own names."""
        file = self.splits / "predictions.parquet"
        pq.write_table(predictions, file)
        command = [sys.executable, self.folder / "referee.py", task, file, "--split", split, "--splits", self.splits]
        return {key: value for key, value in json_of(command).items() if isinstance(value, int | float)}


def json_of(command: list[Any]) -> dict[str, Any]:
    """Gives the last line of what a command prints."""
    told: dict[str, Any] = json.loads(output_of(command).strip().splitlines()[-1])
    return told


def output_of(command: list[Any]) -> str:
    """Gives what a command prints; a command that fails ends this one too."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout
