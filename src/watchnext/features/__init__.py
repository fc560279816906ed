"""The ranker's features, as of a moment; the same code trains and serves (§4.1)."""
