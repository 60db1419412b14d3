"""The demo: a drawn world with known truth, its tagged posts, and how the small base model was trained on it.

Everything here is drawn by code, safe for work, and decided by seeds. Nothing here is used by studies of other
sources.
"""
