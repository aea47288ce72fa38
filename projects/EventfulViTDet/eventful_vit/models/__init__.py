"""Eventful models."""
