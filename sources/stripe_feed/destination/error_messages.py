"""What a destination answers, in our words: by SQLSTATE or by the class of the exception.

Databases quote the rows that they refuse, and connections passwords: none of their text goes into a
message. Names do: those of tables, indexes and views.
"""

from __future__ import annotations

import os
import re
import stat
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import Locked, SetupError, StripeFeedError, TryLater, UsageError
from .locks import CAN_WAIT

LONGEST = 100  # characters of a dataset's name; it stands in names of files
RESERVED = frozenset({"information_schema", "pg_catalog", "pg_toast", "sys", "system", "temp"})
EXTRAS = {"postgres": "stripe-feed[postgres]"}  # what brings a destination's driver


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a destination refuses, and what to do; `passes`: to run again is all there is to do."""

    words: str
    fix: str = ""
    passes: bool = False


UNIQUE = Reason("a unique index or constraint{} refuses rows that Stripe has", "Drop it")
ONCE = "_once"  # the end of the names of our own unique indexes
TURNS = Reason("another run wrote to it at the same time", passes=True)
CHECK = Reason("a check, a trigger or a foreign key{} refuses rows that Stripe has", "Drop it")
NULL = Reason(
    "a column that may not be null{} gets no value",
    "Allow nulls there, or undo what was changed in dlt's settings",
)
DEPENDENT = Reason("something else{} depends on it", "Drop that")
RIGHT = Reason(
    "the user lacks a right",
    "Let it create schemas, or create {dataset} and {dataset}_staging for it with the right to create and write tables in both",
)
CREDENTIALS = Reason(
    "it does not accept the credentials", "Check them in .dlt/secrets.toml or the environment"
)
FULL = Reason("no space is left", "Make room, or raise the quota")
MEMORY = Reason("it ran out of memory", "Give it more")
READ_ONLY = Reason("it can only be read", "Allow writing, or choose another database")
TIME = Reason(
    "a statement was cancelled, or took longer than the server allows",
    "Raise the user's statement timeout",
)
MISSING = Reason(
    "a table or a column{} is missing",
    "Where this stays, load everything again with --full-refresh",
)
TYPE = Reason(
    "a column{} has another type than the copy's",
    "Undo that, or load everything again with --full-refresh",
)
LIMIT = Reason(
    "a value or a statement is too large for it", "Leave the resource out with --resources"
)
UNABLE = Reason(
    "it cannot do what the load asks of it",
    "Undo what was changed in its tables or in dlt's settings",
)
DAMAGED = Reason(
    "its files cannot be read or written as they should", "Check the disk, or restore the database"
)
EXTENSION = Reason("it lacks an extension and cannot get it", "Install it where there is a network")
BUSY = Reason("another transaction is in the way", passes=True)
LOST = Reason("the connection broke off, or the server takes none for now", passes=True)
UNKNOWN = Reason(
    "it refuses", "Look for the reason in its log, or with --debug, which may show data"
)

SQLSTATES: dict[str, Reason] = {  # whole codes before classes
    "23505": UNIQUE,
    "23P01": UNIQUE,
    "23502": NULL,
    "23": CHECK,
    "P0001": CHECK,
    "44": CHECK,
    "27": CHECK,
    "2BP01": DEPENDENT,
    "2B": DEPENDENT,
    "42501": RIGHT,
    "28": CREDENTIALS,
    "3D": CREDENTIALS,
    "53100": FULL,
    "53200": MEMORY,
    "53300": LOST,
    "53": FULL,
    "25006": READ_ONLY,
    "57014": TIME,
    "57": LOST,
    "08": LOST,
    "40": BUSY,
    "55P03": BUSY,
    "55006": BUSY,
    "42P01": MISSING,
    "42703": MISSING,
    "42704": MISSING,
    "3F": MISSING,
    "42S02": MISSING,
    "42804": TYPE,
    "42846": TYPE,
    "22": TYPE,
    "54": LIMIT,
    "0A": UNABLE,
    "42": UNABLE,
    "58": DAMAGED,
    "XX": DAMAGED,
    "HYT": TIME,
}
NUMBERS: dict[int, Reason] = {  # MySQL's
    1022: UNIQUE,
    1062: UNIQUE,
    1048: NULL,
    3819: CHECK,
    1451: CHECK,
    1452: CHECK,
    1044: RIGHT,
    1142: RIGHT,
    1045: CREDENTIALS,
    1021: FULL,
    1114: FULL,
    1290: READ_ONLY,
    1205: BUSY,
    1213: BUSY,
    3024: TIME,
    1146: MISSING,
    1054: MISSING,
    1366: TYPE,
    1406: LIMIT,
    1118: LIMIT,
    1040: LOST,
    2002: LOST,
    2003: LOST,
    2006: LOST,
    2013: LOST,
}
WORDS: dict[
    str, list[tuple[str, Reason]]
] = {  # the beginning of the module, then what is to be found in "Class: text"
    "duckdb": [
        (r"no space left|disk is full|could not write all", FULL),
        (r"max_temp_directory|OutOfMemory", MEMORY),
        (r"^ConstraintException.*NOT NULL", NULL),
        (r"^ConstraintException.*(CHECK|foreign key)", CHECK),
        (r"^ConstraintException", UNIQUE),
        (r"^DependencyException", DEPENDENT),
        (r"extension", EXTENSION),
        (r"^PermissionException|permission denied", RIGHT),
        (r"read-only", READ_ONLY),
        (r"^InterruptException", TIME),
        (r"^TransactionException", BUSY),
        (r"^(HTTP|Connection)Exception", LOST),
        (r"^(Conversion|TypeMismatch|OutOfRange)Exception", TYPE),
        (r"^(Catalog|Binder)Exception", MISSING),
        (r"^(IO|Fatal|Internal|Serialization)(Exception|Error)", DAMAGED),
        (r"^(Parser|NotImplemented|InvalidInput)", UNABLE),
    ],
    "sqlite3": [
        (r"UNIQUE constraint", UNIQUE),
        (r"NOT NULL constraint", NULL),
        (r"constraint", CHECK),
        (r"disk is full", FULL),
        (r"readonly", READ_ONLY),
        (r"is locked", BUSY),
        (r"no such", MISSING),
        (r"datatype mismatch", TYPE),
        (r"too big|too many", LIMIT),
        (r"unable to open", RIGHT),
        (r"disk I/O|malformed|not a database", DAMAGED),
        (r"^OperationalError", UNABLE),
    ],
    "psycopg": [(r"^(OperationalError|InterfaceError)", LOST)],  # without a code: no answer came
    "pyarrow": [(r"^ArrowMemoryError", MEMORY), (r"^Arrow", DAMAGED)],
}


def chain(fault: BaseException) -> list[BaseException]:
    """An exception and all that led to it, those that drivers and dlt keep as attributes too; the
    first cause is the last.
    """
    found: list[BaseException] = []
    waiting: list[Any] = [fault]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            inner = (
                getattr(one, name, None)
                for name in ("client_exception", "dbapi_exception", "inner_exc", "orig")
            )
            waiting += [
                *inner,
                one.__cause__ or (None if one.__suppress_context__ else one.__context__),
            ]
    return found


def reason_of(fault: BaseException) -> tuple[Reason, BaseException] | None:
    """Why a database refuses, with its driver's exception; nothing where none of the causes is a
    database's.
    """
    for one in reversed(chain(fault)):
        if (found := _coded(one) or _worded(one)) is not None:
            return found, one
    return None


def _coded(one: BaseException) -> Reason | None:
    first = (
        one.args[0]
        if one.args and any(base.__name__ == "DatabaseError" for base in type(one).__mro__)
        else None
    )
    for code in (getattr(one, "pgcode", None), getattr(one, "sqlstate", None), first):
        if isinstance(code, str) and re.fullmatch(r"[0-9A-Z]{5}", code) and code != "00000":
            return next(
                (SQLSTATES[key] for key in (code, code[:3], code[:2]) if key in SQLSTATES), UNKNOWN
            )
    if type(one).__module__.startswith(("pymysql", "MySQLdb", "mysql")) and isinstance(first, int):
        return NUMBERS.get(first, UNKNOWN)
    return None


def _worded(one: BaseException) -> Reason | None:
    module = type(one).__module__.lstrip("_")
    for start, patterns in WORDS.items():
        if module.startswith(start):
            text = f"{type(one).__name__}: {one}"
            return next(
                (reason for pattern, reason in patterns if re.search(pattern, text, re.IGNORECASE)),
                UNKNOWN,
            )
    return None


def refusal(fault: BaseException, name: str, dataset: str) -> StripeFeedError:
    """The error for a load or a select that a destination refused, with the table where it is
    known.
    """
    reason, one = reason_of(fault) or (UNKNOWN, chain(fault)[-1])
    if reason is UNIQUE and named(one).endswith(f"{ONCE})"):
        reason = TURNS
    table = table_of(fault)
    what = f"{name} cannot load {table}" if table else f"{name} cannot go on"
    words = reason.words.format(named(one))
    if reason is UNKNOWN:
        words += f" ({code_of(one)})"
    if reason.passes:
        return TryLater(f"{what}: {words}. Run again.")
    return SetupError(f"{what}: {words}. {reason.fix.format(dataset=dataset)}, then run again.")


def code_of(one: BaseException) -> str:
    """An exception's SQLSTATE, or its class."""
    return getattr(one, "pgcode", None) or getattr(one, "sqlstate", None) or type(one).__qualname__


def table_of(fault: BaseException) -> str:
    """The table of the job that failed, or that the driver names."""
    for one in chain(fault):
        job, table = (
            getattr(one, "job_id", None),
            getattr(getattr(one, "diag", None), "table_name", None),
        )
        if job or table:
            return str(job).partition(".")[0] if job else str(table)
    return ""


def named(one: BaseException) -> str:
    """The index, view or column that a driver names, in brackets; values stand in other places of
    what it says.
    """
    diag = getattr(one, "diag", None)
    if diag is not None:
        detail = str(diag.message_detail or "") if getattr(one, "pgcode", "") == "2BP01" else ""
        views = re.findall(r"^((?:materialized )?[a-z]+ \S+) depends on", detail, re.MULTILINE)
        found = ", ".join(views) or diag.constraint_name or diag.column_name
    else:
        place = re.match(
            r"(?:Constraint Error: )?(?:UNIQUE|NOT NULL) constraint failed: ([\w., ]+)$", str(one)
        )
        found = place[1] if place else ""
    return f" ({found})" if found else ""


def file_problem(file: Path, text: str) -> SetupError:
    """The error for DuckDB's words about a file."""
    import duckdb

    holder = re.search(r"held in (\S+?)?\s*\(PID (\d+)\)", text)
    if holder or is_lock(text):
        who = f"process {holder[2]}" if holder else "another process"
        return Locked(
            f"{file.name} is open in {who}. Close it there (a notebook, a shell, another sync), then run again; {CAN_WAIT}"
        )
    if "version number" in text or "serialized" in text.lower():
        return SetupError(
            f"{file.name} was written by a newer DuckDB than {duckdb.__version__}. "
            "Upgrade with `pip install -U duckdb`, or choose another --database."
        )
    if "permission denied" in text.lower() or "read-only file system" in text.lower():
        return SetupError(
            f"{file.name} cannot be opened: permission denied. "
            "Give your user the rights to it and to its folder, or choose another --database."
        )
    if re.search("no space left", text, re.IGNORECASE):
        return SetupError(
            f"{file.name} cannot be written: no space is left on the disk. Make room, then run again."
        )
    if re.search(
        r"(could not|cannot) (write|fsync|truncate)|file too large|quota", text, re.IGNORECASE
    ):
        return SetupError(
            f"{file.name} cannot be written as it should. Check the disk and the limits on it, then run again."
        )
    try:
        with open(file, "rb") as content:
            begins = content.read(16)
    except OSError:
        begins = b"?"
    if not begins:
        return SetupError(f"{file.name} is empty. Remove it, or choose another --database.")
    if begins.startswith(b"SQLite format"):
        return SetupError(
            f"{file.name} is an SQLite database. Choose another --database, or --destination sqlalchemy for it."
        )
    return SetupError(
        f"{file.name} is no DuckDB database, or a damaged one. Restore it, or choose another --database."
    )


def require_dataset(dataset: str) -> None:
    """Raise `UsageError` for what cannot be the name of a dataset."""
    if not dataset.strip() or "\0" in dataset or len(dataset) > LONGEST:
        raise UsageError(f"--dataset takes a name of 1 to {LONGEST} characters.")
    if dataset.strip().lower() in RESERVED:
        raise UsageError(
            f"The schema {dataset} belongs to the database itself. Choose another --dataset."
        )


def require_file(database: str) -> None:
    """Raise `SetupError` for what cannot be a DuckDB file: another kind of database, a folder, a
    device.
    """
    if database.startswith(":"):
        raise SetupError(
            "A database in memory would be gone when the command ends. Give --database a file."
        )
    if database.startswith("md:"):
        raise SetupError(
            "--database names a file. For MotherDuck give --destination motherduck, with its credentials in .dlt/secrets.toml."
        )
    if not database.strip() or "://" in database or "\0" in database:
        raise SetupError(
            "--database names a DuckDB file on this machine. For a server give --destination NAME."
        )
    try:
        mode = Path(database).stat().st_mode
    except FileNotFoundError:
        if not Path(database).is_symlink() or Path(database).resolve().parent.is_dir():
            return
        raise SetupError(
            f"{database} links to a folder that does not exist. Choose another --database."
        ) from None
    except OSError as fault:
        raise SetupError(
            f"{database} cannot be used: {os.strerror(fault.errno or 0)}. Choose another --database."
        ) from None
    if stat.S_ISDIR(mode):
        raise SetupError(
            f"{database} is a folder. Give --database a file in it, such as {Path(database, 'stripe_feed.duckdb')}."
        )
    if not stat.S_ISREG(mode):
        raise SetupError(
            f"{database} is no ordinary file, but a device, a pipe or a socket. Choose another --database."
        )


def is_lock(text: str) -> bool:
    """Whether DuckDB's words are about another process that has the file open; a damaged `block` is
    not.
    """
    return re.search(r"\block\b", text, re.IGNORECASE) is not None


def connection_problem(pipeline: Any, fault: BaseException) -> SetupError:
    """The error for a destination that cannot be reached. The driver's words are left out: they can
    hold a password.
    """
    name = pipeline.destination.destination_name
    for one in chain(fault):
        known = one if isinstance(one, SetupError) else _known(one, name)
        if known is not None:
            return known
    return SetupError(
        f"Cannot connect to {name} ({type(fault).__name__}). Check {_credentials(name)}."
    )


def _credentials(name: str) -> str:
    return f"[destination.{name}.credentials] in .dlt/secrets.toml, or DESTINATION__{name.upper()}__CREDENTIALS"


def _known(one: BaseException, name: str | None = None) -> SetupError | None:
    """The error for what dlt misses before it reaches a destination: a driver, credentials, a file
    of settings it can read.
    """
    match type(one).__name__:
        case "MissingDependencyException":
            caller = str(getattr(one, "caller", "the destination"))
            return missing_driver(one, name or caller.partition(" ")[0].lower())
        case "TomlProviderReadException":
            return settings_problem(one)
        case "ConfigValueCannotBeCoercedException":
            field = getattr(one, "field_name", "")
            return SetupError(
                f"dlt's setting {field} has a value of another type. Mend it (.dlt/config.toml, the environment)."
            )
        case "ImportError" | "ModuleNotFoundError" if name:
            return missing_driver(one, name)
        case "ConfigFieldMissingException":
            fields, config = getattr(one, "fields", ()), getattr(one, "config", None)
            name = name or str(getattr(config, "destination_type", None) or "").rpartition(".")[2]
            if name:
                return SetupError(f"{name} lacks {', '.join(fields)}. Set {_credentials(name)}.")
    return None


def missing_driver(fault: BaseException, name: str) -> SetupError:
    """The error for a destination whose driver is not installed."""
    wanted = (
        [EXTRAS[name]] if name in EXTRAS else list(getattr(fault, "dependencies", [f"dlt[{name}]"]))
    )
    packages = " ".join(f"'{one}'" for one in wanted)
    return SetupError(f"The driver for {name} is not installed. Run `pip install {packages}`.")


def settings_problem(fault: BaseException) -> SetupError:
    """The error for a `config.toml` or `secrets.toml` that cannot be read: which file, and the
    line.
    """
    paths = [Path(path) for path in getattr(fault, "full_paths", ()) if Path(path).is_file()]
    lines = [one._line for one in chain(fault) if hasattr(one, "_line")]
    for path in paths:
        if (found := _flaw(path)) is not None:
            return SetupError(f"{path} cannot be read: {found}, then run again.")
    where = f"line {lines[-1]}" if lines else "its syntax"
    return SetupError(
        f"{paths[0] if paths else 'A file of settings'} cannot be read: mend {where}, then run again."
    )


def _flaw(path: Path) -> str | None:
    """What keeps a TOML file from being read, and what to do about it."""
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        data = path.read_bytes()
        if data.startswith(b"\xef\xbb\xbf"):
            return "it begins with a byte order mark. Save it as UTF-8 without one"
        tomllib.loads(data.decode())
    except OSError as fault:
        return f"{os.strerror(fault.errno or 0)}. Give your user the right to read it"
    except UnicodeDecodeError as fault:
        return f"line {data[: fault.start].count(10) + 1} is not UTF-8. Save it as UTF-8"
    except tomllib.TOMLDecodeError as fault:
        at = re.search(r"line (\d+)", str(fault))
        return f"line {at[1] if at else data.count(10) + 1} is no valid TOML. Mend it (a quote, a bracket)"
    return None


def lost(name: str) -> TryLater:
    """The error for a destination that was there a moment ago."""
    return TryLater(f"{name} cannot go on: {LOST.words}. Run again.")


def explained(
    fault: BaseException, name: str = "The database", dataset: str = "the dataset"
) -> StripeFeedError | None:
    """The error for what happens to any program on a machine, and for what dlt refuses; nothing for
    a defect of ours.
    """
    causes = chain(fault)
    for one in causes:
        if isinstance(one, StripeFeedError):
            return one
        if (known := _known(one)) is not None:
            return known
    if reason_of(fault) is not None:
        return refusal(fault, name, dataset)
    for one in reversed(causes):
        match one:
            case ConnectionError() | TimeoutError():
                return TryLater(f"A connection broke off ({type(one).__name__}). Run again.")
            case OSError(errno=int(number)):
                where = f"{one.filename}: " if one.filename is not None else ""
                return SetupError(f"{where}{os.strerror(number)}. Mend that, then run again.")
            case RuntimeError(args=("can't start new thread",)):
                return SetupError(
                    "The machine gives no more threads. Raise the limits on processes and memory, then run again."
                )
            case MemoryError():
                return SetupError(
                    "The machine has too little memory left. Give it more, or choose smaller --checkpoint-rows."
                )
            case ModuleNotFoundError(name=str(name)) if not name.startswith("stripe_feed"):
                return SetupError(
                    f"The module {name} is not installed. Run `pip install -U stripe-feed`."
                )
    if _from_settings(causes[-1]):
        return SetupError(
            f"dlt refuses its settings ({type(causes[-1]).__name__}). Check .dlt/config.toml and the environment."
        )
    own = [
        one
        for one in causes
        if type(one).__module__.startswith("dlt.") and type(one).__name__ not in WRAPPERS
    ]
    if own:
        return SetupError(
            f"dlt refuses: {_words(own[-1])}. Check its settings (.dlt/config.toml, environment), then run again."
        )
    return None


def _from_settings(fault: BaseException) -> bool:
    """Whether it came up where dlt takes its settings over, such as the level of its log."""
    files = [
        frame.f_code.co_filename.replace(os.sep, "/")
        for frame, _ in traceback.walk_tb(fault.__traceback__)
    ]
    ours = max((n for n, file in enumerate(files) if "/stripe_feed/" in file), default=-1)
    return any(
        "/dlt/common/runtime/" in file or "/dlt/common/configuration/" in file
        for file in files[ours + 1 :]
    )


WRAPPERS = (
    "PipelineStepFailed",
    "ResourceExtractionError",
    "PipeGenInvalid",
)  # dlt's, around whatever was raised


def _words(one: BaseException) -> str:
    """The class of dlt's exception, and the setting that it is about; never a value."""
    about = (
        getattr(one, "field_name", None)
        or getattr(one, "spec_name", None)
        or getattr(one, "config_elem", None)
    )
    return f"{type(one).__name__} ({about})" if about else type(one).__name__
