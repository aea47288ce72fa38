"""The door of the installed command `eventful-vitdet`, as tools/*.py are those of their commands."""

from .door import Door

door = Door("main_command")
