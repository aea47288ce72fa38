"""Errors of the live page."""

from ..data.errors import DataError


class LiveError(DataError):
    """The page cannot be served as asked; the message says why."""


class RequestError(Exception):
    """A viewer asked for something that is refused; the message is the reason."""
