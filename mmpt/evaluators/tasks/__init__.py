"""One file per task of evaluation."""
