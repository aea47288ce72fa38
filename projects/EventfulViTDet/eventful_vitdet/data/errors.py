"""Errors of the data part. Their messages are written for the owner of the data and stand alone."""


class DataError(Exception):
    """Something about the user's data is wrong; the message names the file and says what was expected."""


class DatasetError(DataError):
    """An annotation file cannot be used."""


class VideoReadError(DataError):
    """A frame of a video or of a frame folder cannot be read."""
