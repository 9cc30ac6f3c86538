"""Decoding: seconds of pictures and sound from media files."""
