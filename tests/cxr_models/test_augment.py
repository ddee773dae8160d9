"""Augmentation: images and labels move together, and nothing happens when it is off."""

import pytest
import torch

from cxr_models.augment import AugmentConfig, augment

OFF = dict.fromkeys(AugmentConfig.model_fields, 0)


def batch(side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """A bright disc off centre, and its label."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    disc = ((y - side * 0.4) ** 2 + (x - side * 0.55) ** 2 < (side * 0.2) ** 2).float()
    images = disc[None, None].repeat(6, 1, 1, 1)
    return images, images.to(torch.uint8)


def run(**changes):
    result = augment(*batch(), AugmentConfig(**OFF | changes), torch.Generator().manual_seed(3))
    return result.images, result.labels


def test_all_off_changes_nothing():
    images, labels = run()
    torch.testing.assert_close(images, batch()[0], atol=1e-5, rtol=0)
    assert torch.equal(labels, batch()[1])


@pytest.mark.parametrize(
    "change",
    [{"rotation_deg": 30}, {"shift": 0.2}, {"scale": 0.3}, {"aspect": 0.2}, {"warp": 0.05}, {"flip": 1.0}],
    ids=lambda c: next(iter(c)),
)
def test_labels_move_with_the_image(change):
    images, labels = run(**change)
    assert not torch.equal(labels, batch()[1])
    agreement = ((images > 0.5) == (labels == 1)).float().mean()
    assert agreement > 0.99


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 1.0},
        {"contrast": 0.5},
        {"brightness": 0.2},
        {"noise": 0.1},
        {"shading": 0.2},
        {"blur": 1.0},
        {"invert": 1.0},
        {"curve": 1.0},
        {"patches": 1.0},
        {"lines": 1.0},
        {"text": 1.0},
        {"jpeg": 1.0},
    ],
    ids=lambda c: next(iter(c)),
)
def test_grey_levels_change_and_labels_do_not(change):
    grey = batch()[0] * 0.6 + 0.2
    result = augment(grey, batch()[1], AugmentConfig(**OFF | change), torch.Generator().manual_seed(3))
    images, labels = result.images, result.labels
    assert torch.equal(labels, batch()[1])
    assert not torch.allclose(images, grey, atol=1e-3)
    assert images.min() >= 0
    assert images.max() <= 1


def test_a_full_flip_is_a_mirror():
    images, labels = run(flip=1.0)
    torch.testing.assert_close(images, batch()[0].flip(3), atol=1e-5, rtol=0)
    assert torch.equal(labels, batch()[1].flip(3))


def test_the_ignore_value_survives():
    labels = torch.zeros((6, 1, 64, 64), dtype=torch.uint8)
    labels[:, :, 16:48, 16:48] = 255
    moved = augment(batch()[0], labels, AugmentConfig(), torch.Generator().manual_seed(0)).labels
    assert set(moved.unique().tolist()) == {0, 255}


def test_planes_that_nobody_looked_at_stay_so_where_the_image_moves_away():
    labels = batch()[1].repeat(1, 2, 1, 1)
    labels[:, 1] = 255
    config = AugmentConfig(**OFF | {"shift": 0.3, "rotation_deg": 40, "turn": 1.0})
    moved = augment(batch()[0], labels, config, torch.Generator().manual_seed(0)).labels
    assert (moved[:, 1] == 255).all()
    assert set(moved[:, 0].unique().tolist()) == {0, 1}


def test_one_seed_gives_one_batch():
    first = augment(*batch(), AugmentConfig(), torch.Generator().manual_seed(5))
    again = augment(*batch(), AugmentConfig(), torch.Generator().manual_seed(5))
    other = augment(*batch(), AugmentConfig(), torch.Generator().manual_seed(6))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_turns_and_reversals_are_told():
    images, labels = batch()
    images = images * 0.6 + 0.2
    config = AugmentConfig(**OFF | {"turn": 0.7, "invert": 0.5})
    result = augment(images, labels, config, torch.Generator().manual_seed(1))
    assert len(set(result.turns.tolist())) > 1
    assert 0 < int(result.reversed_.sum()) < len(images)
    for index, (turn, reversed_) in enumerate(zip(result.turns.tolist(), result.reversed_.tolist(), strict=True)):
        expected = torch.rot90(images[index], turn, (1, 2))
        torch.testing.assert_close(result.images[index], 1 - expected if reversed_ else expected, atol=1e-5, rtol=0)
        assert torch.equal(result.labels[index], torch.rot90(labels[index], turn, (1, 2)))


def test_letterbox_bars_stay_dark_where_grey_levels_are_reversed():
    """As in `cxr predict`, which reverses the radiograph before it is put on its grid."""
    shown = 0.1 + 0.8 * torch.rand(3, 1, 64, 40, generator=torch.Generator().manual_seed(0))
    shown[:, :, 20:30, 10:20] = 0  # black inside of the image is no bar
    images = torch.nn.functional.pad(shown, (12, 12))
    expected = torch.nn.functional.pad(1 - shown, (12, 12))
    for turned, wanted in ((images, expected), (images.mT, expected.mT)):
        labels = torch.zeros(3, 1, 64, 64, dtype=torch.uint8)
        result = augment(turned, labels, AugmentConfig(**OFF | {"invert": 1.0}), torch.Generator().manual_seed(0))
        torch.testing.assert_close(result.images, wanted, atol=1e-5, rtol=0)
        assert result.reversed_.all()


def test_display_curves_keep_the_order_of_grey_levels():
    ramp = torch.linspace(0, 1, 64).repeat(4, 1, 64, 1)
    config = AugmentConfig(**OFF | {"curve": 0.6})
    result = augment(ramp, torch.zeros(4, 1, 64, 64, dtype=torch.uint8), config, torch.Generator().manual_seed(0))
    assert (result.images.diff(dim=3) >= -1e-6).all()
    assert not torch.allclose(result.images, ramp, atol=0.02)


def test_clouds_lie_over_the_structure_only_brighten_and_leave_its_label():
    grey = 0.2 + 0.6 * (1 - batch()[0])  # a dark disc in bright surroundings
    config = AugmentConfig(**OFF | {"opacity": 1.0})
    result = augment(grey, batch()[1], config, torch.Generator().manual_seed(0))
    plain = augment(grey, batch()[1], AugmentConfig(**OFF), torch.Generator().manual_seed(0))
    change = result.images - plain.images
    assert (change >= -1e-6).all()
    inside = batch()[1] == 1
    assert (change[inside] > 0.05).float().mean() > 0.2
    assert change[~inside].abs().mean() < 0.02
    assert torch.equal(result.labels, batch()[1])
