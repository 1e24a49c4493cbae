"""``ex4d doctor``: is everything here that is needed?"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Check this installation: versions, speed-ups, caches, optional parts, and a tiny self-test."""

    def execute(self) -> int:
        """Print a line a check; 0 if the base works, 2 otherwise."""
        import sys

        from ex4d.cli.checks import run_checks
        from ex4d.cli.quiet import quiet_libraries

        quiet_libraries()
        failed = 0
        for check in run_checks():
            sys.stdout.write(f"{check.line()}\n")
            sys.stdout.flush()
            failed += check.state == "fail"
        if failed:
            sys.stderr.write(f"error: {failed} of the checks failed; what to do stands beside each\n")
            return 2
        sys.stdout.write("all that ex4d needs is here\n")
        return 0
