"""Does a loss depend on what it must not depend on? See `certify`."""

from mmpt.certify.certificate import Finding, certify, table
from mmpt.certify.foreign import FOREIGN, foreign_subjects
from mmpt.certify.subjects import Subject, pairs_subject, subject_of, subjects

__all__ = [
    "FOREIGN",
    "Finding",
    "Subject",
    "certify",
    "foreign_subjects",
    "pairs_subject",
    "subject_of",
    "subjects",
    "table",
]
