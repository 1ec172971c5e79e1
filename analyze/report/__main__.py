"""`python -m analyze.report [outputs=outputs]`: build the page of all results; print its main tables and its path.

Of the tables, table 1 of the paper is printed last, where it stays in sight. Files that could not be used are named
on stderr.
"""

import sys
from pathlib import Path

from analyze.report.build import ensure_report
from analyze.report.formats import print_table
from analyze.report.page import IN_SIGHT
from conf.argument_parser import ArgumentParser
from conf.command_line import results_folder, with_flag_outputs
from nrmap.support.errors import errors_in_one_line


@errors_in_one_line()
def main() -> None:
    """Build the report; print its main tables, unused files (on stderr) and its path.

    An error prints one line and exits with status 2.
    """
    parser = ArgumentParser(prog="python -m analyze.report", description=__doc__)
    parser.add_argument("--outputs", type=results_folder, default=Path("outputs"), help="also outputs=FOLDER")
    arguments = parser.parse_args(with_flag_outputs(sys.argv[1:]))
    report = ensure_report(arguments.outputs)
    for table in reversed(report.tables):
        if table.name in IN_SIGHT:
            print_table(table)
    for problem in report.problems:
        print(f"not used: {problem}", file=sys.stderr)
    print(f"{report.page}{'' if report.made else ' is up to date'}")


if __name__ == "__main__":
    main()
