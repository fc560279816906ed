"""Finding the videos whose vectors have the largest dot product with a user's."""
