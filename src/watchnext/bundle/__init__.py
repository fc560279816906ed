"""One versioned folder that serves."""
