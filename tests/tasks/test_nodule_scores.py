"""Detection scores: nodules are set into held-back radiographs, each radiograph is seen with and without."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import SimpleITK

from cxr_models.detection import Candidate
from cxr_models.predictor import Prediction
from cxr_models.simulate.implant import ImplantConfig, Implanter
from data_catalog.digest import file_digest
from data_catalog.manifest import Lesion, MaskFile, Sample
from data_catalog.radiograph import MaskSet, Structure
from data_catalog.reading import read_radiograph
from data_catalog.vocabulary import Convention
from tasks.nodule_scores import REPEATS, headline, implanting, nodule_scores

SIZE = 256


class Finder:
    """Says where a radiograph differs from the plain one of its patient: a detector that is always right."""

    def __init__(self, plain: dict[str, np.ndarray], sharp: bool = True) -> None:
        self.plain, self.sharp = plain, sharp

    def predict(self, radiograph):
        change = np.abs(radiograph.pixels - self.plain[radiograph.sha256])
        mask = change > 0.5 * max(change.max(), 1e-6)
        candidates = ()
        if mask.any():
            row, column = (float(axis.mean()) for axis in np.nonzero(mask)) if self.sharp else (0.0, 0.0)
            candidates = (Candidate(0.9, row, column, 20.0),)
        masks = MaskSet({Structure.NODULE: mask})
        return Prediction(masks, {}, candidates=candidates, present=0.9 if candidates else 0.1)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patches")
    z, y, x = np.mgrid[:50, :50, :50] - 25
    ball = (z**2 + y**2 + x**2) < 81
    hu = np.where(ball, 60, -800).astype(np.int16)
    for number in range(14):
        for kind, volume in (("dcm", hu), ("seg", ball.astype(np.uint8))):
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(volume), str(folder / f"1.2.{number}_{kind}_0.mha"))
    return folder


@pytest.fixture
def samples(tmp_path, make_dicom, make_chest_image):
    made = []
    for number in range(3):
        image, lungs = make_chest_image(SIZE, number)
        path = make_dicom(tmp_path / f"{number}.dcm", image.astype(np.uint16) * 16)
        mask = tmp_path / f"{number}.png"
        cv2.imwrite(str(mask), lungs.astype(np.uint8) * 255)
        sha256 = file_digest(path)
        lung = MaskFile(Structure.LUNG, str(mask), file_digest(mask), Convention.V7)
        made.append(
            Sample(
                sample_id=sha256[:16],
                source="pairs",
                patient_id=f"pairs/{number}",
                image_path=str(path),
                image_sha256=sha256,
                image_format="dicom",
                licence="CC0",
                masks=(lung,),
                split="test",
                dicom_path=str(path),
                height=SIZE,
                width=SIZE,
            )
        )
    return made


@pytest.fixture
def plain(samples):
    images = [read_radiograph(Path(sample.dicom_path), image_format="dicom") for sample in samples]
    return {image.sha256: image.pixels for image in images}


def implanter_of(patches) -> Implanter:
    return Implanter.of_side(ImplantConfig(patches=str(patches), turns=2, most=1).as_measured(), "test")


def test_a_detector_that_is_right_scores_one_and_a_blind_one_nothing(samples, plain, patches):
    right = nodule_scores(Finder(plain), samples, implanter_of(patches))["implanted"]
    assert right["images"] == len(samples) * (1 + REPEATS)
    assert right["lesions"] == len(samples) * REPEATS
    assert right["auc"]["value"] == 1.0
    assert right["at_rate"]["1"]["value"] == 1.0
    blind = nodule_scores(Finder(plain, sharp=False), samples, implanter_of(patches))["implanted"]
    assert blind["at_rate"]["8"]["value"] == 0.0


def test_annotated_nodules_count_as_they_are(samples, plain, patches):
    lesion = Lesion("nodule", 100.0, 80.0, 20.0, 20.0, 12.0)
    rows = [samples[0].with_(lesions=(lesion,)), samples[1].with_(lesions=())]
    found = nodule_scores(Finder(plain), rows, implanter_of(patches))
    assert set(found) == {"annotated"}
    assert (found["annotated"]["images"], found["annotated"]["lesions"]) == (2, 1)


def test_without_patches_there_is_nothing_to_set_in(samples, plain):
    assert nodule_scores(Finder(plain), samples, None) == {}
    assert headline({}) == {}


def test_the_headline_prefers_annotated_nodules(samples, plain, patches):
    implanted = nodule_scores(Finder(plain), samples, implanter_of(patches))
    assert headline(implanted)["test_nodules"] == implanted["implanted"]["lesions"]
    assert headline(implanted)["test_nodule_auc"] == 1.0


def test_the_folder_that_the_model_was_trained_with_is_taken_where_it_is_there(patches, tmp_path):
    def card(structures, folder):
        training = {"crop": {"implant": {"patches": str(folder), "turns": 2}}}
        return SimpleNamespace(training=training, network=SimpleNamespace(structures=structures))

    both = (Structure.LUNG, Structure.NODULE)
    assert implanting(card(both, patches), "") is not None
    assert implanting(card(both, tmp_path / "gone"), "") is None
    assert implanting(card(both, tmp_path / "gone"), str(patches)) is not None
    assert implanting(card((Structure.LUNG,), patches), "") is None
