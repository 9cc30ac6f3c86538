"""Does a loss depend on what it must not depend on? See `certify`."""

from mmpt.certify.certificate import Finding, certify, table
from mmpt.certify.subjects import Subject, pairs_subject, subject_of, subjects

__all__ = ["Finding", "Subject", "certify", "pairs_subject", "subject_of", "subjects", "table"]
