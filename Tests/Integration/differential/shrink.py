# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Makes a failing stream small: fewer commands, no splits, shorter commands, for as long as it fails."""

from dataclasses import replace

from .streams import Command

ROUNDS = 400


def shrink(stream, fails):
    """The smallest stream found for which `fails` is true."""
    budget = [ROUNDS]

    def still(candidate):
        if budget[0] <= 0:
            return False
        budget[0] -= 1
        return fails(candidate)

    if stream.split != "whole" and still(replace(stream, split="whole")):
        stream = replace(stream, split="whole")
    size = max(1, len(stream.commands) // 2)
    while True:
        at = 0
        while at < len(stream.commands) and len(stream.commands) > 1:
            commands = stream.commands[:at] + stream.commands[at + size :]
            last_gone = at + size >= len(stream.commands)
            candidate = replace(stream, commands=commands, dangling=stream.dangling and not last_gone)
            if commands and still(candidate):
                stream = candidate
            else:
                at += size
        if size == 1:
            break
        size = max(1, size // 2)
    return shorten(stream, still)


def shorten(stream, still):
    """Drops tokens from the lines of the commands that are left."""
    for number, command in enumerate(stream.commands):
        if command.cas or stream.protocol == "binary":
            continue
        line, newline, rest = command.before.partition(b"\n")
        tokens = line.rstrip(b"\r").split(b" ")
        at = len(tokens) - 1
        while at > 0 and len(tokens) < 200:
            fewer = tokens[:at] + tokens[at + 1 :]
            commands = list(stream.commands)
            commands[number] = Command(
                b" ".join(fewer) + (b"\r" if line.endswith(b"\r") else b"") + newline + rest, alone=command.alone
            )
            candidate = replace(stream, commands=commands)
            if still(candidate):
                stream, tokens = candidate, fewer
            at -= 1
    return stream
