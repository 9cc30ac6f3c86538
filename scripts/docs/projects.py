"""Writes projects/README.md from the project files: python scripts/docs/projects.py"""

from pathlib import Path

from mmpt.config.catalogue import page

if __name__ == "__main__":
    Path("projects/README.md").write_text(page(), encoding="utf-8")
