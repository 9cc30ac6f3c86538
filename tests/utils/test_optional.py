"""Packages that only some features need."""

from __future__ import annotations

import pytest

from mmpt.utils import optional_import


def test_package_whose_own_requirement_is_absent_names_both(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import no_such_vision")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ImportError, match="'half_there' is installed, but this needs the package 'no_such_vision'"
    ):
        optional_import("half_there", extra="open_clip")


def test_compiled_package_that_cannot_be_loaded_names_the_libraries(tmp_path, monkeypatch):
    message = "many lines\\nOSError: libx.so.13: cannot open shared object file: No such file\\nmore"
    (tmp_path / "compiled.py").write_text(f'raise RuntimeError("{message}")')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="cannot be loaded here: system libraries not found: libx.so.13"):
        optional_import("compiled", extra="torchcodec")
