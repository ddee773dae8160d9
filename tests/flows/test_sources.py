"""The main job runs on every kind of source, from a small copy of its published layout to a registered model."""

import importlib
from pathlib import Path

import pytest

from cxr_models.assessment import AssessmentConfig
from cxr_models.segmentation import SegmentationConfig
from cxr_models.simulate.config import SimulationConfig
from data_catalog.manifest import read_manifest
from data_catalog.masks.files import is_annotated
from data_catalog.preprocess import PreprocessConfig
from data_catalog.shards import open_shard
from data_catalog.sources import SOURCES, SourceSpec
from flows.config import make_config

KINDS = sorted(set(SOURCES) - {"phantom"})


def example(kind: str, folder: Path) -> SourceSpec:
    images = 4 if SOURCES[kind].is_ct else 8
    module = importlib.import_module(f"data_catalog.examples.{kind.replace('-', '_')}")
    return SourceSpec(kind, str(module.build(folder, images, 0)))


def small(sources):
    """The demo's config on these sources, at a size and a number of epochs that say nothing about quality."""
    config = make_config(tuple(sources))
    structures = config.network.structures
    return config.model_copy(
        update={
            "preprocess": PreprocessConfig(size=64),
            "network": SegmentationConfig(structures=structures, channels=(8, 16, 32)),
            "train": config.train.model_copy(update={"epochs": 1, "batch_size": 4, "warmup_steps": 1}),
            "simulate": SimulationConfig(size=96, count=2),
            "assess": AssessmentConfig(samples=0),
        }
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_main_job_runs_on(kind, tmp_path, prefect_api):
    from flows.main_job import main_job

    sources = [example(kind, tmp_path / kind)]
    if kind == "dicom":  # its images bring no masks
        sources.append(example("pairs", tmp_path / "pairs"))
    config, home = small(sources), tmp_path / "home"

    summary = main_job(config, home, f"sqlite:///{home}/mlflow.db")

    rows = read_manifest(Path(summary.folder) / "manifest.parquet")
    assert {row.source for row in rows} == {source.kind for source in sources}
    assert {"train", "test"} <= {row.split for row in rows} <= {"train", "val", "test"}
    assert any(is_annotated(row, config.network.structures) for row in rows if row.source == sources[-1].kind)
    assert all(Path(row.dicom_path or "").is_file() for row in rows)
    shards = [open_shard(path.parent) for path in home.glob("store/shards/*/images.npy")]
    assert sum(len(shard.samples) for shard in shards) >= len(rows)  # some are refused when they are split
    assert any((shard.labels == 1).any() for shard in shards)
    assert summary.version == "1"
    assert 0 <= summary.dice <= 1
    assert Path(summary.report).is_file()
