"""The page that searches, in a real browser and by its addresses."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from urllib.parse import quote

import numpy as np
import pytest

from mmpt.models import MMPTModel
from mmpt.neighbours.exact import ExactSearch
from mmpt.neighbours.store import VectorStore
from mmpt.pages.server import Searcher, application
from tests.browser import opened, wait
from tests.media.media import write_video
from tests.own_videos import served

pytest.importorskip("starlette")
pytest.importorskip("av")
HOSTILE = """50% "<img src=x onerror=alert(1)>" & 'x' #1?"""
WIDTH = 768


@pytest.fixture(scope="module")
def site(model_folder, tmp_path_factory):
    """Three videos, one with a name that means something everywhere, one without file, one file that is gone;
    and 12 000 moments."""
    folder = tmp_path_factory.mktemp("site")
    model = MMPTModel.from_pretrained(model_folder, video_encoder=None)[0]
    files = {HOSTILE: folder / f"{HOSTILE}.webm".replace("/", "")}
    write_video(
        files[HOSTILE],
        range(0, 8000, 250),
        shade=lambda i: (8 * i, 200 - 4 * i, 40),
        size=(320, 180),
        codec="libvpx",
    )
    rng, width = np.random.default_rng(0), model.encode_text("a", numpy=True).shape[1]
    ids = [HOSTILE] * 4 + ["no file"] * 3 + ["gone"] * 2 + [f"many{i // 100:03}" for i in range(12_000)]
    starts = (
        [2.0 * i for i in range(4)] + [0.0, 2.0, 4.0, 0.0, 2.0] + [2.0 * (i % 100) for i in range(12_000)]
    )
    windows = np.array([[start, start + 2] for start in starts], np.float32)
    vectors = rng.standard_normal((len(ids), width)).astype(np.float32)
    vectors[1] = 40 * model.encode_text("pour the milk", numpy=True)[0]
    vectors[1] /= np.linalg.norm(vectors[1]) / 60
    origin = {"model": "toy <model>", "checkpoint": None, "weights": "0123456789abcdef", "made": "2026-01-01"}
    origin["files"] = {name: str(path) for name, path in files.items()} | {"gone": str(folder / "gone.mp4")}
    store = VectorStore.create(folder / "index", width, False, origin)
    store.add(
        (name, vectors[rows], windows[rows])
        for name in dict.fromkeys(ids)
        for rows in [np.flatnonzero(np.array(ids) == name)]
    )
    with served(application(Searcher(model, ExactSearch(store)))) as url:
        yield url


def get(url, **headers):
    """Status, headers and body of an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as reply:
            return reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_a_query_answers_with_moments_times_and_what_they_are_worth(site):
    status, headers, body = get(f"{site}/api/search?q=pour%20the%20milk&k=5")
    answer = json.loads(body)
    best = answer["results"][0]
    assert (
        status == 200
        and len(answer["results"]) == 5
        and "default-src 'none'" in headers["content-security-policy"]
    )
    assert (best["video"], best["start"], best["end"]) == (HOSTILE, 2, 4) and best["confidence"] > 0.95
    assert all(0 <= row["confidence"] < 1 for row in answer["results"])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/search?q=%20", 400),
        ("/api/search?q=a&k=0", 400),
        ("/api/search?q=a&k=" + "9" * 5000, 400),
        ("/api/search?q=a&k=%C2%B2", 400),
        ("/api/search?q=a&video=nothing%20like%20it", 200),
        ("/thumbnail?video=0&second=nan", 404),
        ("/thumbnail?video=99999999999&second=0", 404),
        ("/video/..%2F..%2Fetc%2Fpasswd", 404),
        ("/static/..%2Fserver.py", 404),
        ("/alignment/0", 404),
        ("/nothing", 404),
    ],
)
def test_an_address_that_leads_nowhere_says_so(path, status, site):
    assert get(site + path)[0] == status


def test_it_answers_to_the_names_of_this_machine_alone(site):
    assert get(f"{site}/api/search?q=a", Host="evil.example")[0] == 421
    assert get(f"{site}/api/search?q=a", Host="[::1]:80")[0] == 200


def test_a_video_is_given_in_ranges(site):
    number = next(
        row["number"] for row in json.loads(get(f"{site}/api/search?q=a&video=onerror")[2])["results"]
    )
    status, headers, body = get(f"{site}/video/{number}", Range="bytes=0-99")
    assert status == 206 and len(body) == 100 and headers["content-type"] == "video/webm"


def test_query_thumbnail_play_and_jump(site, browser):
    with opened(browser, site) as at:
        at.page.fill("#query", "pour the milk")
        at.page.press("#query", "Enter")
        card = at.page.locator(".card").first
        card.wait_for()
        assert HOSTILE in card.inner_text() and "0:02 \u2013 0:04" in card.inner_text()
        assert card.locator(".worth.good").count() == 1
        wait(at.page, "document.querySelector('.card img')?.naturalWidth > 100")
        card.click()
        wait(
            at.page,
            "(v => v && v.currentTime >= 2 && v.currentTime < 5)(document.querySelector('.card video'))",
        )
        assert (
            at.page.evaluate("window.alerted") is None and at.page.locator(".card img[src='x']").count() == 0
        )


def test_ten_thousand_results_appear_at_once_and_as_one_scrolls(site, browser):
    with opened(browser, f"{site}/?q=stir&k=10000&video=many") as at:
        at.page.locator(".card").first.wait_for()
        assert "10000 moments in" in at.page.inner_text("#status")
        assert at.page.locator(".card").count() < 500
        at.page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        wait(at.page, "document.querySelectorAll('.card').length > 100")


def test_the_keyboard_alone_does_everything(site, browser):
    with opened(browser, site) as at:
        at.page.keyboard.type("pour the milk")  # the box has the focus
        at.page.keyboard.press("Enter")
        at.page.locator(".card").first.wait_for()
        at.page.keyboard.press("Escape")
        at.page.keyboard.press("j")
        assert at.page.evaluate("document.activeElement.dataset.rank") == "1"
        at.page.keyboard.press("Enter")
        wait(at.page, "(v => v && !v.paused)(document.querySelector('.card video'))")
        at.page.keyboard.press("j")
        assert at.page.evaluate("document.activeElement.dataset.rank") == "2"
        at.page.keyboard.press("k")
        at.page.keyboard.press("/")
        assert at.page.evaluate("document.activeElement.id") == "query"
        at.page.keyboard.press("Escape")
        before = at.page.evaluate("getComputedStyle(document.body).backgroundColor")
        at.page.keyboard.press("d")
        assert at.page.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_videos_can_be_chosen_and_absent_files_are_told(site, browser):
    with opened(browser, f"{site}/?q=cut&k=20&video=no+file") as at:
        at.page.locator(".card").first.wait_for()
        assert {text.split("\n")[0] for text in at.page.locator(".card .view").all_inner_texts()} == {
            "no video file"
        }
        at.page.fill("#only", "no such video")
        at.page.press("#only", "Enter")
        wait(at.page, "document.getElementById('status').textContent.includes('No video has such a name')")


def test_a_query_of_hostile_words_is_text(site, browser):
    words = "<script>window.alerted = 1</script>"
    with opened(browser, f"{site}/?q={quote(words)}") as at:
        at.page.locator(".card").first.wait_for()
        assert at.page.input_value("#query") == words and at.page.evaluate("window.alerted") is None
