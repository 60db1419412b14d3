"""Dagster assets, thin: read inputs, call one domain function, return a result with metadata.

Here: partitions, resources and what the UI shows. Not here: any computation on data (the domain packages).
"""

import warnings

import dagster as dg

with warnings.catch_warnings():
    # `backfill_policy` is marked beta; the whole-graph tests hold it to what is relied on here.
    warnings.simplefilter("ignore", dg.BetaWarning)
    from ti_pipeline.assets import captions, catalog, evaluation, pictures, posts, publishing, training

__all__ = ["MODULES"]

MODULES = (catalog, posts, captions, pictures, training, evaluation, publishing)
