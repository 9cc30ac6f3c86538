"""Text as people have it."""

from __future__ import annotations

import gzip

import pytest

from mmpt.utils.text import (
    TextError,
    check_id,
    number,
    read_ids,
    read_json,
    read_json_lines,
    read_rows,
    read_table,
    read_text,
)
from tests.conftest import odd_file


@pytest.fixture
def write(tmp_path):
    def make(content, name="file.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbfa\r\nb", b"a\nb", b"a\rb", gzip.compress(b"a\nb", mtime=0)],
    ids=["marked", "plain", "old", "gzipped"],
)
def test_marks_and_line_ends_do_not_matter(write, content):
    assert read_text(write(content)) == "a\nb"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("eins\nzw\xf6lf".encode("latin-1"), "line 2: the text is not UTF-8, .*iconv -f LATIN1"),
        ("eins".encode("utf-16"), "line 1: the text is UTF-16.*iconv -f UTF-16"),
        (b"a\nb\x00c", "line 2: holds a NUL"),
        (b"\x1f\x8bgarbage", "a damaged gzip file"),
    ],
)
def test_other_text_is_refused_by_file_and_line_with_the_cure(write, content, found):
    with pytest.raises(TextError, match=rf"file.txt.*{found}"):
        read_text(write(content))


@pytest.mark.parametrize("mark", [",", ", ", ";", "\t"])
def test_a_table_is_read_by_whatever_divides_its_header(write, mark):
    path = write(f"video_id{mark} sentence \nv1{mark}a dog\n\nv2{mark}a cat\n")
    assert read_table(path, ("video_id", "sentence")) == [
        {"video_id": "v1", "sentence": "a dog"},
        {"video_id": "v2", "sentence": "a cat"},
    ]


def test_a_sentence_may_hold_commas_in_quotes_and_quotes_within(write):
    path = write('id,sentence\n1,"a, ""b"""\n2,a 5" pipe\n')
    assert [row["sentence"] for row in read_table(path, ("id",))] == ['a, "b"', 'a 5" pipe']


def test_a_quotation_mark_that_swallows_rows_is_named_by_its_line(write):
    with pytest.raises(TextError, match=r"line 3: a quotation mark that is not closed: \"open"):
        read_table(write('id,sentence\n1,a\n2,"open\n3,b\n4,c\n'), ("id",))


def test_the_stray_quote_of_a_real_file_is_an_error_that_names_its_line():
    with pytest.raises(TextError, match=r"stray_quote.csv, line 2"):
        read_table(odd_file("stray_quote.csv"), ())


def test_short_and_long_rows_are_counted_by_line(write):
    with pytest.raises(TextError, match="2 rows .* the 2 fields .*: line 3 has 1, line 4 has 3"):
        read_table(write("id,sentence\n1,a\n2\n3,b,c\n"), ("id",))


def test_an_absent_column_lists_the_header(write):
    with pytest.raises(TextError, match=r"no column video_id; its header is id, text\."):
        read_table(write("id,text\n1,a\n"), ("video_id",))


def test_rows_without_a_header_are_counted_from_the_first_line(write):
    path = write("23521,v1,http://x\n\n23521,v2,http://y\n")
    assert read_rows(path, (2, 3)) == [(1, ["23521", "v1", "http://x"]), (3, ["23521", "v2", "http://y"])]
    with pytest.raises(TextError, match="line 3: expected 2 fields"):
        read_rows(write("1,a\n\n2,b,c\n"), 2)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('{"a": 1, "a": 2}', "1 names are given more than once: a"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "not a JSON file"),
        ("[1]", "expected a non-empty JSON dict, got list"),
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": "\\ud83c"}', "not a JSON file .*surrogates not allowed"),
    ],
)
def test_json_of_another_kind_is_refused_in_a_line(write, content, found):
    with pytest.raises(TextError, match=found) as error:
        read_json(write(content), dict)
    assert len(str(error.value)) < 500


def test_a_character_written_as_a_pair_is_one(write):
    assert read_json(write('{"a": "\\ud83c\\udf73"}'), dict) == {"a": "\U0001f373"}


def test_a_line_that_is_no_object_is_named(write):
    assert read_json_lines(write('{"a": 1}\n\n{"a": 2}\n')) == [{"a": 1}, {"a": 2}]
    with pytest.raises(TextError, match="line 2: expected a JSON object"):
        read_json_lines(write('{"a": 1}\n[2]\n'))


@pytest.mark.parametrize(
    "name", ["../x", "/abs", "a/b", "a\\b", "", ".", "..", "a\nb", "a\x00b", "a\u202eb", "é" * 101, 7, None]
)
def test_ids_are_names_and_never_paths(name):
    with pytest.raises(TextError, match="here: .* is no id"):
        check_id(name, "here")


def test_ids_of_a_list_that_are_given_twice_are_said(write, caplog):
    assert read_ids(write("v1\nv2\nv1\n")) == ["v1", "v2", "v1"]
    assert "1 ids are given more than once: v1" in caplog.text


def test_a_list_may_allow_folders_but_none_above(write):
    assert read_ids(write("5/v1\n"), folders=True) == ["5/v1"]
    with pytest.raises(TextError, match=r"line 2: '5/../v1' is no id"):
        read_ids(write("5/v1\n5/../v1\n"), folders=True)


@pytest.mark.parametrize(("value", "found"), [("1.5", 1.5), (2, 2.0), (" 3 ", 3.0)])
def test_numbers_are_numbers_also_where_quoted(value, found):
    assert number(value, "here") == found


@pytest.mark.parametrize("value", ["1:30", "", None, True, float("nan"), "inf", [1]])
def test_what_is_no_number_is_named_and_cut(value):
    with pytest.raises(TextError, match="here: expected a number, got"):
        number(value, "here")
    with pytest.raises(TextError, match=r"\(250002 characters\)"):
        number("x" * 250_000, "here")
