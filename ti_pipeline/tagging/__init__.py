"""Tags: counting them, reducing them to a vocabulary, and writing captions from it.

Here: functions on tables. Not here: where tags come from (`e621`, `sources`), or how prompts are encoded (`inversion`).
"""
