"""Synthetic worlds with exact ground truth."""
