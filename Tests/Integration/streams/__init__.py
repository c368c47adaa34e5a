# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Streams between regions: real nodes on loopback, a relay between them that cuts and delays."""
