# Martlet
# SPDX-License-Identifier: Apache-2.0
"""What operators, scripts and exporters rely on, checked from outside. Baselined on memcached 1.6.18 and 1.6.45."""
