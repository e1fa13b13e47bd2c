"""Scores against a planted truth: what shortcuts reach, and how right each stage is."""
