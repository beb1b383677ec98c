"""A study's report: what people preferred, how sure that is, in one HTML page and one JSON file."""

from calotype.errors import MissingExtra

try:
    from calotype.evaluation.rating.report.page import write_report
except ModuleNotFoundError as error:  # jinja2, choix, krippendorff, statsmodels
    # matplotlib and scipy belong to the other extra of evaluation
    extra = "evaluate" if str(error.name).partition(".")[0] in ("matplotlib", "scipy") else "rate"
    raise MissingExtra(extra, str(error.name)) from error

__all__ = ["write_report"]
