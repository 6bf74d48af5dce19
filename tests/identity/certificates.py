"""Certificates that a client of the mesh may come with, good and bad, made by openssl with the mesh's own CA or another."""
import json, subprocess

CONFIG = """[ca]
default_ca = x
[x]
database = index
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
unique_subject = no
rand_serial = yes
copy_extensions = none
[any]
commonName = optional
"""
OURS, THEIRS = ("root.crt", "root.key"), ("other.crt", "other.key")
LATELY, SOON, LATER = "20200101000000Z", "20210101000000Z", "20990101000000Z"
SPIFFE = "URI:spiffe://cluster.local/ns/test/sa"

# name: who signs, the names in it, from, to, what it may be used for
KINDS = {
    "caller": (OURS, f"{SPIFFE}/caller", LATELY, LATER, "clientAuth,serverAuth"),
    "other": (OURS, f"{SPIFFE}/other", LATELY, LATER, "clientAuth,serverAuth"),
    "wrong-trust-domain": (OURS, "URI:spiffe://elsewhere.local/ns/test/sa/caller", LATELY, LATER, "clientAuth,serverAuth"),
    "trust-domain-begins-alike": (OURS, "URI:spiffe://cluster.local.evil/ns/test/sa/caller", LATELY, LATER, "clientAuth,serverAuth"),
    "expired": (OURS, f"{SPIFFE}/caller", LATELY, SOON, "clientAuth,serverAuth"),
    "not-yet": (OURS, f"{SPIFFE}/caller", "20980101000000Z", LATER, "clientAuth,serverAuth"),
    "not-spiffe": (OURS, "DNS:caller.test.svc.cluster.local", LATELY, LATER, "clientAuth,serverAuth"),
    "spiffe-as-dns": (OURS, "DNS:spiffe.cluster.local,URI:https://cluster.local/ns/test/sa/caller", LATELY, LATER, "clientAuth,serverAuth"),
    "no-name": (OURS, None, LATELY, LATER, "clientAuth,serverAuth"),
    "server-only": (OURS, f"{SPIFFE}/caller", LATELY, LATER, "serverAuth"),
    "foreign": (THEIRS, f"{SPIFFE}/caller", LATELY, LATER, "clientAuth,serverAuth"),
}


def openssl(at, *args):
    done = subprocess.run(["openssl", *args], cwd=at, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"openssl {' '.join(args)}: {done.stderr.decode()[-600:]}")


def own(at, name, subject):
    """A certificate that signs itself."""
    openssl(at, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.crt")


def make(at, ca_file):
    """All of KINDS, as NAME.crt and NAME.key. `ca_file` is the CA as the control plane keeps it."""
    root = json.loads(ca_file.read_text())["roots"]["signing"]
    for name, text in (("root.crt", root["certificate"]), ("root.key", root["key"])):
        (at / name).write_text(text)
    own(at, "other", "/O=cluster.local")
    own(at, "self-signed", "/CN=caller")
    (at / "openssl.cnf").write_text(CONFIG)
    for name, (signer, names, start, end, usage) in KINDS.items():
        (at / "index").write_text("")
        extensions = ["basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature,keyEncipherment", f"extendedKeyUsage={usage}"]
        (at / "extensions").write_text("\n".join(extensions + ([f"subjectAltName={names}"] if names else [])) + "\n")
        openssl(at, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(at, "ca", "-batch", "-config", "openssl.cnf", "-cert", signer[0], "-keyfile", signer[1], "-startdate", start, "-enddate", end,
                "-extfile", "extensions", "-notext", "-in", f"{name}.csr", "-out", f"{name}.crt")
