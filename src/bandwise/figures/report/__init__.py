"""What studies and lenses found, for people: tables for the terminal and pages for the browser.

Everything is drawn from stored results and logs alone; nothing is trained or measured here.
"""

from bandwise.figures.report.lens_page import write_lens
from bandwise.figures.report.lens_rows import rows_of_folders
from bandwise.figures.report.lens_table import lens_table
from bandwise.figures.report.page import write
from bandwise.figures.report.table import table

__all__ = ["lens_table", "rows_of_folders", "table", "write", "write_lens"]
