# Martlet
# SPDX-License-Identifier: Apache-2.0
"""The router: in front of nodes, of servers that are slow, dead or wrong, and beside the original."""
