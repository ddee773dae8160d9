"""A packaged model comes back as it was, and a damaged one is refused with the reason."""

import json

import pytest
import torch
from safetensors.torch import load_file

from cxr_models.package import PackageError, card_text, load_package, read_card, rewrite_card, save_package
from cxr_models.segmentation import build_network
from data_catalog.preprocess import PreprocessConfig


@pytest.fixture
def package(tmp_path, tiny_network):
    network = build_network(tiny_network)
    fields = {
        "name": "cxr-lung",
        "manifest_sha256": "m" * 64,
        "test_rows": ("t" * 64,),
        "commit": "abc",
        "seed": 0,
        "epochs": 1,
        "input": PreprocessConfig(size=32),
        "network": tiny_network,
        "training": {},
        "sources": ({"source": "pairs", "licence": "CC BY 4.0", "images": 1},),
    }
    save_package(tmp_path / "package", network.state_dict(), fields)
    return tmp_path / "package", network.eval()


def test_it_comes_back_as_it_was(package):
    folder, network = package
    card, loaded = load_package(folder)
    image = torch.rand(1, 1, 32, 32)
    assert torch.equal(loaded(image)[0], network(image)[0])
    assert card.network.channels == (4, 8, 16)


def test_a_package_of_before_the_head_still_loads(package):
    """Its weights are those of MONAI's U-Net alone, and its card knows nothing of input, head or inference."""
    folder, network = package
    card = json.loads((folder / "card.json").read_text())
    for field in ("input", "local_share", "local_side", "head", "dropout"):
        del card["network"][field]
    for field in ("inference", "quality", "weights_sha256"):
        del card[field]
    names = save_package(folder, network.unet.state_dict(), card).network.structures
    assert all(key.startswith("model.") for key in load_file(folder / "weights.safetensors"))
    _, loaded = load_package(folder)
    image = torch.rand(1, 1, 32, 32)
    assert loaded(image)[0].shape[1] == len(names)
    assert torch.equal(loaded(image)[0], network(image)[0])


def test_weights_of_another_network_are_refused(package, tiny_network):
    folder, _ = package
    wider = build_network(tiny_network.model_copy(update={"channels": (5, 8, 16)}))
    card = json.loads((folder / "card.json").read_text())
    del card["weights_sha256"]
    save_package(folder, wider.state_dict(), card)
    with pytest.raises(PackageError, match="do not fit the card's network"):
        load_package(folder)


def test_a_damaged_file_is_refused(package):
    folder, _ = package
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(bytes(data))
    with pytest.raises(PackageError, match=r"expected SHA-256 .* as its card says, but got"):
        load_package(folder)


def test_missing_files_are_named(package, tmp_path):
    folder, _ = package
    (folder / "weights.safetensors").unlink()
    with pytest.raises(PackageError, match=r"weights.safetensors.*no such file"):
        load_package(folder)
    with pytest.raises(PackageError, match=r"card.json: expected a model folder"):
        load_package(tmp_path / "nowhere")


def test_a_card_with_an_unknown_field_is_refused(package):
    folder, _ = package
    text = (folder / "card.json").read_text().replace('"seed"', '"sead"')
    (folder / "card.json").write_text(text)
    with pytest.raises(PackageError, match="not a model card"):
        load_package(folder)


def test_rewriting_the_card_leaves_the_weights_alone(package):
    folder, _ = package
    before = load_file(folder / "weights.safetensors")
    digest = read_card(folder).weights_sha256
    card = rewrite_card(folder, metrics={"test_dice": 0.97})
    assert card.metrics == {"test_dice": 0.97}
    assert card.weights_sha256 == digest
    after = load_file(folder / "weights.safetensors")
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_card_for_people_says_what_matters(package):
    text = card_text(read_card(package[0]))
    for words in ("not a medical device", "CC BY 4.0", "32 x 32", "lung"):
        assert words in text
