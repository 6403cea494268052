"""Integrations with training frameworks. Each module imports its package when you import it."""
