"""A run as one web page: what its log, validations and grids say, without a server or a network."""

from calotype.errors import MissingExtra

try:
    from calotype.training.report.page import write_report
except ModuleNotFoundError as error:  # jinja2 writes the page, matplotlib its charts
    raise MissingExtra("train", str(error.name)) from error

__all__ = ["write_report"]
