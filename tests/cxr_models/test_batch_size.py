"""What fits into memory: measured on a real network, decided on made-up numbers."""

import numpy as np
import pytest
import torch

from cxr_models import batch_size
from cxr_models.batch_size import available_memory, largest_that_fits, peak_memory
from cxr_models.segmentation import SegmentationConfig, build_network

MIB = 2**20


def test_the_peak_of_what_is_held_and_let_go_is_seen():
    def work():
        held = np.ones(60 * MIB, np.uint8)
        more = np.ones(40 * MIB, np.uint8)
        del held
        return more.sum()

    # a process that ran other things before may have some MiB of it already; 60 would be that of `held` alone
    assert 80 * MIB < peak_memory(work) < 130 * MIB


def network_step(side):
    network = build_network(SegmentationConfig(channels=(16, 32, 64)))
    tried = []

    def step(images):
        tried.append(images)
        network(torch.rand(images, 1, side, side))[0].mean().backward()

    return step, tried


def test_a_real_step_is_fitted_into_a_real_budget():
    step, tried = network_step(256)
    step(2)
    needed = peak_memory(lambda: step(2))
    assert needed > 10 * MIB
    tried.clear()
    fits = largest_that_fits(step, 64, "cpu", budget=int(4.5 * needed))
    assert fits in (4, 8)
    assert max(tried) <= 8  # never tried what would not have fitted
    assert peak_memory(lambda: step(fits)) < 6 * needed


@pytest.mark.parametrize(
    ("budget", "most", "expected"),
    [(100, 64, 1), (199, 64, 1), (200, 64, 2), (1000, 64, 8), (10**9, 64, 64), (10**9, 12, 12), (10**9, 1, 1)],
)
def test_the_largest_power_of_two_within_the_budget_is_taken(monkeypatch, budget, most, expected):
    tried = []
    monkeypatch.setattr(batch_size, "peak_memory", lambda work: work() or 100 * tried[-1])
    assert largest_that_fits(tried.append, most, "cpu", budget) == expected
    assert 100 * max(tried) <= budget


def test_a_need_that_grows_faster_than_the_images_is_noticed(monkeypatch):
    tried = []
    monkeypatch.setattr(batch_size, "peak_memory", lambda work: work() or 100 * tried[-1] ** 2)
    assert largest_that_fits(tried.append, 64, "cpu", 700) == 2  # 4 seemed to need 800


def test_on_cuda_steps_are_tried_until_one_does_not_fit(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))

    def step(images):
        if images > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert largest_that_fits(step, 64, "cuda:0") == 16
    assert largest_that_fits(step, 20, "cuda:0") == 20
    assert emptied == [True]


@pytest.mark.parametrize(("device", "budget"), [("cpu", 99), ("cuda", None)])
def test_not_even_one_image_is_an_error_that_says_what_to_lower(monkeypatch, device, budget):
    monkeypatch.setattr(batch_size, "peak_memory", lambda work: work() or 100)

    def step(images):
        if device == "cuda":
            raise torch.OutOfMemoryError

    with pytest.raises(MemoryError, match=r"preprocess\.size"):
        largest_that_fits(step, 8, device, budget)


def test_a_container_has_what_its_limit_leaves(monkeypatch, tmp_path):
    free = available_memory()
    assert free > 0
    monkeypatch.setattr(batch_size, "CGROUPS", ((str(tmp_path), "memory.max", "memory.current", "inactive_file"),))
    assert available_memory() == pytest.approx(free, rel=0.5)  # no such files
    (tmp_path / "memory.max").write_text(f"{200 * MIB}\n")
    (tmp_path / "memory.current").write_text(f"{150 * MIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {30 * MIB}\n")
    assert available_memory() == 80 * MIB
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory() > 80 * MIB
