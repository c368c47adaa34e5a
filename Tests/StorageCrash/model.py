# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What a store must hold after a crash, worked out from what was asked and what was answered.

The store commits in the order of submission. So after a crash there is one point in that order such that everything
before it was done, wholly, and nothing behind it: the cut. The cut must not lie before anything that was answered.
"""

import re

UNKNOWN = None


class Row:
    """A live row as the model knows it; the version is UNKNOWN for a write that was not answered."""

    __slots__ = ("expiry", "flags", "value", "version")

    def __init__(self, value, flags, expiry, version):
        self.value, self.flags, self.expiry, self.version = value, flags, expiry, version

    def same(self, other):
        return (self.value, self.flags, self.expiry) == (other.value, other.flags, other.expiry)


class Write:
    """One submitted write, and its answer when there was one."""

    __slots__ = ("compare", "delta", "expiry", "flags", "key", "length", "operation", "outcome", "token", "version")

    def __init__(self, words):
        self.token = int(words[0])
        self.operation, self.key = words[1], words[2]
        self.length, self.expiry, self.flags, self.compare, self.delta = (int(word) for word in words[3:8])
        self.outcome, self.version = None, UNKNOWN

    @property
    def value(self):
        if self.length < 0:
            return str(self.token % 1000).encode()
        return f"{self.token}:".encode() + bytes([97 + self.token % 26]) * self.length


def apply(write, row):
    """What `write` does to `row`: (outcome, row afterwards). memcached's rules, told a second time."""
    kind = write.operation
    fresh = Row(write.value, write.flags, write.expiry, write.version)
    if kind == "set":
        if write.compare:
            if row is None:
                return "notFound", row
            if row.version is UNKNOWN:
                # It may be the version that was asked for only if that was answered, and this row's was not.
                return "exists", row
            if row.version != write.compare:
                return "exists", row
        return "stored", fresh
    if kind == "add":
        return ("stored", fresh) if row is None else ("notStored", row)
    if kind == "replace":
        return ("notStored", row) if row is None else ("stored", fresh)
    if kind in ("append", "prepend"):
        if row is None:
            return "notStored", row
        joined = row.value + write.value if kind == "append" else write.value + row.value
        return "stored", Row(joined, row.flags, row.expiry, write.version)
    if kind == "delete":
        return ("notFound", row) if row is None else ("deleted", None)
    if kind == "touch":
        return ("notFound", row) if row is None else ("stored", Row(row.value, row.flags, write.expiry, write.version))
    if row is None:
        return "notFound", row
    if not re.fullmatch(rb"[0-9]+ *", row.value):
        return "notNumeric", row
    number = int(row.value)
    number = (number + write.delta) % 2**64 if kind == "increment" else max(0, number - write.delta)
    return "stored", Row(str(number).encode().ljust(len(row.value)), row.flags, row.expiry, write.version)


class Dump:
    """What `check` said."""

    def __init__(self, lines):
        self.rows, self.records, self.kept, self.error, self.is_whole = {}, [], {}, None, False
        for line in lines:
            kind, _, rest = line.partition(" ")
            if kind == "R":
                key, version, expiry, flags, value = rest.split(" ")
                self.rows[key] = Row(bytes.fromhex(value[1:]), int(flags), int(expiry), int(version))
            elif kind == "O":
                slot, sequence, key, version, operation, expiry, epoch = rest.split(" ")
                self.records.append(
                    (int(slot), int(sequence), key, int(version), operation, int(expiry), int(epoch)))
            elif kind == "K":
                slot, first, last = (int(word) for word in rest.split(" "))
                self.kept[slot] = (first, last)
            elif kind == "E":
                self.error = rest
            elif kind == "END":
                self.is_whole = True


class Store:
    """The model of one directory through its cycles."""

    def __init__(self):
        self.rows = {}
        #: The versions of each key in their order, as far as they are known; UNKNOWN for the others.
        self.history = {}
        self.last_version = 0
        #: The highest version that was ever answered, whatever became of the write.
        self.highest_answered = 0
        self.records = 0

    def after(self, writes, dump):
        """Holds `writes`, in the order of submission, against what is there. Gives (lost, findings): how many answered
        writes are gone, and what else is wrong."""
        if dump.error or not dump.is_whole:
            return 0, [f"the store does not open: {dump.error or 'no end'}"]
        answered = max((index for index, write in enumerate(writes) if write.outcome), default=-1) + 1
        findings = []
        gap = [write.token for write in writes[:answered] if not write.outcome]
        if gap:
            findings.append(f"answered out of order: {gap[:5]} have no answer")
        for write in writes:
            if write.version is not UNKNOWN:
                if write.version <= self.highest_answered:
                    findings.append(f"{write.token}: version {write.version} came after {self.highest_answered}")
                self.highest_answered = write.version
        cut, steps = self.find_cut(writes, dump, answered)
        if cut is None:
            return 0, [*findings, "what is there is no state that ever was: " + "; ".join(steps[:3])]
        lost = sum(1 for write in writes[cut:answered] if write.outcome in ("stored", "deleted"))
        findings += self.replay(writes[:cut])
        findings += self.check_rows(dump) + self.check_outbox(dump)
        return lost, findings

    def find_cut(self, writes, dump, answered):
        """The cut at which model and dump agree: the first at or behind the answers, else the last before them. Among
        several the number of records decides, because some writes leave a row as it was."""
        rows = dict(self.rows)
        wrong = {key for key in rows.keys() | dump.rows.keys() if not agree(rows.get(key), dump.rows.get(key))}
        changes, at_answers = self.records, set(wrong)
        fitting, counted = ([0], [0] if changes == len(dump.records) else []) if not wrong else ([], [])
        for index, write in enumerate(writes):
            outcome, row = apply(write, rows.get(write.key))
            changes += outcome in ("stored", "deleted")
            if row is None:
                rows.pop(write.key, None)
            else:
                rows[write.key] = row
            (wrong.discard if agree(row, dump.rows.get(write.key)) else wrong.add)(write.key)
            if index + 1 == answered:
                at_answers = set(wrong)
            if not wrong:
                fitting.append(index + 1)
                if changes == len(dump.records):
                    counted.append(index + 1)
        for cuts in (counted, fitting):
            behind = [cut for cut in cuts if cut >= answered]
            if behind or cuts:
                return (behind or [cuts[-1]])[0], []
        return None, [f"{key}: {describe(dump.rows.get(key))}" for key in sorted(at_answers or wrong)]

    def replay(self, writes):
        """Does the writes before the cut for good, and checks the answers."""
        findings = []
        for write in writes:
            outcome, row = apply(write, self.rows.get(write.key))
            if write.outcome and outcome != write.outcome:
                findings.append(f"{write.token} {write.operation} {write.key}: {write.outcome}, expected {outcome}")
            if row is None:
                self.rows.pop(write.key, None)
            else:
                self.rows[write.key] = row
            if outcome in ("stored", "deleted"):
                self.records += 1
                self.history.setdefault(write.key, []).append(write.version)
                if write.version is not UNKNOWN:
                    if write.version <= self.last_version:
                        findings.append(f"{write.token}: version {write.version} is not above {self.last_version}")
                    self.last_version = write.version
        return findings

    def check_rows(self, dump):
        """Versions of rows: what was answered, or above everything that was."""
        findings = []
        for key, row in dump.rows.items():
            known = self.rows[key]
            if known.version is not UNKNOWN and known.version != row.version:
                findings.append(f"{key} has version {row.version}, answered was {known.version}")
            known.version = row.version
            self.last_version = max(self.last_version, row.version)
        return findings

    def check_outbox(self, dump):
        """Sequences without a gap, one record for each change, and the same versions as the rows."""
        findings = []
        slots, keys = {}, {}
        for slot, sequence, key, version, operation, expiry, _ in dump.records:
            slots.setdefault(slot, []).append(sequence)
            keys.setdefault(key, []).append((version, operation, expiry))
        for slot, sequences in slots.items():
            if sequences != list(range(1, len(sequences) + 1)) or dump.kept[slot][1] != len(sequences):
                findings.append(f"slot {slot} has a gap: {sequences[:3]}..{sequences[-1]}, last {dump.kept[slot][1]}")
        if len(dump.records) != self.records:
            findings.append(f"{len(dump.records)} records for {self.records} changes")
        for key, entries in keys.items():
            versions = [entry[0] for entry in entries]
            known = self.history.get(key, [])
            if versions != sorted(set(versions)):
                findings.append(f"records of {key} are not in the order of their versions")
            if len(versions) != len(known) or any(b is not UNKNOWN and a != b for a, b in zip(versions, known)):
                findings.append(f"records of {key} are not its changes")
            self.history[key] = versions
            row = dump.rows.get(key)
            version, operation, expiry = entries[-1]
            if row is None and operation != "delete":
                findings.append(f"{key} is gone, and its last record is {operation}")
            if row is not None and (version, expiry) != (row.version, row.expiry):
                findings.append(f"the last record of {key} has version {version}, the row {row.version}")
            self.last_version = max(self.last_version, version)
        for key in dump.rows.keys() - keys.keys():
            findings.append(f"{key} has a row and no record")
        return findings


def agree(ours, theirs):
    if ours is None or theirs is None:
        return ours is theirs
    return ours.same(theirs) and ours.version in (UNKNOWN, theirs.version)


def describe(row):
    return "absent" if row is None else f"{row.value[:24]!r} of {len(row.value)} bytes, version {row.version}"
