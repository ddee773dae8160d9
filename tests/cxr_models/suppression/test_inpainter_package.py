"""A checkpoint comes back as it was, from our loader and from diffusers'; a bad one is refused with the reason."""

import json
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cxr_models.package import PackageError
from cxr_models.suppression.inpainter import Inpainter
from cxr_models.suppression.inpainter_card import read_inpainter_card, rewrite_inpainter_card
from cxr_models.suppression.inpainter_layout import WEIGHTS
from cxr_models.suppression.inpainter_package import InpainterPackage, find_checkpoint, load_inpainter, save_inpainter
from cxr_models.suppression.sampling import SamplingConfig
from cxr_models.suppression.small_model import build_small_model

FIELDS = {
    "name": "cxr-rib-inpainter",
    "size": 32,
    "conditioning": {"kind": "translucent", "mask": "area"},
    "sampling": {"steps": 4},
    "manifest_sha256": "m" * 64,
    "commit": "abc",
    "seed": 0,
    "sources": ({"source": "phantoms", "licence": "CC0", "images": 4},),
}
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    from .conftest import TINY

    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    save_inpainter(folder, build_small_model(TINY), FIELDS, torch.float32)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the checkpoint, to be damaged."""
    return shutil.copytree(saved, tmp_path / "checkpoint")


@pytest.fixture
def bare(folder):
    """The same as others publish it, without a card."""
    (folder / "card.json").unlink()
    return folder


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_it_comes_back_as_it_was(saved, tiny_pipeline, radiograph):
    package = load_inpainter(saved)
    assert (package.size, package.stride) == (32, 8)
    assert package.conditioning.kind == "translucent"
    assert package.sampling.steps == 4
    before = Inpainter(InpainterPackage(tiny_pipeline, package.card)).sample(*radiograph)
    assert np.array_equal(Inpainter(package).sample(*radiograph), before)


def test_diffusers_itself_loads_it(saved, tiny_pipeline):
    from diffusers import StableDiffusionInpaintPipeline

    theirs = StableDiffusionInpaintPipeline.from_pretrained(saved, local_files_only=True)
    for part in ("unet", "vae", "text_encoder"):
        ours = getattr(tiny_pipeline, part).state_dict()
        assert all(torch.equal(ours[key], value) for key, value in getattr(theirs, part).state_dict().items())
    assert theirs.scheduler.config.prediction_type == "v_prediction"
    assert theirs.tokenizer("ribs").input_ids == tiny_pipeline.tokenizer("ribs").input_ids


def test_half_precision_is_kept_and_the_pipeline_left_alone(tmp_path, tiny_pipeline):
    save_inpainter(tmp_path / "half", tiny_pipeline, FIELDS)
    kept = load_file(tmp_path / "half" / UNET)
    assert {weights.dtype for weights in kept.values()} == {torch.float16}
    assert {weights.dtype for weights in tiny_pipeline.unet.parameters()} == {torch.float32}
    loaded = load_inpainter(tmp_path / "half").pipeline.unet.state_dict()
    torch.testing.assert_close(loaded, tiny_pipeline.unet.state_dict(), atol=1e-3, rtol=1e-3)


def test_the_card_lists_every_file(saved):
    card = read_inpainter_card(saved)
    there = {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()}
    assert set(card.files) == there - {"card.json"}
    assert "beside the original" in card.limits


def test_metrics_are_added_later(folder):
    weights = (folder / UNET).read_bytes()
    rewrite_inpainter_card(folder, metrics={"psnr_db": 36.5}, sampling=SamplingConfig(steps=7))
    card = load_inpainter(folder).card
    assert card.metrics == {"psnr_db": 36.5}
    assert (card.sampling.steps, card.commit) == (7, "abc")
    assert (folder / UNET).read_bytes() == weights
    with pytest.raises(ValueError, match="psnr"):
        rewrite_inpainter_card(folder, metrics={"psnr_db": "high"})


def test_where_it_was_loaded_from_is_forgotten(saved, tmp_path):
    save_inpainter(tmp_path / "again", load_inpainter(saved).pipeline, FIELDS)
    for path in (tmp_path / "again").rglob("*.json"):
        assert str(saved.parent) not in path.read_text()
        assert "_name_or_path" not in path.read_text()


def test_tools_that_read_the_vocabulary_alone(bare, tiny_pipeline):
    (bare / "tokenizer" / "tokenizer.json").unlink()
    words = "Chest, 2 views: éß"
    assert load_inpainter(bare).pipeline.tokenizer(words).input_ids == tiny_pipeline.tokenizer(words).input_ids


def test_without_a_card_it_is_taken_as_diffusers_would(bare):
    package = load_inpainter(bare)
    assert package.card is None
    assert package.conditioning.kind == "masked"
    assert package.size == 32


def test_the_variant_in_half_precision(bare):
    for part, stem in WEIGHTS.items():
        (bare / part / f"{stem}.safetensors").rename(bare / part / f"{stem}.fp16.safetensors")
    assert load_inpainter(bare).pipeline.unet.dtype == torch.float32


def test_four_channels(bare):
    change(bare / "unet" / "config.json", in_channels=4)
    with pytest.raises(PackageError, match=r"unet/config.json: .*9 input channels.*got 4 channels: a text-to-image"):
        load_inpainter(bare)


@pytest.mark.parametrize(
    ("file", "fields", "said"),
    [
        ("unet/config.json", {"in_channels": 8}, "9 input channels, but got 8"),
        ("unet/config.json", {"cross_attention_dim": 768}, "vectors of 768 and the text encoder gives 32"),
        ("text_encoder/config.json", {"hidden_size": 64}, "vectors of 32 and the text encoder gives 64"),
        ("vae/config.json", {"latent_channels": 16}, "latents have 16"),
        ("unet/config.json", {"out_channels": 8}, "gives 8"),
        ("model_index.json", {"_class_name": "StableDiffusionPipeline"}, "but got StableDiffusionPipeline"),
        ("model_index.json", {"vae": ["diffusers", "AsymmetricAutoencoderKL"]}, "but got AsymmetricAutoencoderKL"),
        ("model_index.json", {"unet": ["os", "system"]}, "but got system"),
        ("scheduler/scheduler_config.json", {"_class_name": "NoScheduler"}, "but got NoScheduler"),
        ("unet/config.json", {"block_out_channels": [16, 48]}, "size in config.json"),
        ("unet/config.json", {"layers_per_block": 2}, "size in config.json"),
        ("unet/config.json", {"sample_size": 9}, "multiple of 8, but got 36"),
    ],
)
def test_parts_that_do_not_fit(bare, file, fields, said):
    change(bare / file, **fields)
    with pytest.raises(PackageError, match=said):
        load_inpainter(bare)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("suffix", [".bin", ".ckpt", ".pt"])
def test_pickles(bare, part, suffix):
    (weights,) = (bare / part).glob("*.safetensors")
    weights.rename(weights.with_suffix(suffix))
    with pytest.raises(PackageError, match=rf"{part}/\w+\{suffix}: .*got a pickle"):
        load_inpainter(bare)


def test_a_pickle_beside_safetensors_is_never_opened(bare):
    (bare / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"not even a pickle")
    load_inpainter(bare)


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "unet/config.json",
        UNET,
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer_config.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_half_written_folders(bare, file):
    (bare / file).unlink()
    with pytest.raises(PackageError, match=file):
        load_inpainter(bare)


def test_every_missing_file_is_named(bare):
    shutil.rmtree(bare / "vae")
    shutil.rmtree(bare / "tokenizer")
    said = r"vae/config.json, vae/diffusion_pytorch_model.safetensors, tokenizer/vocab.json, tokenizer/merges.txt"
    with pytest.raises(PackageError, match=said):
        load_inpainter(bare)


@pytest.mark.parametrize("keep", [0, 4, 100, -1000])
def test_files_that_were_cut_off(bare, keep):
    content = (bare / UNET).read_bytes()
    (bare / UNET).write_bytes(content[:keep])
    with pytest.raises(PackageError, match=rf"{UNET}: expected safetensors"):
        load_inpainter(bare)


def test_json_that_is_none(bare):
    (bare / "vae" / "config.json").write_text("{")
    with pytest.raises(PackageError, match=r"vae/config.json: expected JSON"):
        load_inpainter(bare)


def test_weights_that_are_not_all_there(bare):
    weights = load_file(bare / UNET)
    weights.pop("conv_out.bias")
    save_file(weights, bare / UNET)
    with pytest.raises(PackageError, match=r"1 are missing or of another shape, conv_out\.bias first"):
        load_inpainter(bare)


def test_weights_that_are_not_finite(bare, tmp_path, tiny_pipeline):
    weights = load_file(bare / UNET)
    weights["conv_out.bias"][0] = torch.nan
    save_file(weights, bare / UNET)
    with pytest.raises(PackageError, match=r"finite weights, but conv_out\.bias"):
        load_inpainter(bare)
    with torch.no_grad():
        tiny_pipeline.unet.conv_out.bias[0] = 1e6
    with pytest.raises(PackageError, match=r"finite weights, but conv_out\.bias"):
        save_inpainter(tmp_path / "half", tiny_pipeline, FIELDS)
    assert not (tmp_path / "half").exists()


def test_another_file_than_the_card_says(folder):
    weights = load_file(folder / UNET)
    weights["conv_out.bias"] += 1
    save_file(weights, folder / UNET)
    with pytest.raises(PackageError, match=rf"{UNET}: expected SHA-256 \w+ as its card says"):
        load_inpainter(folder)


def test_cards_that_are_refused(folder):
    card = folder / "card.json"
    change(card, files={"../elsewhere": "0" * 64})
    with pytest.raises(PackageError, match="paths inside the folder"):
        load_inpainter(folder)
    change(card, files={"README.md": "0" * 64})
    with pytest.raises(PackageError, match=r"README\.md: expected this file"):
        load_inpainter(folder)
    card.write_text("[]")
    with pytest.raises(PackageError, match=r"card\.json: not an inpainter's card"):
        load_inpainter(folder)


def test_a_pipeline_that_would_be_refused_is_not_saved(folder, tiny_pipeline):
    before = (folder / "card.json").read_bytes()
    tiny_pipeline.unet.register_to_config(in_channels=4)
    with pytest.raises(PackageError, match="got 4 channels"):
        save_inpainter(folder, tiny_pipeline, FIELDS)
    assert (folder / "card.json").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


def test_lora_layers_have_to_be_merged(tmp_path, tiny_pipeline):
    from peft import LoraConfig

    tiny_pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"]))
    with pytest.raises(PackageError, match=r"unet: expected plain weights, but got LoRA"):
        save_inpainter(tmp_path / "lora", tiny_pipeline, FIELDS)


def test_things_that_are_no_checkpoint(tmp_path):
    with pytest.raises(PackageError, match=r"but there is none"):
        load_inpainter(tmp_path / "nowhere")
    pickled = tmp_path / "sd-v1-5-inpainting.ckpt"
    pickled.write_bytes(b"\x80")
    with pytest.raises(PackageError, match="got a pickle"):
        load_inpainter(pickled)
    single = tmp_path / "model.safetensors"
    single.write_bytes(b"")
    with pytest.raises(PackageError, match="but got a file"):
        load_inpainter(single)


def test_a_name_on_the_hub(saved, monkeypatch):
    asked = {}

    def snapshot_download(name, **options):
        asked.update(options, name=name)
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert find_checkpoint("owner/inpainting@v1.0") == saved
    assert (asked["name"], asked["revision"]) == ("owner/inpainting", "v1.0")
    assert UNET in asked["allow_patterns"]
    assert not [pattern for pattern in asked["allow_patterns"] if pattern.endswith((".bin", ".ckpt", ".pt"))]


def test_a_name_that_the_hub_does_not_know(monkeypatch):
    def snapshot_download(*_, **__):
        raise OSError("404 Client Error\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(PackageError, match=r"owner/nothing: .*the hub says: 404 Client Error\. Check the name"):
        load_inpainter("owner/nothing")


def test_nothing_heavy_is_imported_before_it_is_needed():
    """MONAI imports transformers where it is installed (its transchex), so that one is not ours to hold."""
    heavy = "{'diffusers', 'peft'}"
    names = "inpainter, inpainter_package, small_model, sampling, conditioning"
    code = f"import sys; from cxr_models.suppression import {names}; print({heavy} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"
