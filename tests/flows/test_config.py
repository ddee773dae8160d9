"""What a run is asked to do is checked before anything is computed."""

import pytest
from pydantic import ValidationError

from cxr_models.inference import InferenceConfig
from flows.config import RunConfig

BASE = {"preprocess": {"size": 256}, "network": {"channels": [8, 16, 32, 64]}}  # multiples of 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": {"crop": {"side": 100}}}, r"train\.crop\.side.*multiple of 8.*100"),
        ({"train": {"crop": {"side": 512}}}, r"train\.crop\.side.*at most `preprocess\.size`, 256.*512"),
        ({"inference": {"window": 100}}, r"inference\.window.*multiple of 8.*100"),
        ({"network": {"channels": [8] * 10}}, r"preprocess\.size.*multiple of 512"),
    ],
    ids=["side", "larger", "window", "size"],
)
def test_sides_that_the_network_cannot_take_are_refused(changes, words):
    with pytest.raises(ValidationError, match=words):
        RunConfig.model_validate(BASE | changes)


@pytest.mark.parametrize("changes", [{"train": {"crop": {"side": 64}}}, {"inference": {"window": 512}}, {}])
def test_sides_that_fit_or_are_off_are_taken(changes):
    assert RunConfig.model_validate(BASE | changes).preprocess.size == 256


@pytest.mark.parametrize("zooms", [(), (0.0,), (1.0, -1.0), (4.5,), (float("nan"),)])
def test_zooms_are_some_and_in_range(zooms):
    with pytest.raises(ValidationError, match="zooms"):
        InferenceConfig(zooms=zooms)


def test_zooms_up_to_four_are_taken():
    assert InferenceConfig(zooms=(0.5, 1.0, 4.0)).zooms == (0.5, 1.0, 4.0)
