"""Losses: right values, and no gradient where nobody is sure."""

import pytest
import torch
from monai.losses import FocalLoss

from cxr_models.losses import FOCUS, TVERSKY, head_loss, segmentation_loss
from data_catalog.preprocess import IGNORE

NAMES = ["bce", "dice", "dice_ce", "batch_dice_ce", "focal", "tversky"]


def labels_like(logits: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 2, logits.shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_answer_costs_almost_nothing_and_its_opposite_a_lot(name):
    labels = labels_like(torch.zeros(2, 1, 16, 16))
    right = (labels.float() * 2 - 1) * 30
    assert segmentation_loss(right, labels, name) < 0.01
    assert segmentation_loss(-right, labels, name) > 0.9


def test_the_sum_is_the_sum():
    logits = torch.randn(2, 2, 8, 8)
    labels = labels_like(logits)
    parts = segmentation_loss(logits, labels, "bce") + segmentation_loss(logits, labels, "dice")
    torch.testing.assert_close(segmentation_loss(logits, labels, "dice_ce"), parts)


def test_dice_agrees_with_its_formula():
    logits = torch.randn(1, 1, 8, 8)
    labels = labels_like(logits)
    p, t = torch.sigmoid(logits), labels.float()
    expected = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    torch.testing.assert_close(segmentation_loss(logits, labels, "dice"), expected)


@pytest.mark.parametrize("name", NAMES)
def test_unsure_pixels_have_no_value_and_no_gradient(name):
    logits = torch.randn(2, 1, 8, 8, requires_grad=True)
    labels = labels_like(logits)
    labels[:, :, :4] = IGNORE
    loss = segmentation_loss(logits, labels, name)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[:, :, :4] == 0).all()
    assert (logits.grad[:, :, 4:] != 0).any()
    changed = logits.detach().clone()
    changed[:, :, :4] += 5
    torch.testing.assert_close(segmentation_loss(changed, labels, name), loss.detach())


@pytest.mark.parametrize("name", NAMES)
def test_all_unsure_is_finite(name):
    labels = torch.full((1, 1, 8, 8), IGNORE, dtype=torch.uint8)
    assert torch.isfinite(segmentation_loss(torch.randn(1, 1, 8, 8), labels, name))


def test_shapes_that_differ_are_an_error():
    with pytest.raises(ValueError, match="logits' shape"):
        segmentation_loss(torch.zeros(1, 1, 8, 8), torch.zeros(1, 2, 8, 8, dtype=torch.uint8), "bce")


def test_focal_agrees_with_monai():
    logits = torch.randn(2, 2, 8, 8)
    labels = labels_like(logits)
    theirs = FocalLoss(gamma=FOCUS, use_softmax=False)(logits, labels.float())
    torch.testing.assert_close(segmentation_loss(logits, labels, "focal"), theirs)


def test_tversky_agrees_with_its_formula_and_misses_cost_more():
    logits = torch.randn(1, 1, 8, 8)
    labels = labels_like(logits)
    p, t = torch.sigmoid(logits), labels.float()
    both, over, under = (p * t).sum(), (p * (1 - t)).sum(), ((1 - p) * t).sum()
    expected = 1 - (both + 1) / (both + TVERSKY[0] * over + TVERSKY[1] * under + 1)
    torch.testing.assert_close(segmentation_loss(logits, labels, "tversky"), expected)
    assert TVERSKY[1] > TVERSKY[0]


def poses(batch: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(batch) % 4, torch.arange(batch) % 2 == 1


def test_the_head_is_right_about_pose():
    turns, reversed_ = poses()
    outputs = torch.cat([torch.nn.functional.one_hot(turns, 4) * 40.0, (reversed_.float() * 80 - 40)[:, None]], 1)
    labels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    assert head_loss(outputs, "pose", labels, turns, reversed_) < 0.01
    assert head_loss(-outputs, "pose", labels, turns, reversed_) > 10


def test_the_head_is_right_about_presence_and_unsure_images_do_not_count():
    labels = torch.zeros(3, 2, 8, 8, dtype=torch.uint8)
    labels[0, 1, 2, 3] = 1
    labels[2, 1] = IGNORE
    right = torch.tensor([[20.0], [-20.0], [5.0]])
    assert head_loss(right, "present", labels, *poses(3)) < 0.01
    assert head_loss(-right, "present", labels, *poses(3)) > 10
    assert head_loss(torch.zeros(3, 0), "none", labels, *poses(3)) == 0


def test_over_a_batch_empty_images_do_not_drown_a_nodule():
    labels = torch.zeros(8, 1, 16, 16, dtype=torch.uint8)
    labels[0, 0, 4:10, 4:10] = 1
    for name, found in (("batch_dice_ce", True), ("dice_ce", False)):
        logits = torch.full((8, 1, 16, 16), -6.0, requires_grad=True)
        segmentation_loss(logits, labels, name).backward()
        inside, outside = logits.grad[labels == 1].abs().sum(), logits.grad[labels == 0].abs().sum()
        assert bool(inside > outside) == found
