"""What a model may learn from: contexts as of a moment, next watches, shown impressions, quantiles."""
