"""Networks have the shape that the config says, and layers that fold and quantise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_models.precision import pick_device, resolve
from cxr_models.segmentation import LocalContrast, SegmentationConfig, build_network
from data_catalog.radiograph import Structure


@pytest.mark.parametrize(
    "config",
    [
        SegmentationConfig(),
        SegmentationConfig(architecture="basic_unet", channels=(4, 4, 8, 8, 8, 4)),
        SegmentationConfig(architecture="unet", channels=(4, 8, 8), residual_units=1),
    ],
)
@pytest.mark.parametrize("structures", [(Structure.LUNG,), (Structure.LUNG, Structure.NODULE)])
def test_one_logit_channel_per_structure(config, structures):
    network = build_network(config.model_copy(update={"structures": structures}))
    logits, said = network(torch.rand(2, 1, 64, 64))
    assert logits.shape == (2, len(structures), 64, 64)
    assert said.shape == (2, 0)


@pytest.mark.parametrize(("head", "outputs"), [("present", 1), ("pose", 5)])
@pytest.mark.parametrize("kind", ["grey", "local", "both"])
def test_a_head_stands_beside_the_same_masks(head, outputs, kind):
    torch.manual_seed(0)
    network = build_network(SegmentationConfig(channels=(4, 8, 8), head=head, input=kind)).eval()
    images = torch.rand(2, 1, 64, 64)
    logits, said = network(images)
    assert said.shape == (2, outputs)
    torch.testing.assert_close(logits, network.unet(network._read(images)))  # MONAI's own way through it


def test_basic_unets_have_no_head():
    with pytest.raises(ValueError, match="Take unet"):
        SegmentationConfig(architecture="basic_unet", channels=(4, 4, 8, 8, 8, 4), head="pose")


@settings(max_examples=20, deadline=None)
@given(st.floats(0.5, 2), st.floats(-0.2, 0.2))
def test_local_contrast_does_not_see_windows(gain, offset):
    images = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    local = LocalContrast(6)
    assert (local(images * gain + offset) - local(images)).abs().mean() < 0.02


def test_local_contrast_of_reversed_grey_levels_is_reversed_and_an_even_image_is_grey():
    images = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    local = LocalContrast(6)
    torch.testing.assert_close(local(1 - images), 1 - local(images), atol=1e-4, rtol=0)
    torch.testing.assert_close(local(torch.full((1, 1, 64, 64), 0.7)), torch.full((1, 1, 64, 64), 0.5))


def test_the_default_has_only_layers_that_fold_and_quantise():
    kinds = {type(module).__name__ for module in build_network(SegmentationConfig()).modules()}
    assert "BatchNorm2d" in kinds
    assert not kinds & {"InstanceNorm2d", "PReLU", "GroupNorm", "LayerNorm"}


def test_too_few_channels_for_a_basic_unet_are_an_error():
    with pytest.raises(ValueError, match="six `channels`"):
        SegmentationConfig(architecture="basic_unet", channels=(4, 8))


def test_devices_and_precision():
    assert pick_device("cpu") == "cpu"
    assert resolve("fp32", "cpu") == "fp32"
    assert resolve("auto", "cpu") in ("fp32", "bf16")
    if not torch.cuda.is_available():
        assert pick_device("auto") == "cpu"
        with pytest.raises(ValueError, match="torch sees none"):
            pick_device("cuda:0")
