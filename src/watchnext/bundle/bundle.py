"""The bundle: dataset, networks, index and settings that belong together, loaded as a whole or not at all."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watchnext.artifacts import Artifact, open_artifact, writing
from watchnext.config import FeaturesConfig, ServingConfig, from_mapping
from watchnext.errors import ArtifactError
from watchnext.events.dataset import Dataset
from watchnext.features.spec import FeatureSpec, open_state
from watchnext.features.state import FeatureState
from watchnext.ranking.runtime import Ranker
from watchnext.ranking.saved import open_ranker
from watchnext.retrieval import saved as saved_retrieval
from watchnext.retrieval.candidates import CandidateGenerator
from watchnext.retrieval.saved_sources import open_sources

PARTS = ("dataset", "retrieval", "index", "ranking")


@dataclass(frozen=True)
class Bundle:
    """Everything that answers a request, of one version."""

    artifact: Artifact
    dataset: Dataset
    generator: CandidateGenerator
    ranker: Ranker
    features: FeatureSpec
    state: FeatureState
    serving: ServingConfig

    @property
    def version(self) -> str:
        """The first twelve digits of the bundle's fingerprint."""
        return self.artifact.fingerprint[:12]

    def facts(self, kind: str) -> dict[str, Any]:
        """What was recorded when a part was made, its training say."""
        return open_artifact(self.artifact.path / kind, kind, verify=False).facts

    @classmethod
    def open(cls, path: Path, verify: bool = True) -> "Bundle":
        """Loads and checks the bundle in `path`; `verify=False` skips the files' bytes, as `open_artifact` does.

        Raises:
            ArtifactError: it is damaged, of another format version, its parts do not belong together, or its ranker
                does not predict here what it did where it was trained.
        """
        artifact = open_artifact(path, "bundle", verify)
        parts = {kind: open_artifact(path / kind, kind, verify=False) for kind in PARTS}
        refuse_mixed(parts)
        dataset = Dataset.open(path / "dataset", verify=False)
        network = saved_retrieval.open_model(parts["retrieval"], dataset.videos)
        generator = open_sources(network, path / "index")
        features = from_mapping(FeaturesConfig, parts["ranking"].facts["features"], "features")
        state = open_state(path / "ranking" / "state", dataset, features)
        return cls(
            artifact,
            dataset,
            generator,
            open_ranker(parts["ranking"]),
            FeatureSpec.of(dataset, state, generator.sources, features),
            state,
            from_mapping(ServingConfig, artifact.settings, "serving"),
        )


def write_bundle(path: Path, run: Path, serving: ServingConfig) -> None:
    """Puts the parts made in the folder `run` together as a bundle at `path`.

    Raises:
        ArtifactError: a part is missing or damaged, or was not made from its neighbours.
    """
    parts = {kind: open_artifact(run / kind, kind) for kind in PARTS}
    refuse_mixed(parts)
    with writing(path, "bundle", tuple(parts.values()), serving) as folder:
        for kind in PARTS:
            shutil.copytree(run / kind, folder / kind, copy_function=_linked)


def refuse_mixed(parts: dict[str, Artifact]) -> None:
    """Refuses parts that were not made from each other.

    Raises:
        ArtifactError: a part has other parents than those beside it.
    """
    for kind, part in parts.items():
        for parent in part.parents:
            if parent not in parts:
                raise ArtifactError(f"the {kind} in {part.path} names an unknown parent, {parent!r}: make it again.")
            part.require_parent(parts[parent])


def _linked(source: str, target: str) -> None:
    """A hard link where the file system can, else a copy; files of artifacts are never changed in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
