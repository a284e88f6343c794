"""Everything that is drawn: figures of lens logs and studies, pages, tables for the terminal.

``lens_figures`` needs plotly. The pages need jinja2 too, the tables rich.
"""

try:
    from bandwise.figures.figure import Figure
    from bandwise.figures.instruments import lens_figures
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "plotly":
        raise
    raise ModuleNotFoundError(
        "bandwise.figures needs plotly: pip install 'bandwise[study]'", name="plotly"
    ) from error

__all__ = ["Figure", "lens_figures"]
