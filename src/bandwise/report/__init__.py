"""What a study found, for people: a table for the terminal and a page for the browser.

Everything is drawn from a :class:`bandwise.study.results.Results` alone; nothing is trained or
measured here.
"""

from bandwise.report.page import write
from bandwise.report.table import table

__all__ = ["table", "write"]
