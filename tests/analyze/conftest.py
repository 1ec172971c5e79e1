"""What several tests look at and none changes: a small tree of results with its report, a policy, an Axes."""

import pytest
from example_outputs import SMALL, write_example, write_training
from matplotlib.figure import Figure

from analyze.report.build import ensure_report
from nrmap.layout import Layout
from nrmap.policy import load_policy


@pytest.fixture(scope="session")
def outputs(tmp_path_factory, tiny_settings):
    folder = tmp_path_factory.mktemp("report") / "outputs"
    write_example(folder, tiny_settings(), SMALL)
    ensure_report(folder)
    return folder


@pytest.fixture(scope="session")
def policy(tmp_path_factory, tiny_settings):
    folder = tmp_path_factory.mktemp("policy")
    return load_policy(write_training(Layout(folder), tiny_settings(method="ddqn", seed=0)))


@pytest.fixture
def ax():
    return Figure().subplots()
