"""Everything MLflow: runs, metrics, the model registry. No other file imports it but the two that serve models."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from cxr_models.package import ModelCard, PackageError, card_text, read_card
from data_catalog.atomic import replacing_folder
from tasks.records import Champion

EXPERIMENT = "cxr-segmentation"
PACKAGE = "package"
SERVING_CODE = Path(__file__).with_name("serving.py")


@dataclass(frozen=True, slots=True)
class Version:
    """A registered model version.

    Attributes:
        name, version: as the registry has them.
        weights_sha256: of its weights.
        manifest_sha256: of the rows it was trained and tested on.
        run_id: the tracking run it came from.
        aliases: such as "champion".
    """

    name: str
    version: str
    weights_sha256: str
    manifest_sha256: str
    run_id: str
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Packaged:
    """What a package is filed as in the registry.

    Attributes:
        name: registered model.
        weights_sha256, manifest_sha256: of its weights, and of the rows it was trained and tested on.
        tags: more of them.
        text: the card, for people.
        serving: the code that serves it.
        output: dtype of what it answers with.
    """

    name: str
    weights_sha256: str
    manifest_sha256: str
    tags: Mapping[str, str]
    text: str
    serving: Path
    output: str


class Tracker:
    """One tracking server or database, and the registry in it."""

    def __init__(self, uri: str, home: Path, experiment: str = EXPERIMENT) -> None:
        """Connect.

        Args:
            uri: an MLflow tracking URI, such as ``sqlite:////home/mlflow.db`` or ``http://127.0.0.1:5000``.
            home: artifacts lie in its ``mlartifacts`` where ``uri`` is a database (a server knows its own), fetched
                models in its ``models``.
            experiment: name of the one that runs are filed under.
        """
        for name in ("mlflow", "alembic"):  # schema migrations are not the user's news
            logging.getLogger(name).setLevel(logging.WARNING)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        self.uri = uri
        self.client = mlflow.MlflowClient(uri, uri)
        self.artifacts = None if uri.startswith("http") else home / "mlartifacts"
        self.fetched = home / "models"
        self.experiment = experiment

    def start_run(self, name: str, key: str, parameters: Mapping[str, Any]) -> str:
        """Id of the run of training ``key``: the one that is there, or a new one."""
        experiment = self._experiment()
        found = self.client.search_runs([experiment], f"tags.`cxr.train_key` = '{key}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        run = self.client.create_run(experiment, run_name=name, tags={"cxr.train_key": key})
        for parameter, value in _flat(parameters):
            self.client.log_param(run.info.run_id, parameter, value)
        return str(run.info.run_id)

    def has_run(self, run_id: str) -> bool:
        """Whether the server knows the run: a database may have been replaced since."""
        try:
            return bool(self.client.get_run(run_id))
        except MlflowException:
            return False

    def log_inputs(self, run_id: str, digests: Mapping[str, tuple[str, str]]) -> None:
        """Record the data sets of a run: context ("train", "test") -> (digest, where)."""
        inputs = [
            DatasetInput(
                Dataset(f"cxr-{context}", digest[:36], "local", json.dumps({"uri": where})),
                [InputTag("mlflow.data.context", context)],
            )
            for context, (digest, where) in digests.items()
        ]
        self.client.log_inputs(run_id, inputs)

    def logged_epochs(self, run_id: str) -> set[int]:
        """Epochs that the run already has."""
        return {metric.step for metric in self.client.get_metric_history(run_id, "train_loss")}

    def logged_steps(self, run_id: str) -> set[int]:
        """Steps of the optimiser that the run already has."""
        return {metric.step for metric in self.client.get_metric_history(run_id, "step_loss")}

    def log_epoch(self, run_id: str, record: Mapping[str, float]) -> None:
        """Log one epoch's record; its "epoch" is the step."""
        self._log(run_id, record, "epoch")

    def log_step(self, run_id: str, record: Mapping[str, float]) -> None:
        """Log what is known of one step of the optimiser; its "step" is the step."""
        self._log(run_id, record, "step")

    def _log(self, run_id: str, record: Mapping[str, float], counter: str) -> None:
        now = int(mlflow.utils.time.get_current_time_millis())
        metrics = [Metric(name, value, now, int(record[counter])) for name, value in record.items() if name != counter]
        self.client.log_batch(run_id, metrics)

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Log final metrics."""
        for name, value in metrics.items():
            self.client.log_metric(run_id, name, value)

    def log_file(self, run_id: str, path: Path, folder: str = "") -> None:
        """Attach a file to the run."""
        self.client.log_artifact(run_id, str(path), folder or None)

    def versions(self, name: str) -> list[Version]:
        """All versions of a registered model, newest first."""
        try:
            model = self.client.get_registered_model(name)
        except MlflowException:
            return []
        aliases: dict[str, list[str]] = {}
        for alias, version in model.aliases.items():
            aliases.setdefault(str(version), []).append(alias)
        found = self.client.search_model_versions(f"name = '{name}'")
        listed = [
            Version(
                name,
                str(v.version),
                v.tags.get("weights_sha256", ""),
                v.tags.get("manifest_sha256", ""),
                v.run_id or "",
                tuple(sorted(aliases.get(str(v.version), []))),
            )
            for v in found
        ]
        return sorted(listed, key=lambda v: int(v.version), reverse=True)

    def with_alias(self, name: str, alias: str) -> Version | None:
        """The version that carries ``alias``, or None."""
        return next((v for v in self.versions(name) if alias in v.aliases), None)

    def other_champion(self, name: str, weights_sha256: str) -> Champion | None:
        """The reigning champion, fetched, where there is one of other weights than these."""
        champion = self.with_alias(name, "champion")
        if champion is None or champion.weights_sha256 == weights_sha256:
            return None
        package = self.download(champion)
        return Champion(package=str(package), version=champion.version, weights_sha256=champion.weights_sha256)

    def known_version(self, name: str, weights_sha256: str, manifest_sha256: str) -> Version | None:
        """The newest version with these weights, trained and tested on these rows."""
        wanted = weights_sha256, manifest_sha256
        return next((v for v in self.versions(name) if (v.weights_sha256, v.manifest_sha256) == wanted), None)

    def with_aliases(self, version: Version, *, new: bool, wins: bool) -> Version:
        """``version`` as ``challenger`` where it is new or has no alias yet, and as ``champion`` where it wins."""
        if new or not version.aliases:
            self.set_alias(version, "challenger")
        if wins and "champion" not in version.aliases:
            self.set_alias(version, "champion")
        return next(v for v in self.versions(version.name) if v.version == version.version)

    def set_alias(self, version: Version, alias: str) -> None:
        """Move ``alias`` to ``version``."""
        self.client.set_registered_model_alias(version.name, alias, version.version)

    def register(self, package: Path, run_id: str, example: np.ndarray, about: Packaged | None = None) -> Version:
        """Log ``package`` as a model of its run and register it as a new version.

        Args:
            package: folder of a model and its card, metrics included.
            run_id: the run that trained it.
            example: input example, (1, H, W) float32 in [0, 1].
            about: what to file it as; None for a segmentation model.
        """
        about = about or _segmentation(read_card(package))
        with mlflow.start_run(run_id=run_id), tempfile.TemporaryDirectory() as folder:
            info = mlflow.pyfunc.log_model(
                name=about.name,
                python_model=about.serving,
                artifacts={PACKAGE: str(package)},
                signature=_signature(about.output),
                input_example=example,
                pip_requirements=["cxr-pipeline"],
                metadata={"weights_sha256": about.weights_sha256},
            )
            text = Path(folder) / "model-card.md"
            text.write_text(about.text, encoding="utf-8")
            self.log_file(run_id, text)
        if self.client.search_registered_models(f"name = '{about.name}'") == []:
            self.client.create_registered_model(about.name)
        registered = self.client.create_model_version(
            about.name,
            source=f"models:/{info.model_id}",
            run_id=run_id,
            tags={"weights_sha256": about.weights_sha256, "manifest_sha256": about.manifest_sha256, **about.tags},
            description=about.text,
            model_id=info.model_id,
        )
        return Version(about.name, str(registered.version), about.weights_sha256, about.manifest_sha256, run_id, ())

    def download(self, version: Version) -> Path:
        """The package of ``version`` as a local folder; fetched once.

        Raises:
            PackageError: the registry has the version, but its artifacts cannot be fetched.
        """
        target = self.fetched / f"{version.name}-v{version.version}-{version.weights_sha256[:12]}"
        uri = f"models:/{version.name}/{version.version}"
        if not target.exists():
            try:
                with replacing_folder(target) as part:
                    mlflow.artifacts.download_artifacts(artifact_uri=uri, tracking_uri=self.uri, dst_path=str(part))
                    if not list(part.rglob("card.json")):  # MLflow finds nothing without a word
                        raise OSError("there is no card.json among them")
            except (MlflowException, OSError) as error:
                raise PackageError(f"{uri}: the registry at {self.uri} does not give its files: {error}") from error
        return next(target.rglob("card.json")).parent

    def _experiment(self) -> str:
        experiment = self.client.get_experiment_by_name(self.experiment)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = None if self.artifacts is None else self.artifacts.resolve().as_uri()
        return str(self.client.create_experiment(self.experiment, artifact_location=location))


def _segmentation(card: ModelCard) -> Packaged:
    tags = {"commit": card.commit, "synthetic": str(card.synthetic).lower()}
    digests = card.weights_sha256, card.manifest_sha256
    return Packaged(card.name, *digests, tags, card_text(card), SERVING_CODE, "uint8")


def _signature(output: str) -> ModelSignature:
    image = TensorSpec(np.dtype(np.float32), (-1, -1, -1))
    return ModelSignature(Schema([image]), Schema([TensorSpec(np.dtype(output), (-1, -1, -1))]))


def _flat(parameters: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
