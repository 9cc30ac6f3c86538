#!/usr/bin/env python3
"""Launch project files: `python locallaunch.py FILE ...` is `python -m mmpt_cli.launch FILE ...`."""

import sys

from mmpt_cli.launch import main

if __name__ == "__main__":
    sys.exit(main())
