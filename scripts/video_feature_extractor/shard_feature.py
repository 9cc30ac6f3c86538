"""Features of single videos -> shards: `mmpt shards build`, whose --help says more; without arguments both
splits that how2/shards.yaml names, with a YAML those that it names."""

import sys

from mmpt_cli.earlier import shard_feature as main
from mmpt_cli.main import run

if __name__ == "__main__":
    sys.exit(run(main))
