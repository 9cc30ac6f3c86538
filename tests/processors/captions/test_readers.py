"""Captions of the tools people use."""

from __future__ import annotations

import gzip
import json

import pytest

from mmpt.processors.captions.readers import check_captions, read_captions
from mmpt.utils import save_plain_pickle

pytest.importorskip("pysubs2")

TWO = {"start": [0.5, 2.0], "end": [2.0, 3.5], "text": ["cut the onion", "fry it"]}
SRT = "1\n00:00:00,500 --> 00:00:02,000\n<i>cut</i> the\nonion\n\n2\n00:00:02,000 --> 00:00:03,500\nfry it\n"
VTT = (
    "WEBVTT\n\nNOTE a comment\n\n00:00.500 --> 00:02.000 align:start position:0%\n"
    "<c.red>cut</c> the onion\n\n"
    "00:00:02.000 --> 00:00:03.500\nfry it\n"
)
ROLLING = (
    "WEBVTT\nKind: captions\nLanguage: en\n\n"
    "00:00:00.500 --> 00:00:02.000\n \ncut<00:00:00.900><c> the</c><00:00:01.200><c> onion</c>\n\n"
    "00:00:02.000 --> 00:00:02.010\ncut the onion\n \n\n"
    "00:00:02.010 --> 00:00:03.500\ncut the onion\nfry<00:00:02.500><c> it</c>\n\n"
    "00:00:03.500 --> 00:00:03.510\nfry it\n \n\n"
    "00:00:03.510 --> 00:00:05.000\nfry it\nand<00:00:04.000><c> serve</c>\n"
)
JSON3 = {
    "events": [
        {"tStartMs": 500, "dDurationMs": 1500, "segs": [{"utf8": "cut the"}, {"utf8": " onion"}]},
        {"tStartMs": 1000, "dDurationMs": 10, "segs": [{"utf8": "\n"}]},
        {"tStartMs": 2000, "dDurationMs": 1500, "segs": [{"utf8": "fry it"}]},
    ]
}
SRV1 = '<transcript><text start="0.5" dur="1.5">cut the onion</text><text start="2" dur="1.5">fry it</text>'
SRV3 = '<timedtext><body><p t="500" d="1500">cut <s>the</s> onion</p><p t="2000" d="1500">fry it</p></body>'
WORDS = [{"word": "fry", "start": 2.0, "end": 2.4}]
WHISPER = {
    "text": "...",
    "segments": [
        {"start": 0.5, "end": 2.0, "text": " cut the onion"},
        {"start": 2.0, "end": 3.5, "text": " fry it", "words": WORDS},
    ],
}
FILES = {
    "v.srt": SRT,
    "v.en.vtt": VTT,
    "A title [abcdefghi-_].en.vtt": VTT,
    "v.json3": json.dumps(JSON3),
    "v.en.json": json.dumps(JSON3),
    "v.srv1": SRV1 + "</transcript>",
    "v.srv3": SRV3 + "</timedtext>",
    "v.json": json.dumps(WHISPER),
    "all.csv": "video_id,start,end,text\nv,0.5,2.0,cut the onion\nv,2,3.5,fry it\n",
    "all.jsonl": '{"video_id": "v", "start": "0.5", "end": 2.0, "text": "cut the onion"}\n'
    '{"video_id": "v", "start": 2, "end": 3.5, "text": "fry it"}\n',
    "all.json": json.dumps({"v": TWO}),
    "strings.json": json.dumps({"v": json.dumps(TWO)}),
}


@pytest.mark.parametrize("name", FILES)
def test_every_form_gives_the_same_captions(tmp_path, name):
    path = tmp_path / name
    path.write_text(FILES[name])
    captions = read_captions(path)
    assert list(captions) == ["abcdefghi-_" if name.startswith("A title") else "v"]
    (clips,) = captions.values()
    assert {key: clips[key] for key in TWO} == TWO


def test_compressed_json_and_pickles_are_read(tmp_path):
    (tmp_path / "all.json.gz").write_bytes(gzip.compress(json.dumps({"v": TWO}).encode()))
    assert read_captions(tmp_path / "all.json.gz") == {"v": TWO}
    save_plain_pickle({"v": json.dumps(TWO)}, tmp_path / "all.pkl")
    assert read_captions(tmp_path / "all.pkl") == {"v": TWO}


def test_words_with_times_are_kept(tmp_path):
    (tmp_path / "v.json").write_text(json.dumps(WHISPER))
    assert read_captions(tmp_path / "v.json")["v"]["words"] == [[], WORDS]


def test_rolling_captions_say_each_line_once(tmp_path):
    (tmp_path / "v.vtt").write_text(ROLLING)
    assert read_captions(tmp_path / "v.vtt")["v"] == {
        "start": [0.5, 2.01, 3.51],
        "end": [2.01, 3.51, 5.0],
        "text": ["cut the onion", "fry it", "and serve"],
    }


def test_a_folder_holds_a_file_for_each_video_and_none_twice(tmp_path):
    (tmp_path / "v.srt").write_text(SRT)
    (tmp_path / "w.vtt").write_text(VTT)
    assert read_captions(tmp_path) == {"v": TWO, "w": TWO}
    (tmp_path / "v.en.vtt").write_text(VTT)
    with pytest.raises(ValueError, match=r"v.srt: captions of v are in another file"):
        read_captions(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("v.srt", "nothing of the kind", "v.srt: not a subtitle file"),
        ("v.json3", '{"events": [3]}', "event 0: expected a record, got 3"),
        (
            "v.json",
            '{"segments": [{"text": "a", "end": 1}]}',
            "segment 0: start: expected a number, got None",
        ),
        ("a.json", '{"v": {"start": [1]}}', "video v: expected a record with start, end, text, got one with"),
        ("a.json", '{"../v": {}}', "'../v' is no id"),
        ("a.csv", "video_id,start,end,text\nv,0:30,1,a\n", "row 1: start: expected a number, got '0:30'"),
        ("a.jsonl", '{"video_id": "v", "start": 1, "end": 2}\n', "row 1: no text"),
        ("v.srv1", "<transcript>", "not a timed-text file"),
    ],
)
def test_a_record_of_the_wrong_shape_is_named(tmp_path, name, content, found):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=found):
        read_captions(tmp_path / name)


@pytest.mark.parametrize(
    ("times", "span"),
    [
        ("00:00:01.000 --> 00:00:02.000", (1.0, 2.0)),
        ("00:00:01,5 --> 00:00:02,25", (1.5, 2.25)),
        ("00:01 --> 00:02", (1.0, 2.0)),
        ("00:00:01,000 -> 00:00:02,000", (1.0, 2.0)),
        ("00:00:01,000 --> 00:00:02,000 X1:1 X2:2", (1.0, 2.0)),
        ("100:00:01,000 --> 100:00:02,000", (360001.0, 360002.0)),
        ("-00:00:01,000 --> 00:00:02,000", (-1.0, 2.0)),
    ],
)
@pytest.mark.parametrize("head", ["1\n", "WEBVTT\n\n"])
def test_times_of_subtitles_are_read_as_they_are_written(tmp_path, head, times, span):
    (tmp_path / "v.srt").write_text(f"{head}{times}\rpress A --> B\r\n\n")
    expected = {"start": [span[0]], "end": [span[1]], "text": ["press A --> B"]}
    assert read_captions(tmp_path / "v.srt")["v"] == expected


@pytest.mark.parametrize(
    "times", ["00:00:O3,000 --> 00:00:04,000", "00:00:-1,000 --> 00:00:02,000", "0:1 --> 0:"]
)
def test_a_line_that_is_meant_as_times_is_never_taken_as_words(tmp_path, times):
    (tmp_path / "v.srt").write_text(f"{SRT}\n3\n{times}\nserve\n")
    with pytest.raises(ValueError, match=r"v.srt, line 11: expected times such as"):
        read_captions(tmp_path / "v.srt")


def test_words_are_kept_but_for_tags_and_entities(tmp_path):
    said = "a < b and c > d &amp; <font color='red'>I <3</font> {\\an8}you &gt;&gt;&nbsp;<v Bob>&#39;x&#39;"
    for name, text in {
        "a.srt": f"1\n00:00:01,000 --> 00:00:02,000\n{said}\n",
        "b.vtt": f"WEBVTT\n\n00:01.000 --> 00:02.000\n{said}\n",
        "c.json3": json.dumps({"events": [{"tStartMs": 1, "dDurationMs": 1, "segs": [{"utf8": said}]}]}),
    }.items():
        (tmp_path / name).write_text(text)
        assert read_captions(tmp_path / name)[name[0]]["text"] == ["a < b and c > d & I <3 you >> 'x'"]


@pytest.mark.parametrize("name", ["v.json3", "v.srv1"])
def test_automatic_captions_end_where_the_next_begins(tmp_path, name):
    events = [{"tStartMs": 1000 * k, "dDurationMs": 4000, "segs": [{"utf8": "x"}]} for k in (1, 3, 5)]
    texts = "".join(f'<text start="{k}" dur="4">x</text>' for k in (1, 3, 5))
    (tmp_path / "v.json3").write_text(json.dumps({"events": events}))
    (tmp_path / "v.srv1").write_text(f"<transcript>{texts}</transcript>")
    assert read_captions(tmp_path / name)["v"]["end"] == [3.0, 5.0, 9.0]


@pytest.mark.parametrize("text", [["a"], 5, True])
def test_a_text_is_a_text(tmp_path, text):
    row = {"video_id": "v", "start": 0, "end": 1, "text": text}
    for name, tree in {
        "a.jsonl": row,
        "b.json": {"segments": [row]},
        "c.json": {"v": {"start": [0], "end": [1], "text": [text]}},
        "d.json3": {"events": [{"tStartMs": 0, "segs": [{"utf8": text}]}]},
    }.items():
        (tmp_path / name).write_text(json.dumps(tree))
        with pytest.raises(ValueError, match="expected a text, got"):
            read_captions(tmp_path / name)


def clips(*times):
    return {"start": [t[0] for t in times], "end": [t[1] for t in times], "text": ["x"] * len(times)}


@pytest.mark.parametrize(
    ("times", "found"),
    [
        (((0, 1), (3, 2)), "caption 1 runs from 3 to 2 s"),
        (((-1, 1),), "caption 0 runs from -1 to 1 s"),
        (((0, float("nan")),), "caption 0 runs from 0 to nan"),
        (((0, 1), (11, 12)), "caption 1 begins at 11 s, behind the end at 10 s"),
        (((0, 1000), (1000, 9000)), "milliseconds"),
    ],
)
def test_impossible_times_are_refused_by_video_or_left_out(times, found):
    captions = {"v": clips(*times)}
    with pytest.raises(ValueError, match=f"captions of 1 videos have impossible times: v: .*{found}"):
        check_captions(captions, {"v": 10})
    kept, wrong = check_captions(captions, {"v": 10}, on_bad="drop")
    assert list(wrong) == ["v"] and len(kept["v"]["start"]) < len(times)


def test_counts_that_differ_are_named():
    with pytest.raises(ValueError, match="do not belong together"):
        check_captions({"v": {"start": [0, 1], "end": [1], "text": ["a"]}})


def test_captions_out_of_order_are_sorted():
    kept, wrong = check_captions({"v": {"start": [5, 0], "end": [6, 1], "text": ["b", "a"]}})
    assert kept["v"] == {"start": [0, 5], "end": [1, 6], "text": ["a", "b"]} and not wrong
