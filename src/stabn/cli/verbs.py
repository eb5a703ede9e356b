"""The verbs: which function does what, their options, and how a command line becomes a call.

A verb's options and help are the parameters and docstring of its function.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, get_args

import yaml
from docstring_parser import parse
from jsonargparse import (  # type: ignore[attr-defined]
    ActionConfigFile,
    ArgumentParser,
    DefaultHelpFormatter,
    Namespace,
)

from stabn.cli.main import fail, one_line
from stabn.engine.stop_signals import begin_work
from stabn.errors import IncompleteError, UserError
from stabn.files import write_json

VERBS: dict[str, tuple[str, tuple[str, ...]]] = {
    "demo": ("demo.demo_command", ()),
    "tabletop": ("data.tabletop_command", ("out",)),
    "prepare": ("data.prepare_command", ("source",)),
    "check-data": ("data.check_data_command", ("source",)),
    "train": ("train.train_command", ("table",)),
    "evaluate": ("evaluate.evaluate_command", ("run",)),
    "explain": ("explain.explain_command", ("run", "videos")),
    "collect": ("edits.collect_command", ("run",)),
    "studio": ("edits.studio_command", ("run",)),
    "simulate-edits": ("edits.simulate_edits_command", ("project",)),
    "check-edits": ("edits.check_edits_command", ("project",)),
    "export-edits": ("edits.export_edits_command", ("project", "out")),
    "import-edits": ("edits.import_edits_command", ("project", "file")),
    "finetune": ("train.finetune_command", ("run",)),
    "compare": ("evaluate.compare_command", ("runs",)),
    "report": ("evaluate.report_command", ("before", "after")),
    "doctor": ("machine.doctor_command", ()),
    "import-official": ("export.import_official_command", ("checkpoint", "folder")),
    "export": ("export.export_command", ("run",)),
    "flow": ("two_stream.flow_command", ("out",)),
    "fuse": ("two_stream.fuse_command", ("run", "other")),
    "profile": ("machine.profile_command", ("table",)),
    "backbones": ("machine.backbones_command", ("names",)),
}
"""Verb -> its function, as MODULE.NAME of this package, and its positional parameters. Only that module is loaded."""

DEFAULTS_OF_RUN = {"finetune": "train.finetune_defaults"}
"""Verb -> the function that says, from what was typed, which defaults are those of the run, as MODULE.NAME."""

RENAMED = {
    "optimiser": ("optimizer", ""),
    "correction.start": ("correction.init", "; its values are checkpoint (before) and scratch (anew)"),
    "correction.frozen": ("correction.freeze", "; its values are extractor and none (nothing)"),
    "engine.recompute": ("engine.activation_checkpointing", ""),
    "network.architecture": ("network.backbone", ""),
    "network.imagenet": ("network.weights", ""),
}
"""Options of earlier versions -> their names now, and what to say about their values."""


class _Parser(ArgumentParser):
    """A parser that answers mistakes with one line and status 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        message = re.sub("'utf-8' codec can't encode.*", "its value is no Unicode text; give a link to it", message)
        fail(re.sub(r" \[options\].*", "", parser.prog), f"{one_line(message)}; see --help")


class _Help(DefaultHelpFormatter):
    """Help that keeps the paragraphs of a docstring."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n\n".join(fill(paragraph, width, indent) for paragraph in text.split("\n\n"))


class _Recipe(ActionConfigFile):
    """A YAML file of options; errors in it name the file."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        try:
            text = Path(values).read_text(encoding="utf-8")
            content = yaml.safe_load(text)
            keys = list(_keys(content)) if isinstance(content, Mapping) else []
        except OSError as error:
            parser.error(f"--config: {values}: {error.strerror}; give a YAML file")
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            parser.error(f"{values}: is not YAML ({one_line(str(error))}); correct it")
        if content is None:
            return
        if not isinstance(content, Mapping):
            parser.error(f"{values}: got {str(content)[:40]!r}, expected options such as optimizer: {{epochs: 3}}")
        for key in keys:
            if (message := _renamed(key)) is not None:
                parser.error(f"{values}: {message}")
        names = {action.dest for action in parser._actions}
        leaves = {name for name in names if not any(other.startswith(f"{name}.") for other in names)}
        for key in keys:
            if key not in names and not any(key.startswith(f"{leaf}.") for leaf in leaves):
                similar = get_close_matches(key, leaves, 1)
                remedy = f"did you mean {similar[0]}?" if similar else "remove it"
                parser.error(f"{values}: {key} is no option of this verb; {remedy}")
        super().__call__(parser, cfg, values if Path(values).is_file() else text, option_string)  # a pipe is empty now


def _keys(content: Mapping[Any, Any], above: str = "") -> Iterator[str]:
    """The dotted names of the options that a recipe sets."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _keys(value, f"{above}{key}.")
        else:
            yield f"{above}{key}"


def _renamed(name: str, dashes: str = "") -> str | None:
    """Say what an option of an earlier version is called now; None for other options."""
    for old, (new, values) in RENAMED.items():
        if name == old or name.startswith(f"{old}."):
            return f"{dashes}{name} is now {dashes}{new}{name.removeprefix(old)}{values}"
    return None


def function_of(verb: str) -> Callable[..., dict[str, Any]]:
    """The function behind a verb."""
    return _function(VERBS[verb][0])


def _function(place: str) -> Callable[..., dict[str, Any]]:
    module, _, name = place.partition(".")
    function: Callable[..., dict[str, Any]] = getattr(import_module(f"stabn.cli.{module}"), name)
    return function


def _summary(verb: str) -> str | None:
    """The first line of a verb's docstring, parsed from the source because importing all verbs takes seconds."""
    module, _, name = VERBS[verb][0].partition(".")
    body = _source(module).body
    (function,) = (node for node in body if isinstance(node, ast.FunctionDef) and node.name == name)
    return parse(ast.get_docstring(function) or "").short_description


@cache
def _source(module: str) -> ast.Module:
    return ast.parse(Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))


def _parser(own: Mapping[str, _Parser]) -> _Parser:
    """The parser of the command line, with the parsers of some verbs; the others have no options in it."""
    parser = _Parser(
        prog="stabn",
        description="Video recognition that shows when and where it looked, and learns when you correct it.",
        allow_abbrev=False,
        formatter_class=_Help,  # also of the verbs
        epilog="Start with `stabn demo --out demo`. Every verb takes --json FILE to write its result for programs.",
    )
    verbs = parser.add_subcommands(required=True, dest="verb")
    for name in VERBS:
        verbs.add_subcommand(name, own.get(name) or _Parser(), help=_summary(name))
    parser.usage = "stabn VERB [options]"  # after the verbs, whose own names are made from it
    return parser


def _verb_parser(verb: str) -> _Parser:
    """The parser of a verb's options: its function's parameters, explained by its docstring."""
    function, positional = function_of(verb), VERBS[verb][1]
    parameters = inspect.signature(function).parameters
    documented = parse(inspect.getdoc(function) or "")
    explained = {parameter.arg_name: parameter.description for parameter in documented.params}
    description = filter(None, (documented.short_description, documented.long_description))
    parser = _Parser(description="\n\n".join(description), allow_abbrev=False)
    for name in positional:
        kind = parameters[name].annotation
        of_text = kind == list[str] | None
        several = "+" if kind in (list[Path], list[Path] | None) else "*" if of_text else None
        word = str if of_text else _path_word
        action = parser.add_argument(name, type=word, nargs=several, help=explained.get(name))
        action.required = type(None) not in get_args(kind)
    parser.add_argument("--config", action=_Recipe, help="A recipe: a YAML file with any of these options.")
    switches = [name for name, parameter in parameters.items() if parameter.annotation is bool]
    for name in switches:
        parser.add_argument(f"--{name}", type=bool, nargs="?", const=True, default=False, help=explained.get(name))
    repeated = [
        name
        for name, parameter in parameters.items()
        if parameter.annotation == list[str] | None and name not in positional
    ]
    for name in repeated:
        parser.add_argument(f"--{name}", type=str, action="append", default=None, help=explained.get(name))
    by_hand: set[str | int] = {*positional, *switches, *repeated}
    parser.add_function_arguments(function, as_group=False, skip=by_hand, sub_configs=False)
    parser.add_argument("--json", type=Path | None, default=None, help="Also write the result to this file, as JSON.")
    parser.usage = _usage(verb, parser)
    return parser


def _path_word(word: str | Path) -> Path:
    """A word as a path, whatever its bytes; the parser reads words of type Path as YAML, which has to be Unicode."""
    return Path(word)


def _usage(verb: str, parser: _Parser) -> str:
    """The required options in one line; all options would fill a screen."""
    words = ["stabn", verb, "[options]"]
    for action in parser._actions:
        metavar = (action.dest.rpartition(".")[2]).upper()
        if not action.option_strings:
            words += (
                [metavar, f"[{metavar} ...]"]
                if action.nargs == "+"
                else [f"[{metavar} ...]" if action.nargs == "*" else metavar]
            )
        elif action.required and action.default is None:
            words += [action.option_strings[0], metavar]
    return " ".join(words)


def run_verb(words: Sequence[str]) -> dict[str, Any]:
    """Run a verb as it is typed, without `stabn`, and return what it reports.

    Raises:
        SystemExit: an option is unknown or cannot be read; the line that says so is on stderr.
        UserError: an option's value is wrong, or the verb cannot do its work.
    """
    # --max_clips for --max-clips, but not in values
    spelled = [re.sub(r"^--[^=]*", lambda option: "--" + option[0][2:].replace("-", "_"), word) for word in words]
    for word in spelled:
        option = word.removeprefix("--").partition("=")[0]
        if word.startswith("--") and (message := _renamed(option, "--")) is not None:
            raise UserError(message)
    own = {words[0]: _verb_parser(words[0])} if words and words[0] in VERBS else {}
    parser = _parser(own)
    chosen = parser.parse_args(spelled)
    if chosen.verb in DEFAULTS_OF_RUN:
        own[chosen.verb].set_defaults(_function(DEFAULTS_OF_RUN[chosen.verb])(chosen[chosen.verb].as_dict()))
        chosen = parser.parse_args(spelled)
    try:
        options: Namespace = parser.instantiate(chosen)[chosen.verb]
    except ValueError as error:
        raise UserError(f"{one_line(str(error))}; see --help") from None
    report_file = options.pop("json")
    options.pop("config", None)
    if report_file is not None:
        nearest = next(parent for parent in report_file.absolute().parents if parent.exists())
        if report_file.is_dir() or not nearest.is_dir():
            raise UserError(f"--json: got {report_file}, where no file can be written; give a file in a folder")
    function = function_of(chosen.verb)
    begin_work()
    try:
        report = function(**dict(options.items()))
    except IncompleteError as error:
        if report_file is not None:
            write_json(report_file, error.report)
        raise
    if report_file is not None:
        write_json(report_file, report)
    return report
