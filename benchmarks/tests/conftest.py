"""Properties are tried as in `tests`."""

import profiles  # noqa: F401 - registers them
