"""`python -m mmpt_cli VERB ...` is `mmpt VERB ...`."""

import sys

from mmpt_cli.main import main

sys.exit(main())
