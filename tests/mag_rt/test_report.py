"""What report.html promises to a picture editor, in a real browser: Debian's chromium, driven by Playwright."""

import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mag_rt.findings import Failure, Finding, Region, SeenObject
from mag_rt.sinks.images import ImageSink, thumbnail_paths
from mag_rt.sinks.report import facts, link, place, write_report
from mag_rt.wording import clock, printable
from tests.conftest import save

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NOISE = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
HOSTILE = '"><img src=x onerror=alert(1)>.jpg'
RUN = {
    "schema": 1,
    "versions": {"magrt": "9.9.9", "openvino": "2026.1"},
    "model": {"annotator": "edge", "sha256": "ab" * 32},
    "backend": {"name": "openvino", "precision": "int8", "reason": "it is the fastest here"},
    "options": {"sources": ["inbox"], "max_side": 1024, "tiles": False, "fps": 1.0, "every": None},
    "timings": {"started": "2026-11-24T21:44:23+00:00", "seconds": 3.6, "pictures_per_second": 6.5},
}


def finding(source: Path | str, score: float, regions: int = 1, **more: Any) -> Finding:
    """A picture of 320 x 240 with heat in boxes from the left to the right, which are its regions."""
    rng = np.random.default_rng(len(str(source)))
    picture = cv2.resize(rng.integers(60, 200, (6, 8, 3), dtype=np.uint8), (320, 240))
    mask = np.full((240, 320), 20, np.uint8)
    found = []
    for at in range(regions):
        left = 20 + 100 * at
        mask[20:100, left : left + 80] = 240
        corners = [(left, 20), (left + 79, 20), (left + 79, 99), (left, 99)]
        found.append(Region((left, 20, 80, 80), 0.0833, 0.94, corners))
    verdict = "spliced" if score >= 0.7 else "authentic" if score <= 0.3 else "inconclusive"
    return Finding(
        str(source), None, None, 320, 240, "cd" * 32, score, verdict, found, mask=mask, picture=picture, **more
    )  # fmt: skip


def results(folder: Path, findings: list[Finding], run: dict[str, Any] | None = None) -> Path:
    """The folder of a scan with these findings and its report."""
    folder.mkdir(parents=True, exist_ok=True)
    sink = ImageSink(folder)
    with (folder / "findings.jsonl").open("w", encoding="ascii") as lines:
        for each in findings:
            mask, overlay = sink.write(each)
            source = os.path.relpath(each.source or "", folder)
            lines.write(json.dumps({"schema": 1, "source": source, **each.as_json(), "mask": mask, "overlay": overlay}))
            lines.write("\n")
            if each.picture is not None and each.frame is None:
                path = Path(os.fsdecode(os.fsencode(each.source or "")))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(cv2.imencode(".jpg", each.picture)[1].tobytes())
    (folder / "run.json").write_text(json.dumps(RUN if run is None else run))
    write_report(folder)
    return folder


def frames(source: Path, scores: list[float]) -> list[Finding]:
    return [replace(finding(source, score), frame=30 * at, time_s=at / 2) for at, score in enumerate(scores)]


def failed(source: Path, kind: str = "truncated", message: str = "the file ends too early") -> Finding:
    return Finding(str(source), error=Failure(kind, message))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything at once: three verdicts, a video, names of all kinds, files that cannot be read."""
    folder = tmp_path_factory.mktemp("mixed")
    inbox = folder / "inbox"
    findings = [
        finding(inbox / "calm.jpg", 0.1, regions=0),
        finding(inbox / "unsure.jpg", 0.5),
        finding(inbox / "worst.jpg", 0.95, regions=2, objects=[SeenObject("dog", 0.2)]),
        *frames(inbox / "clip.mp4", [0.2, 0.8, 0.9, 0.4, 0.1]),
        finding(inbox / HOSTILE, 0.85),
        finding(inbox / "new\nline.jpg", 0.45),
        finding(inbox / "صورة.jpg", 0.44),
        finding(inbox / ("long" * 50 + ".jpg"), 0.43),
        failed(inbox / "cut.jpg"),
        failed(inbox / "</script><script>alert(2)</script>", "unreadable", "<b>no</b> permission"),
    ]
    return results(folder / "out", findings)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install '.[dev]'")
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


Opener = Callable[..., Any]


@pytest.fixture
def show(browser: Any) -> Iterator[Opener]:
    """Opens a report from file:// without a network. Whatever a test does: no error, no alert, no request elsewhere."""
    wrong: list[str] = []
    contexts = []

    def opened(folder: Path, scheme: str = "light", width: int = 1280) -> Any:
        context = browser.new_context(
            offline=True, color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce"
        )
        context.set_default_timeout(20_000)  # the machine may be busy
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(f"alert: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda asked: wrong.append(asked.url) if outside(asked.url) else None)
        page.goto((folder / "report.html").as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


def outside(url: str) -> bool:
    return not url.startswith(("file:", "data:"))


def shown(page: Any) -> list[str]:
    """The names of the cards that can be seen, in their order."""
    return page.locator(".card:visible .name").all_text_contents()


def choose(page: Any, name: str) -> None:
    page.get_by_role("radio", name=name, exact=True).click()


def in_detail(page: Any) -> str:
    return page.locator("#detail-name").inner_text()


def alphas(page: Any) -> tuple[int, int]:
    """Opacity of the heat in the detail view where it is weakest and where it is strongest."""
    return tuple(
        page.evaluate(
            """() => { const c = document.querySelector('#heat');
            const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((_, i) => i % 4 === 3);
            return [Math.min(...d), Math.max(...d)]; }"""
        )
    )


def test_it_opens_without_a_network_and_asks_for_nothing(show: Opener, mixed: Path) -> None:
    page = show(mixed)
    page.locator(".card img").first.wait_for()
    assert (
        page.locator(".card img:visible").first.evaluate("image => image.decode().then(() => image.naturalWidth)")
        == 320
    )
    assert page.locator("h1").inner_text() == "4 of 12 pictures and frames look spliced"
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0


def test_its_policy_lets_nothing_in_from_elsewhere(browser: Any, mixed: Path) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("requestfinished", lambda request: asked.append(request.url))
    page.goto((mixed / "report.html").as_uri())
    blocked = page.evaluate(
        """async () => {
            const said = [];
            document.addEventListener('securitypolicyviolation', (event) => said.push(event.effectiveDirective));
            const strange = '<img src="https://example.org/x.png"><b id="strange" onclick="window.ran = true"></b>';
            document.body.insertAdjacentHTML('beforeend', strange);
            document.getElementById('strange').click();  // browsers may look at a handler only when it is to run
            await fetch('https://example.org/').catch(() => {});
            await new Promise((done) => setTimeout(done, 200));
            return said;
        }"""
    )
    assert {"img-src", "connect-src", "script-src-attr"} <= set(blocked) and not page.evaluate("window.ran")
    assert not [url for url in asked if outside(url)]
    page.close()


def test_the_most_suspicious_come_first(show: Opener, mixed: Path) -> None:
    page = show(mixed)
    tops = page.locator(".cards > li").evaluate_all(
        "all => all.map((each) => each.querySelector(each.matches('.video') ? 'h3' : '.name').textContent)"
    )
    assert tops[:4] == ["worst.jpg", "clip.mp4", HOSTILE, "unsure.jpg"] and tops[-1] == "calm.jpg"
    # The frames of a video stay together, in the order of time.
    assert page.locator(".film .name").all_text_contents() == [f"at 0:0{at / 2:.1f}" for at in range(5)]


VERDICTS = {"spliced": 4, "inconclusive": 5, "authentic": 3, "unreadable": 2}


@pytest.mark.parametrize("verdict", VERDICTS)
def test_each_filter_works_by_mouse(show: Opener, mixed: Path, verdict: str) -> None:
    page = show(mixed)
    choose(page, f"{verdict.capitalize()} {VERDICTS[verdict]}")
    seen = page.locator(".card:visible .verdict").all_text_contents()
    failures = page.locator("#unreadable li:visible").count()
    assert set(seen) <= {verdict.capitalize()}
    assert (len(seen), failures) == ((0, 2) if verdict == "unreadable" else (VERDICTS[verdict], 0))
    assert page.locator("#shown").inner_text() == f"{VERDICTS[verdict]} shown"


def test_filters_work_by_keyboard_alone(show: Opener, mixed: Path) -> None:
    page = show(mixed)
    tab_to(page, "input[name=verdict]")
    counts = []
    for _ in VERDICTS:
        page.keyboard.press("ArrowRight")
        counts.append(page.locator("#shown").inner_text())
    assert counts == [f"{count} shown" for count in VERDICTS.values()]


def test_search_finds_by_name_whatever_the_case(show: Opener, mixed: Path) -> None:
    page = show(mixed)
    page.get_by_label("Search by name").fill("WORST")
    assert shown(page) == ["worst.jpg"]
    page.get_by_label("Search by name").fill("cut")
    assert shown(page) == [] and page.locator("#unreadable li:visible").count() == 1
    page.get_by_label("Search by name").fill("no such name")
    assert page.locator("#nothing").is_visible()
    page.get_by_role("button", name="Show all").click()
    assert page.locator("#shown").inner_text() == "14 shown"
    tab_to(page, "#search")
    page.keyboard.type("calm")
    assert shown(page) == ["calm.jpg"]


@pytest.mark.parametrize("typed", ["9.41.00 AM", "9.41.00\u202fam", "CAFÉ", "cafe\u0301", "\uff23afé"])
def test_search_finds_what_looks_the_same(show: Opener, tmp_path: Path, typed: str) -> None:
    names = ("Screenshot at 9.41.00\u202fAM café.jpg", "cafe 9.41.jpg")
    page = show(results(tmp_path / "out", [finding(tmp_path / name, 0.5) for name in names]))
    page.get_by_label("Search by name").fill(typed)
    assert shown(page) == [names[0]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_the_systems_until_toggled(show: Opener, mixed: Path, scheme: str) -> None:
    page = show(mixed, scheme)
    ground = "getComputedStyle(document.body).backgroundColor"

    def is_dark() -> bool:
        red = page.evaluate(ground).split("(")[1].split(",")[0]
        assert page.locator("#theme").get_attribute("aria-pressed") == str(int(red) < 128).lower()
        return int(red) < 128

    assert is_dark() == (scheme == "dark")
    page.locator("#theme").click()
    assert is_dark() != (scheme == "dark")
    page.locator("#theme").focus()
    page.keyboard.press("Enter")
    assert is_dark() == (scheme == "dark")


def test_the_detail_view_by_mouse(show: Opener, mixed: Path) -> None:
    page = show(mixed)
    page.locator(".card button").first.click()
    assert in_detail(page) == "worst.jpg" and page.locator("#detail-place").inner_text() == "1 of 12"
    assert page.locator("#previous").is_disabled()
    page.locator("#sharp:visible").wait_for()  # the original itself, from its place
    assert page.locator("#detail-facts").inner_text().find("dog") > 0
    page.locator("#next").click()
    assert in_detail(page) == "clip.mp4, at 0:00.0"
    page.locator("#previous").click()
    assert in_detail(page) == "worst.jpg"
    links = page.locator("#links a").evaluate_all("all => all.map((each) => each.getAttribute('href'))")
    assert len(links) == 3 and all((mixed / unquote(each)).is_file() for each in links)
    page.locator("#close").click()
    assert not page.locator("#detail").is_visible()


def test_the_detail_view_by_keyboard_alone(show: Opener, mixed: Path) -> None:
    page = show(mixed)
    tab_to(page, ".card button")
    page.keyboard.press("Enter")
    assert in_detail(page) == "worst.jpg"
    visited = []
    for _ in range(11):
        page.keyboard.press("ArrowRight")
        visited.append(in_detail(page))
    assert len(set(visited)) == 11 and visited[-1] == "calm.jpg" and page.locator("#next").is_disabled()
    page.keyboard.press("ArrowRight")  # nothing lies behind the last one
    assert in_detail(page) == "calm.jpg"
    page.keyboard.press("ArrowLeft")
    assert in_detail(page).startswith("long")
    page.keyboard.press("Escape")
    assert not page.locator("#detail").is_visible()
    focused = "document.activeElement.querySelector('.name')?.textContent"
    page.wait_for_function(f"{focused}.startsWith('long')", timeout=5000)  # a dialog says later that it has closed


def test_the_next_picture_is_the_next_of_those_that_the_filter_shows(show: Opener, mixed: Path) -> None:
    page = show(mixed)
    choose(page, "Authentic 3")
    page.locator(".card:visible button").last.click()
    assert in_detail(page) == "calm.jpg" and page.locator("#detail-place").inner_text() == "3 of 3"
    page.keyboard.press("ArrowLeft")
    assert in_detail(page) == "clip.mp4, at 0:02.0"


def test_the_slider_goes_from_the_photo_to_the_heat_map(show: Opener, mixed: Path) -> None:
    page = show(mixed)
    page.locator(".card button").first.click()
    until(page, "document.querySelector('#heat').width > 1")
    weakest, strongest = alphas(page)
    assert weakest < 30 and 100 < strongest < 200  # as in overlays/
    slider = page.locator("#fade")
    slider.focus()
    page.keyboard.press("Home")
    assert alphas(page) == (0, 0)
    page.keyboard.press("End")
    assert alphas(page) == (255, 255)
    around = slider.bounding_box()
    page.mouse.click(around["x"] + 3, around["y"] + around["height"] / 2)
    assert alphas(page) == (0, 0)
    page.keyboard.press("ArrowRight")  # moves the slider, not to the next picture
    assert in_detail(page) == "worst.jpg" and slider.input_value() == "1"


def test_regions_are_outlined_and_described_on_hover_and_focus(show: Opener, mixed: Path) -> None:
    page = show(mixed)
    page.locator(".card button").first.click()
    page.locator("#regions button").first.wait_for()
    note, outlines = page.locator("#note"), page.locator("#outlines polygon.line")
    assert outlines.count() == 2
    page.locator("#regions button").nth(1).hover()
    assert note.inner_text().startswith("Area 2, upper centre: covers 8.3% of the picture; splice probability 0.94")
    page.mouse.move(0, 0)
    page.locator("#regions button").first.focus()
    assert note.inner_text().startswith("Area 1, upper left")
    page.locator("#close").focus()
    assert note.inner_text().startswith("Point at")
    stage = page.locator(".stage").bounding_box()
    page.mouse.move(stage["x"] + stage["width"] * 160 / 320, stage["y"] + stage["height"] * 60 / 240)
    assert note.inner_text().startswith("Area 2")  # in the picture itself


@pytest.mark.parametrize("inner_first", [True, False])
def test_a_region_within_another_can_be_pointed_at_again_and_again(
    show: Opener, tmp_path: Path, inner_first: bool
) -> None:
    boxes = {"ring": (20, 20, 280, 200), "inner": (120, 80, 80, 80)}
    regions = []
    for left, top, wide, high in boxes.values():
        corners = [(left, top), (left + wide, top), (left + wide, top + high), (left, top + high)]
        regions.append(Region((left, top, wide, high), 0.1, 0.9, corners))
    order = ["inner", "ring"] if inner_first else ["ring", "inner"]
    found = replace(finding(tmp_path / "a.jpg", 0.9), regions=regions[::-1] if inner_first else regions)
    page = show(results(tmp_path / "out", [found]))
    page.locator(".card button").click()
    page.locator("#regions button").first.wait_for()
    stage = page.locator(".stage").bounding_box()
    for name, x in (("inner", 160), ("ring", 60), ("inner", 160), ("ring", 260)):
        page.mouse.move(stage["x"] + stage["width"] * x / 320, stage["y"] + stage["height"] * 120 / 240)
        assert page.locator("#note").inner_text().startswith(f"Area {order.index(name) + 1}"), name


@pytest.mark.parametrize("way", ["hover", "focus"])
def test_the_gallery_shows_heat_on_hover_and_focus(show: Opener, mixed: Path, way: str) -> None:
    page = show(mixed)
    card = page.locator(".card").first
    assert card.locator("canvas").evaluate("canvas => getComputedStyle(canvas).opacity") == "0"
    if way == "hover":
        card.locator("button").hover()
    else:
        tab_to(page, ".card button")
    until(page, "document.querySelector('.card canvas').width === 320")
    assert card.locator("canvas").evaluate("canvas => getComputedStyle(canvas).opacity") == "1"


def test_all_pictures_are_marked_at_once_also_those_that_come_later(show: Opener, tmp_path: Path) -> None:
    def heat(number: int, opacity: int) -> str:
        canvas = f"document.querySelectorAll('.card canvas')[{number}]"
        return f"{canvas}.width === 320 && getComputedStyle({canvas}).opacity === '{opacity}'"

    page = show(results(tmp_path / "out", [finding(tmp_path / f"{n}.jpg", 0.9) for n in range(60)]))
    until(page, "!document.querySelector('.card img').hidden")
    button = page.get_by_role("button", name="Mark all")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    until(page, heat(0, 1))
    page.locator(".card").last.scroll_into_view_if_needed()
    until(page, heat(59, 1))
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    until(page, heat(0, 0))


def test_a_name_is_just_a_name(show: Opener, mixed: Path) -> None:
    page = show(mixed)
    assert {HOSTILE, "new\\nline.jpg", "صورة.jpg", "long" * 50 + ".jpg"} <= set(shown(page))
    for name in (HOSTILE, "new\\nline.jpg"):
        page.locator(".card button", has=page.get_by_text(name, exact=True)).click()
        assert in_detail(page) == name
        page.locator("#sharp:visible").wait_for()  # and its links still lead to it
        page.keyboard.press("Escape")
    assert page.locator("img[src=x]").count() == 0
    assert "<b>no</b> permission (unreadable)" in page.locator("#unreadable").inner_text()
    assert "</script><script>alert(2)</script>" in page.locator("#unreadable").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.skipif(sys.platform == "darwin", reason="names are Unicode there")
def test_a_name_that_is_no_unicode_is_shown_and_linked(show: Opener, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    run = {**RUN, "options": {"sources": [name]}}
    folder = results(tmp_path / "out", [finding(tmp_path / name, 0.9), failed(tmp_path / ("x" + name))], run)
    (folder / "report.html").read_bytes().decode("utf-8")
    page = show(folder)
    assert shown(page) == ["caf\\udce9.jpg"]
    page.locator(".card button").click()
    page.locator("#sharp:visible").wait_for()


def test_bidi_overrides_in_a_name_are_made_visible(tmp_path: Path) -> None:
    folder = results(tmp_path / "out", [finding(tmp_path / "gpj.\u202egnp.exe", 0.9)])
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "\u202e" not in text and "gpj.\\u202egnp.exe" in text


def test_a_name_cannot_be_a_scheme() -> None:
    assert link("javascript:alert(1).jpg") == "./javascript%3Aalert%281%29.jpg"
    assert link("../a b/c?#%.jpg") == "./../a%20b/c%3F%23%25.jpg"


def test_an_address_has_the_slashes_of_the_web(monkeypatch: pytest.MonkeyPatch) -> None:
    assert link("back\\slash.jpg") == "./back%5Cslash.jpg"
    monkeypatch.setattr(os, "sep", "\\")  # as on Windows
    assert link("..\\inbox\\a b.jpg") == "./../inbox/a%20b.jpg"


def test_a_video_has_a_time_line_with_its_spliced_stretches(show: Opener, mixed: Path) -> None:
    page = show(mixed)
    bars = page.locator(".video .timeline rect").evaluate_all(
        "all => all.map((bar) => [bar.classList[0], +bar.getAttribute('x'), +bar.getAttribute('height')])"
    )
    assert [bar[0] for bar in bars] == ["authentic", "spliced", "spliced", "inconclusive", "authentic"]
    assert [bar[1] for bar in bars] == [0, 200, 400, 600, 800]
    assert max(bars, key=lambda bar: bar[2])[1] == 400
    stretch = page.get_by_role("button", name="Spliced from 0:00.5 to 0:01.0, most suspicious at 0:01.0 (0.90)")
    stretch.focus()
    page.keyboard.press("Enter")
    assert in_detail(page) == "clip.mp4, at 0:01.0"
    page.locator("#scrub").focus()
    page.keyboard.press("ArrowRight")
    assert in_detail(page) == "clip.mp4, at 0:01.5"
    around = page.locator("#scrub").bounding_box()
    page.mouse.click(around["x"] + 2, around["y"] + around["height"] / 2)
    assert in_detail(page) == "clip.mp4, at 0:00.0"
    page.keyboard.press("Escape")
    assert stretch.evaluate("button => button === document.activeElement")


def test_the_facts_of_the_run_and_the_limits_are_told(show: Opener, mixed: Path) -> None:
    page = show(mixed)
    text = page.locator(".facts").inner_text()
    for fact in ("9.9.9", "ab" * 32, "openvino int8", "it is the fastest here", "1024", "24 November 2026, 21:44 UTC"):
        assert fact in text
    page.get_by_role("link", name="What to look for, and when not to trust it").click()
    until(page, "document.querySelector('#guide').getBoundingClientRect().top < innerHeight / 2")
    assert "no proof" in page.locator("#guide").inner_text()


def test_what_was_passed_over_is_told(show: Opener, tmp_path: Path) -> None:
    run = {**RUN, "passed_over": {"heic": 12, "cr2": 1}}
    page = show(results(tmp_path / "out", [finding(tmp_path / "a.jpg", 0.5)], run))
    assert page.locator(".top .warning").inner_text() == (
        "Passed over: 12 HEIC, 1 CR2, of kinds that are not read. Nothing is known of them."
    )


def test_the_facts_are_told_in_words() -> None:
    run = {**RUN, "timings": {"started": "2026-11-04T08:04:23+00:00"}}
    told = dict(facts(run))
    assert told["Scan started"] == "4 November 2026, 08:04 UTC" and "Time taken" not in told
    assert (told["Option sources"], told["Option tiles"], told["Run by"]) == ("inbox", "no", "openvino int8")
    assert "Option every" not in told
    assert dict(facts({"timings": {"started": "once"}})) == {"Scan started": "once"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_nothing_serious(show: Opener, mixed: Path, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install '.[dev]'").Axe()
    page = show(mixed, scheme, width)
    page.locator(".card img").first.wait_for()

    def check() -> None:
        serious = [each for each in axe.run(page).response["violations"] if each["impact"] in ("serious", "critical")]
        assert not [(each["id"], [node["html"] for node in each["nodes"]]) for each in serious]

    check()
    for button in (page.locator(".card button").first, page.locator(".film .card button").nth(1)):
        button.click()
        page.locator("#regions button").first.wait_for()
        page.locator("#regions button").first.focus()
        check()
        page.keyboard.press("Escape")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_is_usable_with_5000_pictures(show: Opener, tmp_path: Path) -> None:
    """150 MB at most; the browser works 4 seconds at most to open it; to filter and search, less than half as long."""
    count, out = 5000, tmp_path / "out"
    (out / "thumbnails").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (36, 48, 3), dtype=np.uint8)
    photo = cv2.imencode(".jpg", cv2.resize(noise, (384, 288)), [cv2.IMWRITE_JPEG_QUALITY, 70])[1].tobytes()
    assert 15_000 < len(photo) < 22_000  # as real ones
    save(tmp_path / "mask.jpg", np.full((288, 384), 99, np.uint8))
    (tmp_path / "photo.jpg").write_bytes(photo)
    line = {**finding("x", 0.5).as_json(), "schema": 1, "mask": "masks/x.png", "overlay": None}
    with (out / "findings.jsonl").open("w") as lines:
        for at in range(count):
            verdict = ("spliced", "inconclusive", "authentic")[at % 3]
            line |= {
                "source": f"../inbox/{at:05}.jpg",
                "mask": f"masks/{at:05}.png",
                "score": at / count,
                "verdict": verdict,
            }
            lines.write(json.dumps(line) + "\n")
            for path, of in zip(thumbnail_paths(line, out), ("photo.jpg", "mask.jpg"), strict=True):
                os.link(tmp_path / of, out / path)
    write_report(out)
    assert (out / "report.html").stat().st_size < 150e6
    page = show(out)
    tasks = page.context.new_cdp_session(page)
    tasks.send("Performance.enable", {"timeDomain": "threadTicks"})
    before = worked(tasks)
    page.reload()
    page.locator(".card img").first.wait_for()
    opening = worked(tasks) - before
    assert opening < 4
    assert page.locator("#shown").inner_text() == "5,000 shown" and page.locator(".card").count() == count
    assert page.locator(".card img[src]").count() < 200  # the rest come when they are scrolled to
    before = worked(tasks)
    page.locator("input[value=spliced]").click()
    page.locator("#search").fill("0499")
    assert page.locator("#shown").inner_text() == "3 shown"
    assert worked(tasks) - before < opening / 2  # a share: the time itself is as slow as the machine
    page.locator("#search").fill("")
    page.locator("input[name=verdict]").first.click()
    page.locator(".card button").last.focus()
    page.locator(".card img").last.wait_for()
    page.keyboard.press("Enter")
    assert in_detail(page) == "00000.jpg"


@pytest.mark.parametrize(
    ("make", "headline"),
    [
        (lambda at: [finding(at / "a.jpg", 0.9)], "The picture looks spliced"),
        (lambda at: [finding(at / "a.jpg", 0.1, regions=0)], "The picture is not called spliced"),
        (lambda at: [failed(at / "a.jpg"), failed(at / "b.jpg")], "None of 2 files could be read"),
        (lambda at: [failed(at / "a.jpg")], "The file could not be read"),
        (lambda at: frames(at / "a.mp4", [0.1, 0.2]), "None of 2 frames is called spliced"),
        (lambda at: [*frames(at / "a.mp4", [0.9]), failed(at / "a.mp4")], "The frame looks spliced"),
        (lambda at: [], "Nothing was scanned"),
    ],
    ids=["one", "one-authentic", "none-readable", "one-unreadable", "frames", "one-frame-cut-off", "nothing"],
)
@pytest.mark.parametrize("run", [{}, {"finished": False, "model": None}], ids=["no-run", "unfinished"])
def test_it_comes_out_sensibly_for_small_and_odd_results(
    show: Opener, tmp_path: Path, make: Callable[[Path], list[Finding]], headline: str, run: dict[str, Any]
) -> None:
    page = show(results(tmp_path / "out", make(tmp_path), run))
    assert page.locator("h1").inner_text() == headline
    assert page.get_by_text("has not finished").count() == ("finished" in run)
    if page.locator(".card").count():
        page.locator(".card button").first.click()
        assert page.locator("#detail").is_visible()


def test_what_is_missing_is_left_out(show: Opener, tmp_path: Path) -> None:
    folder = results(tmp_path / "out", [finding(tmp_path / "a.jpg", 0.9)])
    shutil.rmtree(folder / "thumbnails")
    (folder / "run.json").unlink()
    lines = (folder / "findings.jsonl").read_text()
    line = json.loads(lines) | {"mask": None, "overlay": None}
    (folder / "findings.jsonl").write_text(json.dumps(line) + "\n" + lines[:40])  # and killed in the middle of a line
    write_report(folder)
    page = show(folder)
    page.locator(".card button").click()
    assert page.locator("#links a").all_inner_texts() == ["Original"]
    assert page.locator("#outlines polygon.line").count() == 1
    page.locator("#sharp:visible").wait_for()


def turned(kind: str, picture: NDArray[np.uint8]) -> bytes:
    """A file that says that it is to be shown upside down."""
    image, exif, file = Image.fromarray(picture), Image.Exif(), io.BytesIO()
    exif[0x0112] = 3
    image.save(file, kind, exif=exif.tobytes())
    return file.getvalue()


def animated(kind: str, picture: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, save_all=True, append_images=[Image.fromarray(255 - picture)])
    return file.getvalue()


def test_the_original_is_shown_only_where_browsers_show_what_was_scanned(show: Opener, tmp_path: Path) -> None:
    """They do not turn a WebP as its EXIF says, which the outlines would not fit, and they play animations."""
    names = {"a.jpg": turned("JPEG", NOISE), "b.png": cv2.imencode(".png", NOISE)[1].tobytes()}
    others = {"c.webp": turned("WEBP", NOISE), "d.png": animated("PNG", NOISE), "e.gif": animated("GIF", NOISE)}
    findings = [finding(tmp_path / name, 0.9 - at / 10) for at, name in enumerate(names | others)]
    folder = results(tmp_path / "out", [*findings, finding(tmp_path / "gone.jpg", 0.1)])
    for name, content in (names | others).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "gone.jpg").unlink()
    write_report(folder)
    page = show(folder)
    page.locator(".card button").first.click()
    for name in names:
        assert in_detail(page) == name
        page.locator("#sharp:visible").wait_for()
        page.locator("#next").click()
    for name in (*others, "gone.jpg"):
        assert in_detail(page) == name
        page.wait_for_timeout(600)
        assert page.locator("#sharp:visible").count() == 0
        page.keyboard.press("ArrowRight")


@pytest.mark.parametrize("made_up", ["255", "Math.random() * 256"], ids=["white", "noise"])
def test_made_up_pixels_are_not_shown_as_heat(browser: Any, mixed: Path, made_up: str) -> None:
    """Firefox with privacy.resistFingerprinting, the Tor browser and others let no page read what it has drawn."""
    page = browser.new_page()
    page.add_init_script(
        f"""const read = CanvasRenderingContext2D.prototype.getImageData;
        CanvasRenderingContext2D.prototype.getImageData = function (...box) {{
            const pixels = read.apply(this, box);
            pixels.data.forEach((_, at) => pixels.data[at] = {made_up});
            return pixels;
        }}"""
    )
    page.goto((mixed / "report.html").as_uri())
    page.locator(".card button").first.hover()
    page.locator(".card button").first.click()
    page.locator("#refused:visible").wait_for()
    assert "in the overlay" in page.locator("#refused").inner_text()
    assert not page.locator("#heat").is_visible() and not page.locator("#fade").is_visible()
    assert page.locator(".card canvas").first.evaluate("canvas => canvas.width") == 1
    assert page.locator("#outlines polygon.line").count() == 2
    page.close()


def test_a_printed_report_has_all_its_pictures(show: Opener, tmp_path: Path) -> None:
    folder = results(tmp_path / "out", [finding(tmp_path / (at * "a" + ".jpg"), 0.5) for at in range(1, 61)])
    page = show(folder)
    page.locator(".card img").first.wait_for()
    assert page.locator(".card img[src]").count() < 60  # those that are far away have not been asked for
    printed = page.pdf()
    assert printed.count(b"/Subtype /Image") == 60


def test_a_report_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = results(tmp_path / "out", [finding(tmp_path / "a.jpg", 0.9)])
    report = folder / "report.html"
    before = report.read_bytes()
    with report.open("rb") as being_read:
        results(folder, [finding(tmp_path / "b.jpg", 0.9)])
        assert being_read.read() == before != report.read_bytes()
    after = report.read_bytes()
    (folder / "findings.jsonl").write_text("no JSON\n")
    with pytest.raises(ValueError, match="Expecting value"):
        write_report(folder)
    assert report.read_bytes() == after


@pytest.mark.parametrize(
    ("x", "y", "words"), [(0, 0, "upper left"), (0.5, 0.5, "centre"), (0.5, 0.1, "upper centre"), (1, 1, "lower right")]
)
def test_a_place_in_words(x: float, y: float, words: str) -> None:
    assert place(x, y) == words


@pytest.mark.parametrize(
    ("name", "readable"),
    [
        ("at 9.41\u202fAM.png", "at 9.41\u202fAM.png"),  # as macOS calls a screenshot
        ("Nº\xa05 می\u200cکند 👩\u200d🔧.jpg", "Nº\xa05 می\u200cکند 👩\u200d🔧.jpg"),
        ("a\n\x1b[31m\x7f\x85.jpg", "a\\n\\x1b[31m\\x7f\\x85.jpg"),
        ("gpj.\u202e\u2066\u200fexe", "gpj.\\u202e\\u2066\\u200fexe"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("\udce9\ue000\U000e0fff", "\\udce9\\ue000\\U000e0fff"),
    ],
    ids=["narrow-space", "joiners", "control", "bidi", "separators", "no-character"],
)
def test_a_name_is_shown_as_it_is_unless_it_would_deceive(name: str, readable: str) -> None:
    assert printable(name) == readable


def test_times_are_read_as_on_a_player() -> None:
    assert [clock(each) for each in (0, 9.96, 59.96, 3605.5)] == ["0:00.0", "0:10.0", "1:00.0", "60:05.5"]


def worked(tasks: Any) -> float:
    """Seconds that the page's own thread has worked, whatever else the machine does."""
    metrics = {each["name"]: each["value"] for each in tasks.send("Performance.getMetrics")["metrics"]}
    return float(metrics["TaskDuration"])


def until(page: Any, condition: str) -> None:
    """Wait for a condition; Playwright's own waiting evaluates text in the page, which its policy forbids."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came: {condition}")


def tab_to(page: Any, selector: str) -> None:
    """Press Tab until what has the focus is the selected."""
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab does not reach {selector}")
