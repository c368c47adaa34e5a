# Martlet
# SPDX-License-Identifier: Apache-2.0
"""MartletClient, called by a program of its own, against servers that do well and badly."""
