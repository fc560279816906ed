import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from watchnext import artifacts
from watchnext.artifacts import (
    Artifact,
    load_arrays,
    open_artifact,
    save_arrays,
    state_on_disk,
    writing,
    writing_file,
)
from watchnext.config import IndexConfig
from watchnext.errors import ArtifactError


def write_thing(path: Path, text: str = "weights", parents: tuple[Artifact, ...] = ()) -> Artifact:
    with writing(path, "thing", parents, IndexConfig(tuned_k=3), {"rows": 7}) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "weights.bin").write_text(text)
    return open_artifact(path, "thing")


def change_manifest(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_an_artifact_comes_back_as_it_was_written(tmp_path: Path) -> None:
    thing = write_thing(tmp_path / "new" / "thing")
    assert (thing.kind, thing.facts, thing.settings["tuned_k"]) == ("thing", {"rows": 7}, 3)
    assert (thing.path / "deep" / "weights.bin").read_text() == "weights"


def test_settings_and_facts_may_be_absent(tmp_path: Path) -> None:
    with writing(tmp_path / "bare", "thing"):
        pass
    bare = open_artifact(tmp_path / "bare", "thing")
    assert (bare.settings, bare.facts, bare.parents) == ({}, {}, {})


def test_facts_filled_in_the_block_are_sealed(tmp_path: Path) -> None:
    facts: dict[str, int] = {}
    with writing(tmp_path / "thing", "thing", facts=facts):
        facts["late"] = 1
    assert open_artifact(tmp_path / "thing", "thing").facts == {"late": 1}


def test_the_manifest_holds_the_files_checksums(tmp_path: Path) -> None:
    write_thing(tmp_path / "thing")
    manifest = json.loads((tmp_path / "thing" / "manifest.json").read_text())
    checksum = hashlib.sha256(b"weights").hexdigest()
    assert manifest["files"] == {"deep/weights.bin": {"bytes": 7, "sha256": checksum}}


def test_a_file_of_several_pieces_has_the_checksum_of_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "_PIECE_BYTES", 3)
    write_thing(tmp_path / "thing")
    pieces = b"".join(hashlib.sha256(piece).digest() for piece in (b"wei", b"ght", b"s"))
    manifest = json.loads((tmp_path / "thing" / "manifest.json").read_text())
    assert manifest["files"]["deep/weights.bin"]["sha256"] == hashlib.sha256(pieces).hexdigest()
    (tmp_path / "thing" / "deep" / "weights.bin").write_text("weighty")  # the last piece alone
    with pytest.raises(ArtifactError, match=r"the checksum of deep/weights.bin does not match"):
        open_artifact(tmp_path / "thing", "thing")


def test_equal_contents_have_equal_fingerprints(tmp_path: Path) -> None:
    assert write_thing(tmp_path / "a").fingerprint == write_thing(tmp_path / "b").fingerprint


def test_other_contents_have_another_fingerprint(tmp_path: Path) -> None:
    assert write_thing(tmp_path / "a").fingerprint != write_thing(tmp_path / "b", "other").fingerprint


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    write_thing(tmp_path / "thing")
    (tmp_path / "thing" / "deep" / "weights.bin").write_text("wEights")
    with pytest.raises(ArtifactError, match=r"is damaged: the checksum of deep/weights\.bin does not match"):
        open_artifact(tmp_path / "thing", "thing")


def test_a_truncated_file_is_found(tmp_path: Path) -> None:
    write_thing(tmp_path / "thing")
    (tmp_path / "thing" / "deep" / "weights.bin").write_text("weigh")
    with pytest.raises(ArtifactError, match="has 5 bytes, not 7"):
        open_artifact(tmp_path / "thing", "thing")


def test_a_missing_file_is_found(tmp_path: Path) -> None:
    write_thing(tmp_path / "thing")
    (tmp_path / "thing" / "deep" / "weights.bin").unlink()
    with pytest.raises(ArtifactError, match=r"is damaged: deep/weights\.bin is missing"):
        open_artifact(tmp_path / "thing", "thing")


def test_without_verification_the_bytes_are_not_looked_at(tmp_path: Path) -> None:
    thing = write_thing(tmp_path / "thing")
    (tmp_path / "thing" / "deep" / "weights.bin").write_text("wEights")
    assert open_artifact(tmp_path / "thing", "thing", verify=False) == thing


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["facts"].update(rows=8),
        lambda manifest: manifest.pop("fingerprint"),
        lambda manifest: manifest.pop("files"),
        lambda manifest: manifest.pop("parents"),
    ],
)
@pytest.mark.parametrize("verify", [True, False])
def test_a_changed_manifest_is_found(tmp_path: Path, change: Callable[[dict[str, Any]], Any], verify: bool) -> None:
    write_thing(tmp_path / "thing")
    change_manifest(tmp_path / "thing", change)
    with pytest.raises(ArtifactError, match=r"manifest\.json was changed after it was written"):
        open_artifact(tmp_path / "thing", "thing", verify)


def test_an_artifact_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_thing(tmp_path / "thing")
    with pytest.raises(ArtifactError, match="holds a thing, but a bundle was expected"):
        open_artifact(tmp_path / "thing", "bundle")


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    write_thing(tmp_path / "thing")
    change_manifest(tmp_path / "thing", lambda manifest: manifest.update(format_version=99))
    with pytest.raises(ArtifactError, match=r"another format version than 7.*make it again"):
        open_artifact(tmp_path / "thing", "thing")


@pytest.mark.parametrize("manifest", [b'{"kind": ', b"\xff\xfe", b""])
def test_a_manifest_that_is_not_json_is_refused(tmp_path: Path, manifest: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(manifest)
    with pytest.raises(ArtifactError, match=r"manifest\.json is not JSON"):
        open_artifact(tmp_path, "thing")


def test_a_manifest_that_is_a_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ArtifactError, match="another format version"):
        open_artifact(tmp_path, "thing")


@pytest.mark.parametrize("name", ["absent", "a_file"])
def test_where_nothing_is_the_message_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "a_file").touch()
    with pytest.raises(
        ArtifactError, match=r"holds no bundle: there is no manifest\.json in it\. Run the step that makes it first"
    ):
        open_artifact(tmp_path / name, "bundle")


def test_the_parent_it_was_made_from_is_accepted(tmp_path: Path) -> None:
    parent = write_thing(tmp_path / "parent")
    write_thing(tmp_path / "child", parents=(parent,)).require_parent(parent)


def test_another_parent_is_refused(tmp_path: Path) -> None:
    child = write_thing(tmp_path / "child", parents=(write_thing(tmp_path / "parent"),))
    stranger = write_thing(tmp_path / "stranger", "other")
    with pytest.raises(ArtifactError, match=r"made from the thing .* a mixed set would answer wrongly"):
        child.require_parent(stranger)


def test_an_orphan_has_no_parent_to_match(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"made from the thing \(none\)"):
        write_thing(tmp_path / "child").require_parent(write_thing(tmp_path / "parent"))


def test_a_rewritten_parent_is_refused(tmp_path: Path) -> None:
    child = write_thing(tmp_path / "child", parents=(write_thing(tmp_path / "parent"),))
    with pytest.raises(ArtifactError, match="Run the steps after 'thing' again"):
        child.require_parent(write_thing(tmp_path / "parent", "other"))


def test_a_new_artifact_takes_the_place_of_the_old(tmp_path: Path) -> None:
    write_thing(tmp_path / "thing")
    write_thing(tmp_path / "thing", "newer")
    assert (tmp_path / "thing" / "deep" / "weights.bin").read_text() == "newer"
    assert names_in(tmp_path) == ["thing"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), writing(tmp_path / "thing", "thing") as folder:
        (folder / "half.bin").touch()
        raise error
    assert names_in(tmp_path) == []


def test_a_failure_leaves_the_old_artifact_untouched(tmp_path: Path) -> None:
    old = write_thing(tmp_path / "thing")
    with pytest.raises(RuntimeError), writing(tmp_path / "thing", "thing"):
        raise RuntimeError
    assert open_artifact(tmp_path / "thing", "thing") == old
    assert names_in(tmp_path) == ["thing"]


def test_facts_that_are_not_json_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(TypeError), writing(tmp_path / "thing", "thing", facts={"rows": object()}):
        pass
    assert names_in(tmp_path) == []


def test_what_a_killed_run_left_aside_does_not_get_in(tmp_path: Path) -> None:
    for leftover in (".thing.unfinished", ".thing.old"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "stale.bin").touch()
    write_thing(tmp_path / "thing")
    write_thing(tmp_path / "thing")
    assert names_in(tmp_path) == ["thing"]
    assert names_in(tmp_path / "thing") == ["deep", "manifest.json"]


def test_nothing_shows_before_the_block_ends(tmp_path: Path) -> None:
    with writing(tmp_path / "thing", "thing"):
        assert not (tmp_path / "thing").exists()


def test_a_written_file_appears_whole(tmp_path: Path) -> None:
    with writing_file(tmp_path / "new" / "report.html") as aside:
        aside.write_text("whole")
        assert not (tmp_path / "new" / "report.html").exists()
    assert names_in(tmp_path / "new") == ["report.html"]


def test_a_file_whose_writing_fails_keeps_its_old_text(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(RuntimeError), writing_file(tmp_path / "report.html") as aside:
        aside.write_text("half")
        raise RuntimeError
    assert (tmp_path / "report.html").read_text() == "old"
    assert names_in(tmp_path) == ["report.html"]


def test_arrays_come_back_mapped_and_read_only(tmp_path: Path) -> None:
    save_arrays(tmp_path / "arrays", {"rows": np.arange(3), "values": np.array([0.5])})
    arrays = load_arrays(tmp_path / "arrays", ("rows", "values"))
    assert (arrays["rows"].tolist(), arrays["values"].tolist()) == ([0, 1, 2], [0.5])
    with pytest.raises(ValueError, match="read-only"):
        arrays["rows"][0] = 9


def test_arrays_of_objects_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        save_arrays(tmp_path, {"objects": np.array([{}], dtype=object)})


def test_a_folder_that_is_not_ours_is_not_replaced(tmp_path: Path) -> None:
    foreign = tmp_path / "thing"
    foreign.mkdir()
    write_thing(foreign)  # an empty folder is nobody's
    (foreign / "manifest.json").unlink()
    kept = sorted(foreign.iterdir())
    with pytest.raises(ArtifactError, match=r"was not written by watchnext .* so it is not replaced"):
        write_thing(foreign)
    assert sorted(foreign.iterdir()) == kept and kept


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thing").write_text("keep")
    with pytest.raises(ArtifactError, match="so it is not replaced"):
        write_thing(tmp_path / "thing")
    assert (tmp_path / "thing").read_text() == "keep"


def test_the_present_folder_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with writing(Path("."), "thing") as folder:
        (folder / "weights.bin").write_text("weights")
    assert open_artifact(tmp_path / "here", "thing").kind == "thing"


def test_the_state_on_disk_changes_with_any_file(tmp_path):
    write_thing(tmp_path / "thing")
    before = state_on_disk(tmp_path / "thing")
    assert state_on_disk(tmp_path / "thing") == before
    os.utime(tmp_path / "thing" / "deep" / "weights.bin", ns=(1, 1))
    touched = state_on_disk(tmp_path / "thing")
    (tmp_path / "thing" / "another").write_text("")
    assert len({before, touched, state_on_disk(tmp_path / "thing")}) == 3
