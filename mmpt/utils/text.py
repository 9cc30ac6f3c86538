"""The one opener of text: encodings, tables, JSON and ids as people have them, refused by file and line.

UTF-8 with or without a byte order mark, lines that end as on Unix or Windows, JSON plain or gzipped. Whatever
is not that is an error that names the file, the line, what was found and the cure; nothing is dropped.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import re
import reprlib
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

SHOWN = 200  # characters of what was found
DELIMITERS = ",\t;"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
EXPANSION = 200  # text packs to a twentieth or so; what unfolds further was made to fill the memory
UNPACKED = 1 << 26  # bytes that any file may unpack to
# folders, control characters, breaks of lines, what turns the order of letters round, halves of characters
# (of file names that are not UTF-8)
NO_NAME = re.compile("[/\\\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
LONGEST_NAME = 200  # bytes; file systems allow 255, and endings are put behind ids
HALF = re.compile(r"\\u[dD][89a-fA-F]")
KINDS = {str: "a text", list: "a list", dict: "an object", int: "a whole number"}
ID_KEYS = ("clip_id", "video_id", "image_id", "image", "id")  # of an item of an annotation
_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = SHOWN


class TextError(ValueError):
    """A text file cannot be used; the message says which, where and why."""


def shown(value: Any) -> str:
    """A value as an error message shows it: its text, cut; of nested values the first ones."""
    text = value if isinstance(value, str) else _brief.repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def quoted(value: Any) -> str:
    """The same, a text in quotes."""
    return shown(repr(value) if isinstance(value, str) else value)


def first_of(names: Sequence[str], most: int) -> str:
    """`a, b, c, ...`: the first names, and whether there are more."""
    return ", ".join(names[:most]) + ", ..." * (len(names) > most)


def read_text(path: str | Path) -> str:
    """The text of a file, lines ended by a newline alone.

    Raises:
        TextError: it is not UTF-8.
        OSError: it cannot be opened.
    """
    path = Path(path)
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = _unpacked(path, max(UNPACKED, EXPANSION * len(data)))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        kind = "UTF-16" if data[:2] in UTF16 else "not UTF-8, perhaps Latin-1"
        source = "UTF-16" if data[:2] in UTF16 else "LATIN1"
        raise TextError(
            f"{path}, line {line}: the text is {kind}. Save it as UTF-8, for instance: "
            f"iconv -f {source} -t UTF-8 {path.name}"
        ) from error
    if "\x00" in text:
        line = text.count("\n", 0, text.index("\x00")) + 1
        raise TextError(f"{path}, line {line}: holds a NUL character; is it a text file?")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _unpacked(path: Path, most: int) -> bytes:
    """What a gzip file holds, at most so many bytes."""
    try:
        with gzip.open(path) as file:
            data = file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise TextError(f"{path}: a damaged gzip file ({error}). Fetch it again.") from error
    if len(data) > most:
        raise TextError(
            f"{path}: unpacks to more than {EXPANSION} times its size, which text does not. Unpack it by "
            "hand where you trust it."
        )
    return data


def read_lines(path: str | Path) -> list[str]:
    """The lines of a file that hold something, without white space around them."""
    return [line.strip() for line in read_text(path).split("\n") if line.strip()]


def read_ids(path: str | Path, folders: bool = False) -> list[str]:
    """The ids of a list file, one per line; `folders` as in `check_id`. Ids given twice are kept and said.

    Raises:
        TextError: no id in it, or one that is no name.
    """
    text = read_text(path).split("\n")
    lines = [(number, line.strip()) for number, line in enumerate(text, 1) if line.strip()]
    if not lines:
        raise TextError(f"{path}: the list holds no id; expected one per line.")
    ids = [check_id(line, f"{path}, line {number}", folders) for number, line in lines]
    if twice := [name for name, count in Counter(ids).items() if count > 1]:
        logger.warning(
            "%s: %d ids are given more than once: %s", path, len(twice), shown(", ".join(twice[:5]))
        )
    return ids


def is_id(name: Any, folders: bool = False) -> bool:
    """Whether `check_id` takes a name."""
    if folders and isinstance(name, str):
        return all(is_id(part) for part in name.split("/"))
    if not isinstance(name, str) or name in ("", ".", "..") or NO_NAME.search(name):
        return False
    return len(name.encode()) <= LONGEST_NAME


def check_id(name: Any, where: str, folders: bool = False) -> str:
    """An id, which becomes a file name here and there.

    Args:
        name: the id.
        where: file and record, for the message.
        folders: whether `folder/name` is an id too, as in lists of classes.

    Raises:
        TextError: it is a path, empty, too long, holds control characters, or comes from a file name that is
            not UTF-8.
    """
    if not is_id(name, folders):
        raise TextError(
            f"{where}: {quoted(name)} is no id: expected a name in UTF-8 of at most {LONGEST_NAME} bytes, "
            "without folders (/, \\, ..) and control characters, which becomes a file name."
        )
    return name


def is_count(text: str) -> bool:
    """Whether a text is a whole number in plain digits; `int` takes signs, spaces and other scripts too."""
    return text.isascii() and text.isdigit()


def refuse_repeated(ids: Iterable[str], where: str) -> None:
    """Raises TextError where an id is given twice; the message names some."""
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise TextError(
            f"{where}: {len(twice)} names are given more than once: {shown(', '.join(map(str, twice[:5])))}."
        )


def check_record(record: Any, where: str, **fields: type) -> dict[str, Any]:
    """A record of JSON or of a pickle that has some fields, each of its kind (`object`: any).

    Args:
        record: what should be one.
        where: file and record, for the message.
        fields: name -> kind; others may be beside them.

    Raises:
        TextError: names the record, the field, what was expected and what was found.
    """
    expected = f"expected a record with {', '.join(fields)}" if fields else "expected a record"
    if not isinstance(record, dict):
        raise TextError(f"{where}: {expected}, got {quoted(record)}; is this another data set's file?")
    for name, kind in fields.items():
        if name not in record:
            found = shown(", ".join(map(str, record)))
            raise TextError(f"{where}: {expected}, got one with {found}; is this another data set's file?")
        check_kind(record[name], kind, f"{where}: {name}")
    return record


def check_kind(value: Any, kind: type, where: str) -> Any:
    """A value, refused by a TextError unless it is of a kind."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TextError(f"{where}: expected {KINDS.get(kind, kind.__name__)}, got {quoted(value)}.")
    return value


def read_table(
    path: str | Path, columns: Sequence[str], delimiter: str | None = None
) -> list[dict[str, str]]:
    """Rows of a table with a header.

    Args:
        path: the file.
        columns: that have to be there; names are compared without the white space around them.
        delimiter: None: comma, tab or semicolon, whichever the header has the columns by.

    Raises:
        TextError: a column is absent, a row is shorter or longer than the header, a quotation mark swallows
            further rows, or there is no row.
    """
    text = read_text(path)
    header = text.partition("\n")[0]
    if delimiter is None:
        delimiter = max(DELIMITERS, key=lambda mark: (_has(header, mark, columns), header.count(mark)))
    rows = list(_rows(path, text, delimiter))
    names = [name.strip() for name in rows[0][1]] if rows else []
    absent = [column for column in columns if column not in names]
    if absent:
        raise TextError(f"{path}: no column {', '.join(absent)}; its header is {shown(', '.join(names))}.")
    refuse_repeated(filter(None, names), f"{path}: the header")
    odd = [(line, len(row)) for line, row in rows[1:] if len(row) != len(names)]
    if odd:
        listed = ", ".join(f"line {line} has {count}" for line, count in odd[:5])
        raise TextError(
            f"{path}: {len(odd)} rows do not have the {len(names)} fields of the header: {listed}. Quote "
            f"fields that hold {delimiter!r}."
        )
    if len(rows) < 2:
        raise TextError(f"{path}: the table holds no row.")
    return [dict(zip(names, row, strict=True)) for _, row in rows[1:]]


def read_rows(path: str | Path, fields: int | tuple[int, int]) -> list[tuple[int, list[str]]]:
    """Rows of a comma-separated file without a header, each with its line number.

    Args:
        path: the file.
        fields: of every row, or the least and the most.

    Raises:
        TextError: as `read_table`.
    """
    least, most = (fields, fields) if isinstance(fields, int) else fields
    rows = list(_rows(path, read_text(path), ","))
    for line, row in rows:
        if not least <= len(row) <= most:
            expected = f"{least}" if least == most else f"{least} to {most}"
            raise TextError(f"{path}, line {line}: expected {expected} fields, got {quoted(row)}.")
    return rows


def number(value: Any, where: str, finite: bool = True) -> float:
    """A number, quoted or not; with `finite` neither infinite nor NaN.

    Raises:
        TextError: it is none, or not finite; the message names `where`.
    """
    try:
        is_number = isinstance(value, (int, float, str)) and not isinstance(value, bool)
        found = float(value) if is_number and "_" not in str(value) else None  # 1_0 is Python's own ten
    except (ValueError, OverflowError):
        found = None
    if found is None or (finite and (found != found or abs(found) == float("inf"))):
        raise TextError(f"{where}: expected a number, got {quoted(value)}.")
    return found


def read_json(path: str | Path, kind: type, nan: bool = False, empty: bool = False) -> Any:
    """A JSON file, plain or gzipped, whose outermost value is a `kind` (dict or list).

    Args:
        path: the file.
        kind: dict or list; object: any.
        nan: it may hold NaN.
        empty: it may hold nothing.

    Raises:
        TextError: it is not JSON, holds a name twice, or something else.
    """
    value = parse_json(read_text(path), str(path), nan)
    if not isinstance(value, kind) or not (value or empty):
        raise TextError(
            f"{path}: expected a {'' if empty else 'non-empty '}JSON {kind.__name__}, got "
            f"{type(value).__name__}; is this another data set's file?"
        )
    return value


def read_annotations(path: str | Path) -> list[Any]:
    """The list of a JSON file, or the one under "annotations", as files of reference captions have it.

    Raises:
        TextError: it is not JSON, or holds no such list.
    """
    value = read_json(path, object, empty=True)
    rows = value.get("annotations") if isinstance(value, dict) else value
    if not isinstance(rows, list) or not rows:
        raise TextError(
            f'{path}: expected a non-empty JSON list, or {{"annotations": list}}, got '
            f"{type(value).__name__}; is this another data set's file?"
        )
    return rows


def annotated_id(row: Mapping[str, Any]) -> str | None:
    """The id of a row of an annotation: the first of ID_KEYS that it has; None without any."""
    return next((str(row[key]) for key in ID_KEYS if row.get(key) is not None), None)


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """One JSON object a line.

    Raises:
        TextError: a line is none.
    """
    lines = [(number, line) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    found = []
    for line, text in lines:
        value = parse_json(text, f"{path}, line {line}")
        if not isinstance(value, dict):
            raise TextError(f"{path}, line {line}: expected a JSON object, got {shown(text)}.")
        found.append(value)
    return found


def read_json_log(path: str | Path) -> tuple[list[dict[str, Any]], int]:
    """Objects of JSON lines to which processes append, and how many lines hold none: a kill cuts lines."""
    found, damaged = [], 0
    for text in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(check_record(parse_json(text, str(path), nan=True), str(path)))
        except TextError:
            damaged += 1
    return found, damaged


def parse_json(text: str, where: str, nan: bool = False) -> Any:
    """The value of a JSON text; `where` names it in messages; `nan`: it may hold NaN.

    Raises:
        TextError: it is not JSON, or holds a name twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            refuse_repeated((name for name, _ in pairs), where)
        return found

    def constant(name: str) -> float:
        if nan and name == "NaN":
            return float("nan")
        raise TextError(f"{where}: {name} is no JSON number.")

    try:
        value = json.loads(text, object_pairs_hook=once, parse_constant=constant)
        if HALF.search(text):  # most are halves of a pair
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError as error:
        raise TextError(f"{where}: JSON nested too deeply.") from error
    except TextError:
        raise
    except ValueError as error:  # besides errors of form, numbers of thousands of digits
        raise TextError(
            f"{where}: not a JSON file ({shown(str(error))}); is this the file of another data set?"
        ) from error


def _has(header: str, delimiter: str, columns: Sequence[str]) -> int:
    names = [name.strip().strip('"') for name in header.split(delimiter)]
    return sum(column in names for column in columns)


def _rows(path: str | Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that hold something, with the line on which they begin."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    last = 0
    while True:
        begin = last + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise TextError(
                f"{path}, line {begin}: {_quote(text, begin)} ({error}). Double it, or quote the whole field."
            ) from error
        if row is None:
            return
        last = reader.line_num
        if last > begin:
            raise TextError(
                f"{path}, line {begin}: {_quote(text, begin)}; it would swallow {last - begin} further "
                "lines. Double it, or quote the whole field."
            )
        if any(field.strip() for field in row):
            yield begin, [field.strip() for field in row]


def _quote(text: str, line: int) -> str:
    found = re.search(r'"[^"]*$', text.split("\n")[line - 1])
    return f"a quotation mark that is not closed: {shown(found[0])}" if found else "odd quotation marks"
