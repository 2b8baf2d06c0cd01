"""The command line: names of the commands, exit codes, and nothing that is slow to import.

Exit codes: 0 done; 2 bad input (one message, no traceback); 130 interrupted; 1 a fault of ours.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from cyclopts import App, CycloptsError, Parameter
from cyclopts.exceptions import UnknownOptionError

import cryoscape
from cryoscape.cli.analyze import analyze
from cryoscape.cli.check import check
from cryoscape.cli.decode import decode
from cryoscape.cli.demo import demo
from cryoscape.cli.density import density
from cryoscape.cli.embed import embed
from cryoscape.cli.evaluate import evaluate
from cryoscape.cli.interpolate import interpolate
from cryoscape.cli.junk import junk
from cryoscape.cli.landscape import landscape
from cryoscape.cli.overrides import gather_section_options
from cryoscape.cli.path import path
from cryoscape.cli.pose_search import pose_search
from cryoscape.cli.prior import prior
from cryoscape.cli.rare import rare
from cryoscape.cli.report import report
from cryoscape.cli.sample import sample
from cryoscape.cli.simulate import simulate
from cryoscape.cli.states import states
from cryoscape.cli.train import train
from cryoscape.cli.validate import validate
from cryoscape.errors import InputError

DONE, FAULT, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

app = App(
    name="cryoscape",
    help=cryoscape.__doc__,
    version=cryoscape.__version__,
    help_format="plaintext",
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
    help_epilogue="COMMAND --help explains a command; --debug (or CRYOSCAPE_DEBUG=1) shows tracebacks.",
)
# In the order of the work. The modules are light: each imports what is heavy inside its function.
for _command in (
    demo,
    simulate,
    check,
    train,
    embed,
    decode,
    evaluate,
    density,
    analyze,
    states,
    landscape,
    rare,
    junk,
    sample,
    interpolate,
    path,
    validate,
    prior,
    pose_search,
    report,
):
    app.command(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("CRYOSCAPE_DEBUG", "") not in ("", "0")
    arguments = [word for word in arguments if word != "--debug"]
    earlier = _stop_on_sigterm()
    try:
        returned = app(
            gather_section_options(arguments),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        return returned if isinstance(returned, int) else DONE
    except CycloptsError as error:
        return _fail(BAD_INPUT, _usage_message(error, arguments), debug)
    except InputError as error:
        return _fail(BAD_INPUT, str(error), debug)
    except KeyboardInterrupt as stop:
        return _fail(INTERRUPTED, f"interrupted {stop}".strip(), debug=False)
    except BrokenPipeError:
        # The reader of our output has gone (`cryoscape ... | head`); keep Python from saying so at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        message = _users_fault(error, arguments)
        if message is not None:
            return _fail(BAD_INPUT, message, debug)
        return _fail(FAULT, _fault_message(error, debug), debug)
    finally:
        if earlier is not None:
            signal.signal(signal.SIGTERM, earlier)


def _stop_on_sigterm() -> signal.Handlers | None:
    """Let a termination request end the program as Ctrl-C does; only the main thread may ask for that."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        return signal.signal(signal.SIGTERM, interrupt)  # type: ignore[return-value]
    except ValueError:
        return None


def _fail(code: int, message: str, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    print(f"cryoscape: {message}", file=sys.stderr, flush=True)
    return code


def _usage_message(error: CycloptsError, arguments: Sequence[str]) -> str:
    command, inner = [], app
    for word in arguments:
        if word not in inner:
            break
        command.append(word)
        inner = inner[word]
    ask = " ".join(["cryoscape", *command, "--help"])
    text = " ".join(str(error).split())
    if isinstance(error, UnknownOptionError) and not text.endswith((".", "?")):
        text += "."
    return f"{text}\n  -> See `{ask}`."


def _users_fault(error: Exception, arguments: Sequence[str]) -> str | None:
    """Message for what the system refused and only the user can change; None where the fault is ours."""
    if type(error).__name__ == "OutOfMemoryError" and type(error).__module__.startswith("torch"):
        return f"the GPU ran out of memory\n  -> {_smaller(arguments)}"
    if not isinstance(error, OSError):
        return None
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{where}the disk is full, or a size limit is reached\n  -> Free some space and run again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{where}no permission\n  -> Change the permission, or name another place."
    named = error.filename is not None and any(str(error.filename) in word for word in arguments)
    if named and error.errno in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EEXIST):
        return f"{where}{(error.strerror or 'cannot be used').lower()}\n  -> Check the name."
    return None


def _smaller(arguments: Sequence[str]) -> str:
    """What takes less memory on a GPU, for the command that was given."""
    if arguments and arguments[0] in ("train", "density"):
        return "Give a smaller --batch, a coarser --data.cutoff, or --device cpu."
    return "Give --device cpu, or free the GPU."


def _fault_message(error: Exception, debug: bool) -> str:
    if isinstance(error, MemoryError):
        return "out of memory\n  -> Take a smaller --batch, or a machine with more memory."
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    ours = [f for f in frames if f"{os.sep}cryoscape{os.sep}" in f[0]]
    file, line = (ours or frames)[-1]
    text = f"a fault of the program, not of your input: {type(error).__name__}: {error} ({file}:{line})"
    return text if debug else f"{text}\n  -> Run again with --debug for the traceback, and report it."


if __name__ == "__main__":
    sys.exit(main())
