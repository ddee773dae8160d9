"""Clutter: drawn where asked for, on nothing else, the same for one seed."""

import numpy as np
import pytest
import torch

from cxr_models.clutter import add_jpeg, draw_clutter


def grey(batch: int = 4, side: int = 96) -> torch.Tensor:
    return torch.full((batch, 1, side, side), 0.5)


@pytest.mark.parametrize("chances", [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=["patches", "lines", "text"])
def test_each_kind_is_drawn_on_every_image_and_covers_little(chances):
    images = grey()
    drawn = draw_clutter(images, *chances, np.random.default_rng(1))
    share = (drawn != images).float().mean((1, 2, 3))
    assert (share > 0).all()
    assert (share < 0.5).all()
    assert torch.equal(images, grey())  # the input stays


def test_nothing_asked_for_is_nothing_drawn():
    assert torch.equal(draw_clutter(grey(), 0, 0, 0, np.random.default_rng(0)), grey())
    assert torch.equal(add_jpeg(grey(), 0, np.random.default_rng(0)), grey())


def test_one_seed_draws_the_same():
    first, again = (draw_clutter(grey(), 0.5, 0.5, 0.5, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first, again)


def test_jpeg_leaves_the_picture_and_adds_artefacts():
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(images, size=(64, 64), mode="bilinear")
    stored = add_jpeg(images, 1, np.random.default_rng(0))
    assert 0.001 < (stored - images).abs().mean() < 0.05
