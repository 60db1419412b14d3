"""Evaluation: the suite's pictures of every checkpoint, what a scorer sees in them, grids and the leaderboard.

Here: functions on tables, models and pictures. Not here: training (`inversion`) and what is handed out (`publishing`).
"""
