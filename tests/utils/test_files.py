"""Files that are whole or absent."""

from __future__ import annotations

import os

import pytest

from mmpt.utils.files import atomic_write


def test_a_link_that_somebody_planted_is_not_written_through(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr("mmpt.utils.files.secrets.token_hex", lambda n: "known")
    (tmp_path / f".out.{os.getpid()}.known.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError), atomic_write(tmp_path / "out", "w") as file:
        file.write("theirs")
    assert victim.read_text() == "mine" and not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", ["w", "wb", "w+b"])
def test_the_file_appears_whole_with_the_usual_rights(tmp_path, mode):
    with atomic_write(tmp_path / "out", mode) as file:
        file.write("a" if mode == "w" else b"a")
        assert not (tmp_path / "out").exists()
    (tmp_path / "usual").write_text("a")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["out", "usual"]
