"""The alignment of a video in a real browser: play, jump, methods, keyboard."""

from __future__ import annotations

import numpy as np
import pytest

from mmpt.inference.align import VideoAlignment
from mmpt.pages.alignment import write_alignment
from tests.browser import opened, wait
from tests.media.media import write_video

pytest.importorskip("av")
HOSTILE = "</script><script>window.alerted=1</script><!-- \u2028 &amp;"


def video(n=3, w=10, name="film"):
    """Caption i is at 3 i by DTW; OTAM leaves the last one out."""
    windows = np.stack([np.arange(w), np.arange(w) + 1.0], axis=1).astype(np.float32)
    plan = np.full((n, w), 0.01, np.float32)
    spans = [(min(3.0 * i, w - 2), min(3.0 * i + 2, float(w))) for i in range(n)]
    for i, (start, end) in enumerate(spans):
        plan[i, int(start) : int(end)] = 1
    texts = ["first", HOSTILE, *(f"sentence {i}" for i in range(2, n))]
    otam = [*spans[:-1], None]
    by = {"dtw": spans, "otam": otam, "plan": [(0.0, 1.0)] * n}
    mass = {name: [None if span is None else 0.5 for span in found] for name, found in by.items()}
    truth = [(0.0, 2.0), None, *([(6.0, 8.0)] * (n - 2))]
    said = [(float(i), i + 0.5) for i in range(n)]
    return VideoAlignment(name, texts, said, windows, plan, plan / plan.sum(), by, mass, truth)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp('a "b" <i>#?%')
    film = write_video(
        folder / "film & <b>.webm",
        range(0, 10_000, 500),
        shade=lambda i: (12 * i, 90, 200 - 9 * i),
        size=(320, 180),
        codec="libvpx",
    )
    return write_alignment(folder / "page.html", video(), str(film), notes=["look <here>"])


def now(at):
    return at.page.evaluate("document.getElementById('video').currentTime")


def test_a_click_on_a_sentence_jumps_and_playing_follows(page, browser):
    with opened(browser, page.as_uri()) as at:
        wait(at.page, "document.getElementById('video').readyState >= 1")
        at.page.locator("#sentences button").nth(1).click()
        wait(at.page, "document.getElementById('video').currentTime === 3")
        assert at.page.locator("[aria-current=true]").inner_text().endswith(HOSTILE)
        at.page.click("#play")
        wait(at.page, "document.getElementById('video').currentTime > 3.2")
        assert at.page.evaluate("window.alerted") is None


def test_a_click_on_the_map_jumps_to_its_second(page, browser):
    with opened(browser, page.as_uri()) as at:
        wait(at.page, "document.getElementById('video').readyState >= 1")
        box = at.page.locator("#map").bounding_box()
        at.page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 30)
        wait(at.page, "Math.abs(document.getElementById('video').currentTime - 7.5) < 0.1")


def test_methods_change_spans_and_what_is_left_out_is_grey(page, browser):
    with opened(browser, page.as_uri()) as at:
        last = at.page.locator("#sentences button").nth(2)
        assert "0:06 \u2013 0:08" in last.inner_text()
        at.page.locator("[data-method=otam]").click()
        assert "not visible" in last.inner_text() and last.locator(".unseen").count() == 1
        at.page.keyboard.press("3")
        assert "0:00 \u2013 0:01" in last.inner_text()
        assert at.page.get_attribute("[data-method=plan]", "aria-checked") == "true"


def test_the_keyboard_moves_between_sentences(page, browser):
    with opened(browser, page.as_uri()) as at:
        wait(at.page, "document.getElementById('video').readyState >= 1")
        for key, second in (("j", 3), ("j", 6), ("j", 6), ("k", 3), ("ArrowRight", 8), ("ArrowLeft", 3)):
            at.page.keyboard.press(key)
            wait(at.page, f"Math.abs(document.getElementById('video').currentTime - {second}) < 0.05")


def test_without_a_video_the_time_line_runs_by_itself(tmp_path, browser):
    path = write_alignment(tmp_path / "page.html", video(400, 900))
    with opened(browser, path.as_uri()) as at:
        at.page.keyboard.press("j")
        at.page.keyboard.press("j")
        assert at.page.inner_text("#clock") == "0:06"
        at.page.click("#play")
        wait(at.page, "document.getElementById('clock').textContent === '0:07'")


def test_a_film_that_the_browser_cannot_play_is_told(tmp_path, browser):
    film = write_video(tmp_path / "old.avi", range(0, 2000, 500))
    path = write_alignment(tmp_path / "page.html", video(), str(film))
    with opened(browser, path.as_uri()) as at:
        at.page.locator("#trouble").wait_for(state="visible")


def test_the_page_holds_no_address_of_another_machine(page):
    text = page.read_text()
    assert "http://" not in text and "https://" not in text and "look &lt;here&gt;" in text
