"""The module that fairseq's `--user-dir mmpt` scan finds: importing it registers mmpt's task, model and
criterion."""

import mmpt.fairseq_plugin  # noqa: F401  (registration is the point)
