"""``python -m bandwise``: the command line."""

from bandwise.cli import main

main()
