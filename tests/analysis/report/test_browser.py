"""The page in a real browser, from a file: headless Chromium, where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from report_parts import COMMANDS, confirmed_table, example_run, page_of, specimens
from run_folder import RunFolder

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
SIZES = [(1280, 900), (390, 844)]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = example_run(RunFolder(tmp_path_factory.mktemp("runs") / "demo"))
    return page_of(
        folder,
        specimens(["baseline", "t0013", "t0002", "t0003"]),
        commands=COMMANDS,
        confirmed=confirmed_table([("t0013", "search", 412.0, 400.0)]),
        wandb_urls={"t0013": "https://wandb.ai/team/vq/runs/abc"},
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Containers have no user namespaces for Chromium's sandbox; the page is our own.
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def told() -> list[str]:
    """What the console said, and every request but for the page itself and data."""
    return []


def opened(browser: Browser, report: Path, told: list[str], **more: Any) -> Page:
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **more})
    page.on("console", lambda message: told.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: told.append(f"error: {error}"))
    page.on("request", lambda request: told.append(request.url))
    page.goto(report.as_uri())
    told[:] = [line for line in told if not line.startswith("data:") and line != report.as_uri()]
    return page


@pytest.fixture
def page(browser: Browser, report: Path, told: list[str]) -> Iterator[Page]:
    page = opened(browser, report, told)
    yield page
    page.close()
    assert [line for line in told if not line.startswith("data:")] == []


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.getAttribute('aria-label') || ''"))


def tab_to_the_front(page: Page) -> None:
    page.locator("[data-zoom=reset]").focus()
    page.keyboard.press("Tab")


def place_of(page: Page, trial: str) -> tuple[float, float]:
    box = page.locator(f".points > .point[aria-label*='{trial}:'] .dot").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_wider_than_the_screen(
    browser: Browser, report: Path, told: list[str], size: tuple[int, int], scheme: Any
) -> None:
    viewport = {"width": size[0], "height": size[1]}
    page = opened(browser, report, told, viewport=viewport, color_scheme=scheme)
    for opens in (False, True):
        page.evaluate(f"document.querySelectorAll('details').forEach((d) => d.open = {opens:d})")
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    red = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0]")
    assert (int(red) < 128) == (scheme == "dark")
    page.close()
    assert told == []


def test_every_picture_is_drawn_and_has_words(page: Page) -> None:
    pictures = page.evaluate(
        "[...document.images].map((i) => [i.complete, i.naturalWidth, i.clientHeight, i.alt])"
    )
    assert len(pictures) == 15
    assert all(done and width > 0 and height > 0 and alt for done, width, height, alt in pictures)


def test_the_front_answers_to_the_pointer(page: Page) -> None:
    for trial in ("t0013", "t0003", "baseline"):
        page.locator("#front .plot").scroll_into_view_if_needed()
        page.mouse.move(*place_of(page, trial))
        card = page.locator(".card:visible")
        assert card.count() == 1
        assert trial in card.inner_text()
        assert "perplexity" in card.inner_text()
    page.mouse.click(5, 5)
    assert page.locator(".card:visible").count() == 0


def test_the_front_answers_to_the_keyboard(page: Page) -> None:
    tab_to_the_front(page)
    assert focused(page).startswith("No. 1: t0013")
    assert "t0013" in page.locator(".card:visible").inner_text()
    seen = []
    for _ in range(4):
        page.keyboard.press("ArrowRight")
        seen.append(focused(page).split(":")[0])
        assert page.locator(".card:visible").count() == 1
    assert seen == ["baseline", "No. 4", "No. 2", "No. 1"]  # by perplexity, and round
    page.keyboard.press("ArrowDown")
    assert focused(page).startswith("No. 2")  # the lower recon_loss
    page.keyboard.press("End")
    assert focused(page).startswith("No. 1")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.href") == "https://wandb.ai/team/vq/runs/abc"
    page.keyboard.press("Escape")
    assert page.locator(".card:visible").count() == 0
    page.keyboard.press("Tab")
    assert not focused(page).startswith("No.")  # one stop in the tab order


def view(page: Page) -> str:
    return str(page.locator("#front .lines").get_attribute("viewBox"))


def ticks(page: Page) -> list[str]:
    return page.locator("#front .ticks text").all_inner_texts()


def test_the_view_can_be_zoomed_moved_and_reset(page: Page) -> None:
    whole, labels = view(page), ticks(page)
    page.locator("[data-zoom=in]").click()
    zoomed = view(page)
    assert zoomed != whole
    assert ticks(page) != labels and len(ticks(page)) >= 4
    box = page.locator("#front .plot").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 300, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 250, box["y"] + 180)
    page.mouse.up()
    assert view(page) not in (zoomed, whole)
    page.locator("[data-zoom=reset]").click()
    assert view(page) == whole and ticks(page) == labels
    page.keyboard.down("Control")
    page.mouse.move(box["x"] + 300, box["y"] + 200)
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    page.wait_for_function(
        f"document.querySelector('#front .lines').getAttribute('viewBox') != '{whole}'"
    )
    page.mouse.dblclick(box["x"] + 20, box["y"] + 60)
    assert view(page) == whole
    tab_to_the_front(page)
    page.keyboard.press("+")
    assert view(page) != whole
    x, _ = place_of(page, "t0013")  # what is looked at stays in sight
    assert box["x"] <= x <= box["x"] + box["width"]
    page.keyboard.press("ArrowRight")  # and so does what is looked at next
    x, _ = place_of(page, "baseline")
    assert box["x"] <= x <= box["x"] + box["width"]
    page.keyboard.press("0")
    assert view(page) == whole


def test_the_curves_answer_to_pointer_and_keyboard(page: Page) -> None:
    chart = page.locator(".curves").first
    chart.locator(".curve.part-first").focus()
    assert "No. 1: t0013: perplexity 412" in chart.locator(".reading").inner_text()
    page.keyboard.press("ArrowDown")
    assert "No. 2: t0002" in chart.locator(".reading").inner_text()
    chart.locator(".plot").scroll_into_view_if_needed()
    box = chart.locator(".plot").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] * 0.05)
    assert "t0013" in chart.locator(".reading").inner_text()


def test_a_command_is_copied_by_its_button(browser: Browser, report: Path) -> None:
    for allowed in (["clipboard-read", "clipboard-write"], []):
        context = browser.new_context(permissions=allowed)
        page = context.new_page()
        page.goto(report.as_uri())
        if not allowed:
            page.evaluate(
                "() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }"
            )
        button = page.get_by_role("button", name="Copy: Retrain")
        button.click()
        page.wait_for_function("document.getElementById('said').textContent === 'Copied'")
        assert button.inner_text() == "Copied"
        if allowed:
            assert page.evaluate("navigator.clipboard.readText()") == COMMANDS.retrain
        else:
            assert page.evaluate("getSelection().toString()") == COMMANDS.retrain
        context.close()


def test_sound_can_be_played(page: Page) -> None:
    lengths = page.evaluate(
        """() => {
          const length = (sound) => new Promise((done) => {
            sound.addEventListener("loadedmetadata", () => done(sound.duration));
            sound.addEventListener("error", () => done(-1));
            sound.preload = "auto";
            sound.load();
          });
          return Promise.all([...document.querySelectorAll("audio")].map(length));
        }"""
    )
    assert len(lengths) == 15
    assert lengths == pytest.approx([0.1] * 15, abs=0.01)


def test_without_its_script_the_page_still_tells_everything(browser: Browser, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator(".points > .point:visible").count() == 4
    assert page.locator(".copy:visible, .zoom:visible").count() == 0
    context.close()
