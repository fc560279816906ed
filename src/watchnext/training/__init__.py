"""The training loop and its checkpoints; knows neither stage."""
