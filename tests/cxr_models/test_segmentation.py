"""Networks have the shape that the config says, and layers that fold and quantise."""

import pytest
import torch

from cxr_models.precision import pick_device, resolve
from cxr_models.segmentation import SegmentationConfig, build_network
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
    assert network(torch.rand(2, 1, 64, 64)).shape == (2, len(structures), 64, 64)


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
