"""A run as one web page: what its log, validations and grids say, without a server or a network."""

from calotype.training.report.page import write_report

__all__ = ["write_report"]
