"""True bone is believed; its opposite, noise, and the detail of the lung are not."""

import cv2
import numpy as np

from cxr_models.phantom import PhantomConfig
from cxr_models.phantom.cohort import render_patient
from cxr_models.suppression.plausibility import ROUGHEST, Doubt, doubts_about, roughness
from data_catalog.radiograph import Structure


def test_the_true_ribs_of_phantoms_are_believed():
    for index in range(2):
        patient = render_patient(PhantomConfig(patients=2, size=256, seed=5), index)
        before, after = (plane.astype(np.float32) for plane in (patient.radiograph, patient.soft_tissue))
        low, high = np.percentile(before, [0.5, 99.5])
        rib = patient.masks.masks[Structure.RIB]
        assert doubts_about((before - after) / (high - low) * rib, rib, (before - low) / (high - low)) == ()


def test_lung_detail_that_was_taken_away_is_no_bone(ribbed):
    lost = np.where(ribbed.rib, ribbed.behind - cv2.GaussianBlur(ribbed.behind, (0, 0), 12), 0)
    assert set(doubts_about(lost.astype(np.float32), ribbed.rib, ribbed.pixels)) & {Doubt.SIGN, Doubt.TEXTURE}


def test_noise_is_rough_and_ribs_are_not(ribbed):
    noise = np.random.default_rng(0).normal(size=ribbed.rib.shape).astype(np.float32)
    assert roughness(noise, ribbed.rib) > ROUGHEST > 2 * roughness(ribbed.bone, ribbed.rib)
    assert roughness(np.zeros_like(noise), ribbed.rib) == 0
