"""Which models to use: a folder, an alias of the registry, the bundled ones, or the better of the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_models.package import BUNDLED, ModelCard, PackageError, read_card
from data_catalog.radiograph import Structure

MODEL_NAMES = {Structure.LUNG: "cxr-lung", Structure.RIB: "cxr-rib", Structure.NODULE: "cxr-nodule"}
"""The registered (and bundled) model for each structure."""
SYNTHETIC = "-phantom"
"""Behind the name of a model that was trained on phantoms alone."""


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model folder, and what to call it."""

    folder: Path
    name: str


def bundled_structures() -> tuple[Structure, ...]:
    """Structures that a model ships for."""
    return tuple(s for s, name in MODEL_NAMES.items() if (BUNDLED / name / "card.json").is_file())


def structures_of(wanted: str) -> tuple[Structure, ...]:
    """What is segmented where nobody says: all of a folder's or a bundled model's own, else all that a model ships for.

    Raises:
        PackageError: a folder whose card cannot be read.
    """
    given = _named(wanted)
    return bundled_structures() if given is None else read_card(given.folder).network.structures


def find_models(
    wanted: str, structures: Sequence[Structure], tracking_uri: str, home: Path
) -> dict[Structure, FoundModel]:
    """A model for each of ``structures``, and the one for lungs besides: it says how an image lies and where to look.

    Args:
        wanted: a folder with ``card.json``, or the name of a bundled model, for the structures that this model
            segments; "auto", "bundled" or an alias, for every structure: see :func:`find_model`. What a folder does not
            segment is found as "auto", what a bundled model does not, as "bundled".
        structures: at least one.
        tracking_uri: the registry.
        home: where downloads go.

    Raises:
        PackageError: there is no model for one of them.
    """
    given = _named(wanted)
    if given is None:
        found = {s: find_model(wanted, tracking_uri, home, s) for s in structures}
        return _with_lungs(found, wanted, tracking_uri, home)
    known = read_card(given.folder).network.structures
    if not set(known) & set(structures):
        asked = ", ".join(structures)
        raise PackageError(f"{wanted} segments {', '.join(known)}, but --structures asks for {asked} alone")
    others = "bundled" if wanted in MODEL_NAMES.values() else "auto"
    found = {s: given if s in known else find_model(others, tracking_uri, home, s) for s in structures}
    return _with_lungs(found, others, tracking_uri, home)


def _named(wanted: str) -> FoundModel | None:
    """The one model that ``wanted`` names: a folder, or a bundled model; None for "auto", "bundled" and aliases."""
    if (Path(wanted) / "card.json").is_file():
        return FoundModel(Path(wanted), str(wanted))
    if wanted in MODEL_NAMES.values() and (BUNDLED / wanted / "card.json").is_file():
        return FoundModel(BUNDLED / wanted, f"bundled {wanted}")
    return None


def _with_lungs(
    found: dict[Structure, FoundModel], wanted: str, tracking_uri: str, home: Path
) -> dict[Structure, FoundModel]:
    """``found`` with a model for lungs before it; an alias that no model for lungs has is passed over for "auto"."""
    if Structure.LUNG in found:
        return found
    for way in dict.fromkeys((wanted, "bundled" if wanted == "bundled" else "auto")):
        try:
            return {Structure.LUNG: find_model(way, tracking_uri, home)} | found
        except PackageError:
            continue
    return found  # without lungs, only upright images are read


def find_model(wanted: str, tracking_uri: str, home: Path, structure: Structure = Structure.LUNG) -> FoundModel:
    """The model to use for ``structure``.

    Args:
        wanted: a folder with ``card.json``; the name of a bundled model; an alias, such as "champion", of the
            registry's model for radiographs (or, where only phantoms were trained on, of the phantoms' model);
            "bundled"; or "auto": the better of the registry's champion and the bundled model, see :func:`_better`.
        tracking_uri: the registry.
        home: where downloads go.
        structure: what for.

    Raises:
        PackageError: there is no such model; the text says what there is.
    """
    given = _named(wanted)
    if given is not None:
        return given
    name = MODEL_NAMES.get(structure, f"cxr-{structure}")
    bundled = FoundModel(BUNDLED / name, "bundled")
    ships = (bundled.folder / "card.json").is_file()
    if wanted == "bundled" and ships:
        return bundled
    if wanted == "auto" and ships:
        try:
            return _better(_registered(name, "champion", tracking_uri, home), bundled)
        except PackageError as error:
            return FoundModel(bundled.folder, f"bundled (the champion cannot be had: {error})")
    alias = "champion" if wanted == "auto" else wanted
    found = _registered(name, alias, tracking_uri, home) or _registered(name + SYNTHETIC, alias, tracking_uri, home)
    if found is None:
        ship = ", ".join(MODEL_NAMES[s] for s in bundled_structures()) or "none"
        raise PackageError(
            f"No model {wanted!r} for {structure}: expected a folder with card.json and weights.safetensors, "
            f"`bundled` or the name of a bundled model ({ship}), or an alias in the registry at {tracking_uri}. Train "
            f"one with `cxr train {structure}`, or leave --model out."
        )
    return found


def _better(champion: FoundModel | None, bundled: FoundModel) -> FoundModel:
    """The champion, unless the bundled model did better on the very same test images: a user's own data decides.

    Of models for nodules, better at finding them: where both cards have that score, of the same nodules.
    """
    if champion is None:
        return bundled
    mine, shipped = read_card(champion.folder), read_card(bundled.folder)
    score = "test_nodule_score" if Structure.NODULE in shipped.network.structures else "test_dice"
    measured = score in mine.metrics and score in shipped.metrics
    alike = score == "test_dice" or nodules_set_in(mine) == nodules_set_in(shipped)
    comparable = measured and alike and set(mine.test_rows) == set(shipped.test_rows)
    return bundled if comparable and mine.metrics[score] < shipped.metrics[score] else champion


def nodules_set_in(card: ModelCard) -> dict[str, Any]:
    """Which nodules an evaluation of the model sets into radiographs, wherever they lie."""
    from cxr_models.simulate.implant import ImplantConfig  # most predictions need none

    trained = ImplantConfig.model_validate(card.training.get("crop", {}).get("implant", {}))
    return trained.as_measured().model_dump(mode="json", exclude={"patches"})


def _registered(name: str, alias: str, tracking_uri: str, home: Path) -> FoundModel | None:
    database = tracking_uri.removeprefix("sqlite:///")
    if database != tracking_uri and not Path(database).exists():
        return None  # asking would create an empty registry
    from tasks.tracking import Tracker  # MLflow takes seconds to import, and most predictions need none

    tracker = Tracker(tracking_uri, home)
    version = tracker.with_alias(name, alias)
    if version is None:
        return None
    return FoundModel(tracker.download(version), f"{name} version {version.version}")
