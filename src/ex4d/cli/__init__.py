"""The command ``ex4d``: one file a command, options from dataclasses, errors as text and exit codes.

Imports here are light: a command loads what it needs when it runs, so that ``--help`` answers at once.
"""
