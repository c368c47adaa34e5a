# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Outside-in tests of write-through storage: real sockets, real processes, real crashes."""
