"""Whole volumes, segmented for a text prompt without anybody pointing at a slice."""
