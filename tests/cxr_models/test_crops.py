"""Crops: parts of the image where asked for, with nodules that the labels know of."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK
import torch

from cxr_models.crops import CropConfig, digest, draws
from cxr_models.losses import head_loss
from cxr_models.simulate.implant import ImplantConfig
from cxr_models.training_data import TrainingData
from data_catalog.preprocess import IGNORE, PreprocessConfig, encode_labels
from data_catalog.radiograph import MaskSet, Structure
from data_catalog.shards import Shard

BOTH = (Structure.LUNG, Structure.NODULE)
SIDE = 160


@pytest.fixture
def data() -> TrainingData:
    """Two images whose grey levels say where each pixel is, with lungs, and nodules that nobody looked for."""
    rng = np.random.default_rng(0)
    places = np.arange(SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE) / (SIDE * SIDE)
    images = np.stack([places * 0.5 + 0.2, 0.5 + 0.05 * rng.random((SIDE, SIDE), dtype=np.float32)])
    labels = np.full((2, 2, SIDE, SIDE), IGNORE, np.uint8)
    labels[:, 0] = 0
    labels[:, 0, 30:130, 20:70] = labels[:, 0, 30:130, 90:140] = 1
    samples = [SimpleNamespace(sample_id=f"sample-{i}") for i in range(2)]
    shard = Shard(images.astype(np.float32), labels, samples)
    return TrainingData([shard], [(0, 0), (0, 1)], [(0, 1)], "d" * 64, PreprocessConfig(size=SIDE))


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """Round nodules of 14 patients, 12 mm wide."""
    folder = tmp_path_factory.mktemp("patches")
    z, y, x = np.mgrid[:50, :50, :50] - 25
    ball = (z**2 + y**2 + x**2) < 36
    hu = np.where(ball, 40, -800).astype(np.int16)
    for number in range(14):
        for kind, volume in (("dcm", hu), ("seg", ball.astype(np.uint8))):
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(volume), str(folder / f"1.2.{number}_{kind}_0.mha"))
    return folder


def batch(data, config, rows, seed=0, structures=BOTH):
    draw, _ = draws(config, structures)
    return draw(data, rows, torch.Generator().manual_seed(seed))


def test_a_crop_is_a_part_of_the_image_with_its_labels(data):
    images, labels = batch(data, CropConfig(side=64), [(0, 0)] * 6)
    assert images.shape == (6, 1, 64, 64)
    assert labels.shape == (6, 2, 64, 64)
    for image, planes in zip(images[:, 0].numpy(), labels.numpy(), strict=True):
        place = round(float((image[0, 0] - 0.2) / 0.5 * SIDE * SIDE))
        row, column = divmod(place, SIDE)
        np.testing.assert_array_equal(image, data.shards[0].images[0][row : row + 64, column : column + 64])
        np.testing.assert_array_equal(planes, data.shards[0].labels[0][:, row : row + 64, column : column + 64])


def test_crops_favour_lungs_and_annotated_nodules(data):
    config = CropConfig(side=32, on_lung=1.0, on_nodule=0.0)
    _, labels = batch(data, config, [(0, 0)] * 40)
    assert (labels[:, 0] == 1).flatten(1).any(1).all()
    data.shards[0].labels[0, 1] = 0
    data.shards[0].labels[0, 1, 5:9, 5:9] = 1
    _, labels = batch(data, CropConfig(side=32, on_nodule=1.0), [(0, 0)] * 40)
    assert (labels[:, 1] == 1).flatten(1).any(1).all()


def test_nodules_are_set_in_where_the_labels_say(data, patches):
    config = CropConfig(side=96, implant=ImplantConfig(patches=str(patches), none=0.0, distractors=0.0))
    images, labels = batch(data, config, [(0, 1)] * 8)
    nodule = labels[:, 1] == 1
    assert nodule.flatten(1).any(1).float().mean() > 0.7
    assert (labels[:, 1] != IGNORE).all()  # where nobody looked, background is none
    assert (labels[:, 0][nodule] == 1).all()
    brighter = images[:, 0][nodule].mean() - images[:, 0][(labels[:, 0] == 1) & ~nodule].mean()
    assert brighter > 0.003


def test_a_radiograph_that_is_not_square_knows_no_nodules_until_some_are_set_in(patches):
    lung = np.zeros((SIDE, SIDE // 2), bool)
    lung[20:140, 10:70] = True
    planes = encode_labels(MaskSet({Structure.LUNG: lung}), BOTH, SIDE)
    shard = Shard(np.full((1, SIDE, SIDE), 0.4, np.float32), planes[None], [SimpleNamespace(sample_id="tall")])
    data = TrainingData([shard], [(0, 0)], [(0, 0)], "d" * 64, PreprocessConfig(size=SIDE))
    _, plain = batch(data, CropConfig(), [(0, 0)])
    assert (plain[:, 1] == IGNORE).all()
    nobody = head_loss(torch.zeros(1, 1), "present", plain, torch.zeros(1, dtype=torch.int64), torch.zeros(1))
    assert nobody == 0
    config = CropConfig(implant=ImplantConfig(patches=str(patches), none=0.0, distractors=0.0))
    _, labels = batch(data, config, [(0, 0)] * 4)
    assert set(labels[:, 1].unique().tolist()) == {0, 1}


def test_one_seed_gives_one_batch_and_the_next_another(data, patches):
    config = CropConfig(side=96, implant=ImplantConfig(patches=str(patches)))
    first, again, other = (batch(data, config, [(0, 0), (0, 1)], seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_validation_sees_whole_images_with_the_same_nodules_every_time(data, patches):
    data = replace(data, val=[(0, 0), (0, 1)])  # half of the images get nodules, by their name: here the first does
    _, held_back = draws(CropConfig(side=96, implant=ImplantConfig(patches=str(patches))), BOTH)
    seen = [held_back(data, data.val, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    assert seen[0][0].shape == (2, 1, SIDE, SIDE)
    assert torch.equal(seen[0][0], seen[1][0])
    assert torch.equal(seen[0][1], seen[1][1])
    labels = seen[0][1]
    assert (labels[:, 1] == 1).flatten(1).any(1).tolist() == [True, False]
    assert (labels[:, 0][labels[:, 1] == 1] == 1).all()
    assert not torch.equal(seen[0][0], data.whole(data.val)[0])


def test_nodules_need_their_channels(patches):
    with pytest.raises(ValueError, match="to have lung and nodule"):
        draws(CropConfig(implant=ImplantConfig(patches=str(patches))), (Structure.LUNG,))


def test_the_digest_knows_the_nodules_but_not_where_they_lie(patches, tmp_path):
    def of(folder, **changes):
        config = CropConfig(side=64, implant=ImplantConfig(patches=str(folder), turns=1, **changes))
        return digest(config, draws(config, BOTH))

    moved = tmp_path / "moved"
    moved.mkdir()
    for path in patches.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    assert of(patches) == of(moved)
    assert of(patches) != of(patches, most=5)
