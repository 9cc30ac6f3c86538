"""Features of single videos -> shards: the same as `python -m mmpt_cli.shards build`.

    python scripts/video_feature_extractor/shard_feature.py data/feat/feat_how2_s3d
    data/how2/how2_s3d_train.lst data/feat/shards \\
        --split train
"""

from __future__ import annotations

import argparse

from mmpt_cli import shards_build


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Features of single videos -> shards.")
    shards_build.add_arguments(parser)
    shards_build.build(parser.parse_args(argv))


if __name__ == "__main__":
    main()
