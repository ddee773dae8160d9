"""What ``cxr suppress`` writes for an input, on a real model folder (untrained: ribs are given); what it refuses."""

import json

import cv2
import numpy as np
import pytest

from cxr_models.package import save_package
from cxr_models.segmentation import SegmentationConfig, build_network
from cxr_models.suppression.suppressor import METHODS, BoneLayer
from data_catalog.preprocess import PreprocessConfig
from data_catalog.radiograph import Structure
from tasks.models import FoundModel
from tasks.predict import predict_all
from tasks.suppress import RibRemoval, sixteen_bit
from tasks.suppression_page import PAGE

SIZE = 160
WANTED = (Structure.LUNG, Structure.RIB)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """An untrained model of lungs and ribs."""
    folder = tmp_path_factory.mktemp("model") / "package"
    network = SegmentationConfig(structures=WANTED, channels=(4, 8))
    fields = {"name": "two", "manifest_sha256": "0" * 64, "test_rows": (), "commit": "", "seed": 0, "epochs": 0}
    fields |= {"input": PreprocessConfig(size=32), "network": network, "training": {}, "sources": ()}
    save_package(folder, build_network(network).state_dict(), fields)
    return dict.fromkeys(WANTED, FoundModel(folder, "two"))


@pytest.fixture
def chest(tmp_path, make_chest_image):
    """A chest of 8 bits with stripes over its lungs, and the image of their mask."""
    image, lung = make_chest_image(SIZE, 1)
    rib = lung & (np.mgrid[:SIZE, :SIZE][0] % 24 < 9)
    pixels = np.clip(image.astype(int) + 30 * rib, 0, 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "chest.png"), pixels)
    cv2.imwrite(str(tmp_path / "ribs.png"), rib.astype(np.uint8) * 255)
    return tmp_path / "chest.png", tmp_path / "ribs.png", pixels, rib


class Unsure:
    """A method that takes 0.05 off the ribs, and is the less sure of it the further right."""

    name = "unsure"

    def __call__(self, pixels, rib, lung):
        ramp = np.linspace(0, 0.3, rib.shape[1], dtype=np.float32)
        return BoneLayer(np.where(rib, np.float32(0.05), np.float32(0)), np.tile(ramp, (rib.shape[0], 1)))


def run(models, path, out, mask=None, method=METHODS["classical"]):
    removal = RibRemoval(method, mask)
    return predict_all([path], out, models, WANTED, sixteen_bit=False, removal=removal)[0]


def test_both_images_have_sixteen_bits_and_add_up_to_the_radiograph(models, chest, tmp_path):
    path, mask, pixels, rib = chest
    result = run(models, path, tmp_path / "out", mask)
    assert (result.status, result.folder) == ("done", "chest")
    folder = tmp_path / "out/chest"
    soft, bone = (cv2.imread(str(folder / f"{name}.png"), cv2.IMREAD_UNCHANGED) for name in ("soft_tissue", "bone"))
    assert soft.dtype == bone.dtype == np.uint16
    np.testing.assert_allclose(soft.astype(int) + bone, pixels.astype(int) * 257, atol=1)
    far = cv2.dilate(rib.astype(np.uint8), np.ones((5, 5))) == 0
    np.testing.assert_array_equal(soft[far], pixels[far].astype(np.uint16) * 257)
    inner = rib & (cv2.erode(rib.astype(np.uint8), np.ones((3, 3))) > 0)
    assert 15 < np.median(bone[inner]) / 257 < 45
    record = json.loads((folder / "result.json").read_text())["suppression"]
    assert record["method"] == "classical"
    assert 0 < record["changed_share"] < 0.4
    assert cv2.imread(str(folder / "before_after.png")).shape[1] == 2 * SIZE + 4


def test_how_unsure_a_method_is_converts_back_to_grey_levels(models, chest, tmp_path):
    run(models, chest[0], tmp_path / "out", chest[1], Unsure())
    folder, rib = tmp_path / "out/chest", chest[3]
    stored = cv2.imread(str(folder / "uncertainty.png"), cv2.IMREAD_UNCHANGED)
    assert (stored.dtype, stored.shape) == (np.uint16, rib.shape)
    record = json.loads((folder / "result.json").read_text())["suppression"]
    ramp = np.tile(np.linspace(0, 0.3, SIZE), (SIZE, 1))
    read = stored / 65535 * record["uncertainty_white"]
    np.testing.assert_allclose(read[rib], np.minimum(ramp, 0.25)[rib], atol=0.25 / 65535)  # 0.25 is white
    assert not stored[cv2.dilate(rib.astype(np.uint8), np.ones((5, 5))) == 0].any()
    assert record["uncertainty_max"] == pytest.approx(ramp[rib].max(), abs=1e-5)  # also where white cannot tell
    assert 0.8 * ramp[rib].mean() < record["uncertainty_mean"] < ramp[rib].mean()  # the band's feathered border counts


def test_of_an_earlier_method_nothing_is_left(models, chest, tmp_path):
    run(models, chest[0], tmp_path / "out", chest[1], Unsure())
    page = tmp_path / "out" / PAGE
    assert "shown 8 times as bright" in page.read_text()
    assert (tmp_path / "out/chest/page/uncertainty.jpg").is_file()
    run(models, chest[0], tmp_path / "out", chest[1])
    assert not list((tmp_path / "out").rglob("uncertainty.*"))
    record = json.loads((tmp_path / "out/chest/result.json").read_text())["suppression"]
    assert not [name for name in record if "uncertainty" in name]
    assert "shown 8 times as bright" not in page.read_text()
    predict_all([chest[0]], tmp_path / "out", models, WANTED, sixteen_bit=False)  # its ribs stay now
    assert not page.exists()


def test_an_input_named_like_the_page_does_not_take_its_place(models, chest, tmp_path):
    path = tmp_path / f"{PAGE}.png"
    path.write_bytes(chest[0].read_bytes())
    assert run(models, path, tmp_path / "out", chest[1]).folder == f"{PAGE}-2"
    assert f"./{PAGE}-2/soft_tissue.png" in (tmp_path / "out" / PAGE).read_text()


def test_nothing_of_it_is_written_where_nobody_asked(models, chest, tmp_path):
    predict_all([chest[0]], tmp_path / "out", models, WANTED, sixteen_bit=False)
    assert not (tmp_path / "out/chest/soft_tissue.png").exists()
    assert not (tmp_path / "out" / PAGE).exists()
    assert "suppression" not in json.loads((tmp_path / "out/chest/result.json").read_text())


@pytest.mark.parametrize("level", [0, 255])
def test_a_mask_of_nothing_or_of_everything_is_a_row_with_its_reason(models, chest, tmp_path, level):
    cv2.imwrite(str(tmp_path / "bad.png"), np.full((SIZE, SIZE), level, np.uint8))
    result = run(models, chest[0], tmp_path / "out", tmp_path / "bad.png")
    assert (result.status, result.reason) == ("refused", "mask_invalid")
    assert ("empty" if level == 0 else "covers") in result.sentence
    assert not (tmp_path / "out/chest").exists()


def test_a_mask_of_another_size_says_both_sizes(models, chest, tmp_path):
    cv2.imwrite(str(tmp_path / "small.png"), cv2.imread(str(chest[1]), 0)[:100])
    result = run(models, chest[0], tmp_path / "out", tmp_path / "small.png")
    assert (result.status, result.reason) == ("refused", "mask_size_mismatch")
    assert "160 x 160 pixels, like its image, but it is 160 x 100" in result.sentence


def test_a_drawn_mask_may_have_soft_borders_and_leave_pixels_open(models, chest, tmp_path):
    drawn = cv2.GaussianBlur(chest[3].astype(np.uint8) * 255, (0, 0), 0.6)
    assert 0.02 < ((drawn > 24) & (drawn < 103)).mean() < 0.2
    drawn[: SIZE // 2] = np.minimum(drawn[: SIZE // 2], 127)
    cv2.imwrite(str(tmp_path / "soft.png"), drawn)
    assert run(models, chest[0], tmp_path / "out", tmp_path / "soft.png", Unsure()).status == "done"
    bone = cv2.imread(str(tmp_path / "out/chest/bone.png"), cv2.IMREAD_UNCHANGED) > 0
    assert not bone[: SIZE // 2 - 2].any()
    inner = cv2.erode(chest[3].astype(np.uint8), np.ones((3, 3))) > 0
    assert bone[SIZE // 2 :][inner[SIZE // 2 :]].all()


def test_a_radiograph_in_place_of_a_mask_is_refused(models, chest, tmp_path):
    result = run(models, chest[0], tmp_path / "out", chest[0])
    assert (result.status, result.reason) == ("refused", "mask_invalid")
    assert "of the pixels hold others" in result.sentence


def test_sixteen_bits_hold_every_level_of_eight():
    levels = np.arange(256, dtype=np.float32).reshape(16, 16) / np.float32(255)
    np.testing.assert_array_equal(sixteen_bit(levels), np.arange(256).reshape(16, 16) * 257)
    deep = np.arange(65536, dtype=np.float32).reshape(256, 256) / np.float32(65535)
    np.testing.assert_array_equal(sixteen_bit(deep), np.arange(65536).reshape(256, 256))


def test_a_record_says_with_which_checkpoint_and_seed_an_image_was_made(models, chest, tmp_path):
    about = {"inpainter": "folder", "inpainter_sha256": "0" * 64, "samples": 4, "seed": 7}
    removal = RibRemoval(Unsure(), chest[1], about)
    predict_all([chest[0]], tmp_path / "out", models, WANTED, sixteen_bit=False, removal=removal)
    record = json.loads((tmp_path / "out/chest/result.json").read_text())["suppression"]
    assert about.items() <= record.items()
    assert record["method"] == "unsure"
