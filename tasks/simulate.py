"""Simulate: radiographs of every CT, and their rows beside those of the images that were ingested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import task

from cxr_models.simulate.config import SimulationConfig
from cxr_models.simulate.folder import REJECTED, ROWS, simulate_case
from data_catalog.ct.case import CtCase
from data_catalog.manifest import read_manifest, write_manifest
from data_catalog.refusals import read_rejected, write_rejected
from tasks.caching import BY_KEY
from tasks.progress import sink
from tasks.records import Ingested, SimulatedCt


@task(name="simulate-ct", cache_policy=BY_KEY, persist_result=True)
def simulate_ct(key: str, case: CtCase, config: SimulationConfig, out: Path) -> SimulatedCt:
    """Simulate radiographs of one CT into ``out``; a CT that cannot be used is recorded there."""
    sink().start("simulate", config.count)
    made = simulate_case(case, config, out, on_radiograph=lambda: sink().advance("simulate"))
    return SimulatedCt(folder=str(out), key=key, images=len(made.samples), refused=len(made.rejected))


@task(name="merge-simulated")
def merge_simulated(ingested: Ingested, simulated: Sequence[SimulatedCt], folder: Path) -> Ingested:
    """The manifest of what was ingested with the rows of the simulated radiographs behind it.

    Args:
        ingested: images and refusals.
        simulated: one per CT.
        folder: of the run; both tables are written into it.
    """
    samples = read_manifest(Path(ingested.manifest))
    rejected = read_rejected(Path(ingested.rejected))
    for ct in simulated:
        samples += read_manifest(Path(ct.folder) / ROWS)
        rejected += read_rejected(Path(ct.folder) / REJECTED)
    rejected = list(dict.fromkeys(rejected))
    write_manifest(samples, folder / "ingested-and-simulated.parquet")
    write_rejected(rejected, folder / "ingest-and-simulate-rejected.parquet")
    sink().finish("simulate", f"{sum(ct.images for ct in simulated)} radiographs of {len(simulated)} CTs")
    return ingested.model_copy(
        update={
            "manifest": str(folder / "ingested-and-simulated.parquet"),
            "rejected": str(folder / "ingest-and-simulate-rejected.parquet"),
            "images": len(samples),
            "refused": len(rejected),
        }
    )
