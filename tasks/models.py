"""Which models to use: a folder, an alias of the registry, the bundled ones, or the better of the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr_models.package import BUNDLED, PackageError, read_card
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


def find_models(
    wanted: str, structures: Sequence[Structure], tracking_uri: str, home: Path
) -> dict[Structure, FoundModel]:
    """A model for each of ``structures``, and the one for lungs besides: it says how an image lies and where to look.

    Args:
        wanted: a folder with ``card.json``, for the structures that this model segments; "auto", "bundled" or an
            alias, for every structure: see :func:`find_model`. What a folder does not segment is found as "auto".
        structures: at least one.
        tracking_uri: the registry.
        home: where downloads go.

    Raises:
        PackageError: there is no model for one of them.
    """
    if not (Path(wanted) / "card.json").is_file():
        named = {s: find_model(wanted, tracking_uri, home, s) for s in structures}
        return _lungs_first(named, "auto", tracking_uri, home)
    given = FoundModel(Path(wanted), str(wanted))
    known = read_card(given.folder).network.structures
    if not set(known) & set(structures):
        asked = ", ".join(structures)
        raise PackageError(f"{wanted} segments {', '.join(known)}, but --structures asks for {asked} alone")
    found = {s: given if s in known else find_model("auto", tracking_uri, home, s) for s in structures}
    return _lungs_first(found, "auto", tracking_uri, home)


def _lungs_first(
    found: dict[Structure, FoundModel], wanted: str, tracking_uri: str, home: Path
) -> dict[Structure, FoundModel]:
    if Structure.LUNG in found:
        return found
    try:
        return {Structure.LUNG: find_model(wanted, tracking_uri, home)} | found
    except PackageError:  # without lungs, only upright images are read
        return found


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
    if (Path(wanted) / "card.json").is_file():
        return FoundModel(Path(wanted), str(wanted))
    name = MODEL_NAMES.get(structure, f"cxr-{structure}")
    if wanted in MODEL_NAMES.values():
        name, wanted = wanted, "bundled"
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
        raise PackageError(
            f"No model {wanted!r} for {structure}: expected a folder with card.json and weights.safetensors, "
            f"`bundled`, or an alias in the registry at {tracking_uri}. Train one with `cxr train {structure}`, or "
            "leave --model out."
        )
    return found


def _better(champion: FoundModel | None, bundled: FoundModel) -> FoundModel:
    """The champion, unless the bundled model did better on the very same test images: a user's own data decides."""
    if champion is None:
        return bundled
    mine, shipped = read_card(champion.folder), read_card(bundled.folder)
    comparable = set(mine.test_rows) == set(shipped.test_rows)
    loses = mine.metrics.get("test_dice", 0.0) < shipped.metrics.get("test_dice", 0.0)
    return bundled if comparable and loses else champion


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
