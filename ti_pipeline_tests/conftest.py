"""What all tests share."""

import os

# Models in tests are tiny: on one thread they are faster than on several that wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
