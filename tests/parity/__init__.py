"""What users of the earlier systems do, row by row: a command, and where its outcome is asserted."""
