"""Scores of inpainters: every method on the same rows, whatever the bundled models find there."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cxr_models.suppression.suppressor import METHODS, BoneLayer
from data_catalog.radiograph import MaskSet, Radiograph, Structure
from tasks import evaluate_inpainter as module
from tasks.evaluate_inpainter import cleaned
from tasks.records import Cohort

COHORT = Cohort(manifest="m", rejected="r", digest="d", test_digest="t", synthetic=False, counts={}, refused=0)
SIDE = 48
NONE = np.zeros((SIDE, SIDE), bool)
RIB = NONE.copy()
RIB[10:16] = RIB[30:36] = True
TRUTH = np.tile(np.linspace(0.2, 0.5, SIDE, dtype=np.float32), (SIDE, 1))


def shown():
    return Radiograph(TRUTH + np.float32(0.2) * RIB, sha256="0" * 64)


class Oracle:
    name = "diffusion"

    def __call__(self, pixels, rib, lung):
        return BoneLayer(pixels - TRUTH)


@pytest.mark.parametrize("rib", [None, NONE, ~NONE])
def test_without_ribs_that_can_be_used_a_radiograph_stays_as_it_is(rib):
    masks = MaskSet({Structure.LUNG: ~NONE} | ({} if rib is None else {Structure.RIB: rib}))
    np.testing.assert_array_equal(cleaned(shown(), masks, METHODS["classical"]), shown().pixels)
    np.testing.assert_array_equal(cleaned(shown(), MaskSet({Structure.RIB: RIB}), Oracle())[RIB], TRUTH[RIB])


@pytest.fixture
def evaluate(monkeypatch, tmp_path):
    """Evaluates rows of these true masks, where the models find these ribs in turn."""

    def run(truths, found):
        rows = [SimpleNamespace(sample_id=str(i), masks_shown=masks) for i, masks in enumerate(truths)]
        predicted = iter(found)
        reader = SimpleNamespace(
            read=lambda *_: SimpleNamespace(masks=MaskSet({Structure.LUNG: ~NONE, Structure.RIB: next(predicted)}))
        )
        monkeypatch.setattr(module, "read_manifest", lambda path: rows)
        monkeypatch.setattr(module, "with_truth", list)
        monkeypatch.setattr(module, "load_diffusion", lambda *_, **__: Oracle())
        monkeypatch.setattr(module, "bundled_reader", lambda *_: reader)
        monkeypatch.setattr(module, "read_pair", lambda row: (shown(), TRUTH, MaskSet(row.masks_shown)))
        return module.evaluate_inpainter.fn("k", COHORT, tmp_path, "cpu", tmp_path / "out"), tmp_path / "out"

    return run


def test_a_row_on_which_no_ribs_are_found_counts_as_nothing_done(evaluate):
    both = {Structure.LUNG: ~NONE, Structure.RIB: RIB}
    scored, out = evaluate([both, both], [NONE, RIB])
    table = pd.read_parquet(out / "scores.parquet").set_index(["sample_id", "method"]).psnr_db
    assert table["0", "diffusion"] == table["0", "nothing"]
    assert table["1", "diffusion"] > table["1", "nothing"]
    assert scored.images == 2
    assert set(table.groupby(level="method").count()) == {2}


def test_a_row_without_true_lungs_is_left_out(evaluate):
    both = {Structure.LUNG: ~NONE, Structure.RIB: RIB}
    scored, _ = evaluate([{Structure.RIB: RIB}, both | {Structure.LUNG: NONE}, both], [NONE])
    assert scored.images == 1
    with pytest.raises(ValueError, match="Add phantoms"):
        evaluate([{Structure.RIB: RIB}], [])
