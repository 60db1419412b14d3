"""Publishing: what leaves the house: the report to decide from, and the release with its card and attribution.

Here: gathering what was measured into pages and files. Not here: measuring anything.
"""
