"""The commands: one module for each, with its arguments (`parse`), its work (`execute`) and both together (`main`)."""
