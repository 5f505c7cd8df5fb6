"""Keras has one backend a process, so the tests in `each` run in processes of their own: `test_keras_backends.py`
starts one for every file and backend.

`KERAS_BACKEND=torch python -m pytest tests/bridges/keras/each` runs them by hand.
"""

import os

collect_ignore = [] if "KERAS_BACKEND" in os.environ else ["each"]
