"""The table of settings: each one's name, kind, default, bounds and help.

Everything else about settings is derived from this table: the flag, the
environment variable and the YAML key (``sources.py``), the effective values
(``config.py``), ``kritad --help``, ``config print`` and ``config template``
(``config_text.py``). A name ends in its unit, and a number is written plainly.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from pathlib import Path

from attrs import frozen

from krita.address import AddressError, parse
from krita.limits import PORT_DEFAULT, VALUE_BYTES_MAX_CEILING, VALUE_BYTES_MAX_DEFAULT

MIB = 1 << 20

Value = str | int | bool | Path | tuple[str, ...] | None


class Kind(enum.Enum):
    """What a setting's value is, and so how its text is read."""

    TEXT = "text"
    NUMBER = "number"
    FLAG = "flag"
    CHOICE = "choice"
    ADDRESS = "IP address"
    ADDRESSES = "list of addresses"
    PATH = "path"


class BadValue(ValueError):
    """The text is no value of this setting; the message is what is allowed."""


@frozen
class Setting:
    """One row of the table. ``minimum`` and ``maximum`` bound numbers and the length
    of text, inclusively; ``default`` None means unset."""

    name: str
    section: str
    kind: Kind
    default: Value
    help: str
    minimum: int = 0
    maximum: int = 0
    power_of_two: bool = False
    choices: tuple[str, ...] = ()
    placeholder: str = ""
    # Besides KRITA_<NAME>; the first users know LISTEN_IP.
    environment_also: str = ""
    # Where to look for a file cannot be said inside that file.
    in_file: bool = True

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def environment(self) -> str:
        return f"KRITA_{self.name.upper()}"

    @property
    def unit(self) -> str:
        """The unit that the name ends in, in words; empty for a mere count."""
        return next((word for end, word in UNITS.items() if self.name.endswith(end)), "")

    @property
    def allowed(self) -> str:
        """What may be written, as the end of the sentence "must be …"."""
        match self.kind:
            case Kind.NUMBER:
                what = "a power of two" if self.power_of_two else "a whole number"
                unit = f" ({self.unit})" if self.unit else ""
                return f"{what} from {self.minimum} to {self.maximum}{unit}"
            case Kind.FLAG:
                return "true or false"
            case Kind.CHOICE:
                return "one of " + ", ".join(self.choices)
            case Kind.ADDRESS:
                return "an IPv4 or IPv6 address, or localhost"
            case Kind.ADDRESSES:
                return "HOST or HOST:PORT, several separated by commas"
            case Kind.PATH:
                return "a path"
            case Kind.TEXT:
                return self.placeholder or f"text of at most {self.maximum} printable characters"

    def parse(self, text: str) -> Value:
        """The value that ``text`` means. Raises BadValue saying what is allowed."""
        match self.kind:
            case Kind.NUMBER:
                return self._number(text)
            case Kind.FLAG:
                return self._flag(text)
            case Kind.CHOICE:
                return self._choice(text)
            case Kind.ADDRESS:
                return self._address(text)
            case Kind.ADDRESSES:
                return self._addresses(text)
            case Kind.PATH:
                return self._path(text)
            case Kind.TEXT:
                return self._text(text)

    def _number(self, text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text):
            raise BadValue(f"must be {self.allowed}{_plain_number_hint(text, self.unit)}")
        number = int(text)
        if not self.minimum <= number <= self.maximum:
            raise BadValue(f"must be {self.allowed}")
        if self.power_of_two and number.bit_count() != 1:
            raise BadValue(f"must be {self.allowed}")
        return number

    def _flag(self, text: str) -> bool:
        lowered = text.lower()
        if lowered in ("true", "yes", "on", "1"):
            return True
        if lowered in ("false", "no", "off", "0"):
            return False
        raise BadValue(f"must be {self.allowed}")

    def _choice(self, text: str) -> str:
        if text.lower() not in self.choices:
            raise BadValue(f"must be {self.allowed}")
        return text.lower()

    def _address(self, text: str) -> str:
        if text.lower() == "localhost":
            return "127.0.0.1"
        try:
            return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
        except ValueError:
            raise BadValue(f"must be {self.allowed}") from None

    def _addresses(self, text: str) -> tuple[str, ...]:
        return tuple(check_address(part.strip()) for part in text.split(","))

    def _path(self, text: str) -> Path:
        if not text or "\0" in text:
            raise BadValue("must be a path; it is empty" if not text else "must be a path")
        return Path(text).expanduser()

    def _text(self, text: str) -> str:
        if len(text) > self.maximum or not text.isprintable():
            raise BadValue(f"must be {self.allowed}")
        if self.name == "advertise" and text:
            check_address(text)
        return text


def check_address(text: str) -> str:
    """``text``, if it is HOST or HOST:PORT. Raises BadValue."""
    try:
        parse(text)
    except AddressError as error:
        raise BadValue(f"must be HOST or HOST:PORT; {error}") from None
    return text


UNITS = {
    "_ms": "milliseconds",
    "_bytes_per_s": "bytes per second",
    "_requests_per_s": "requests per second",
    "_s": "seconds",
    "_h": "hours",
    "_bytes": "bytes",
    "_bytes_max": "bytes",
}

_BYTES = {
    "": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3,
    "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
}  # fmt: skip
# What people write behind a number, by the unit of the setting that they write it to.
_SUFFIXES: dict[str, dict[str, int]] = {
    "milliseconds": {"": 1, "ms": 1, "s": 1000, "m": 60_000, "min": 60_000},
    "seconds": {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400},
    "bytes": _BYTES,
    "bytes per second": _BYTES,
    "requests per second": {"": 1, "k": 1000},
    "": {"": 1, "k": 1000},
}  # fmt: skip


def _plain_number_hint(text: str, unit: str) -> str:
    """Whoever wrote 64MiB or 1_000 is told the plain number."""
    written = re.fullmatch(r"([0-9][0-9_,']{0,18})\s*([A-Za-z]{0,3})", text.strip())
    factor = _SUFFIXES[unit].get(written[2].lower()) if written else None
    if written is None or factor is None:
        return ""
    number = int(re.sub(r"\D", "", written[1])) * factor
    return f"; write the plain number, perhaps {number}"


def _number(
    name: str,
    section: str,
    default: int,
    bounds: tuple[int, int],
    help: str,
    *,
    power_of_two: bool = False,
) -> Setting:
    return Setting(
        name,
        section,
        Kind.NUMBER,
        default,
        help,
        minimum=bounds[0],
        maximum=bounds[1],
        power_of_two=power_of_two,
    )


SETTINGS: tuple[Setting, ...] = (
    Setting("listen_ip", "Network", Kind.ADDRESS, "127.0.0.1",
            "The address to listen on; anything beyond loopback needs an admin token.",
            environment_also="LISTEN_IP"),
    _number("port", "Network", PORT_DEFAULT, (1, 65535),
            "The one port, for clients, HTTP and the other nodes alike."),
    Setting("advertise", "Network", Kind.TEXT, "",
            "Where the other nodes and clients reach this node, if not at listen_ip and port.",
            maximum=260, placeholder="HOST or HOST:PORT"),
    _number("connections_max", "Network", 1024, (8, 65536),
            "How many connections may be open at once; further ones are turned away."),
    _number("watches_max", "Network", 512, (1, 65536),
            "How many watches and requests that wait for a change may be open over HTTP at once; "
            "each is a connection as well."),
    _number("bulk_max", "Network", 1000, (1, 10_000),
            "How many keys one HTTP request may read or write at once, by /v1/get and /v1/bulk."),
    _number("scan_rows_max", "Network", 1000, (1, 1000),
            "How many keys one page of a scan has at most."),
    _number("txn_operations_max", "Network", 1024, (1, 1024),
            "How many comparisons and operations one transaction may have together."),
    _number("request_timeout_ms", "Network", 5000, (10, 60_000),
            "How long a request without a deadline of its own may take."),

    Setting("join_ip", "Cluster", Kind.ADDRESSES, (),
            "A node of the cluster to join, may be given several times; "
            "ignored once the data directory belongs to a cluster.",
            placeholder="HOST[:PORT]"),
    Setting("start_cluster", "Cluster", Kind.FLAG, False,
            "Start a new cluster of one node, which others may join; "
            "ignored once the data directory belongs to a cluster."),
    _number("shards", "Cluster", 8, (1, 4096),
            "Into how many shards a new cluster cuts its keys; more come of splits.",
            power_of_two=True),
    _number("replication_factor", "Cluster", 3, (1, 7),
            "How many nodes keep a copy of each key, once there are that many nodes."),
    Setting("zone", "Cluster", Kind.TEXT, "",
            "The failure zone of this node; copies of a key are spread over zones.", maximum=64),
    Setting("leader_zones", "Cluster", Kind.TEXT, "",
            "The zones whose nodes should lead, the preferred one first, separated by commas; "
            "the same on every node. Unset: leaders are spread over all.", maximum=1000),
    _number("leaders_follow_requests_per_s", "Cluster", 50, (0, 1_000_000),
            "A shard of which so much is asked, nearly all of it through one node, is led by "
            "that node; 0: never. The same on every node."),
    _number("dead_after_s", "Cluster", 300, (1, 604_800),
            "How long a node may be silent before its replicas are rebuilt on others; "
            "the same on every node."),
    _number("shard_bytes_max", "Cluster", 1024 * MIB, (0, 1 << 44),
            "A shard that holds more than this is split in two by itself; 0: never. "
            "The same on every node."),
    _number("move_bytes_per_s", "Cluster", 32 * MIB, (0, 1 << 40),
            "How fast this node sends the snapshots of replicas that move; 0: as fast as it can."),

    _number("raft_tick_ms", "Raft", 50, (1, 1000),
            "The step of the clock that all shards share."),
    _number("raft_heartbeat_ms", "Raft", 200, (1, 60_000),
            "How often a leader is heard of; less than half of raft_election_ms."),
    _number("raft_election_ms", "Raft", 1000, (10, 600_000),
            "How long followers wait for a leader before they elect another: "
            "each between one and two times this."),

    Setting("data_dir", "Storage", Kind.PATH, Path("data"),
            "The directory of this node's data; made if it is not there.", placeholder="DIR"),
    _number("cache_bytes", "Storage", 64 * MIB, (0, 1 << 40),
            "Memory for values that were read."),
    _number("memtable_bytes", "Storage", 64 * MIB, (64 << 10, 1 << 34),
            "Memory for values that were written, before they are flushed to data.db."),
    _number("value_bytes_max", "Storage", VALUE_BYTES_MAX_DEFAULT, (1, VALUE_BYTES_MAX_CEILING),
            "The largest value that a client may put."),
    _number("log_tail_bytes", "Storage", 4 * MIB, (0, 1 << 34),
            "How much log to keep behind what is applied, so that a follower "
            "that was away catches up without a snapshot."),
    _number("disk_reserve_bytes", "Storage", 64 * MIB, (0, 1 << 44),
            "Below this much free disk the node takes no writes; reads and deletes go on."),
    _number("scrub_pass_h", "Storage", 24, (0, 8760),
            "In how many hours all that is stored is read once and compared with its checksums, "
            "to find damage before somebody needs what is damaged; 0: never."),

    Setting("admin_token_file", "Security", Kind.PATH, None,
            "The file that holds the admin token, if KRITA_ADMIN_TOKEN does not.",
            placeholder="FILE"),

    Setting("log_level", "Logs", Kind.CHOICE, "info", "The least severe level that is logged.",
            choices=("debug", "info", "warning", "error")),
    Setting("log_format", "Logs", Kind.CHOICE, "text", "Lines for people, or JSON for machines.",
            choices=("text", "json")),
    Setting("log_file", "Logs", Kind.PATH, None,
            "The file to log to instead of standard error; it may be rotated by renaming it.",
            placeholder="FILE"),

    Setting("config", "File", Kind.PATH, None,
            "A YAML file of settings; flags and the environment win over it.",
            placeholder="FILE", in_file=False),
)  # fmt: skip

BY_NAME: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}

# The one secret. It has no flag: whoever can run ps would read it.
TOKEN_VARIABLE = "KRITA_ADMIN_TOKEN"
# Variables of our own programs that are no settings of kritad.
CLIENT_VARIABLES = frozenset({"KRITA_NODES", "KRITA_LOCK", "KRITA_LOCK_TOKEN"})
