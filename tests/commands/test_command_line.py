"""The command line in processes of its own: arguments, streams, and figures in every place."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import convmat
from convmat.commands import _console as console
from convmat.commands import main

EXAMPLE = "(a) The textbook's example"
PORTRAIT = [[[250, 20, 10]] * 6 + [[0, 90, 200]] * 3] * 7


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to run in, with a photograph."""
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    image.fromarray(np.array(PORTRAIT, np.uint8)).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def environment(**changes):
    path = os.pathsep.join([str(Path(convmat.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", **changes}


def run(*arguments, options=(), **changes):
    """Run a command; return its exit status, what it prints, and what it says on standard error."""
    done = subprocess.run(
        [sys.executable, *options, "-m", "convmat", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        env=environment(**changes),
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def shell(line, **changes):
    """Run a line of bash in which `convmat` is the command; return its exit status, output and errors."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    program = f'convmat() {{ {shlex.quote(sys.executable)} -m convmat "$@"; }}; set -o pipefail; {line}'
    done = subprocess.run(
        ["bash", "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        env=environment(**changes),
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def is_sentence(errors):
    return errors.startswith("convmat: ") and errors.count("\n") == 1 and not errors.endswith(".\n")


# Arguments


def test_the_version_is_printed():
    assert run("--version") == (0, f"convmat {convmat.__version__}\n", "")


def test_without_a_command_the_demo_runs(folder):
    status, output, errors = run("photo.png")
    assert (status, errors) == (0, "")
    assert "photo.png, 9 × 7 pixels, three channels" in output
    assert (folder / "convmat-demo.png").exists()
    status, output, errors = run("--figure", "other.svg", "photo.png")
    assert (status, errors) == (0, "")
    assert "<svg" in (folder / "other.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["exercize"], "did you mean python -m convmat exercise?"),
        (["Demo"], "did you mean python -m convmat demo?"),
        (["--figure", "x.png", "exercise"], "did you mean python -m convmat exercise?"),
        (["nonsense"], "the commands are demo, exercise, network, warm-up"),
        (["nothing.jpg"], "there is no file 'nothing.jpg'"),
        (["demo", "exercize"], "there is no file 'exercize'"),
        (["demo", "a", "b"], "unrecognized arguments: b; see python -m convmat --help"),
        (["--figure"], "expected one argument; see python -m convmat demo --help"),
        (["--seconds", "3"], "--seconds; see python -m convmat --help"),
        (["x\0y"], "there is neither a command nor an image"),
        (["x\0y.png"], "cannot be read (embedded null"),
        (["photo.png", "--figure", "x\0y.png"], "embedded null"),
        (["exercise", "--seconds", "soon"], "the seconds to measure must be a positive number, got 'soon'"),
        (["exercise", "--seconds", ""], "the seconds to measure must be a positive number, got ''"),
        (["exercise", "--seconds", "nan"], "the seconds to measure must be a positive number, got nan"),
        (["exercise", "--seconds", "1e400"], "the seconds to measure must be a positive number, got inf"),
        (["exercise", "--seconds", "-2"], "the seconds to measure must be a positive number, got -2"),
        (["exercise", "--seconds=-inf"], "the seconds to measure must be a positive number, got -inf"),
    ],
)
def test_arguments_that_are_wrong_get_a_sentence_that_helps(arguments, hint, folder, capsys):
    assert main(arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert is_sentence(errors)
    assert hint in errors


# What is not installed


@pytest.mark.parametrize("package", ["matplotlib", "PIL"])
def test_the_example_needs_numpy_alone(package, folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["photo.png"]) == 2
    output, errors = capsys.readouterr()
    assert output.startswith(EXAMPLE)
    assert "cannot tell them apart" in output
    assert errors == f'convmat: the demo needs {package}, which pip install "convmat[demo]" installs\n'


def test_progress_needs_tqdm_and_nothing_else_does(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert main(["photo.png"]) == 0
    assert capsys.readouterr().err == ""


def test_a_package_that_does_not_import_is_named(folder):
    status, output, errors = run("photo.png", MPLBACKEND="nonsense")
    assert status == 2
    assert output.startswith(EXAMPLE)
    assert is_sentence(errors)
    assert "the demo needs matplotlib, which cannot be imported" in errors


@pytest.mark.parametrize("options", [("-W", "error"), ("-W", "error", "-O"), ("-W", "always", "-X", "dev")])
def test_warnings_neither_leak_nor_stop_it(options, folder):
    assert run("photo.png", options=options, HOME="/nonexistent", MPLCONFIGDIR=f"{folder}/photo.png")[::2] == (0, "")


# Streams


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("convmat photo.png | true", 1),
        ("convmat --help | true", 1),
        ("convmat --version | true", 1),
        ("convmat nothing.png | true", 2),
        ("convmat photo.png 2>&-", 0),
        ("convmat photo.png >&-", 0),
        ("convmat photo.png <&-", 0),
        ("convmat photo.png <&- >&- 2>&-", 0),
        ("convmat nothing.png 2>&-", 2),
        ("convmat nothing.png >&- 2>&-", 2),
    ],
)
def test_a_reader_that_is_gone_gets_no_word(line, expected, unbuffered, folder):
    status, _, errors = shell(line, PYTHONUNBUFFERED=unbuffered)
    assert status == expected
    assert errors == "" or (is_sentence(errors) and "nothing.png" in errors)
    assert (folder / "photo.png").read_bytes().startswith(b"\x89PNG")


def test_a_reader_that_has_seen_enough_stops_it_quietly(folder):
    status, output, errors = shell("convmat photo.png | head -1", PYTHONUNBUFFERED="1")
    assert status in (0, 1)
    assert (output, errors) == (f"{EXAMPLE}\n", "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_said(unbuffered, folder):
    for command in ("photo.png", "--version", "--help"):  # to a file that is open for reading
        status, _, errors = shell(f"convmat {command} 1< photo.png", PYTHONUNBUFFERED=unbuffered)
        assert status == 1
        assert errors == "convmat: the output cannot be written (Bad file descriptor)\n"
    assert shell("convmat nothing.png 2< photo.png", PYTHONUNBUFFERED=unbuffered) == (2, "", "")


@pytest.mark.parametrize(
    ("arguments", "place"),
    [(["photo.png"], "demo.load"), (["photo.png"], "demo.draw"), (["exercise"], "exercise.compare")],
)
def test_an_interrupt_ends_it_without_a_word(arguments, place, folder, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"convmat.commands.{place}", interrupted)
    assert main(arguments) == 130
    assert capsys.readouterr().err == ""
    assert {path.name for path in folder.iterdir()} == {"photo.png"}


def test_a_signal_ends_it_without_a_word(folder):
    os.mkfifo("queue")
    # Where tests run in the background, a shell has them ignore it, and a child ignores what its parent does.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "convmat", "queue"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    signal.signal(signal.SIGINT, before)
    with Path("queue").open("wb"):  # which waits until the demo reads it
        # Python does not see a signal that comes right before it begins to read, as long as nothing is there to be read.
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
        output, errors = process.communicate()
    assert (process.returncode, output, errors) == (130, b"", b"")


def test_too_little_memory_is_said(folder, monkeypatch, capsys):
    def exhausted(*arguments):
        raise MemoryError("for 10 GB")

    monkeypatch.setattr("convmat.commands.demo.halve_and_enlarge", exhausted)
    assert main(["photo.png"]) == 1
    assert capsys.readouterr().err == "convmat: there is too little memory (for 10 GB)\n"


# Images from anywhere


@pytest.mark.parametrize(
    "line",
    [
        "cat photo.png | convmat /dev/stdin",
        "convmat /dev/stdin < photo.png",
        "convmat <(cat photo.png)",
        "mkfifo queue; cat photo.png > queue & convmat queue",
        "ln -s photo.png link; convmat ./link",
    ],
)
def test_an_image_comes_from_anywhere(line, folder):
    status, output, errors = shell(line)
    assert (status, errors) == (0, "")
    assert "9 × 7 pixels, three channels" in output


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("convmat <(true)", "is no image that can be read"),
        ("convmat /dev/stdin <&-", "'/dev/stdin' is no image that can be read"),
        ("convmat /dev/null", "'/dev/null' is no image that can be read"),
        ("convmat .", "must be a file, got the folder '.'"),
        ("ln -s nowhere link.png; convmat link.png", "there is no file 'link.png'"),
        ("ln -s loop.png loop.png; convmat loop.png", "'loop.png' cannot be read"),
        ("convmat $(printf %0300d 0).png", "cannot be read (File name too long)"),
        ("convmat photo.png/inside.png", "cannot be read (Not a directory)"),
    ],
)
def test_what_is_no_image_gets_a_sentence(line, sentence, folder):
    status, output, errors = shell(line)
    assert (status, output) == (2, "")
    assert is_sentence(errors)
    assert sentence in errors


def test_a_source_without_an_end_is_not_read_to_its_end(folder, monkeypatch, capsys):
    monkeypatch.setattr("convmat.commands.demo.photograph.PIPE_LIMIT", 10**6)
    assert main(["/dev/zero"]) == 2
    assert "'/dev/zero' has more than 1 MB" in capsys.readouterr().err


# Figures to anywhere


@pytest.mark.parametrize(
    "ending", ["eps", "gif", "jpg", "pdf", "pgf", "ps", "raw", "svg", "svgz", "tif", "webp", "avif", ""]
)
def test_a_figure_is_drawn_in_each_format_or_refused_before_work(ending, folder, capsys):
    path = folder / f"figure.{ending}".rstrip(".")
    status = main(["photo.png", "--figure", str(path)])
    output, errors = capsys.readouterr()
    assert path.exists() == (status == 0)
    if status:
        assert (status, output) == (2, "")
        assert is_sentence(errors)
        assert f"cannot be drawn as {ending}" in errors or "must end in one of" in errors


@pytest.mark.parametrize(
    ("before", "image", "figure"),
    [
        ("true", "photo.png", "photo.png"),
        ("true", "./photo.png", "../$(basename $PWD)/photo.png"),
        ("ln -s photo.png link.png", "photo.png", "link.png"),
        ("ln -s photo.png link.png", "link.png", "photo.png"),
        ("ln photo.png twin.png", "photo.png", "twin.png"),
        ("exec < photo.png", "/dev/stdin", "photo.png"),
        ("mv photo.png convmat-demo.png; ln -s convmat-demo.png photo.png", "convmat-demo.png", ""),
    ],
)
def test_the_photograph_is_never_overwritten(before, image, figure, folder):
    content = (folder / "photo.png").read_bytes()
    status, output, errors = shell(f"{before}; convmat {image} {figure and f'--figure {figure}'}")
    assert (status, output) == (2, "")
    assert is_sentence(errors)
    assert "the figure would overwrite the image" in errors
    assert (folder / "photo.png").read_bytes() == content


def test_the_demo_takes_its_own_figure_under_another_name(folder, capsys):
    assert main(["photo.png"]) == 0
    drawn = (folder / "convmat-demo.png").read_bytes()
    assert main(["photo.png"]) == 0  # an earlier figure is replaced
    assert main(["convmat-demo.png", "--figure", "again.png"]) == 0
    assert (folder / "convmat-demo.png").read_bytes() == drawn


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("convmat photo.png --figure /dev/stdout", "where the text goes"),
        ("convmat photo.png --figure /dev/stderr", "where the text goes"),
        ("convmat photo.png --figure text.png > text.png", "where the text goes"),
        ("convmat photo.png --figure $(printf %0300d 0).png", "(File name too long)"),
        ("convmat photo.png --figure photo.png/x.png", "(Not a directory)"),
        ("convmat photo.png --figure nowhere/x.png", "there is no folder 'nowhere'"),
        ("ln -s nowhere/x.png link.png; convmat photo.png --figure link.png", "there is no folder"),
        ("ln -s loop.png loop.png; convmat photo.png --figure loop.png", "cannot be written to 'loop.png'"),
        ("convmat exercise --figure nowhere/x.png", "there is no folder 'nowhere'"),
        ("convmat exercise --figure photo.png/x.png", "(Not a directory)"),
        ("convmat exercise --figure /dev/stdout", "where the text goes"),
    ],
)
def test_a_figure_without_a_place_is_refused_before_work(line, sentence, folder):
    status, output, errors = shell(line)
    assert (status, output) == (2, "")
    assert is_sentence(errors)
    assert sentence in errors
    assert {path.name for path in folder.iterdir()} <= {"photo.png", "link.png", "loop.png", "text.png"}


def test_a_figure_goes_to_a_pipe_or_a_device(folder):
    assert shell("convmat photo.png --figure /dev/null")[::2] == (0, "")
    status, _, errors = shell(
        "mkfifo queue; cat queue > read.png & convmat photo.png --figure queue; s=$?; wait; exit $s"
    )
    assert (status, errors) == (0, "")
    assert (folder / "read.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_that_fails_midway_leaves_the_one_before(folder):
    (folder / "figure.png").write_bytes(b"before")
    # Ignored, the signal of a file that grows too large becomes an error of writing.
    status, _, errors = shell(
        "trap '' XFSZ; ulimit -f 8; convmat photo.png --figure figure.png", PYTHONDONTWRITEBYTECODE="1"
    )
    assert status == 2
    assert is_sentence(errors)
    assert "the figure cannot be written to 'figure.png' (File too large)" in errors
    assert (folder / "figure.png").read_bytes() == b"before"
    assert {path.name for path in folder.iterdir()} == {"photo.png", "figure.png"}


def test_a_file_is_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "figure.png"
    path.write_bytes(b"before")
    path.chmod(0o640)
    mode = path.stat().st_mode
    console.write(b"after", path)
    assert (path.read_bytes(), path.stat().st_mode) == (b"after", mode)

    def interrupted(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        console.write(b"later", path)
    assert path.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_to_a_figure_stays_a_link(tmp_path):
    (tmp_path / "link.png").symlink_to("real.png")
    console.write(b"figure", tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "real.png").read_bytes() == b"figure"


def test_a_file_that_may_not_be_written_is_not_replaced(folder, monkeypatch, capsys):
    path = folder / "figure.png"
    path.write_bytes(b"before")
    real = Path.open

    def denied(self, mode="r", *arguments, **options):
        if self == path and "+" in mode:
            raise PermissionError(13, "Permission denied", str(path))
        return real(self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", denied)  # root may write everything
    assert main(["photo.png", "--figure", str(path)]) == 2
    assert "figure.png' (Permission denied)" in capsys.readouterr().err
    assert path.read_bytes() == b"before"
