"""The one opener of text: encodings, tables, JSON and ids as people have them, refused by file and line.

UTF-8 with or without a byte order mark, lines that end as on Unix or Windows, JSON plain or gzipped. Whatever
is not that is an error that names the file, the line, what was found and the cure; nothing is dropped.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

SHOWN = 200  # characters of what was found
DELIMITERS = ",\t;"
UTF16 = (b"\xff\xfe", b"\xfe\xff")


class TextError(ValueError):
    """A text file cannot be used; the message says which, where and why."""


def shown(value: Any) -> str:
    """A value as an error message shows it: its text, cut."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def read_text(path: str | Path) -> str:
    """The text of a file, lines ended by a newline alone.

    Raises:
        TextError: it is not UTF-8.
        OSError: it cannot be opened.
    """
    path = Path(path)
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError) as error:
            raise TextError(f"{path}: a damaged gzip file ({error}). Fetch it again.") from error
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


def read_lines(path: str | Path) -> list[str]:
    """The lines of a file that hold something, without white space around them."""
    return [line.strip() for line in read_text(path).split("\n") if line.strip()]


def read_ids(path: str | Path, folders: bool = False) -> list[str]:
    """The ids of a list file, one per line; `folders` as in `check_id`.

    Raises:
        TextError: no id in it, or one that is no name.
    """
    text = read_text(path).split("\n")
    lines = [(number, line.strip()) for number, line in enumerate(text, 1) if line.strip()]
    if not lines:
        raise TextError(f"{path}: the list holds no id; expected one per line.")
    return [check_id(line, f"{path}, line {number}", folders) for number, line in lines]


def check_id(name: Any, where: str, folders: bool = False) -> str:
    """An id, which becomes a file name here and there.

    Args:
        name: the id.
        where: file and record, for the message.
        folders: whether `folder/name` is an id too, as in lists of classes.

    Raises:
        TextError: it is a path, empty, or holds control characters.
    """
    parts = name.split("/") if isinstance(name, str) else []
    bad = (
        not isinstance(name, str)
        or not all(parts)
        or (len(parts) > 1 and not folders)
        or any(part in (".", "..") for part in parts)
        or "\\" in name
        or any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name)
    )
    if bad:
        raise TextError(
            f"{where}: {shown(repr(name))} is no id: expected a name without folders (/, \\, ..) and control "
            "characters, which becomes a file name."
        )
    return name


def refuse_repeated(ids: Iterable[str], where: str) -> None:
    """Raises TextError where an id is given twice; the message names some."""
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise TextError(f"{where}: {len(twice)} ids are given more than once: {', '.join(twice[:5])}.")


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
            raise TextError(f"{path}, line {line}: expected {expected} fields, got {shown(repr(row))}.")
    return rows


def number(value: Any, where: str, finite: bool = True) -> float:
    """A number, quoted or not; with `finite` neither infinite nor NaN.

    Raises:
        TextError: it is none, or not finite; the message names `where`.
    """
    try:
        found = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
    except ValueError:
        found = None
    if found is None or (finite and (found != found or abs(found) == float("inf"))):
        raise TextError(f"{where}: expected a number, got {shown(repr(value))}.")
    return found


def read_json(path: str | Path, kind: type, nan: bool = False) -> Any:
    """A JSON file, plain or gzipped, whose outermost value is a non-empty `kind` (dict or list); `nan`: it
    may hold NaN.

    Raises:
        TextError: it is not JSON, holds a name twice, or something else.
    """
    value = _parse(read_text(path), str(path), nan)
    if not isinstance(value, kind) or not value:
        raise TextError(
            f"{path}: expected a non-empty JSON {kind.__name__}, got {type(value).__name__}; is this "
            "another data set's file?"
        )
    return value


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """One JSON object a line.

    Raises:
        TextError: a line is none.
    """
    lines = [(number, line) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    found = []
    for line, text in lines:
        value = _parse(text, f"{path}, line {line}")
        if not isinstance(value, dict):
            raise TextError(f"{path}, line {line}: expected a JSON object, got {shown(text)}.")
        found.append(value)
    return found


def _parse(text: str, where: str, nan: bool = False) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        refuse_repeated((name for name, _ in pairs), where)
        return dict(pairs)

    def constant(name: str) -> float:
        if nan and name == "NaN":
            return float("nan")
        raise TextError(f"{where}: {name} is no JSON number.")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=constant)
    except RecursionError as error:
        raise TextError(f"{where}: JSON nested too deeply.") from error
    except json.JSONDecodeError as error:
        raise TextError(
            f"{where}: not a JSON file ({error}); is this the file of another data set?"
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
