# Martlet
# SPDX-License-Identifier: Apache-2.0
"""martletctl against real nodes."""
