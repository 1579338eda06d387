"""Results of `fasthash demo` for people: tables as text and Markdown, and one page with plots."""

from fasthash.report.page import write_report
from fasthash.report.plots import Plots
from fasthash.report.tables import columns, markdown_tables, short_table, text_tables

__all__ = ["Plots", "columns", "markdown_tables", "short_table", "text_tables", "write_report"]
