"""What `mmpt align FOLDER` leaves behind, in a real browser: from the list, or from an answer, to a video."""

from __future__ import annotations

import pytest

from mmpt.inference.search import open_index
from mmpt.pages.server import Searcher, application
from mmpt_cli.align import main
from tests.browser import opened, wait
from tests.own_videos import SENTENCES, film, served, vtt

pytest.importorskip("starlette")
pytest.importorskip("av")
pytest.importorskip("pysubs2")
NAME = "a <b>bold</b> & 'soup' #1?"


@pytest.fixture(scope="module")
def made(model_folder, toy_backbone, tmp_path_factory):
    """The folder that was written, of two videos, one without captions."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "videos").mkdir()
    film(folder / "videos" / f"{NAME}.webm".replace("/", "|"), size=(320, 180), codec="libvpx")
    vtt(folder / "videos" / f"{NAME}.vtt".replace("/", "|"))
    film(folder / "videos" / "silent.webm", colour=1, codec="libvpx")
    words = ["--model", model_folder, "--backbone", toy_backbone, "--out", folder / "out", "--device", "cpu"]
    main(list(map(str, [folder / "videos", *words])))
    return folder / "out"


def test_the_list_leads_to_a_video_that_plays(made, browser):
    with opened(browser, (made / "index.html").as_uri()) as at:
        assert "no captions in" in at.page.inner_text("body")
        at.page.locator("tbody a").first.click()
        at.page.locator("#sentences button").nth(2).click()
        wait(at.page, "document.getElementById('video').currentTime > 0")
        at.page.click("#play")
        wait(at.page, "!document.getElementById('video').paused")


def test_an_answer_leads_to_its_alignment(made, browser):
    with served(application(Searcher(*open_index(made)))) as url, opened(browser, f"{url}/?q=stir") as at:
        at.page.locator(".card .aligned").first.click()
        at.page.locator("#sentences button").first.wait_for()
        assert [text in at.page.inner_text("#sentences") for text in SENTENCES] == [True] * 4
        at.page.keyboard.press("j")
        wait(at.page, "document.getElementById('video').readyState >= 1")
