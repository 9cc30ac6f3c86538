"""mmpt: joint representations of long videos and text, trained by fairseq and driven by YAML.

Importing this package is instant: it needs neither torch nor fairseq.
"""

__version__ = "0.1.0"
