"""The two papers rerun: every table, figure and claim beside what was measured."""
