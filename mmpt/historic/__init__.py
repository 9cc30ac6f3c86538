"""What only reproduces released code, kept apart so that published numbers can be checked."""
