import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from watchnext import artifacts
from watchnext.artifacts import open_artifact, writing
from watchnext.bundle.bundle import PARTS, Bundle, refuse_mixed, write_bundle
from watchnext.config import ServingConfig
from watchnext.errors import ArtifactError

pytestmark = pytest.mark.usefixtures("unchecked_types")


@pytest.fixture
def copy(small_run, tmp_path):
    return Path(shutil.copytree(small_run.bundle, tmp_path / "bundle"))


def flip_a_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_a_bundle_opens_with_its_settings_and_features(small_run):
    bundle = Bundle.open(small_run.bundle)
    assert bundle.serving == small_run.run.config.serving
    assert bundle.serving.num_candidates == 20
    assert bundle.features.config == small_run.run.config.features
    assert bundle.ranker.network.config == small_run.run.config.ranking
    assert bundle.state.counters["video"].sums[:, -1, 0].sum() == (bundle.dataset.events.video_row > 0).sum()
    assert bundle.dataset.facts["name"] == "small world"
    assert bundle.artifact.fingerprint.startswith(bundle.version) and len(bundle.version) == 12


def test_a_bundle_works_where_the_run_is_gone(copy, small_run):
    assert Bundle.open(copy).dataset.num_videos == small_run.world.config.videos + 1


def test_the_facts_of_a_part_hold_its_training(small_run):
    assert set(Bundle.open(small_run.bundle).facts("ranking")["training"]) == {"search", "final"}


@pytest.mark.parametrize(
    "name",
    [
        "retrieval/users.safetensors",
        "ranking/weights.safetensors",
        "dataset/events/video_row.npy",
        "dataset/vocabularies/videos.arrow",
        "index/popular/rows.npy",
        "ranking/manifest.json",
        "manifest.json",
    ],
)
def test_one_flipped_byte_is_refused(copy, name):
    flip_a_byte(copy / name)
    with pytest.raises(ArtifactError, match=r"damaged|format version"):
        Bundle.open(copy)


def test_a_changed_setting_in_the_manifest_is_refused(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["settings"]["exclude_seen"] = False
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="changed after it was written"):
        Bundle.open(copy)


def test_a_missing_file_is_refused_by_name(copy):
    (copy / "ranking" / "weights.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"ranking/weights\.safetensors is missing"):
        Bundle.open(copy)


def test_a_folder_without_a_bundle_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="holds no bundle"):
        Bundle.open(tmp_path)


def test_a_part_is_no_bundle(small_run):
    with pytest.raises(ArtifactError, match="holds a dataset, but a bundle was expected"):
        Bundle.open(small_run.run.part("dataset"))


@pytest.fixture
def mixed(small_run, foreign_run, tmp_path):
    """The parts of the small run, with one kind from the foreign run."""

    def mix(kind: str) -> Path:
        for part in PARTS:
            shutil.copytree((foreign_run if part == kind else small_run).run.part(part), tmp_path / "mixed" / part)
        return tmp_path / "mixed"

    return mix


@pytest.mark.parametrize("kind", PARTS)
def test_a_part_of_another_run_is_refused_when_bundling(mixed, tmp_path, kind):
    with pytest.raises(ArtifactError, match=f"(the|than|after '?).*{kind}"):
        write_bundle(tmp_path / "bundle", mixed(kind), ServingConfig())
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("kind", PARTS)
def test_a_part_of_another_run_is_refused_when_opening(mixed, tmp_path, kind):
    parts = mixed(kind)
    with writing(tmp_path / "bundle", "bundle", settings=ServingConfig()) as folder:
        shutil.copytree(parts, folder, dirs_exist_ok=True)
    with pytest.raises(ArtifactError, match="mixed set"):
        Bundle.open(tmp_path / "bundle")


def test_a_missing_part_is_refused_when_bundling(mixed, tmp_path):
    parts = mixed("none")
    shutil.rmtree(parts / "index")
    with pytest.raises(ArtifactError, match="holds no index"):
        write_bundle(tmp_path / "bundle", parts, ServingConfig())


def test_a_damaged_part_is_refused_when_bundling(mixed, tmp_path):
    parts = mixed("none")
    flip_a_byte(parts / "index" / "popular" / "scores.npy")
    with pytest.raises(ArtifactError, match=r"popular/scores\.npy does not match"):
        write_bundle(tmp_path / "bundle", parts, ServingConfig())


def seal_again(folder: Path) -> None:
    """Makes the checksums right, as somebody would who means harm or knows no better."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, checksum in artifacts._checksums(folder, manifest["files"]).items():
        manifest["files"][name] = {"bytes": (folder / name).stat().st_size, "sha256": checksum}
    manifest["fingerprint"] = artifacts._fingerprint(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_ranker_that_predicts_otherwise_is_refused_though_checksums_match(mixed, tmp_path):
    parts = mixed("none")
    weights = load_file(parts / "ranking" / "weights.safetensors")
    weights["outputs.bias"] += 0.1
    save_file(weights, parts / "ranking" / "weights.safetensors")
    seal_again(parts / "ranking")
    write_bundle(tmp_path / "bundle", parts, ServingConfig(num_candidates=20))
    with pytest.raises(ArtifactError, match="does not predict here what it did where it was trained"):
        Bundle.open(tmp_path / "bundle")


def test_an_unknown_parent_is_refused(small_run, tmp_path):
    with writing(tmp_path / "index", "index", (open_artifact(small_run.bundle, "bundle"),)):
        pass
    with pytest.raises(ArtifactError, match="unknown parent, 'bundle'"):
        refuse_mixed({"index": open_artifact(tmp_path / "index", "index")})


def test_the_same_parts_make_the_same_version(small_run, mixed, tmp_path):
    write_bundle(tmp_path / "bundle", mixed("none"), small_run.run.config.serving)
    assert Bundle.open(tmp_path / "bundle").version == Bundle.open(small_run.bundle).version


def test_files_are_copied_where_links_are_impossible(mixed, tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError("another file system")

    parts = mixed("none")
    monkeypatch.setattr("os.link", refuse)
    write_bundle(tmp_path / "bundle", parts, ServingConfig())
    weights = tmp_path / "bundle" / "ranking" / "weights.safetensors"
    assert weights.read_bytes() == (parts / "ranking" / "weights.safetensors").read_bytes()
    assert weights.stat().st_nlink == 1
