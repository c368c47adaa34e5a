# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Who owns a key: our module Routing beside clients and a proxy that hash for themselves."""
