"""Bisection: trials of prefixes in, beliefs, the next trial and in the end the guilty patch out."""
