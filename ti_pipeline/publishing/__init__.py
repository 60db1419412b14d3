"""Publishing: the report to decide from, and the release with its card and attribution.

Not here: measuring (`evaluation`), drawing plots and grids (each beside the data it shows), and uploading.
"""
