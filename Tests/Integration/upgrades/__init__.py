# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Two releases beside each other and after each other."""
