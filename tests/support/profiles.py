"""How Hypothesis looks for cases."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A shared machine may be slow at any moment; and what decides over a change must decide the same twice. CI looks for
# new cases with --hypothesis-profile=random, where a failure prints the line that reproduces it.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
settings.register_profile("altmin", patient, derandomize=True)
settings.register_profile("random", patient, derandomize=False, print_blob=True)
settings.load_profile("altmin")
