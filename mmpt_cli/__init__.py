"""The command `mmpt`: each file translates the words of one verb into calls of the library."""
