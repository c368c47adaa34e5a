# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Suites of client libraries, run unmodified against the server under test."""
