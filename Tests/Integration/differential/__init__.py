# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Differential testing: the same command streams to two servers, the replies compared to the byte.

`python -m differential --help` from Tests/Integration.
"""
