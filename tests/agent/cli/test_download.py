"""The models of the catalogue, as the command line shows and fetches them."""

import pytest

from edge_agent.cli import main


@pytest.fixture(autouse=True)
def configuration(tmp_path, monkeypatch) -> None:
    (tmp_path / "agent.yaml").write_text(f"data_dir: {tmp_path}\n")
    monkeypatch.setenv("EDGE_AGENT_CONFIG", str(tmp_path / "agent.yaml"))


def test_the_catalogue_is_listed(capsys) -> None:
    assert main(["download", "--list"]) == 0
    assert ["smollm2-135m", "98", "MB"] in [line.split()[:3] for line in capsys.readouterr().out.splitlines()]


def test_one_model_is_listed(capsys) -> None:
    assert main(["download", "--list", "smollm2-135m"]) == 0
    assert capsys.readouterr().out.startswith("smollm2-135m ")


def test_a_model_that_is_a_file_is_not_fetched(tmp_path, capsys) -> None:
    (tmp_path / "my.gguf").touch()
    assert main(["download", str(tmp_path / "my.gguf")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/my.gguf\n"


@pytest.mark.parametrize("more", [[], ["--list"]])
def test_a_model_that_nobody_knows_is_told_with_those_there_are(more, capsys) -> None:
    assert main(["download", "gpt-17", *more]) == 66
    assert "smollm2-135m" in capsys.readouterr().err


def test_a_file_is_not_listed(tmp_path) -> None:
    (tmp_path / "my.gguf").touch()
    assert main(["download", "--list", str(tmp_path / "my.gguf")]) == 2
