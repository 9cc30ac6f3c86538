"""The list of known weights, and `mmpt models`."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading

import pytest
import yaml

from mmpt.config import load_config
from mmpt.inference import MMPTModel
from mmpt.zoo import Entry, find, known, remedy
from mmpt.zoo.fetch import FetchError, download, get
from mmpt_cli.main import main
from tests.conftest import ROOT

CONTENT = bytes(range(256)) * 64


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MMPT_MODELS", raising=False)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; knows ranges; /cut ends half-way."""

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if start >= len(CONTENT):
            return self.send_error(416)
        part = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.server.asked.append(start)
        self.wfile.write(part[: len(part) // 2] if self.path == "/cut" else part)

    def log_message(self, *words):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_every_published_entry_says_where_it_is_published_and_names_a_project_that_loads(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert {
        "videoclip",
        "vlm",
        "norton",
        "tempclr-dtw",
        "tempclr-otam",
        "tempclr-dtw-all",
        "s3d",
        "toy",
    } <= set(known())
    for name, entry in known().items():
        assert entry.about and entry.trained_on and (entry.page or entry.made_by), name
        assert entry.files or entry.hub, name
        if entry.project:
            load_config(entry.project)


def test_a_download_that_breaks_off_is_resumed_and_verified(server, tmp_path):
    address = f"http://127.0.0.1:{server.server_address[1]}"
    right = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(OSError, match="ended after"):
        download(f"{address}/cut", tmp_path / "w.pt")
    download(f"{address}/w", tmp_path / "w.pt", right)
    assert (tmp_path / "w.pt").read_bytes() == CONTENT and server.asked == [0, len(CONTENT) // 2]
    with pytest.raises(ValueError, match="another file, or a damaged one"):
        download(f"{address}/w", tmp_path / "x.pt", "0" * 64)
    assert not list(tmp_path.glob("x.pt*"))


def test_without_a_network_get_says_what_to_fetch_and_where_to_put_it(capsys):
    entry = Entry(name="x", files={"pretrained_models/x.pt": "http://127.0.0.1:9/x.pt"}, licence="MIT")
    with pytest.raises(FetchError, match=r"from http://127.0.0.1:9/x.pt\n  to   pretrained_models/x.pt"):
        get(entry)
    assert main(["models", "get", "norton"]) == 1
    shown = capsys.readouterr().err
    assert "drive.google.com" in shown and "runs/retri/norton/checkpoint_best.pt" in shown


def test_an_added_model_is_listed_and_its_list_refuses_what_is_not_there(tmp_path, capsys):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.safetensors").touch()
    assert main(["models", "add", "mine", "m", "--about", "my kitchen"]) == 0
    assert main(["models", "list", "kitchen"]) == 0 and "my kitchen" in capsys.readouterr().out
    assert find("mine").source == ("m", None)
    assert main(["models", "add", "mine", "m"]) == 1 and "--replace" in capsys.readouterr().err
    assert main(["models", "add", "other", "nowhere"]) == 1 and "no such file" in capsys.readouterr().err
    assert main(["models", "add", "w", "m/model.safetensors"]) == 1 and "--project" in capsys.readouterr().err
    assert main(["models", "show", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "here"
    assert main(["models", "show", "nortn"]) == 1 and "Did you mean 'norton'?" in capsys.readouterr().err


def test_a_wrong_list_is_named_with_file_and_key(tmp_path, capsys):
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"x": {"fils": {}}}))
    import os

    os.environ["MMPT_MODELS"] = str(tmp_path / "own.yaml")
    try:
        assert main(["models", "list"]) != 0
    finally:
        del os.environ["MMPT_MODELS"]
    shown = capsys.readouterr().err
    assert "own.yaml" in shown and "fils" in shown


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("pretrained_models/s3d_howto100m.pth", "mmpt models get s3d"),
        ("/elsewhere/gdt_K400.pth", "mmpt models get gdt-k400"),
        ("runs/retri/norton/checkpoint_best.pt", "mmpt models get norton"),
        ("runs/mine/checkpoint_best.pt", "mmpt models list"),
    ],
)
def test_the_error_for_missing_weights_names_the_command(path, command):
    assert command in remedy(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("norton", "mmpt models get norton"),
        ("toy", "mmpt demo"),
        ("s3d", "is a backbone"),
        ("nortn", "Did you mean .norton"),
    ],
)
def test_a_name_whose_files_are_not_here_says_how_to_get_them(name, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        MMPTModel.from_pretrained(name)
