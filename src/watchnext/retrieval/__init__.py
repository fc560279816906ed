"""Candidate generation: millions of videos to hundreds (§3)."""
