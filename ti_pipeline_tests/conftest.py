"""What all tests share."""

import os

import hypothesis

# Models in tests are tiny: on one thread they are faster than on several that wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says nothing about whether it is right.
hypothesis.settings.register_profile("no deadline", deadline=None, derandomize=True)
hypothesis.settings.load_profile("no deadline")
