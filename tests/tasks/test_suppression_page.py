"""The page of rib removals as a document: whole, escaped, offline, and true to what lies in the folder."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_models.suppression.plausibility import Doubt
from cxr_models.suppression.suppressor import Suppressed
from data_catalog.radiograph import Radiograph
from tasks import suppression_page
from tasks.results import TABLE, Result, write_results
from tasks.suppress import write_suppressed
from tasks.suppression_page import DOUBT_WORDS, EMBEDDED, PAGE, Case, render_suppressions, write_page
from tests.tasks.html_outline import Outline, outline

ODD = ('<b>&"', "javascript:alert(1)", "50% #1?", "Ünï 'x' {{ 7 * 7 }}", "<img src=x onerror=alert(1)>")
CHROMIUM = next((name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None)


def make_removal(out: Path, name: str, *, doubts=(), unsure=False, **row) -> Result:
    """What a call leaves of one radiograph in ``out``; returns its row."""
    before = np.random.default_rng(len(name)).uniform(0.2, 0.8, (60, 80)).astype(np.float32)
    bone = np.zeros_like(before)
    bone[20:30] = 0.1
    uncertainty = np.where(bone > 0, np.float32(0.02), np.float32(0)) if unsure else None
    suppressed = Suppressed(before - bone, bone, bone > 0, "classical", tuple(doubts), uncertainty)
    result = Result(f"/in/{name}.png", "done", name, height=60, width=80, **row)
    record = write_suppressed(suppressed, Radiograph(before, "0" * 64), out / name)
    (out / name / "result.json").write_text(json.dumps(asdict(result) | {"suppression": record}))
    return result


def make_page(out: Path, *results: Result) -> Outline:
    write_results(results, out / TABLE)
    assert write_page(out) == out / PAGE
    return outline((out / PAGE).read_text(encoding="utf-8"))


def attributes(page: Outline, tag: str, **having) -> list[dict[str, str | None]]:
    return [found for name, found in page.tags if name == tag and having.items() <= found.items()]


def addresses(page: Outline) -> Iterator[str]:
    for _, found in page.tags:
        yield from (value for name, value in found.items() if name in ("src", "href") and value)


def targets_are_there(page: Outline, out: Path) -> int:
    """Checks that whatever the page refers to exists; returns how many files it refers to."""
    ids = {found["id"] for _, found in page.tags if "id" in found}
    count = 0
    for address in addresses(page):
        if address.startswith("#"):
            assert address[1:] in ids
        elif not address.startswith("data:"):
            assert address.startswith("./")
            assert (out / unquote(address)).is_file(), address
            count += 1
    return count


def test_every_radiograph_has_its_slider_and_what_a_reader_needs(tmp_path):
    page = make_page(tmp_path, make_removal(tmp_path, "a", unsure=True), make_removal(tmp_path, "b"))
    sliders = attributes(page, "input", type="range", min="0", max="100", value="50")
    assert [str(found["aria-label"])[:2] for found in sliders] == ["a:", "b:"]
    layers = [found["class"] for found in attributes(page, "div") if str(found.get("class")).startswith("layer")]
    assert layers == ["layer before", "layer after"] * 2
    assert len(attributes(page, "img")) == 4 + 3
    assert all(found["alt"] and found["loading"] == "lazy" for found in attributes(page, "img"))
    assert "16.7 % of the pixels" in page.text
    assert "10.0 % of the range of grey levels" in page.text
    assert "2.00 % of that range on average, 2.0 % at most" in page.text
    assert page.text.count("uncertainty (standard deviation") == 1
    assert page.text.count("never alone") == page.text.count("Research software") == 1


def test_a_few_are_inside_the_page_and_the_very_pictures(tmp_path):
    page = make_page(tmp_path, make_removal(tmp_path, "a"))
    before = attributes(page, "img")[0]["src"]
    assert (
        base64.b64decode(str(before).removeprefix("data:image/jpeg;base64,"))
        == (tmp_path / "a/page/before.jpg").read_bytes()
    )
    assert not any(str(found["src"]).startswith("./") for found in attributes(page, "img"))
    assert not attributes(page, "table")  # of one there is no list


def test_of_many_the_pictures_stay_beside_it(tmp_path):
    rows = [make_removal(tmp_path, f"chest-{number:02d}") for number in range(EMBEDDED + 1)]
    page = make_page(tmp_path, *rows)
    pictures = attributes(page, "img")
    assert len(pictures) == 3 * (EMBEDDED + 1)
    assert all(str(found["src"]).startswith("./chest-") for found in pictures)
    assert targets_are_there(page, tmp_path) >= len(pictures)
    assert (tmp_path / PAGE).stat().st_size < 3000 * (EMBEDDED + 1) + 25_000
    assert len({found["href"] for found in attributes(page, "a") if "#case-" in str(found["href"])}) == EMBEDDED + 1


@pytest.mark.parametrize("embedded", [0, EMBEDDED])
def test_odd_names_are_text_and_their_files_are_found(tmp_path, monkeypatch, embedded):
    monkeypatch.setattr(suppression_page, "EMBEDDED", embedded)
    page = make_page(tmp_path, *(make_removal(tmp_path, name, unsure=True) for name in ODD))
    assert all(name in page.text for name in ODD)
    assert targets_are_there(page, tmp_path) == len(ODD) * (5 + (0 if embedded else 4))
    assert not attributes(page, "b")
    assert not any(name.startswith("on") for _, found in page.tags for name in found)


@settings(deadline=None, max_examples=40)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map("§{}".format))
def test_any_name_is_shown_as_it_is(name):
    record = {"doubts": [], "changed_share": 0.1, "largest_change": 0.2, "method": name}
    pictures = dict.fromkeys(("before", "after", "bone"), b"")
    case = Case(1, Result("/x", "done", name, height=1, width=1), record, (), (name,), pictures, (1, 1), {})
    page = outline(render_suppressions([case], []))
    assert page.words.count(name) == 3  # its title, its method, its note
    plain = outline(render_suppressions([replace(case, record=record | {"method": "x"}, notes=("x",))], []))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]


def test_it_loads_nothing_from_elsewhere(tmp_path):
    page = make_page(tmp_path, make_removal(tmp_path, "a"))
    assert all(address.startswith(("data:", "./", "#")) for address in addresses(page))
    text = (tmp_path / PAGE).read_text()
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|innerHTML", re.sub('data:[^"]*', "", text))


def test_the_marked_ones_come_first_and_say_why(tmp_path):
    doubts = (Doubt.TEXTURE, Doubt.SIGN)
    rows = [make_removal(tmp_path, "plain"), make_removal(tmp_path, "look", review=["rib"], flags=["review"])]
    rows += [make_removal(tmp_path, "odd", doubts=doubts, flags=["suppression_doubtful", "grey_levels_reversed"])]
    page = make_page(tmp_path, *rows)
    assert [str(found["aria-label"]).partition(":")[0] for found in attributes(page, "input")] == [
        "odd",
        "look",
        "plain",
    ]
    assert "1 marked as doubtful" in page.text
    assert all(DOUBT_WORDS[doubt] in page.text for doubt in doubts)
    assert DOUBT_WORDS[Doubt.AMOUNT] not in page.text
    assert "not along ribs, wrong sign" in page.text
    assert "look at the masks of rib:" in page.text
    assert "bone is dark in this radiograph" in page.text


def test_a_reader_is_told_of_every_doubt_in_words():
    assert set(DOUBT_WORDS) == set(Doubt)


def test_refused_files_are_listed_with_their_reason_and_without_the_folders_above_them(tmp_path):
    refused = Result(
        "/home/ann/ward/<b>.png", "refused", reason="empty_file", sentence="/home/ann/ward/<b>.png: it has 0 bytes."
    )
    page = make_page(tmp_path, make_removal(tmp_path, "a"), refused)
    assert "1 file refused" in page.text
    assert "ward/<b>.png" in page.text
    assert "It has 0 bytes." in page.text
    assert "empty_file" in page.text
    assert "ann" not in page.text


def test_it_shows_what_is_in_the_folder_and_goes_with_the_last_of_it(tmp_path):
    first, second = make_removal(tmp_path, "a"), make_removal(tmp_path, "b")
    make_page(tmp_path, first, second)
    shutil.rmtree(tmp_path / "a/page")  # as an earlier version left it
    (tmp_path / "c").mkdir()
    page = make_page(tmp_path, Result("/in/c.png", "done", "c"))  # predicted, and its ribs left in place
    assert [str(found["aria-label"])[0] for found in attributes(page, "input")] == ["b"]
    (tmp_path / "b/result.json").write_text("{")
    assert write_page(tmp_path) is None
    assert not (tmp_path / PAGE).exists()


def test_a_page_that_fails_leaves_the_one_before(tmp_path, monkeypatch):
    make_page(tmp_path, make_removal(tmp_path, "a"))
    old, names = (tmp_path / PAGE).read_bytes(), sorted(tmp_path.iterdir())

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(suppression_page, "render_suppressions", fail)
    with pytest.raises(MemoryError):
        write_page(tmp_path)
    assert (tmp_path / PAGE).read_bytes() == old
    assert sorted(tmp_path.iterdir()) == names


PROBE = """<script>
const said = [], slider = document.querySelector(".slider"), range = slider.querySelector("input");
const say = () => said.push(range.value + " " + getComputedStyle(slider.querySelector(".after")).clipPath);
say();
range.value = 30; range.dispatchEvent(new Event("input")); say();
const stack = slider.querySelector(".stack"), box = stack.getBoundingClientRect();
stack.setPointerCapture = () => {};
const at = (kind, share, buttons) => stack.dispatchEvent(
  new PointerEvent(kind, {clientX: box.left + share * box.width, buttons, pointerId: 1}));
at("pointerdown", 0.25, 1); say();
at("pointermove", 0.75, 1); say();
at("pointermove", 0.1, 0); say();
at("pointermove", 2, 1); say();
slider.querySelectorAll("button")[1].click(); say();
document.title = "said " + said.join("; ") + "; " + range.getAttribute("aria-valuetext");
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_the_slider_moves_in_a_browser(tmp_path):
    make_page(tmp_path, make_removal(tmp_path, "a"))
    page = tmp_path / "probe.html"
    page.write_text((tmp_path / PAGE).read_text().replace("</body>", PROBE + "</body>"))
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={tmp_path}/profile"]
    command = [str(CHROMIUM), *switches, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said = re.search("<title>said (.*?)</title>", done.stdout)
    assert said is not None, done.stderr[-500:]
    expected = [f"{at} inset(0px 0px 0px {at}%)" for at in (50, 30, 25, 75, 75, 100, 0)]
    assert said[1].split("; ") == [*expected, "0 % original"]
