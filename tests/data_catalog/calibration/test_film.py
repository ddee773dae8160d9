"""A film that was photographed through a known camera comes back: where it was, evenly lit, with its grey levels."""

import csv
import json
import struct

import cv2
import numpy as np
import pytest
from pydicom import dcmread
from skimage.metrics import structural_similarity

from data_catalog.calibration.film import FilmConfig, as_shown, rectify_film
from data_catalog.calibration.film_dicom import write_film
from data_catalog.calibration.photograph import CalibrationError, light_from_srgb, read_photograph, srgb_from_light
from data_catalog.dicom.read import read_dicom

SIZE = (400.0, 400.0)
PLAIN = FilmConfig(width_mm=400, height_mm=400, tone="transmission")


@pytest.fixture(scope="session")
def chest(make_chest_image) -> np.ndarray:
    """The light that a film lets through: (420, 420) in [0.05, 0.95], as smooth as a radiograph without its grain."""
    image = cv2.resize(make_chest_image(140, 3)[0], (420, 420), interpolation=cv2.INTER_CUBIC)
    return (0.05 + 0.9 * cv2.GaussianBlur(image, (0, 0), 1.5).astype(np.float32) / 255).astype(np.float32)


@pytest.fixture(scope="session")
def photographed(rendering, film_camera, tmp_path_factory):
    """``photographed(film, rotation=..., size=..., camera=..., **light_box)``: the JPEG, and the true corners in it."""
    folder = tmp_path_factory.mktemp("films")
    count = 0

    def taken(film, rotation=(8, -6, 10), size=SIZE, camera=film_camera, quality=92, naive=False, **light_box):
        nonlocal count
        count += 1
        pose = rendering.pose_looking_at(rendering.turned(*rotation), (0.0, 0.0), 800.0, (15.0, -10.0))
        texture = rendering.film_on_light_box(film, size, **light_box)
        if naive:
            noisy = camera.linear(pose, texture) + np.random.default_rng(0).normal(
                0, 0.006, (camera.height, camera.width)
            )
            image = (np.clip(noisy, 0, 1) * 255).round().astype(np.uint8)
        else:
            image = camera.photograph(pose, texture)
        path = folder / f"{count}.jpg"
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        w, h = size[0] / 2, size[1] / 2
        corners = np.array([[-w, -h, 0], [w, -h, 0], [w, h, 0], [-w, h, 0]]) @ pose[0].T + pose[1]
        return path, camera.project(corners)

    return taken


def likeness(shown: np.ndarray, original: np.ndarray) -> float:
    """SSIM (scikit-image) at the original's size."""
    back = cv2.resize(np.clip(shown, 0, 1), original.shape[::-1], interpolation=cv2.INTER_AREA)
    return float(structural_similarity(original.astype(np.float64), back.astype(np.float64), data_range=1))


def assert_comes_back(film, original, corners, within=0.3, least=0.97):
    assert np.linalg.norm(film.corners - corners, axis=1).max() < within
    assert likeness(film.transmission, original) >= least


@pytest.mark.parametrize("rotation", [(0, 0, 0), (8, -6, 10), (-12, 10, -30), (10, 14, 30)])
def test_a_film_comes_back(photographed, film_camera, known, chest, rotation):
    path, corners = photographed(chest, rotation)
    film = rectify_film(read_photograph(path), PLAIN, known(film_camera))
    assert_comes_back(film, chest, corners)
    assert film.notes == ()
    assert (film.size_mm, film.flat.source) == ((400, 400), "light box around the film")
    assert 0.4 < film.flat.evenness < 0.7


@pytest.mark.parametrize("border", [0.0, 0.95])
def test_films_with_a_dark_or_a_bright_border(photographed, film_camera, known, chest, border):
    framed = cv2.copyMakeBorder(chest[25:-25, 25:-25], 25, 25, 25, 25, cv2.BORDER_CONSTANT, value=border)
    path, corners = photographed(framed)
    assert_comes_back(rectify_film(read_photograph(path), PLAIN, known(film_camera)), framed, corners)


@pytest.mark.parametrize(
    "scene",
    [{"room": 0.2}, {"room": 0.5}, {"box_mm": (5000.0, 5000.0)}, {"box_mm": (440.0, 450.0)}],
    ids=["dim room", "bright room", "box fills the picture", "narrow margin"],
)
def test_films_in_other_surroundings(photographed, film_camera, known, chest, scene):
    path, corners = photographed(chest, **scene)
    assert_comes_back(rectify_film(read_photograph(path), PLAIN, known(film_camera)), chest, corners)


@pytest.mark.parametrize("size", [(430.0, 350.0), (350.0, 430.0)])
@pytest.mark.parametrize("stated", [(430, 350), (None, None), (None, 350)])
def test_proportions_are_those_of_the_film(photographed, film_camera, known, chest, size, stated):
    """With the size, turned by a quarter too; without it from the camera's geometry, though it stands obliquely."""
    oblong = cv2.resize(chest, (500, 407) if size[0] > size[1] else (407, 500), interpolation=cv2.INTER_CUBIC)
    path, corners = photographed(oblong, (18, -15, 8), size)
    config = FilmConfig(width_mm=stated[0], height_mm=stated[1] and min(stated[1], size[1]), tone="transmission")
    film = rectify_film(read_photograph(path), config, known(film_camera))
    rows, columns = film.transmission.shape
    assert columns / rows == pytest.approx(size[0] / size[1], rel=0.005)
    assert_comes_back(film, oblong, corners)
    if stated != (None, None):
        assert film.size_mm is not None
        wanted = np.array(size[::-1]) * (config.height_mm / size[1] if stated[0] is None else 1)
        assert film.size_mm == pytest.approx(tuple(wanted), rel=0.005)


def test_a_film_of_another_size_than_stated_is_refused(photographed, film_camera, known, chest):
    path, _ = photographed(chest)
    with pytest.raises(CalibrationError, match=r"film of 350 x 430 mm.*--width-mm"):
        rectify_film(read_photograph(path), FilmConfig(width_mm=350, height_mm=430), known(film_camera))


def test_exif_orientation_is_honoured_and_the_camera_stays_that_of_the_sensor(
    photographed, film_camera, known, chest, tmp_path
):
    """The photographer held the camera on its side: the sensor saw the film turned, viewers do not."""
    for orientation in (1, 3, 6, 8):
        quarter_turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]
        oblong = cv2.resize(chest, (407, 500), interpolation=cv2.INTER_CUBIC)
        on_sensor = np.ascontiguousarray(np.rot90(oblong, quarter_turns))
        size = (350.0, 430.0) if quarter_turns % 2 == 0 else (430.0, 350.0)
        path, _ = photographed(on_sensor, size=size)
        turned = tmp_path / f"{orientation}.jpg"
        turned.write_bytes(with_orientation(path.read_bytes(), orientation))
        film = rectify_film(read_photograph(turned), FilmConfig(width_mm=350, height_mm=430), known(film_camera))
        assert film.size_mm == (430, 350)
        assert film.transmission.shape[0] > film.transmission.shape[1]
        assert likeness(film.transmission, oblong) >= 0.97


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_those_of_pillow(orientation):
    from PIL import Image, ImageOps

    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    exif = image.getexif()
    image.info["exif"] = exif.tobytes()
    np.testing.assert_array_equal(as_shown(pixels, orientation), np.asarray(ImageOps.exif_transpose(image)))


def test_a_photograph_of_the_light_box_evens_what_its_border_does_not_show(
    photographed, rendering, film_camera, known, chest
):
    """A shadow behind the film alone: the surroundings know nothing of it, the photograph of the empty box does."""

    def light(x, y):
        return 0.9 - 0.6 * np.exp(-(((x - 40) / 90) ** 2) - (y / 90) ** 2)

    path, corners = photographed(chest, light=light)
    empty, _ = photographed(np.ones((50, 50)), light=lambda x, y: 0.8 * light(x, y))  # exposed a little less
    photo, camera = read_photograph(path), known(film_camera)
    film = rectify_film(photo, PLAIN, camera, read_photograph(empty))
    assert film.flat.source == "photograph"
    assert_comes_back(film, chest, corners)
    assert likeness(rectify_film(photo, PLAIN, camera).transmission, chest) < 0.96
    with pytest.raises(CalibrationError, match="parts of it are dark"):
        rectify_film(photo, PLAIN, camera, read_photograph(photographed(np.zeros((50, 50)) + 0.01)[0]))


def test_a_coloured_lamp_leaves_grey_levels_alone(photographed, film_camera, known, chest, tmp_path):
    path, corners = photographed(chest)
    light = light_from_srgb(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) / 255)
    tinted = np.stack([srgb_from_light(light * share) for share in (0.7, 0.95, 1.0)], axis=-1)
    warm = tmp_path / "warm.png"
    cv2.imwrite(str(warm), (tinted * 255).round().astype(np.uint8))
    assert_comes_back(rectify_film(read_photograph(warm), PLAIN, known(film_camera)), chest, corners)


def test_displayed_levels_are_those_of_the_photograph_of_an_even_light_box(photographed, film_camera, known, chest):
    """Two ways to a picture on a film: as sRGB values, and by a renderer that knows no sRGB at all. Both come back."""
    config = FilmConfig(tone="displayed")
    as_srgb = light_from_srgb(chest).astype(np.float32)
    film = rectify_film(read_photograph(photographed(as_srgb)[0]), config, known(film_camera))
    assert likeness(srgb_from_light(film.transmission), chest) >= 0.97
    film = rectify_film(read_photograph(photographed(chest, naive=True)[0]), config, known(film_camera))
    assert likeness(srgb_from_light(film.transmission), chest) >= 0.97


def test_white_may_be_the_films_base(photographed, film_camera, known, chest):
    """A base that lets 70 % through: with white = film the picture is as bright as without it."""
    bright = chest / np.percentile(chest, 99.9)
    path, corners = photographed(bright, clear=0.7)
    base = rectify_film(read_photograph(path), PLAIN.model_copy(update={"white": "film"}), known(film_camera))
    assert_comes_back(base, bright, corners)
    box = rectify_film(read_photograph(path), PLAIN, known(film_camera))
    assert np.median(box.transmission / base.transmission) == pytest.approx(0.7, abs=0.03)


def test_without_a_camera_it_says_that_distortion_stays(photographed, chest):
    path, corners = photographed(chest)
    film = rectify_film(read_photograph(path), FilmConfig())
    assert "lens distortion is not corrected" in film.notes[0]
    assert "size was not given" in film.notes[1]
    assert film.size_mm is None
    assert np.linalg.norm(film.corners - corners, axis=1).max() < 5


def test_without_a_light_box_in_sight_it_says_that_light_was_not_evened(photographed, film_camera, known, chest):
    path, corners = photographed(chest, box_mm=SIZE)
    film = rectify_film(read_photograph(path), PLAIN, known(film_camera))
    assert film.flat.source == "none"
    assert any("no light box is in sight" in note for note in film.notes)
    assert np.linalg.norm(film.corners - corners, axis=1).max() < 2


@pytest.mark.parametrize("level", [0, 128, 255])
def test_no_film_no_result(film_camera, known, tmp_path, level):
    path = tmp_path / "empty.png"
    cv2.imwrite(str(path), np.full((1200, 1600), level, np.uint8))
    with pytest.raises(CalibrationError, match="four sides of the film were not found"):
        rectify_film(read_photograph(path), PLAIN, known(film_camera))


def test_a_photograph_of_another_shape_than_the_cameras(photographed, film_camera, known, chest, tmp_path):
    path, _ = photographed(chest)
    cropped = tmp_path / "cropped.png"
    cv2.imwrite(str(cropped), cv2.imread(str(path))[:, 200:])
    with pytest.raises(CalibrationError, match=r"1600 x 1200 pixels.*got 1400 x 1200"):
        rectify_film(read_photograph(cropped), PLAIN, known(film_camera))


@pytest.mark.parametrize("tone", ["displayed", "transmission", "density"])
def test_the_dicom_file_holds_picture_and_calibration(photographed, film_camera, known, chest, tmp_path, tone):
    path, _ = photographed(light_from_srgb(chest) if tone == "displayed" else chest)
    photo, camera = read_photograph(path), known(film_camera)
    config = FilmConfig(width_mm=400, height_mm=400, tone=tone)
    film = rectify_film(photo, config, camera)
    record = write_film(film, photo, config, camera, tmp_path / "film.dcm")

    read = read_dicom(tmp_path / "film.dcm")
    # Density is shown as density: equal steps for equal factors of light.
    shown = 10 ** (-4.095 * (1 - read.pixels)) if tone == "density" else read.pixels
    assert likeness(shown, chest) >= 0.97
    assert read.spacing is not None
    assert read.spacing.row == pytest.approx(400 / read.shape[0])
    assert (read.spacing.plane, read.spacing.calibration) == ("film", "FIDUCIAL")
    ds = dcmread(tmp_path / "film.dcm")
    assert (ds.ConversionType, ds.Modality, ds.SOPClassUID.name) == ("DF", "RG", "Secondary Capture Image Storage")
    assert ds.SecondaryCaptureDeviceID == camera.digest
    assert camera.digest[:16] in ds.DerivationDescription
    assert len(ds.PixelSpacingCalibrationDescription) <= 64
    assert len(ds.DerivationDescription) <= 1024
    assert "BurnedInAnnotation" not in ds
    assert ds.LossyImageCompression == "01"
    beside = json.loads((tmp_path / "film.json").read_text())
    assert beside == record
    assert (beside["camera_sha256"], beside["photograph"]["sha256"]) == (camera.digest, photo.sha256)
    assert (beside["rows"], beside["columns"]) == read.shape


def test_the_same_photograph_gives_the_same_bytes(photographed, film_camera, known, chest, tmp_path):
    photo, camera = read_photograph(photographed(chest)[0]), known(film_camera)
    for name in ("a.dcm", "b.dcm"):
        write_film(rectify_film(photo, PLAIN, camera), photo, PLAIN, camera, tmp_path / name)
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    other = PLAIN.model_copy(update={"tone": "displayed"})
    write_film(rectify_film(photo, other, camera), photo, other, camera, tmp_path / "c.dcm")
    uids = {dcmread(tmp_path / name).SOPInstanceUID for name in ("a.dcm", "c.dcm")}
    assert len(uids) == 2


@pytest.mark.shared_data
def test_real_radiographs_come_back(shared_data, rendering, known, photographed):
    """As films of 40 x 40 cm before a camera of 4000 x 3000 pixels: three and a half pixels for one of the film."""
    camera = rendering.TrueCamera(width=4000, height=3000, fx=3680, fy=3684, cx=2006, cy=1482, supersample=1)
    with (shared_data / "cxr-lung" / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for index, rotation in ((0, (6, -8, -20)), (33, (-10, 5, 28)), (72, (4, 12, 3))):
        image = cv2.imread(str(shared_data / "cxr-lung" / rows[index]["image"]), cv2.IMREAD_GRAYSCALE)
        scale = 512 / max(image.shape)
        film = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        size = (400 * film.shape[1] / 512, 400 * film.shape[0] / 512)
        path, corners = photographed(film, rotation, size, camera)
        config = FilmConfig(width_mm=size[0], height_mm=size[1], tone="transmission")
        assert_comes_back(rectify_film(read_photograph(path), config, known(camera)), film, corners, within=1.0)
