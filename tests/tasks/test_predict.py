"""Prediction of files and folders: a row per input, nothing overwritten, nothing lost."""

import json
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cxr_models.package import PackageError, read_card, save_package
from cxr_models.segmentation import SegmentationConfig, build_network
from data_catalog.preprocess import PreprocessConfig
from data_catalog.radiograph import Structure
from tasks.models import FoundModel, find_model, find_models
from tasks.predict import input_files, predict_all


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A network that nobody trained: what it finds does not matter here."""
    network = SegmentationConfig(architecture="unet", channels=(4, 8, 16))
    torch.manual_seed(0)
    fields = {"name": "cxr-lung", "manifest_sha256": "m", "test_rows": (), "commit": "", "seed": 0, "epochs": 1}
    fields |= {"input": PreprocessConfig(size=64), "network": network, "training": {}, "sources": ()}
    folder = tmp_path_factory.mktemp("package") / "p"
    save_package(folder, build_network(network).state_dict(), fields)
    return folder


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    return path


def vast_png() -> bytes:
    """A PNG whose header says 60,000 x 60,000."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


def run(package, out, *paths, sixteen_bit=False):
    models = {Structure.LUNG: FoundModel(package, "test")}
    return predict_all(list(paths), out, models, (Structure.LUNG,), sixteen_bit=sixteen_bit)


def test_every_input_gets_mask_picture_and_record_at_its_own_size(package, tmp_path, make_chest_image, make_dicom):
    image = make_chest_image(200, 0)[0][:, :150]
    paths = [
        write(tmp_path / "in/a.png", image),
        write(tmp_path / "in/b.jpg", image),
        make_dicom(tmp_path / "in/c.dcm"),
    ]
    rows = run(package, tmp_path / "out", tmp_path / "in")
    assert [row.status for row in rows] == ["done"] * 3
    for path, shape in zip(paths, [(200, 150), (200, 150), (128, 128)], strict=True):
        folder = tmp_path / "out" / path.stem
        mask = cv2.imread(str(folder / "lung.png"), cv2.IMREAD_UNCHANGED)
        assert mask.shape == shape
        assert set(np.unique(mask)) <= {0, 255}
        assert cv2.imread(str(folder / "overlay.png")).shape == (*shape, 3)
        record = json.loads((folder / "result.json").read_text())
        assert record["input"] == str(path)
        assert (record["height"], record["width"]) == shape
        assert "not a medical device" in record["limits"]
        assert record["lung_share"] == pytest.approx((mask > 0).mean())
    table = pq.read_table(tmp_path / "out/results.parquet").to_pylist()
    assert [row["folder"] for row in table] == ["a", "b", "c"]


def test_two_inputs_of_one_stem_do_not_overwrite_each_other(package, tmp_path, make_chest_image):
    one = write(tmp_path / "x/a.png", make_chest_image(128, 1)[0])
    two = write(tmp_path / "y/a.png", make_chest_image(128, 2)[0])
    three = write(tmp_path / "y/A.jpg", make_chest_image(128, 3)[0])
    rows = run(package, tmp_path / "out", one, two, three)
    assert [row.folder for row in rows] == ["a", "a-2", "A-3"]
    assert len({json.loads((tmp_path / "out" / r.folder / "result.json").read_text())["input"] for r in rows}) == 3


def test_a_later_call_keeps_what_an_earlier_one_wrote(package, tmp_path, make_chest_image):
    one = write(tmp_path / "x/a.png", make_chest_image(128, 1)[0])
    two = write(tmp_path / "y/a.png", make_chest_image(128, 2)[0])
    run(package, tmp_path / "out", one)
    assert run(package, tmp_path / "out", two)[0].folder == "a-2"
    assert run(package, tmp_path / "out", one)[0].folder == "a"
    table = pq.read_table(tmp_path / "out/results.parquet").to_pylist()
    assert sorted(row["input"] for row in table) == [str(one), str(two)]


def test_a_stem_like_the_table_does_not_collide_with_it(package, tmp_path, make_chest_image):
    path = write(tmp_path / "results.parquet.png", make_chest_image(128, 1)[0])
    run(package, tmp_path / "out", path)
    assert (tmp_path / "out/results.parquet").is_file()
    assert (tmp_path / "out/results.parquet-2/lung.png").is_file()


def test_what_cannot_be_read_is_a_row_with_a_reason_and_the_rest_goes_on(
    package, tmp_path, make_chest_image, make_dicom
):
    good = make_chest_image(128, 1)[0]
    folder = tmp_path / "in"
    write(folder / "good.png", good)
    write(folder / "deep.png", good.astype(np.uint16) * 257)
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("hello")
    (folder / "cut.jpg").write_bytes(cv2.imencode(".jpg", good)[1].tobytes()[:500])
    make_dicom(folder / "hip.dcm", BodyPartExamined="HIP")
    make_dicom(folder / "movie.dcm", NumberOfFrames=2, PixelData=bytes(128 * 128 * 4))
    make_dicom(folder / "slice.dcm", Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    make_dicom(folder / "report.dcm", PixelData=None, Rows=None, Columns=None)
    Image.new("CMYK", (128, 128), (0, 0, 0, 90)).save(folder / "print.jpg")
    cv2.imwrite(str(folder / "holiday.png"), np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8))
    (folder / "vast.png").write_bytes(vast_png())
    (folder / "gone.png").symlink_to(folder / "nothing")
    os.mkfifo(folder / "pipe.png")
    rows = {Path(row.input).name: row for row in run(package, tmp_path / "out", folder)}
    assert rows["good.png"].status == "done"
    expected = {
        "deep.png": "sixteen_bit_png",
        "empty.png": "empty_file",
        "notes.txt": "not_an_image",
        "cut.jpg": "truncated",
        "hip.dcm": "wrong_body_part",
        "movie.dcm": "multi_frame",
        "slice.dcm": "wrong_modality",
        "report.dcm": "no_pixel_data",
        "print.jpg": "cmyk_image",
        "holiday.png": "colour_photograph",
        "vast.png": "oversized",
        "gone.png": "file_missing",
        "pipe.png": "unreadable",
    }
    assert {name: row.reason for name, row in rows.items() if row.status == "refused"} == expected
    assert all(row.sentence for row in rows.values() if row.status == "refused")
    assert pq.read_table(tmp_path / "out/results.parquet").num_rows == 14


def test_names_that_are_no_text_or_too_long_are_rows_like_any_other(package, tmp_path, make_chest_image):
    data = cv2.imencode(".png", make_chest_image(128, 1)[0])[1].tobytes()
    folder = tmp_path / "in[1]"
    folder.mkdir()
    names = [b"bad\xff.png", b"x" * 250 + b".png", b"dir[bold].png"]
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(data)
    (folder / "[").mkdir()
    (folder / "[" / "].png").write_text("no image")
    rows = run(package, tmp_path / "out", folder)
    assert [row.status for row in rows].count("done") == 3
    assert pq.read_table(tmp_path / "out/results.parquet").num_rows == 4


def test_results_are_no_inputs(package, tmp_path, make_chest_image):
    write(tmp_path / "a.png", make_chest_image(128, 1)[0])
    for _ in range(2):
        assert [row.folder for row in run(package, tmp_path / "out", tmp_path)] == ["a"]


def test_a_refused_input_leaves_no_old_mask_behind(package, tmp_path, make_chest_image):
    path = write(tmp_path / "a.png", make_chest_image(128, 1)[0])
    run(package, tmp_path / "out", path)
    path.write_text("no image any more")
    assert run(package, tmp_path / "out", path)[0].status == "refused"
    assert not (tmp_path / "out/a").exists()


def test_a_link_to_a_folder_is_a_row_and_no_circle(package, tmp_path, make_chest_image):
    write(tmp_path / "in/a.png", make_chest_image(128, 1)[0])
    (tmp_path / "in/round").symlink_to(tmp_path / "in")
    rows = run(package, tmp_path / "out", tmp_path / "in")
    assert sorted((Path(row.input).name, row.status) for row in rows) == [("a.png", "done"), ("round", "refused")]


def test_sixteen_bit_png_is_read_where_asked_for(package, tmp_path, make_chest_image):
    path = write(tmp_path / "deep.png", make_chest_image(128, 1)[0].astype(np.uint16) * 257)
    assert run(package, tmp_path / "out", path, sixteen_bit=True)[0].status == "done"


def test_folders_are_walked_once_and_hidden_files_passed_over(tmp_path):
    for name in ("b.png", "a/c.png", ".hidden.png", ".git/d.png", "DICOMDIR"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = [p.relative_to(tmp_path).as_posix() for p in input_files([tmp_path, tmp_path / "b.png"])]
    assert found == ["b.png", "a/c.png"]


def test_a_model_folder_is_found_and_a_wrong_name_says_what_there_is(package, tmp_path):
    assert find_model(str(package), "sqlite:////nowhere.db", tmp_path) == FoundModel(package, str(package))
    with pytest.raises(PackageError, match=r"expected a folder with card\.json"):
        find_model("nonsense", f"sqlite:///{tmp_path}/none.db", tmp_path)
    assert not (tmp_path / "none.db").exists()


@pytest.fixture(scope="module")
def nodule_package(tmp_path_factory):
    """Lungs and nodules in one network, with a head that says whether there is one."""
    network = SegmentationConfig(channels=(4, 8, 16), structures=(Structure.LUNG, Structure.NODULE), head="present")
    torch.manual_seed(1)
    fields = {"name": "cxr-nodule", "manifest_sha256": "m", "test_rows": (), "commit": "", "seed": 0, "epochs": 1}
    fields |= {"input": PreprocessConfig(size=64), "network": network, "training": {}, "sources": ()}
    folder = tmp_path_factory.mktemp("package") / "n"
    save_package(folder, build_network(network).state_dict(), fields)
    return folder


def test_structures_are_written_as_asked_and_old_ones_go(package, nodule_package, tmp_path, make_chest_image):
    path = write(tmp_path / "a.png", make_chest_image(128, 1)[0])
    models = {Structure.LUNG: FoundModel(package, "one"), Structure.NODULE: FoundModel(nodule_package, "two")}
    both = predict_all([path], tmp_path / "out", models, (Structure.LUNG, Structure.NODULE), sixteen_bit=False)[0]
    folder = tmp_path / "out/a"
    names = {p.name for p in folder.iterdir()}
    masks = {"lung.png", "lung_left.png", "lung_right.png", "nodule.png"}
    assert names == masks | {"nodules.json", "overlay.png", "result.json"}
    sides = [cv2.imread(str(folder / f"lung_{side}.png"), 0) > 0 for side in ("left", "right")]
    np.testing.assert_array_equal(sides[0] | sides[1], cv2.imread(str(folder / "lung.png"), 0) > 0)
    record = json.loads((folder / "nodules.json").read_text())
    assert 0 <= record["probability"] <= 1
    assert len(record["candidates"]) == both.nodules
    assert (both.model, both.weights_sha256.count("+")) == ("one, two", 1)
    predict_all([path], tmp_path / "out", models, (Structure.NODULE,), sixteen_bit=False)
    assert {p.name for p in folder.iterdir()} == {"nodule.png", "nodules.json", "overlay.png", "result.json"}


def test_a_table_of_before_there_were_other_structures_is_added_to(package, tmp_path, make_chest_image):
    old = pa.table({"input": ["/x/old.png"], "status": ["done"], "lung_share": [0.2], "model": ["bundled"]})
    (tmp_path / "out").mkdir()
    pq.write_table(old, tmp_path / "out/results.parquet")
    run(package, tmp_path / "out", write(tmp_path / "a.png", make_chest_image(128, 1)[0]))
    table = pq.read_table(tmp_path / "out/results.parquet").to_pylist()
    assert [row["input"] for row in table] == ["/x/old.png", str(tmp_path / "a.png")]
    assert (table[0]["lung_share"], table[0]["nodules"]) == (0.2, None)


def test_a_folder_serves_what_it_segments_and_nothing_else(nodule_package, tmp_path):
    database = f"sqlite:///{tmp_path}/none.db"
    found = find_models(str(nodule_package), [Structure.NODULE], database, tmp_path)
    assert found[Structure.NODULE].folder == nodule_package
    assert Structure.LUNG in found  # the bundled one: it says how an image lies
    with pytest.raises(PackageError, match="segments lung, nodule, but --structures asks for rib"):
        find_models(str(nodule_package), [Structure.RIB], database, tmp_path)


def test_the_lung_model_that_reads_the_pose_is_named(package, nodule_package, tmp_path, make_chest_image):
    path = write(tmp_path / "a.png", make_chest_image(128, 1)[0])
    models = {Structure.LUNG: FoundModel(package, "one"), Structure.NODULE: FoundModel(nodule_package, "two")}
    row = predict_all([path], tmp_path / "out", models, (Structure.NODULE,), sixteen_bit=False)[0]
    assert row.model == "two, one"
    assert row.weights_sha256.split("+") == [read_card(folder).weights_sha256 for folder in (nodule_package, package)]


def test_an_interrupted_call_leaves_the_folder_as_it_was(package, tmp_path, make_chest_image, monkeypatch):
    path = write(tmp_path / "a.png", make_chest_image(128, 1)[0])
    run(package, tmp_path / "out", path)
    before = {file.name: file.read_bytes() for file in (tmp_path / "out/a").iterdir()}

    def interrupted(*arguments, **more):
        raise KeyboardInterrupt

    write(path, make_chest_image(96, 2)[0])
    monkeypatch.setattr("tasks.predict.draw_structures", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(package, tmp_path / "out", path)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out/a").iterdir()} == before
    assert {file.name for file in (tmp_path / "out").iterdir()} <= {"a", "results.parquet", ".lock"}
