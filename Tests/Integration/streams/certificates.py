# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Certificates of regions."""

import subprocess


def certificates(directory, *names):
    """An authority, and a certificate and key in one file for each name."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=60)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority")
    for name in names:
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (directory / "names").write_text(f"subjectAltName=DNS:{name}\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                "-extfile", "names", "-out", f"{name}.pem")  # fmt: skip
    return directory


def secured(directory, name):
    """What a region's nodes have below `stream` to be known by theirs."""
    return {"certificate": str(directory / f"{name}.pem"), "key": str(directory / f"{name}.key"), "ca": str(directory / "ca.pem")}
