"""Results as pages: search, alignments, training runs. One style, Jinja2 templates, nothing fetched from
elsewhere."""
