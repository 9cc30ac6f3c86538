"""Why is this number not that number? From a claim about a model's output to the number of the clean
protocol, in steps.

`read_evidence` reads what any project saves, `audit` finds the departures that a claim comes from,
`write_report` writes text, JSON and a picture. `protocol` is how a number is computed, `suspects` what is
known to move it, `explain` which of these a claim speaks for.
"""

from mmpt.audit.evidence import Claim, Evidence
from mmpt.audit.explain import Finding, audit
from mmpt.audit.read import read_evidence
from mmpt.audit.report import text, to_dict, write_report

__all__ = ["Claim", "Evidence", "Finding", "audit", "read_evidence", "text", "to_dict", "write_report"]
