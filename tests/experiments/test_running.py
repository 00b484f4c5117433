# SPDX-License-Identifier: Apache-2.0
"""The command line from the outside: exit codes, one line of complaint, folders, records."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import experiments.__main__ as entry
from experiments.cli import parse
from plprune.records import read_record, same_record

pytestmark = pytest.mark.usefixtures("toy")
ROOT = Path(entry.__file__).parents[1]


def main(*words):
    return entry.main([str(word) for word in words])


def complaint(capsys, *words):
    """The one line on stderr of a refused command; it has no traceback."""
    assert main(*words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def contents(folder):
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.iterdir()
        if path.is_file()
    }


def run_experiment(*words):
    command = [sys.executable, "-m", "experiments", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_run_writes_record_curves_figures_and_report(toy, tmp_path, capsys):
    toy("figures", draw=toy.draw)
    assert main("toy", "--preset", "large", "--seeds", 2, "--out", tmp_path / "run") == 0
    written = {path.name for path in (tmp_path / "run").iterdir()}
    products = {"record.json", "metrics.npz", "figure.png", "figures", "report.html"}
    assert written - products == {"log.jsonl", "tensorboard"}
    assert products <= written
    record, curves = read_record(tmp_path / "run")
    assert (record["experiment"], record["preset"]) == ("toy", "large")
    assert record["seeds"] == [0, 1]
    assert record["config"]["steps"] == 50
    assert record["command"] == "python -m experiments toy --preset large --seeds 2"
    assert curves["gd/kappa/train_loss"].shape == (2, 50)
    shown = capsys.readouterr().out
    assert "steps to target" in shown
    assert "MiB of memory" in shown
    assert str(tmp_path / "run") in shown


def test_the_folder_defaults_to_results_name_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main("toy", "--quiet") == 0
    assert (tmp_path / "results" / "toy" / "quick" / "record.json").exists()


def test_the_recorded_command_gives_the_same_record(tmp_path):
    words = ("--seed", 3, "--seeds=2", "--methods", "random,dense", "--keep", 0.25)
    assert main("toy", *words, "--out", tmp_path / "a", "--quiet") == 0
    first = read_record(tmp_path / "a")
    again = first[0]["command"].split()[3:]
    assert main(*again, "--out", tmp_path / "b", "--quiet") == 0
    assert same_record(first, read_record(tmp_path / "b"))
    assert first[0]["config"]["methods"] == ["random", "dense"]
    assert first[0]["seeds"] == [3, 4]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("nothing",), "there are toy"),
        (("sweep",), "name of an experiment"),
        (("toy", "--preset", "huge"), "no preset 'huge'; there are quick, large."),
        (("toy", "--methods", "dense,taylor"), "'taylor'; there are dense, kappa, random."),
        (("toy", "--keep", "0"), "(0, 1], got 0.0."),
        (("toy", "--keep", "many"), "--keep"),
        (("toy", "--kep", "0.5"), "--kep"),
        (("toy", "--seeds", "0"), "at least 1, got 0."),
        (("toy", "--seed=-1"), "[0, 2**31), got -1."),
        (("toy", "--steps", "nan"), "--steps"),
        (("toy", "--preset"), "--preset"),
        (("toy", "width"), "no figure 'width'"),
        (("toy", "--resume", "--overwrite"), "exclude each other"),
        (("report",), "path"),
        (("report", "nowhere"), "no record.json"),
    ],
)
def test_bad_words_are_refused_in_one_line(toy, capsys, monkeypatch, tmp_path, words, expected):
    monkeypatch.setattr("experiments.EXPERIMENTS", {"toy": "experiments.toy"})
    monkeypatch.chdir(tmp_path)
    toy("run", run=lambda *_, **__: pytest.fail("must not start"))
    assert expected in complaint(capsys, *words)


def test_errors_of_the_data_are_one_line_too(toy, capsys, tmp_path):
    def run(*_, **__):
        raise ValueError("labels must lie in [0, 9],\ngot 10.")

    toy("run", run=run)
    line = complaint(capsys, "toy", "--out", tmp_path, "--quiet")
    assert line == "experiments: labels must lie in [0, 9], got 10."


def test_faults_of_the_program_are_one_line_and_exit_1(toy, capsys, tmp_path):
    toy("run", run=lambda *_, **__: {}["no such key"])
    assert main("toy", "--out", tmp_path, "--quiet") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "KeyError, which is an error of this program" in line
    assert "PLPRUNE_TRACEBACK=1" in line
    assert str(tmp_path) in line


def test_a_full_disk_is_one_line_that_says_where_the_state_is(toy, capsys, tmp_path):
    def run(_, *, progress):
        progress.once("a", lambda: {"x": 1.0})
        raise OSError(28, "No space left on device")

    toy("run", run=run)
    line = complaint(capsys, "toy", "--out", tmp_path, "--quiet")
    assert "No space left on device" in line
    assert line.endswith(f"what was finished is in {tmp_path}, and --resume continues from it.")


def test_a_traceback_is_shown_on_request(capsys, monkeypatch):
    monkeypatch.setenv("PLPRUNE_TRACEBACK", "1")
    assert main("toy", "--keep", 7) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in complaint(capsys, "toy", "--out", tmp_path / "file" / "run")


def test_a_finished_run_is_shown_again_and_left_alone(toy, tmp_path, capsys):
    assert main("toy", "--out", tmp_path) == 0
    before, shown = contents(tmp_path), capsys.readouterr().out
    toy("run", run=lambda *_, **__: pytest.fail("must not run again"))
    for words in ((), ("--resume",)):
        assert main("toy", "--out", tmp_path, *words) == 0
        again = capsys.readouterr().out
        assert "steps to target" in again
        assert shown.endswith(again)
    assert contents(tmp_path) == before


def test_another_config_in_the_folder_is_refused_unless_overwritten(tmp_path, capsys):
    main("toy", "--out", tmp_path, "--quiet")
    before = contents(tmp_path)
    for words in ((), ("--resume",)):
        line = complaint(capsys, "toy", "--keep", 0.25, "--out", tmp_path, *words)
        assert "keep is 0.5 there and 0.25 here" in line
        assert contents(tmp_path) == before
    assert main("toy", "--keep", 0.25, "--out", tmp_path, "--quiet", "--overwrite") == 0
    assert read_record(tmp_path)[0]["config"]["keep"] == 0.25


def test_other_versions_are_refused_except_by_resume(tmp_path, capsys):
    main("toy", "--out", tmp_path, "--quiet")
    record = json.loads((tmp_path / "record.json").read_text())
    record["versions"]["jax"] = "0.1"
    (tmp_path / "record.json").write_text(json.dumps(record))
    assert "jax is '0.1' there" in complaint(capsys, "toy", "--out", tmp_path)
    assert main("toy", "--out", tmp_path, "--resume", "--quiet") == 0


def test_foreign_files_are_refused_and_never_removed(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("mine")
    assert "thesis.tex" in complaint(capsys, "toy", "--out", tmp_path)
    assert main("toy", "--out", tmp_path, "--overwrite", "--quiet") == 0
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_resume_starts_a_run_where_there_is_none(tmp_path, capsys):
    assert main("toy", "--out", tmp_path / "new", "--resume", "--quiet") == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "report.html").write_text("mine")
    assert "report.html" in complaint(capsys, "toy", "--out", tmp_path / "other", "--resume")


def test_interruption_exits_130_and_resume_gives_the_same_record(toy, tmp_path, capsys):
    main("toy", "--out", tmp_path / "whole", "--quiet")
    done = []

    def interrupted(config, *, progress):
        class Counted:
            task = progress.task

            def once(self, name, work):
                if len(done) == 4:
                    raise KeyboardInterrupt
                done.append(name)
                return progress.once(name, work)

        return toy.run(config, progress=Counted())

    toy("run", run=interrupted)
    assert main("toy", "--out", tmp_path / "cut", "--quiet") == 130
    assert str(tmp_path / "cut") in capsys.readouterr().err
    toy("run", run=toy.run)
    assert "--resume" in complaint(capsys, "toy", "--out", tmp_path / "cut")
    assert main("toy", "--out", tmp_path / "cut", "--resume", "--quiet") == 0
    assert same_record(read_record(tmp_path / "cut"), read_record(tmp_path / "whole"))
    assert not (tmp_path / "cut" / "unfinished").exists()


def test_figures_have_folders_and_all_has_one_record_of_them(toy, tmp_path, capsys):
    toy("config", FIGURES=("width", "rate"))
    toy("run", run=toy.run_figure)
    assert main("toy", "rate", "--out", tmp_path, "--quiet") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["rate"]
    one = contents(tmp_path / "rate")
    assert main("toy", "--out", tmp_path, "--quiet") == 0
    assert contents(tmp_path / "rate") == one
    record, curves = read_record(tmp_path)
    assert set(record["results"]) == {
        f"{figure}/gd/{method}" for figure in ("width", "rate") for method in ("dense", "kappa")
    }
    assert len(curves) == 4
    assert record["config"]["figure"] == "all"
    assert record["command"] == "python -m experiments toy all --preset quick"
    rate = read_record(tmp_path / "rate")[0]
    assert rate["command"] == "python -m experiments toy rate --preset quick"
    assert main("toy", "all", "--out", tmp_path, "--resume", "--quiet") == 0
    assert "there are width, rate, all." in complaint(capsys, "toy", "depth")


def test_all_figures_are_checked_before_the_first_is_run(toy, tmp_path, capsys):
    toy("config", FIGURES=("width", "rate"))
    toy("run", run=toy.run_figure)
    main("toy", "rate", "--keep", 0.25, "--out", tmp_path, "--quiet")
    assert "another config" in complaint(capsys, "toy", "--out", tmp_path, "--quiet")
    assert not (tmp_path / "width" / "record.json").exists()


def test_figures_that_give_the_same_number_twice_are_refused(toy, tmp_path, capsys):
    toy("config", FIGURES=("width", "rate"))
    toy("run", run=lambda config, _, *, progress: toy.run(config, progress=progress))
    assert "repeats gd/" in complaint(capsys, "toy", "--out", tmp_path, "--quiet")


def test_versions_of_the_data_are_recorded_and_lossy_ones_are_told(toy, tmp_path, capsys):
    toy("run", versions=lambda _: {"cifar10": "3.0.2, lossy"})
    main("toy", "--out", tmp_path)
    assert "cifar10 3.0.2, lossy" in capsys.readouterr().out
    assert "cifar10 3.0.2, lossy" in (tmp_path / "report.html").read_text()


def test_help_of_an_experiment_shows_the_values_of_its_preset(capsys):
    assert main("toy", "--preset", "large", "--help") == 0
    shown = capsys.readouterr().out
    for flag in ("--seed", "--seeds", "--keep", "--steps", "--out", "--resume", "--overwrite"):
        assert flag in shown
    assert "dense,kappa" in shown
    assert "Fraction kept, in (0, 1]." in shown  # The comment of the field.


def test_presets_are_listed_before_anything_is_run(toy, tmp_path, capsys):
    toy("run", run=lambda *_, **__: pytest.fail("must not start"))
    assert main("toy", "--out", tmp_path, "--presets") == 0
    assert "large (about 90 min, needs the moon)" in capsys.readouterr().out


def test_few_functions_stand_between_the_words_and_the_work(toy, tmp_path):
    """A newcomer reads them all; rules that tyro calls for every flag are not steps of the way."""
    entered, package = [], Path(entry.__file__).parent

    def follow(frame, event, _):
        code = frame.f_code
        is_function = code.co_flags & inspect.CO_NEWLOCALS and not code.co_name.startswith("<")
        if event == "call" and is_function and package in Path(code.co_filename).parents:
            entered.append(f"{Path(code.co_filename).stem}.{code.co_qualname}")

    def run(config, *, progress):
        sys.setprofile(None)
        return toy.run(config, progress=progress)

    toy("run", run=run)
    sys.setprofile(follow)
    try:
        assert main("toy", "--out", tmp_path) == 0
    finally:
        sys.setprofile(None)
    steps = {name for name in entered if not name.startswith("parsing._")}
    assert len(steps) <= 40, sorted(steps)


def test_parsing_gives_the_preset_with_its_overrides():
    command = parse("toy", ["--preset=large", "--keep", "0.25"])
    assert command.config.steps == 50
    assert (command.config.keep, command.options.preset) == (0.25, "large")
    assert command.out == Path("results/toy/large")
    assert not command.options.resume


def test_help_and_bad_input_from_a_shell():
    done = run_experiment("--help")
    assert done.returncode == 0
    assert "report" in done.stdout
    refused = run_experiment("nothing")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1


def test_help_starts_without_jax_and_fast():
    def seconds(*command):  # Of the processor: others may be busy on this machine.
        before = os.times()
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
        after = os.times()
        return sum(after[2:4]) - sum(before[2:4])

    seconds("-c", "import sys, experiments.__main__ as m; m.main(['--help']);"
            "assert not {'jax', 'matplotlib', 'numpy'} & set(sys.modules)")  # fmt: skip
    pairs = [
        (seconds("-m", "experiments", "--help"), seconds("-c", "import tyro, rich"))
        for _ in range(5)
    ]
    help_seconds, import_seconds = map(min, zip(*pairs, strict=True))
    assert help_seconds <= 1.5 * import_seconds
