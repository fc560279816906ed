"""A made-up video site whose every probability is known: the ground truth for tests, and logs of any size."""
