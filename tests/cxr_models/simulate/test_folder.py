"""Radiographs on disk: rows that read back, a seed that decides, refusals, and a folder that appears as a whole."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from cxr_models.simulate import folder as folder_module
from cxr_models.simulate.config import SimulationConfig
from cxr_models.simulate.folder import case_key, simulate_case, simulate_folder
from cxr_models.simulate.variation import VariationConfig
from data_catalog.ct.case import CtCase
from data_catalog.digest import file_digest
from data_catalog.examples import ct_labels
from data_catalog.manifest import read_manifest
from data_catalog.masks.files import read_masks
from data_catalog.radiograph import Structure
from data_catalog.reading import read_radiograph
from data_catalog.refusals import Reason
from data_catalog.source import ScanContext
from data_catalog.sources import SOURCES
from data_catalog.vocabulary import Convention

CONFIG = SimulationConfig(count=2, size=96)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = ct_labels.build(tmp_path_factory.mktemp("ct") / "data", 3)
    found = list(SOURCES["ct-labels"].scan(folder, ScanContext(folder.parent / "work")))
    assert all(isinstance(item, CtCase) for item in found)
    return found


@pytest.fixture(scope="module")
def made(cases, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "out"
    return out, simulate_case(cases[0], CONFIG, out)


def test_rows_name_files_that_read_back(cases, made):
    out, case = made
    assert not case.rejected
    assert read_manifest(out / "rows.parquet") == list(case.samples)
    for sample in case.samples:
        assert sample.source == "ct-labels"
        assert sample.patient_id == cases[0].patient_id
        assert file_digest(out / "images" / sample.image_path.rpartition("/")[2]) == sample.image_sha256
        assert all(file_digest(out.joinpath(mask.path)) == mask.sha256 for mask in sample.masks)
        assert {mask.convention for mask in sample.masks} == {Convention.PROJECTION}
        assert {mask.part for mask in sample.masks_of(Structure.LUNG)} == {"left", "right"}
        radiograph = read_radiograph(
            out.joinpath(sample.image_path), image_format="simulated", acquisition=sample.acquisition
        )
        assert radiograph.shape == (96, 96)
        assert radiograph.view == "PA"
        assert radiograph.spacing.row > 0
        masks = read_masks(sample.with_(height=96, width=96))
        assert masks.masks[Structure.LUNG].mean() > 0.1
        assert sample.lesions is None  # nobody looked
        assert cv2.imread(sample.soft_tissue_path, cv2.IMREAD_UNCHANGED).dtype == np.uint16
        assert json.loads(sample.acquisition)["bits_stored"] == 12


def test_a_seed_decides_every_byte_and_count_does_not(cases, made, tmp_path):
    again = simulate_case(cases[0], CONFIG.model_copy(update={"count": 1}), tmp_path / "a").samples
    assert again[0].image_sha256 == made[1].samples[0].image_sha256
    assert [m.sha256 for m in again[0].masks] == [m.sha256 for m in made[1].samples[0].masks]
    other = simulate_case(cases[0], CONFIG.model_copy(update={"seed": 1, "count": 1}), tmp_path / "b").samples
    assert other[0].image_sha256 != again[0].image_sha256
    assert made[1].samples[0].image_sha256 != made[1].samples[1].image_sha256
    keys = {case_key(case, config) for case in cases for config in (CONFIG, CONFIG.model_copy(update={"seed": 1}))}
    assert len(keys) == 6


def test_radiographs_are_spread_over_bodies_and_count_does_not_matter(cases, made, tmp_path):
    variation = VariationConfig(width=(0.8, 1.2), lung_density=(0.7, 1.6))
    config = SimulationConfig(count=5, bodies=2, size=64, variation=variation, rotation_deg=0, shift_mm=0, field=(1, 1))
    seen = []
    five = simulate_case(cases[0], config, tmp_path / "five", lambda: seen.append(1)).samples
    assert len(five) == len(seen) == 5
    assert [Path(sample.image_path).stem[-4:] for sample in five] == ["0000", "0001", "0002", "0003", "0004"]
    four = simulate_case(cases[0], config.model_copy(update={"count": 4}), tmp_path / "four").samples
    assert [sample.image_sha256 for sample in four] == [sample.image_sha256 for sample in five[:4]]
    # one geometry and no turn: the lungs of a body are the same in all of its radiographs
    lungs = [[mask.sha256 for mask in sample.masks if mask.structure is Structure.LUNG] for sample in five]
    widths = [np.ptp(np.nonzero(read_masks(s.with_(height=64, width=64)).masks[Structure.LUNG])[1]) for s in five]
    assert widths[0] == pytest.approx(widths[2], abs=1)
    assert widths[0] == pytest.approx(widths[4], abs=1)
    assert widths[1] == pytest.approx(widths[3], abs=1)
    assert lungs[0] != lungs[1]
    assert len({sample.image_sha256 for sample in five}) == 5
    assert {sample.patient_id for sample in five} == {cases[0].patient_id}
    assert case_key(cases[0], config) != case_key(cases[0], config.model_copy(update={"bodies": 3}))
    wider = config.model_copy(update={"variation": variation.model_copy(update={"bend_mm": 5.0})})
    assert case_key(cases[0], config) != case_key(cases[0], wider)


def test_bodies_and_variation_go_together():
    with pytest.raises(ValidationError, match="together"):
        SimulationConfig(bodies=2)
    with pytest.raises(ValidationError, match="together"):
        SimulationConfig(variation=VariationConfig(bend_mm=5))


def test_a_ct_that_cannot_be_read_is_refused_and_the_others_go_on(cases, tmp_path):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no volume")
    bad = cases[0].model_copy(update={"image_paths": (str(broken),), "sha256": "0" * 64, "case_id": "bad"})
    seen = []
    result = simulate_folder(
        [bad, cases[1]], CONFIG.model_copy(update={"count": 1}), tmp_path / "out", (), lambda: seen.append(1)
    )
    assert len(result.samples) == 1
    assert len(result.rejected) == 1
    assert str(broken) in result.rejected[0].path
    assert read_manifest(tmp_path / "out" / "manifest.parquet") == list(result.samples)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.nii.gz", "out"]
    assert seen == [1]


@pytest.mark.parametrize("error", [ValueError("shapes differ"), IndexError("7"), ZeroDivisionError("no width")])
def test_an_error_that_nobody_foresaw_refuses_one_ct(cases, tmp_path, monkeypatch, error):
    calls = []

    def failing(thorax, *rest):
        calls.append(thorax)
        if len(calls) == 2:  # the second radiograph of the first CT
            raise error
        return real(thorax, *rest)

    real = folder_module.simulate
    monkeypatch.setattr(folder_module, "simulate", failing)
    result = simulate_folder(cases[:2], CONFIG.model_copy(update={"size": 64}), tmp_path / "out")
    (row,) = result.rejected
    assert row.reason is Reason.UNDECODABLE
    assert row.path == cases[0].image_paths[0]
    assert f"{type(error).__name__}: {error}" in row.sentence
    assert {sample.patient_id for sample in result.samples} == {cases[1].patient_id}
    assert len(list((tmp_path / "out" / "images").iterdir())) == len(result.samples) == 2


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device")])
def test_errors_of_the_machine_end_the_run(cases, tmp_path, monkeypatch, error):
    def failing(*_):
        raise error

    monkeypatch.setattr(folder_module, "simulate", failing)
    with pytest.raises(type(error)):
        simulate_folder(cases[:2], CONFIG, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_refused_ct_leaves_no_radiographs(cases, tmp_path, monkeypatch):
    def failing(thorax, config, seed, patches):
        if seed[2] == 1:
            raise ValueError("shapes differ")
        return real(thorax, config, seed, patches)

    real = folder_module.simulate
    monkeypatch.setattr(folder_module, "simulate", failing)
    simulate_case(cases[0], CONFIG.model_copy(update={"size": 64}), tmp_path / "case")
    assert sorted(path.name for path in (tmp_path / "case").iterdir()) == ["rejected.parquet", "rows.parquet"]


def test_a_device_that_is_not_there_is_no_refusal(cases, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="CUDA"):
        simulate_case(cases[0], CONFIG.model_copy(update={"device": "cuda"}), tmp_path / "case")


def test_a_killed_run_goes_on_where_it_stopped(cases, tmp_path, monkeypatch):
    from cxr_models.simulate import folder

    done = []

    def counted(case, *rest):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(case.case_id)
        return real(case, *rest)

    real = folder.simulate_case
    monkeypatch.setattr(folder, "simulate_case", counted)
    config = CONFIG.model_copy(update={"count": 1, "size": 64})
    with pytest.raises(KeyboardInterrupt):
        simulate_folder(cases[:2], config, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(folder, "simulate_case", lambda case, *rest: (done.append(case.case_id), real(case, *rest))[1])
    result = simulate_folder(cases[:2], config, tmp_path / "out")
    assert done == [cases[0].case_id, cases[1].case_id]
    assert len(result.samples) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"voxels": 3},
        {"veil": (0, 2)},
        {"tones": ("film",)},
        {"unsharp": (-1, 1)},
        {"kvp": (120, 100)},
        {"size": 65},
        {"views": ()},
        {"scatter": (0, 1)},
        {"mas": (0, 1)},
    ],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        SimulationConfig(**wrong)


@pytest.mark.shared_data
def test_the_real_ct_has_its_ribs_and_lungs_where_they_belong(shared_data, tmp_path):
    (case,) = [
        item
        for item in SOURCES["ct-labels"].scan(shared_data / "ct-chest", ScanContext(tmp_path / "work"))
        if isinstance(item, CtCase)
    ]
    config = SimulationConfig(count=1, size=256, nodule_patches=str(shared_data / "ct-nodules"), seed=4)
    (sample,) = simulate_case(case, config, tmp_path / "out").samples
    ribs = {mask.part: cv2.imread(mask.path, cv2.IMREAD_GRAYSCALE) > 0 for mask in sample.masks_of(Structure.RIB)}
    assert len(ribs) == 24
    assert all(mask.sum() > 60 for mask in ribs.values())
    for part, mask in ribs.items():
        assert (np.nonzero(mask)[1].mean() > 128) == part.startswith("left"), part
    left, right = (
        next(cv2.imread(m.path, cv2.IMREAD_GRAYSCALE) > 0 for m in sample.masks_of(Structure.LUNG) if m.part == side)
        for side in ("left", "right")
    )
    assert np.nonzero(left)[1].mean() > 150 > 106 > np.nonzero(right)[1].mean()
    image = cv2.imread(sample.image_path, cv2.IMREAD_UNCHANGED).astype(float)
    lung = left | right
    heart = next(cv2.imread(m.path, cv2.IMREAD_GRAYSCALE) > 0 for m in sample.masks_of(Structure.HEART))
    assert image[lung & ~heart].mean() < 0.7 * image[heart].mean()
    assert 0.3 < lung.mean() < 0.6
    assert image.max() <= 4095
    assert np.percentile(image, 95) - np.percentile(image, 5) > 2000
