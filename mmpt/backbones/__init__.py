"""Networks that turn pictures, sound and words into features."""
