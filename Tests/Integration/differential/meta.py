# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Meta commands with every flag in every order, right and wrong."""

import base64

from .streams import Command

# Flags that make sense on each command, and all that the protocol knows.
SENSIBLE = {
    b"mg": b"cfhklOqstuvvvvCENRTbPL",
    b"ms": b"cCEFIkOqsTMNbPL",
    b"md": b"CEIkOqTxbPL",
    b"ma": b"CENJDTMOqtcvkbPL",
    b"me": b"b",
}
KNOWN = b"bcCDEfFhIJklLMNOPqRsStTuvVxX"
OPAQUES = [b"1", b"abc", b"", b"o" * 31, b"o" * 32, b"o" * 33, b"\xff", b"0"]
# Explicit CAS ids stay clear of the small numbers that servers count up themselves.
IDS = [
    b"1099511627776",
    b"18446744073709551615",
    b"9223372036854775807",
    b"0",
    b"-1",
    b"x",
    b"",
    b"18446744073709551616",
]


class MetaWords:
    """Mixed into the generator."""

    def meta_command(self):
        verb = self.random.choices((b"mg", b"ms", b"md", b"ma", b"mn", b"me", b"text"), (38, 30, 9, 14, 3, 2, 4))[0]
        if verb == b"text":
            return self.text_command()
        if verb == b"mn":
            return Command(b"mn\r\n")
        if verb == b"me":
            return Command(b"me " + self.any_key() + self.end())
        key = self.any_key()
        plain = key
        flags, cas = self.meta_flags(verb, key)
        if b"b" in [flag[:1] for flag in flags]:
            key = self.encoded(key)
        line = [verb, key]
        value = b""
        if verb == b"ms":
            value = self.value()
            length = b"%d" % len(value)
            if self.random.random() < 0.02:
                length = self.random.choice(
                    (b"-1", b"x", b"S%d" % len(value), b"", b"%d" % (len(value) + 1), b"2147483646")
                )
                if length == b"2147483646":
                    length = b"2147483647"  # refused at once: a length that is accepted would swallow for ever
            line.append(length)
        separator = self.spaces()
        if cas is None:
            data = separator.join(line + flags) + self.end()
            return Command(data + (self.body(value) if verb == b"ms" else b""))
        at = flags.index(cas)
        before = separator.join(line + flags[:at] + [cas])
        after = separator.join([b""] + flags[at + 1 :]) if flags[at + 1 :] else b""
        return Command(
            before,
            (plain, self.random.choice((0, 0, 0, 1, -1)), "text"),
            after + b"\r\n" + (self.body(value) if verb == b"ms" else b""),
        )

    def encoded(self, key):
        """The key in Base64, or something that only looks like it; itself the key of a command without `b`."""
        if self.random.random() < 0.08:
            return self.use(
                self.random.choice((b"!!!!", b"YQ", b"YQ=", b"=", b"YWFh" * 70, b"Y", b"####", b"YQ==YQ=="))
            )
        return self.use(base64.b64encode(key))

    def meta_flags(self, verb, key):
        """A list of flag tokens, and which of them wants the item's CAS id appended."""
        count = self.random.choice((0, 1, 1, 2, 2, 3, 4, 6, 9))
        letters = [bytes([self.random.choice(SENSIBLE[verb])]) for _ in range(count)]
        if self.random.random() < 0.9:
            letters = list(dict.fromkeys(letters))  # mostly without duplicates
        if self.random.random() < 0.03:
            letters.append(bytes([self.random.choice(KNOWN)]))
        if self.random.random() < 0.02:
            letters.append(self.random.choice((b"z", b"Z", b"!", b"1", b"\x80", b"\xff", b"W", b"\x01", b"?", b"A")))
        if b"b" in letters and self.random.random() < 0.6:
            letters.remove(b"b")
        flags, cas = [], None
        for letter in letters:
            token = letter + self.meta_argument(verb, letter)
            if letter == b"C" and cas is None and self.random.random() < 0.7:
                token = cas = b"C"
            flags.append(token)
        return flags, cas

    def meta_argument(self, verb, letter):
        if letter in b"TNR":
            return self.exptime()
        if letter == b"O":
            return self.random.choice(OPAQUES)
        if letter == b"F":
            return self.flags()
        if letter in b"CE":
            return self.random.choice(IDS)
        if letter in b"JD":
            return self.number()
        if letter == b"M":
            modes = (
                (b"E", b"A", b"P", b"R", b"S", b"e", b"a", b"p", b"r", b"s")
                if verb == b"ms"
                else (b"I", b"D", b"+", b"-", b"i", b"d", b"incr", b"decr")
            )
            return (
                self.random.choice(modes)
                if self.random.random() < 0.93
                else self.random.choice((b"", b"X", b"SET", b"0"))
            )
        if letter in b"PL":
            return self.random.choice((b"", b"x", b"/a/b", b"123"))
        return b"" if self.random.random() < 0.97 else self.random.choice((b"1", b"x", b"0"))
