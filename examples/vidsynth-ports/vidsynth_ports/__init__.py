"""Models from elsewhere, as plugins of vidsynth."""
