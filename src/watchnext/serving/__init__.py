"""Recommendations for people: the recommender itself, and HTTP around it."""
