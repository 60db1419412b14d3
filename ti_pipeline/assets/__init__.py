"""Dagster assets, thin: read inputs, call one domain function, return a result with metadata.

Here: partitions, resources and what the UI shows. Not here: any computation on data (the domain packages).
"""

from ti_pipeline.assets import captions, catalog, evaluation, pictures, posts, publishing, training

__all__ = ["MODULES"]

MODULES = (catalog, posts, captions, pictures, training, evaluation, publishing)
