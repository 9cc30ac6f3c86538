#!/usr/bin/env python3
"""fairseq's training entry with mmpt's plugin: `python train.py` is `python -m mmpt_cli.fairseq_train`."""

from mmpt_cli.fairseq_train import main

if __name__ == "__main__":
    main()
