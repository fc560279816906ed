"""Folders that are whole or absent: written aside, sealed with checksums, then renamed into place.

Every stage writes one such folder. Its manifest names the kind, the format version, the settings that made it,
a checksum for each file, and the fingerprints of the artifacts it was made from (its *parents*), so that a
damaged or mixed set is refused instead of served.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from watchnext.errors import ArtifactError
from watchnext.shapes import Array

FORMAT_VERSION = 7
MANIFEST = "manifest.json"
_PIECE_BYTES = 16 << 20


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A sealed folder that was checked when it was opened."""

    path: Path
    kind: str
    fingerprint: str
    parents: dict[str, str]
    settings: dict[str, Any]
    facts: dict[str, Any]

    def require_parent(self, parent: "Artifact") -> None:
        """Refuses a `parent` other than the one this artifact was made from.

        Raises:
            ArtifactError: the fingerprints differ.
        """
        made_from = self.parents.get(parent.kind)
        if made_from != parent.fingerprint:
            raise ArtifactError(
                f"the {self.kind} in {self.path} was made from the {parent.kind} {_short(made_from)}, "
                f"but the one in {parent.path} is {_short(parent.fingerprint)}: a mixed set would answer "
                f"wrongly. Run the steps after '{parent.kind}' again."
            )


@contextmanager
def writing(
    path: Path,
    kind: str,
    parents: tuple[Artifact, ...] = (),
    settings: Any = None,
    facts: Mapping[str, Any] | None = None,
) -> Iterator[Path]:
    """Gives a folder to write into that takes the place of `path` only when the block ends well.

    `facts` may be filled while the block runs; they are sealed at its end.

    Raises:
        ArtifactError: something that is no artifact stands at `path`; it is not ours to replace.
    """
    path = path.absolute()
    _refuse_to_replace_foreign(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        _seal(aside, kind, parents, settings, facts or {})
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    _swap(aside, path)


@contextmanager
def writing_file(path: Path) -> Iterator[Path]:
    """Gives a file name to write to that becomes `path` only when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.unfinished")
    try:
        yield aside
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    os.replace(aside, path)


def open_artifact(path: Path, kind: str, verify: bool = True) -> Artifact:
    """Gives the checked artifact at `path`; `verify=False` skips the files' bytes, for a part of a checked whole.

    Raises:
        ArtifactError: there is none, it is of another kind or format version, a file is missing, or a byte differs.
    """
    manifest = _read_manifest(path, kind)
    fingerprint = _fingerprint(manifest)
    if fingerprint != manifest.get("fingerprint"):
        raise ArtifactError(f"{path} is damaged: {MANIFEST} was changed after it was written. {_REMEDY}")
    if verify:
        _check_files(path, manifest["files"])
    return Artifact(path, kind, fingerprint, manifest["parents"], manifest["settings"], manifest["facts"])


def state_on_disk(path: Path) -> str:
    """Gives a digest of the sizes, times and places of an artifact's files: as long as it is the same, so are they.

    Reading a large artifact's bytes takes long; whoever has checked them once may ask this instead.
    """
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        found = file.stat()
        digest.update(f"{file.relative_to(path)} {found.st_size} {found.st_mtime_ns} {found.st_ino}\n".encode())
    return digest.hexdigest()


def save_arrays(folder: Path, arrays: Mapping[str, Array]) -> None:
    """Writes each array as `<name>.npy`, the form that `load_arrays` maps."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def load_arrays(folder: Path, names: Mapping[str, Any] | tuple[str, ...]) -> dict[str, Array]:
    """Maps the named arrays read-only; nothing is read until it is used.

    They are plain arrays, not `numpy.memmap`, whose every indexing takes ten microseconds.
    """
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False).view(np.ndarray) for name in names}


def _check_files(path: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    for name, expected in files.items():
        if not (path / name).is_file():
            raise ArtifactError(f"{path} is damaged: {name} is missing. {_REMEDY}")
        size = (path / name).stat().st_size
        if size != expected["bytes"]:
            raise ArtifactError(f"{path} is damaged: {name} has {size} bytes, not {expected['bytes']}. {_REMEDY}")
    for name, found in _checksums(path, files).items():
        if found != files[name]["sha256"]:
            raise ArtifactError(f"{path} is damaged: the checksum of {name} does not match. {_REMEDY}")


_REMEDY = "Restore it from a copy, or run the step that makes it again."


def _read_manifest(path: Path, kind: str) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError) as missing:
        raise ArtifactError(
            f"{path} holds no {kind}: there is no {MANIFEST} in it. Run the step that makes it first "
            "(watchnext --help has them in order)."
        ) from missing
    except ValueError as broken:
        raise ArtifactError(f"{path} is damaged: {MANIFEST} is not JSON. {_REMEDY}") from broken
    if not isinstance(manifest, dict) or manifest.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(
            f"{path} was written in another format version than {FORMAT_VERSION}, the one that this watchnext "
            "reads: make it again."
        )
    if manifest.get("kind") != kind:
        raise ArtifactError(f"{path} holds a {manifest.get('kind')}, but a {kind} was expected.")
    return manifest


def _seal(folder: Path, kind: str, parents: tuple[Artifact, ...], settings: Any, facts: Mapping[str, Any]) -> None:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    checksums = _checksums(folder, [str(file.relative_to(folder)) for file in files])
    manifest = {
        "kind": kind,
        "format_version": FORMAT_VERSION,
        "parents": {parent.kind: parent.fingerprint for parent in parents},
        "settings": dataclasses.asdict(settings) if settings is not None else {},
        "facts": dict(facts),
        "files": {
            name: {"bytes": (folder / name).stat().st_size, "sha256": checksum} for name, checksum in checksums.items()
        },
    }
    manifest["fingerprint"] = _fingerprint(manifest)
    for file in files:
        _flush_to_disk(file)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    _flush_to_disk(folder / MANIFEST)


def _refuse_to_replace_foreign(path: Path) -> None:
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).exists()):
        raise ArtifactError(
            f"{path} was not written by watchnext (there is no {MANIFEST} in it), so it is not replaced. Move it away, "
            "or give another folder."
        )


def _swap(aside: Path, path: Path) -> None:
    """Puts `aside` in the place of `path`; between the two renames there is nothing, never a half."""
    if path.exists():
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.rename(path, old)
        os.rename(aside, path)
        shutil.rmtree(old)
    else:
        os.rename(aside, path)
    _flush_to_disk(path.parent)


def _fingerprint(manifest: Mapping[str, Any]) -> str:
    sealed = {key: value for key, value in manifest.items() if key != "fingerprint"}
    return hashlib.sha256(json.dumps(sealed, sort_keys=True).encode()).hexdigest()


def _checksums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Gives each file's SHA-256; that of a file of several pieces is the one of its pieces' digests.

    Pieces are read side by side: the files of ten million videos are checked as fast as all cores can.
    """
    with ThreadPoolExecutor() as pool:
        digests = {name: list(pool.map(_digest, *zip(*_pieces(folder / name), strict=True))) for name in names}
    return {
        name: (pieces[0] if len(pieces) == 1 else hashlib.sha256(b"".join(pieces)).digest()).hex()
        for name, pieces in digests.items()
    }


def _pieces(file: Path) -> list[tuple[Path, int]]:
    return [(file, start) for start in range(0, max(file.stat().st_size, 1), _PIECE_BYTES)]


def _digest(file: Path, start: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(start)
        return hashlib.sha256(stream.read(_PIECE_BYTES)).digest()


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _short(fingerprint: str | None) -> str:
    return fingerprint[:12] if fingerprint else "(none)"
