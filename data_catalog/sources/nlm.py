"""What Montgomery and Shenzhen share: two sets of the U.S. National Library of Medicine, laid out alike (Jaeger 2014).

Jaeger S, Candemir S, Antani S, et al. Two public chest X-ray datasets for computer-aided screening of pulmonary
diseases. Quant Imaging Med Surg 2014;4(6):475-477.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data_catalog.images.files import check_mask_header
from data_catalog.intake import ImageFacts, Intake, missing
from data_catalog.manifest import MaskFile, Sample, sample_id_of
from data_catalog.radiograph import Spacing, Structure
from data_catalog.refusals import Reason, Refusal, Rejected
from data_catalog.source import CheckItem, ScanContext, counted
from data_catalog.sources.nlm_files import Files, Layout, find_files
from data_catalog.sources.nlm_readings import Reading, read_reading
from data_catalog.vocabulary import Convention

LICENCE = "free use with attribution (U.S. National Library of Medicine)"
URL = "https://lhncbc.nlm.nih.gov/LHC-publications/pubs/TuberculosisChestXrayImageDataSets.html"
TUBERCULOSIS = "tuberculosis"


@dataclass(frozen=True, slots=True)
class NlmSet:
    """One of the two sets.

    Attributes:
        kind: of the adapter.
        layout: its names.
        normal, abnormal: images as published; the last digit of a name is 0 or 1.
        masks: masks as published, of each part.
        always_masked: whether every image is published with its masks.
        sides: folders' parts -> the patient's sides, from the files themselves.
        view: of an image, from its reading.
        spacing: of an image, from its size.
    """

    kind: str
    layout: Layout
    normal: int
    abnormal: int
    masks: int
    always_masked: bool
    view: Callable[[Reading], str]
    sides: Callable[[Files], dict[str, str]] = lambda files: {part: part for part in files.masks}
    spacing: Callable[[ImageFacts], Spacing | None] = lambda facts: None


def scan(nlm: NlmSet, root: Path, context: ScanContext) -> Iterator[Sample | Rejected]:
    """Yield one row per image, or a refusal; an image that a reading or mask belongs to and that is missing is refused.

    Raises:
        ValueError: no image of the set.
    """
    intake = Intake(nlm.kind, context)
    root = root.resolve()
    try:
        files = find_files(root, nlm.layout, context.workdir)
    except Refusal as refusal:
        yield Rejected.of(refusal, path=root, source=nlm.kind, stage="ingest")
        return
    yield from files.listing.rejected(nlm.kind)
    sides = nlm.sides(files)
    folder = next(iter(files.images.values())).parent
    names = sorted(files.names(), key=lambda name: (name not in files.images, name))  # what is there comes first
    yield from intake.rows(
        names,
        lambda name: _sample(nlm, name, files, sides, intake),
        lambda name: files.images.get(name, folder / f"{name}.png"),
    )
    for path in files.extra:
        yield intake.unexpected(
            path,
            f"expected a name such as {nlm.layout.prefix}_0001_0.png: no reading belongs to it. Name it as published.",
        )


def _sample(nlm: NlmSet, name: str, files: Files, sides: dict[str, str], intake: Intake) -> Sample:
    path = files.images.get(name)
    if path is None:
        folder = next(iter(files.images.values())).parent
        raise missing(folder / f"{name}.png", "a clinical reading or a mask")
    _check_label(name, path, files)
    reading = read_reading(files.readings.get(name))
    facts = intake.image(path)
    masks = tuple(_masks(nlm, name, files, sides, facts, intake))
    abnormal = name.endswith("_1")
    normal = not abnormal and reading.finding.lower().startswith("normal")
    words = (TUBERCULOSIS if abnormal else "", "" if normal else reading.finding)
    return Sample(
        sample_id=sample_id_of(facts.sha256),
        source=nlm.kind,
        patient_id=f"{nlm.kind}/{name.rpartition('_')[0]}",
        image_path=str(path),
        image_sha256=facts.sha256,
        image_format=facts.format,
        licence=LICENCE,
        source_url=URL,
        view=nlm.view(reading),
        findings=tuple(word for word in words if word),
        age_years=reading.age_years,
        sex=reading.sex,
        spacing=nlm.spacing(facts),
        masks=masks,
        height=facts.height,
        width=facts.width,
        flags=tuple(dict.fromkeys((*facts.flags, *reading.flags))),
    )


def _check_label(name: str, path: Path, files: Files) -> None:
    """Refuse an image that its number knows under the other label too: it was renamed, or added twice."""
    number, _, label = name.rpartition("_")
    other = f"{number}_{1 - int(label)}"
    read_as_other = other in files.readings and name not in files.readings
    twice = other in files.images and (other in files.readings) == (name in files.readings) and label == "1"
    if read_as_other or twice:
        what = "a reading" if read_as_other else "an image"
        raise Refusal(
            Reason.MANIFEST_ROW_INVALID,
            f"{path}: expected one name for each number, but there is {what} named {other} too: normal (0) or "
            "tuberculosis (1)? Give the image its published name.",
            path,
        )


def _masks(
    nlm: NlmSet, name: str, files: Files, sides: dict[str, str], facts: ImageFacts, intake: Intake
) -> Iterator[MaskFile]:
    there = {part: of[name] for part, of in files.masks.items() if name in of}
    if not there and not (nlm.always_masked and files.has_masks()):
        return
    for part in nlm.layout.mask_folders.values() if nlm.always_masked else there:
        path = there.get(part)
        if path is None:
            raise Refusal(
                Reason.MASK_MISSING,
                f"{files.images[name]}: expected a mask of each lung, but there is none in "
                f"{next(f for f, p in nlm.layout.mask_folders.items() if p == part)}. Copy it again.",
            )
        check_mask_header(path, (facts.height, facts.width))
        yield intake.mask(path, Structure.LUNG, Convention.NLM, sides.get(part, part))


def check(nlm: NlmSet, root: Path, context: ScanContext) -> Iterator[CheckItem]:
    """Compare the names of files with what NLM published. No image is opened, and no zip unpacked.

    Raises:
        ValueError: no image of the set.
    """
    try:
        files = find_files(root.resolve(), nlm.layout, context.workdir, unpacking=False)
    except Refusal as refusal:
        yield CheckItem("archive", nlm.layout.archive, str(refusal.reason), "fail", refusal.sentence)
        return
    yield from files.listing.items()
    total = nlm.normal + nlm.abnormal
    abnormal = sum(name.endswith("_1") for name in files.images)
    yield _counted("images", total, len(files.images))
    yield _counted("  normal", nlm.normal, len(files.images) - abnormal)
    yield _counted("  tuberculosis", nlm.abnormal, abnormal)
    yield _counted("clinical readings", total, len(files.readings), "Without them age, sex and findings are unknown.")
    yield from _check_masks(nlm, files)
    lost = [name for name in files.names() if name not in files.images]
    if lost:
        advice = f"Copy them again; the first is {lost[0]}.png."
        yield CheckItem("images that readings or masks belong to", "all", f"{len(lost)} missing", "fail", advice)
    if files.extra:
        advice = f"Give them back their published names; the first is {files.extra[0].name}."
        yield CheckItem("pictures with other names", "0", str(len(files.extra)), "warn", advice)
    if files.archive is not None:
        yield CheckItem("archive", nlm.layout.archive, files.archive.name, "ok")


def _check_masks(nlm: NlmSet, files: Files) -> Iterator[CheckItem]:
    """Masks of each part; that there is none at all is only as published where masks are published apart."""
    without = "Without masks lungs cannot be trained on it."
    for part in dict.fromkeys(nlm.layout.mask_folders.values()):
        what, count = f"masks {part}".strip(), len(files.masks.get(part, {}))
        if count or not nlm.always_masked:
            yield _counted(what, nlm.masks, count, without)
        else:
            folders = " and ".join(folder for folder, of in nlm.layout.mask_folders.items() if of == part)
            advice = f"{without} Copy the folder {folders} too."
            yield CheckItem(what, str(nlm.masks), "0", "fail", advice)


_counted = partial(counted, part="A part of the set, or files were added.")
