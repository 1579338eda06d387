"""Pages for people: `Report`, what codes find, and the tables and page of `fasthash demo`."""

from fasthash.report.page import write_report
from fasthash.report.plots import Plots, Ranked
from fasthash.report.report import Report
from fasthash.report.tables import columns, distance_words, markdown_tables, short_table, text_tables

__all__ = [
    "Plots",
    "Ranked",
    "Report",
    "columns",
    "distance_words",
    "markdown_tables",
    "short_table",
    "text_tables",
    "write_report",
]
