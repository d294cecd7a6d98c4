"""Translate a destination's errors, by SQLSTATE or by the class of the exception.

Databases quote the rows that they refuse, and connections quote passwords: their text never goes
into a message. Names of tables, indexes and views do.
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
from .locks import WAIT_HINT

MAX_DATASET_NAME = 100  # characters; the name is part of file names
RESERVED_SCHEMAS = frozenset(
    {"information_schema", "pg_catalog", "pg_toast", "sys", "system", "temp"}
)
DRIVER_EXTRAS = {  # the extra that installs a destination's driver
    "postgres": "stripe-feed[postgres]",
    "delta": "stripe-feed[delta]",
    "iceberg": "stripe-feed[iceberg]",
}
LAKE_PACKAGES = {"delta": "deltalake", "iceberg": "pyiceberg"}  # what a lake is read and written by


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a destination refuses, and what to do; `is_temporary`: run again, nothing else."""

    text: str
    fix: str = ""
    is_temporary: bool = False


UNIQUE_INDEX = Reason("a unique index or constraint{} refuses rows that Stripe has", "Drop it")
OWN_INDEX_SUFFIX = "_once"  # the end of the names of stripe-feed's own unique indexes
CONCURRENT_WRITE = Reason("another run wrote to it at the same time", is_temporary=True)
KEPT_ROWS = Reason(
    "another run wrote to it at the same time, or a rule, a trigger or a policy there keeps old rows",
    "Drop that where this stays",
    is_temporary=True,
)
CONSTRAINT = Reason("a check, a trigger or a foreign key{} refuses rows that Stripe has", "Drop it")
_NOT_NULL = Reason(
    "a column that may not be null{} gets no value",
    "Allow nulls there, or undo what was changed in dlt's settings",
)
DEPENDENCY = Reason("something else{} depends on it", "Drop that")
PRIVILEGE = Reason(
    "the user lacks a right",
    "Let it create schemas, or create {dataset} and {dataset}_staging for it with the right to create and write tables in both",
)
PRIVILEGE_ON_TABLE = Reason(
    "the user lacks a right{}", "Let the owner grant it, or make this user the owner"
)
PRIVILEGE_ON_FILES = Reason(
    "the user lacks a right", "Let it list, read, write and delete files below bucket_url"
)
MISSING_BUCKET = Reason("the bucket is missing", "Create it, or correct bucket_url")
CREDENTIALS = Reason(
    "it does not accept the credentials", "Check them in .dlt/secrets.toml or the environment"
)
NO_SPACE = Reason("no space is left", "Make room, or raise the quota")
MEMORY = Reason("it ran out of memory", "Give it more")
READ_ONLY = Reason("it can only be read", "Allow writing, or choose another database")
_TIMEOUT = Reason(
    "a statement was cancelled, or took longer than the server allows",
    "Raise the user's statement timeout",
)
MISSING_TABLE = Reason(
    "a table or a column{} is missing",
    "Where this stays, load everything again with --full-refresh",
)
TYPE_MISMATCH = Reason(
    "a column{} has another type than the copy's",
    "Undo that, or load everything again with --full-refresh",
)
TOO_LARGE = Reason(
    "a value or a statement is too large for it", "Leave the resource out with --resources"
)
NUMBER_TOO_LARGE = Reason(
    "a number or a sum is beyond 64 bits",
    "Correct the amount at Stripe, give its column the type back that somebody changed, or leave the resource out with "
    "--resources",
)
UNSUPPORTED = Reason(
    "it cannot do what the load asks of it",
    "Undo what was changed in its tables or in dlt's settings",
)
DAMAGED = Reason(
    "its files cannot be read or written as they should", "Check the disk, or restore the database"
)
EXTENSION = Reason("it lacks an extension and cannot get it", "Install it where there is a network")
BUSY = Reason("another transaction is in the way", is_temporary=True)
CONNECTION_LOST = Reason(
    "the connection broke off, or the server takes none for now", is_temporary=True
)
UNKNOWN = Reason(
    "it refuses", "Look for the reason in its log, or with --debug, which may show data"
)

SQLSTATES: dict[str, Reason] = {  # whole codes before classes
    "23505": UNIQUE_INDEX,
    "23P01": UNIQUE_INDEX,
    "23502": _NOT_NULL,
    "23": CONSTRAINT,
    "P0001": CONSTRAINT,
    "44": CONSTRAINT,
    "27": CONSTRAINT,
    "2BP01": DEPENDENCY,
    "2B": DEPENDENCY,
    "42501": PRIVILEGE,
    "28": CREDENTIALS,
    "3D": CREDENTIALS,
    "53100": NO_SPACE,
    "53200": MEMORY,
    "53300": CONNECTION_LOST,
    "53": NO_SPACE,
    "25006": READ_ONLY,
    "57014": _TIMEOUT,
    "57": CONNECTION_LOST,
    "08": CONNECTION_LOST,
    "40": BUSY,
    "55P03": BUSY,
    "55006": BUSY,
    "42P01": MISSING_TABLE,
    "42703": MISSING_TABLE,
    "42704": MISSING_TABLE,
    "3F": MISSING_TABLE,
    "42S02": MISSING_TABLE,
    "42804": TYPE_MISMATCH,
    "42846": TYPE_MISMATCH,
    "22003": NUMBER_TOO_LARGE,
    "22": TYPE_MISMATCH,
    "54": TOO_LARGE,
    "0A": UNSUPPORTED,
    "42": UNSUPPORTED,
    "58": DAMAGED,
    "XX": DAMAGED,
    "HYT": _TIMEOUT,
}
MYSQL_ERRORS: dict[int, Reason] = {  # MySQL's
    1022: UNIQUE_INDEX,
    1062: UNIQUE_INDEX,
    1048: _NOT_NULL,
    3819: CONSTRAINT,
    1451: CONSTRAINT,
    1452: CONSTRAINT,
    1044: PRIVILEGE,
    1142: PRIVILEGE,
    1045: CREDENTIALS,
    1021: NO_SPACE,
    1114: NO_SPACE,
    1290: READ_ONLY,
    1205: BUSY,
    1213: BUSY,
    3024: _TIMEOUT,
    1146: MISSING_TABLE,
    1054: MISSING_TABLE,
    1366: TYPE_MISMATCH,
    1406: TOO_LARGE,
    1118: TOO_LARGE,
    1040: CONNECTION_LOST,
    2002: CONNECTION_LOST,
    2003: CONNECTION_LOST,
    2006: CONNECTION_LOST,
    2013: CONNECTION_LOST,
}
TEXT_PATTERNS: dict[
    str, list[tuple[str, Reason]]
] = {  # the beginning of the module, then what is to be found in "Class: text"
    "duckdb": [
        (r"no space left|disk is full|could not write all", NO_SPACE),
        (r"max_temp_directory|OutOfMemory", MEMORY),
        (r"^ConstraintException.*NOT NULL", _NOT_NULL),
        (r"^ConstraintException.*(CHECK|foreign key)", CONSTRAINT),
        (r"^ConstraintException", UNIQUE_INDEX),
        (r"^DependencyException", DEPENDENCY),
        (r"extension", EXTENSION),
        (r"^PermissionException|permission denied", PRIVILEGE),
        (r"read-only", READ_ONLY),
        (r"^InterruptException", _TIMEOUT),
        (r"^TransactionException", BUSY),
        (r"^(HTTP|Connection)Exception", CONNECTION_LOST),
        (
            r"^OutOfRangeException|^ConversionException.*(range for the destination type|decimal value \S+ to type) INT64",
            NUMBER_TOO_LARGE,
        ),
        (r"^(Conversion|TypeMismatch)Exception", TYPE_MISMATCH),
        (r"^(Catalog|Binder)Exception", MISSING_TABLE),
        (r"^(IO|Fatal|Internal|Serialization)(Exception|Error)", DAMAGED),
        (r"^(Parser|NotImplemented|InvalidInput)", UNSUPPORTED),
    ],
    "sqlite3": [
        (r"UNIQUE constraint", UNIQUE_INDEX),
        (r"NOT NULL constraint", _NOT_NULL),
        (r"constraint", CONSTRAINT),
        (r"disk is full", NO_SPACE),
        (r"readonly", READ_ONLY),
        (r"is locked", BUSY),
        (r"no such", MISSING_TABLE),
        (r"datatype mismatch", TYPE_MISMATCH),
        (r"too big|too many", TOO_LARGE),
        (r"unable to open", PRIVILEGE),
        (r"disk I/O|malformed|not a database", DAMAGED),
        (r"^OperationalError", UNSUPPORTED),
    ],
    "psycopg": [
        (r"^(OperationalError|InterfaceError)", CONNECTION_LOST)
    ],  # without a code: no answer came
    "pyarrow": [(r"^ArrowMemoryError", MEMORY), (r"^Arrow", DAMAGED)],
    "deltalake": [
        (r"^CommitFailed|concurrent|conflict", CONCURRENT_WRITE),
        (r"no space left", NO_SPACE),
        (r"denied|forbidden|40[13]", PRIVILEGE_ON_FILES),
        (r"error sending request|timed out|dns error", CONNECTION_LOST),
        (r"^(TableNotFound|DeltaProtocol)Error|not found", DAMAGED),
    ],
    "pyiceberg": [
        (r"^CommitFailed|^CommitStateUnknown", CONCURRENT_WRITE),
        (r"^(Unauthorized|Forbidden|NotInstalled)", CREDENTIALS),
        (r"^(ServiceUnavailable|ServerError)", CONNECTION_LOST),
    ],
    "botocore": [
        (r"AccessDenied|Forbidden|403", PRIVILEGE_ON_FILES),
        (r"NoCredentials|InvalidAccessKey|SignatureDoesNotMatch", CREDENTIALS),
        (r"NoSuchBucket", MISSING_BUCKET),
        (r"Endpoint|Connect|Timeout", CONNECTION_LOST),
    ],
}


def causes_of(fault: BaseException) -> list[BaseException]:
    """An exception and all its causes, those that drivers and dlt keep in attributes too; the root
    cause is the last.
    """
    causes: list[BaseException] = []
    pending: list[Any] = [fault]
    while pending:
        cause = pending.pop(0)
        if isinstance(cause, BaseException) and cause not in causes:
            causes.append(cause)
            inner = (
                getattr(cause, name, None)
                for name in ("client_exception", "dbapi_exception", "inner_exc", "orig")
            )
            pending += [
                *inner,
                cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__),
            ]
    return causes


def find_reason(fault: BaseException) -> tuple[Reason, BaseException] | None:
    """Why a database refuses, and its driver's exception; None if none of the causes is a
    database's.
    """
    for cause in reversed(causes_of(fault)):
        if (reason := _reason_by_code(cause) or _reason_by_text(cause)) is not None:
            return reason, cause
    return None


def _reason_by_code(fault: BaseException) -> Reason | None:
    first = (
        fault.args[0]
        if fault.args and any(base.__name__ == "DatabaseError" for base in type(fault).__mro__)
        else None
    )
    for code in (getattr(fault, "pgcode", None), getattr(fault, "sqlstate", None), first):
        if isinstance(code, str) and re.fullmatch(r"[0-9A-Z]{5}", code) and code != "00000":
            return next(
                (SQLSTATES[key] for key in (code, code[:3], code[:2]) if key in SQLSTATES), UNKNOWN
            )
    if type(fault).__module__.startswith(("pymysql", "MySQLdb", "mysql")) and isinstance(
        first, int
    ):
        return MYSQL_ERRORS.get(first, UNKNOWN)
    return None


def _reason_by_text(fault: BaseException) -> Reason | None:
    module = type(fault).__module__.lstrip("_")
    for start, patterns in TEXT_PATTERNS.items():
        if module.startswith(start):
            text = f"{type(fault).__name__}: {fault}"
            return next(
                (reason for pattern, reason in patterns if re.search(pattern, text, re.IGNORECASE)),
                UNKNOWN,
            )
    return None


def refused_error(fault: BaseException, name: str, dataset: str) -> StripeFeedError:
    """The error for a load or a select that a destination refused, with the table if it is known."""
    reason, cause = find_reason(fault) or (UNKNOWN, causes_of(fault)[-1])
    if reason is UNIQUE_INDEX and failed_object(cause).endswith(f"{OWN_INDEX_SUFFIX})"):
        reason = KEPT_ROWS
    if reason is PRIVILEGE and failed_object(cause):
        reason = PRIVILEGE_ON_TABLE
    table = failed_table(fault)
    what = f"{name} cannot load {table}" if table else f"{name} cannot go on"
    text = reason.text.format(failed_object(cause))
    if reason is UNKNOWN:
        text += f" ({error_code(cause)})"
    if reason.is_temporary:
        return TryLater(f"{what}: {text}. Run again.{reason.fix and f' {reason.fix}.'}")
    return SetupError(f"{what}: {text}. {reason.fix.format(dataset=dataset)}, then run again.")


def error_code(fault: BaseException) -> str:
    """An exception's SQLSTATE, or its class."""
    return (
        getattr(fault, "pgcode", None)
        or getattr(fault, "sqlstate", None)
        or type(fault).__qualname__
    )


def failed_table(fault: BaseException) -> str:
    """The table of the job that failed, or the one that the driver names."""
    for cause in causes_of(fault):
        job, table = (
            getattr(cause, "job_id", None),
            getattr(getattr(cause, "diag", None), "table_name", None),
        )
        if job or table:
            return str(job).partition(".")[0] if job else str(table)
    return ""


def failed_object(fault: BaseException) -> str:
    """The index, view, table or column that a driver names, in brackets; other parts of its text can hold
    values.
    """
    diag = getattr(fault, "diag", None)
    if diag is not None:
        detail = str(diag.message_detail or "") if getattr(fault, "pgcode", "") == "2BP01" else ""
        views = re.findall(r"^((?:materialized )?[a-z]+ \S+) depends on", detail, re.MULTILINE)
        denied = re.match(
            r"(?:permission denied for|must be owner of) (?:table|relation|view) (\S+)$",
            str(diag.message_primary or ""),
        )
        name = (
            ", ".join(views)
            or diag.constraint_name
            or diag.column_name
            or (denied[1] if denied else "")
        )
    else:
        match = re.match(
            r"(?:Constraint Error: )?(?:UNIQUE|NOT NULL) constraint failed: ([\w., ]+)$", str(fault)
        )
        name = match[1] if match else ""
    return f" ({name})" if name else ""


def file_error(file: Path, text: str) -> SetupError:
    """The error for DuckDB's message about a file."""
    import duckdb

    holder = re.search(r"held in (\S+?)?\s*\(PID (\d+)\)", text)
    if holder or is_lock_error(text):
        who = f"process {holder[2]}" if holder else "another process"
        return Locked(
            f"{file.name} is open in {who}. Close it there (a notebook, a shell, another sync), then run again; {WAIT_HINT}"
        )
    if "different configuration" in text:
        return Locked(
            f"{file.name} is being written by this process. Read it when that is done, or from another process."
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
            f"{file.name} cannot be written. Check the disk and its limits, then run again."
        )
    try:
        with open(file, "rb") as content:
            first_bytes = content.read(16)
    except OSError:
        first_bytes = b"?"
    if not first_bytes:
        return SetupError(f"{file.name} is empty. Remove it, or choose another --database.")
    if first_bytes.startswith(b"SQLite format"):
        return SetupError(
            f"{file.name} is an SQLite database. Choose another --database, or --destination sqlalchemy for it."
        )
    return SetupError(
        f"{file.name} is not a DuckDB database, or is damaged. Restore it, or move it away, and the next sync loads everything again; or choose another --database."
    )


def require_dataset(dataset: str) -> None:
    """Raise `UsageError` if this cannot be the name of a dataset."""
    if not dataset.strip() or "\0" in dataset or len(dataset) > MAX_DATASET_NAME:
        raise UsageError(f"--dataset takes a name of 1 to {MAX_DATASET_NAME} characters.")
    if dataset.strip().lower() in RESERVED_SCHEMAS:
        raise UsageError(
            f"The schema {dataset} belongs to the database itself. Choose another --dataset."
        )


def require_file(database: str) -> None:
    """Raise `SetupError` if this cannot be a DuckDB file: another kind of database, a folder, a
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
            f"{database} is not a regular file, but a device, a pipe or a socket. Choose another --database."
        )


def is_lock_error(text: str) -> bool:
    """Whether DuckDB's message is about another process that has the file open (and not about a
    damaged `block`).
    """
    return re.search(r"\block\b", text, re.IGNORECASE) is not None


def connection_error(pipeline: Any, fault: BaseException) -> SetupError:
    """The error for a destination that cannot be reached, without the driver's text: it can hold a
    password.
    """
    name = pipeline.destination.destination_name
    for cause in causes_of(fault):
        error = cause if isinstance(cause, SetupError) else _configuration_error(cause, name)
        if error is not None:
            return error
    return SetupError(
        f"Cannot connect to {name} ({type(fault).__name__}). Check {_credentials(name)}."
    )


def _credentials(name: str) -> str:
    return f"[destination.{name}.credentials] in .dlt/secrets.toml, or DESTINATION__{name.upper()}__CREDENTIALS"


def _configuration_error(fault: BaseException, name: str | None = None) -> SetupError | None:
    """The error for what dlt lacks before it reaches a destination: a driver, credentials, a readable
    settings file.
    """
    match type(fault).__name__:
        case "MissingDependencyException":
            caller = str(getattr(fault, "caller", "the destination"))
            return missing_driver_error(fault, name or caller.partition(" ")[0].lower())
        case "TomlProviderReadException":
            return settings_error(fault)
        case "ConfigValueCannotBeCoercedException":
            field = getattr(fault, "field_name", "")
            return SetupError(
                f"dlt's setting {field} has a value of the wrong type. Correct it (.dlt/config.toml, the environment)."
            )
        case "ImportError" | "ModuleNotFoundError" if name:
            return missing_driver_error(fault, name)
        case "ConfigFieldMissingException":
            fields, config = getattr(fault, "fields", ()), getattr(fault, "config", None)
            name = name or str(getattr(config, "destination_type", None) or "").rpartition(".")[2]
            if name and "bucket_url" in fields:
                return SetupError(
                    f"{name} lacks bucket_url, a folder or a bucket. Set it under [destination.{name}] in "
                    f".dlt/config.toml, or as DESTINATION__{name.upper()}__BUCKET_URL."
                )
            if name:
                return SetupError(f"{name} lacks {', '.join(fields)}. Set {_credentials(name)}.")
    return None


def missing_driver_error(fault: BaseException, name: str) -> SetupError:
    """The error for a destination whose driver is not installed."""
    packages = (
        [DRIVER_EXTRAS[name]]
        if name in DRIVER_EXTRAS
        else list(getattr(fault, "dependencies", [f"dlt[{name}]"]))
    )
    arguments = " ".join(f"'{package}'" for package in packages)
    return SetupError(f"The driver for {name} is not installed. Run `pip install {arguments}`.")


def settings_error(fault: BaseException) -> SetupError:
    """The error for an unreadable `config.toml` or `secrets.toml`: which file, and the line."""
    paths = [Path(path) for path in getattr(fault, "full_paths", ()) if Path(path).is_file()]
    lines = [cause._line for cause in causes_of(fault) if hasattr(cause, "_line")]
    for path in paths:
        if (flaw := _toml_flaw(path)) is not None:
            return SetupError(f"{path} cannot be read: {flaw}, then run again.")
    where = f"line {lines[-1]}" if lines else "its syntax"
    return SetupError(
        f"{paths[0] if paths else 'A settings file'} cannot be read: correct {where}, then run again."
    )


def _toml_flaw(path: Path) -> str | None:
    """Why a TOML file cannot be read, and what to do."""
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
        return f"line {at[1] if at else data.count(10) + 1} is not valid TOML. Correct it (a quote, a bracket)"
    return None


def connection_lost_error(name: str) -> TryLater:
    """The error for a destination whose connection broke off."""
    return TryLater(f"{name} cannot go on: {CONNECTION_LOST.text}. Run again.")


def translate_error(
    fault: BaseException, name: str = "The database", dataset: str = "the dataset"
) -> StripeFeedError | None:
    """The error for what can happen to any program on a machine, and for what dlt refuses; None for
    a defect of stripe-feed.
    """
    causes = causes_of(fault)
    for cause in causes:
        if isinstance(cause, StripeFeedError):
            return cause
        if (error := _configuration_error(cause)) is not None:
            return error
    if find_reason(fault) is not None:
        return refused_error(fault, name, dataset)
    for cause in reversed(causes):
        match cause:
            case ConnectionError() | TimeoutError():
                return TryLater(f"A connection broke off ({type(cause).__name__}). Run again.")
            case OSError(errno=int(number)):
                where = f"{cause.filename}: " if cause.filename is not None else ""
                return SetupError(f"{where}{os.strerror(number)}. Fix that, then run again.")
            case RuntimeError(args=("can't start new thread",)):
                return SetupError(
                    "The machine cannot start more threads. Raise the limits on processes and memory, then run again."
                )
            case MemoryError():
                return SetupError(
                    "The machine has too little memory left. Give it more, or choose smaller --checkpoint-rows."
                )
            case ModuleNotFoundError(name=str(name)) if not name.startswith("stripe_feed"):
                return SetupError(
                    f"The module {name} is not installed. Run `pip install -U stripe-feed`."
                )
    if _is_settings_error(causes[-1]):
        return SetupError(
            f"dlt refuses its settings ({type(causes[-1]).__name__}). Check .dlt/config.toml and the environment."
        )
    raised_by_dlt = [
        cause
        for cause in causes
        if type(cause).__module__.startswith("dlt.") and type(cause).__name__ not in DLT_WRAPPERS
    ]
    if raised_by_dlt:
        return SetupError(
            f"dlt refuses: {_describe(raised_by_dlt[-1])}. Check its settings (.dlt/config.toml, environment), then run again."
        )
    return None


def _is_settings_error(fault: BaseException) -> bool:
    """Whether the error was raised where dlt applies its settings, such as its log level."""
    files = [
        frame.f_code.co_filename.replace(os.sep, "/")
        for frame, _ in traceback.walk_tb(fault.__traceback__)
    ]
    last_own_frame = max((n for n, file in enumerate(files) if "/stripe_feed/" in file), default=-1)
    return any(
        "/dlt/common/runtime/" in file or "/dlt/common/configuration/" in file
        for file in files[last_own_frame + 1 :]
    )


DLT_WRAPPERS = (
    "PipelineStepFailed",
    "ResourceExtractionError",
    "PipeGenInvalid",
)  # dlt's, around whatever was raised


def _describe(fault: BaseException) -> str:
    """The class of dlt's exception, and the setting that it concerns; never a value."""
    setting = (
        getattr(fault, "field_name", None)
        or getattr(fault, "spec_name", None)
        or getattr(fault, "config_elem", None)
    )
    return f"{type(fault).__name__} ({setting})" if setting else type(fault).__name__
