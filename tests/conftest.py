"""Settings of the whole test suite."""

import os

from hypothesis import settings

# No deadlines, which a busy machine breaks; and in CI the same examples in every run.
settings.register_profile("suite", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("suite")
