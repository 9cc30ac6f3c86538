"""A page that searches an index, served on this machine alone.

| path | gives |
|---|---|
| `/` | the page |
| `/api/search?q=...&k=...&video=...` | moments as JSON, best first |
| `/thumbnail?video=N&second=S` | a JPEG; videos go by their number in the index |
| `/video/N` | the video file, in ranges |
| `/alignment/N` | the alignment of the video, where there is one |
"""

from __future__ import annotations

import functools
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from mmpt.inference.align import VideoAlignment
from mmpt.inference.chance import BANK, Chance
from mmpt.inference.mmpt_model import MMPTModel
from mmpt.inference.search import ExactSearch, Moment
from mmpt.media.video import VideoError
from mmpt.pages.alignment import facts
from mmpt.pages.pictures import thumbnail
from mmpt.pages.render import render, shown
from mmpt.utils import optional_import

STATIC = Path(__file__).resolve().parent / "static"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANY = "*"
AT_ONCE = 200_000  # moments of which it is said from the first answer on what they are worth
MOST = 10_000  # moments of one answer
LONGEST_S = 1e6
POLICY = (
    "default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'self' 'unsafe-inline'; "
    "script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Searcher:
    """A model with an index, asked by many threads.

    Args:
        model: encodes sentences.
        index: what is searched.
    """

    def __init__(self, model: MMPTModel, index: ExactSearch):
        self.model, self.index = model, index
        self.files: dict[str, str] = dict(index.store.origin.get("files", {}))
        self.videos = sorted(index.store.videos)
        self.number = {name: number for number, name in enumerate(self.videos)}
        self._lock = threading.Lock()  # tokenizers refuse two threads at once
        self._encoded = functools.lru_cache(maxsize=1024)(self._encode)
        self.chance: Chance | None = None  # until the bank has been asked
        asking = threading.Thread(target=self._ask_bank, daemon=True)
        asking.start()
        if len(index.vectors) <= AT_ONCE:
            asking.join()

    def __call__(self, sentence: str, k: int, video: str = "") -> list[dict[str, Any]]:
        """The k best moments, of videos whose id holds `video`."""
        query, index = self._encoded(sentence), self.index
        only = {name for name in self.videos if video.lower() in name.lower()} if video else None
        moments, _, numbers = index.search(query, k, only=only)
        chance = self.chance
        worth = chance.confidence(query, index.vectors[numbers]).tolist() if chance else [None] * len(numbers)
        hubs = chance.hubs if chance else {}
        found = zip(moments, worth, map(hubs.get, numbers), strict=True)
        return [self._told(*of_moment) for of_moment in found]

    def _ask_bank(self) -> None:
        with self._lock:
            bank = self.model.encode_text(BANK, numpy=True)
        if len(self.index.vectors):
            self.chance = Chance.of(self.index.vectors, bank)

    def _told(self, moment: Moment, confidence: float | None, hub: float | None) -> dict[str, Any]:
        number = self.number[moment.video_id]
        return {
            "video": shown(moment.video_id),
            "number": number,
            "start": moment.start_s,
            "end": moment.end_s,
            "score": moment.score,
            "confidence": confidence,
            "hub": hub,
            "file": moment.video_id in self.files,
        }

    def _encode(self, sentence: str) -> np.ndarray:
        with self._lock:
            return self.model.encode_text(sentence, numpy=True)[0]


class Guarded:
    """An ASGI application that answers to known names of this machine alone, and forbids the browser to ask
    others.

    Args:
        app: what answers.
        hosts: the names; with `ANY` among them, all.
    """

    def __init__(self, app: Any, hosts: Collection[str]):
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        asked = next((value.decode("latin-1") for key, value in scope["headers"] if key == b"host"), "")
        if ANY not in self.hosts and _hostname(asked) not in self.hosts:
            await send({"type": "http.response.start", "status": 421, "headers": [HEADERS[0]]})
            return await send({"type": "http.response.body", "body": b"asked by a name that is not served"})

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        return await self.app(scope, receive, with_headers)


def _hostname(text: str) -> str | None:
    """Of HOST:PORT as a browser sends it; None for what is no name."""
    try:
        return urlsplit(f"//{text}").hostname
    except ValueError:
        return None


def application(searcher: Searcher, hosts: Sequence[str] = ()) -> Any:
    """The page as an ASGI application.

    Args:
        searcher: answers; alignments that `mmpt align` wrote beside its index are shown too.
        hosts: names by which the page may be asked for, beside those of the loopback device. Others are
            refused: a page elsewhere could otherwise read answers through a name that leads here.
    """
    starlette = functools.partial(optional_import, extra="pages")
    responses, routing = starlette("starlette.responses"), starlette("starlette.routing")
    exceptions = starlette("starlette.exceptions")
    store = searcher.index.store
    origin, alignments = store.origin, store.folder.parent / "alignments"
    about = {
        "model": origin.get("model", "?"),
        "checkpoint": origin.get("checkpoint"),
        "weights": str(origin.get("weights", "?"))[:12],
        "made": origin.get("made"),
        "moments": len(store),
        "videos": len(searcher.videos),
        "bank": len(BANK),
    }
    pictures = functools.lru_cache(maxsize=4096)(thumbnail)

    def video_of(value: str | None) -> str:
        if value is None or not value.isdecimal() or len(value) > 9 or int(value) >= len(searcher.videos):
            raise exceptions.HTTPException(404, "no such video")
        return searcher.videos[int(value)]

    def alignment_of(name: str) -> Path | None:
        path = alignments / name
        return path if path.with_name(f"{name}.json").is_file() else None

    def page(request: Any) -> Any:
        return responses.HTMLResponse(render("search.html", title="Search videos", about=about))

    def search(request: Any) -> Any:
        sentence, asked = request.query_params.get("q", "").strip(), request.query_params.get("k", "20")
        if not sentence:
            return responses.JSONResponse({"error": "a query without words"}, 400)
        if not asked.isdecimal() or len(asked) > 9 or not 1 <= int(asked) <= MOST:
            return responses.JSONResponse({"error": f"k must be 1 to {MOST}, got {asked[:20]}"}, 400)
        start = time.perf_counter()
        rows = searcher(sentence, int(asked), request.query_params.get("video", "").strip())
        for row in rows:
            row["aligned"] = alignment_of(searcher.videos[row["number"]]) is not None
        answer = {"query": sentence, "results": rows, "seconds": time.perf_counter() - start}
        return responses.JSONResponse(answer)

    def picture(request: Any) -> Any:
        name = video_of(request.query_params.get("video"))
        try:
            second = float(request.query_params.get("second", "0"))
            if not 0 <= second < LONGEST_S:
                raise ValueError(second)
            data = pictures(searcher.files[name], second)
        except (KeyError, ValueError, OverflowError, VideoError) as error:
            raise exceptions.HTTPException(404, "no picture") from error
        return responses.Response(data, media_type="image/jpeg", headers={"Cache-Control": "max-age=3600"})

    def film(request: Any) -> Any:
        file = searcher.files.get(video_of(request.path_params["number"]))
        if file is None or not Path(file).is_file():
            raise exceptions.HTTPException(404, "no video file")
        return responses.FileResponse(file)

    def alignment(request: Any) -> Any:
        number = request.path_params["number"]
        name = video_of(number)
        path = alignment_of(name)
        if path is None:
            raise exceptions.HTTPException(404, "no alignment of this video")
        video = VideoAlignment.load(path)
        about = f"{len(video.captions)} sentences, model: {video.about.get('model', '?')}"
        values: dict[str, Any] = {"title": name, "about": about, "home": "/", "notes": []}
        shown = name in searcher.files
        values["source"] = f"/video/{number}" if shown else None
        values["poster"] = f"/thumbnail?video={number}&second=0" if shown else None
        return responses.HTMLResponse(render("served_alignment.html", **values, **facts(video)))

    routes = [
        routing.Route("/", page),
        routing.Mount("/static", starlette("starlette.staticfiles").StaticFiles(directory=STATIC)),
        routing.Route("/api/search", search),
        routing.Route("/thumbnail", picture),
        routing.Route("/video/{number}", film),
        routing.Route("/alignment/{number}", alignment),
    ]
    app = starlette("starlette.applications").Starlette(routes=routes)
    return Guarded(app, {*LOOPBACK, *hosts})


def run(app: Any, host: str, port: int, tell: Callable[[str], None] = lambda url: None) -> None:
    """Answers until it is stopped.

    Args:
        app: the page.
        host: device to listen at.
        port: 0: any that is free.
        tell: called with the address once it is certain.

    Raises:
        OSError: the port is taken, or the device is not there.
    """
    uvicorn = optional_import("uvicorn", extra="pages")
    try:
        own = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        why = error.strerror or error
        raise OSError(f"{host}:{port} cannot be used ({why}). Choose another --port, or --host.") from error
    with own:
        name = f"[{host}]" if ":" in host else host
        tell(f"http://{name}:{own.getsockname()[1]}/")
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[own])
