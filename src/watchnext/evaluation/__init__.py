"""Honest measurement of anything that recommends or predicts watch time."""
