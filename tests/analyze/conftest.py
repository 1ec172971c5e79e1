"""One small tree of results with its report, shared by all that look at it and change nothing."""

import pytest
from example_outputs import SMALL, write_example

from analyze.report.build import ensure_report


@pytest.fixture(scope="session")
def outputs(tmp_path_factory, tiny_settings):
    folder = tmp_path_factory.mktemp("report") / "outputs"
    write_example(folder, tiny_settings(), SMALL)
    ensure_report(folder)
    return folder
