"""Ranking: hundreds of candidates to dozens, by expected watch time (§4)."""
