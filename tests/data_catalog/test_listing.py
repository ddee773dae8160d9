"""Folders that cannot be listed are told of."""

from __future__ import annotations

from data_catalog.listing import Listing
from data_catalog.refusals import Reason


def test_what_is_in_a_folder(tmp_path):
    for name in ("b/inner/x", "a/y"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "z").touch()
    (tmp_path / "link").symlink_to(tmp_path / "b")
    listing = Listing()
    assert listing.inside(tmp_path) == (["a", "b", "link"], ["z"])
    walked = [path.relative_to(tmp_path).as_posix() for path, _, _ in listing.walk(tmp_path)]
    assert walked == [".", "a", "b", "b/inner"]
    assert (listing.errors, list(listing.items()), list(listing.rejected("x"))) == ([], [], [])


def test_a_locked_folder_is_told_of_and_the_rest_goes_on(tmp_path, lock_folder):
    for name in ("a", "locked", "z"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    lock_folder(tmp_path / "locked")
    listing = Listing()
    assert [path.name for path, _, names in listing.walk(tmp_path) if names] == ["a", "z"]
    assert listing.inside(tmp_path / "locked") == ([], [])  # asked twice, told of once
    (row,) = listing.rejected("montgomery")
    assert (row.path, row.source, row.stage, row.reason) == (
        str(tmp_path / "locked"), "montgomery", "ingest", Reason.UNREADABLE,
    )  # fmt: skip
    (item,) = listing.items()
    assert (item.status, item.found) == ("fail", "1")
    assert str(tmp_path / "locked") in item.advice
