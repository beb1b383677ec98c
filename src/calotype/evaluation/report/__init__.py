"""Pages of evaluations: one of a set, one that compares several, one of a sweep."""

from calotype.evaluation.report.set_page import write_set_page

__all__ = ["write_set_page"]
