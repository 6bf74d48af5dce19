"""testssl.sh on a gateway: what it finds, and the grade it gives (from 3.2 on; Debian 12 has 3.0, which gives none). TESTSSL names another than the PATH's."""
import json, os, shutil, subprocess, tempfile

# What is quick and needs no rating: protocols, kinds of ciphers, forward secrecy, the certificates, and flaws that take a connection each.
QUICK = ("-p", "-s", "-f", "-S", "-H", "-I", "-R", "-C")
BAD = ("LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL")

# What the certificates of a test and the server behind it are like and those of a real gateway need not be.
OF_THE_TEST = ("cert_chain_of_trust", "cert_revocation", "cert_crlDistributionPoints", "cert_ocspURL", "DNS_CAArecord", "cert_trust", "cert_expirationStatus", "cert_validityPeriod",
               "cert_extlifeSpan", "certificate_transparency", "OCSP_stapling", "HSTS", "security_headers")


def program():
    return os.environ.get("TESTSSL") or shutil.which("testssl") or shutil.which("testssl.sh")


def run(mesh, whole):
    found = program()
    assert found, "testssl.sh is not installed (Debian's package testssl.sh)"
    with tempfile.TemporaryDirectory() as at:
        how = () if whole else QUICK
        argv = [found, "--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1", "--add-ca", mesh.crt("ca"), "--jsonfile", f"{at}/found.json", *how, f"both.test:{mesh.ports['pair']}"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=900, stdin=subprocess.DEVNULL)
        findings = json.load(open(f"{at}/found.json"))
    assert len(findings) > 20, f"{done.stdout[-3000:]}\n{done.stderr[-1000:]}"
    bad = [f for f in findings if f["severity"] in BAD and not f["id"].startswith(OF_THE_TEST)]
    assert not bad, "\n".join(f"{f['severity']} {f['id']}: {f['finding']}" for f in bad)
    grade = [f["finding"] for f in findings if f["id"] == "overall_grade"]
    if whole:
        print(*(line.strip() for line in done.stdout.splitlines() if "rade" in line or "Score" in line), f"{len(findings)} findings, none LOW or worse; grade: {grade or 'not given'}", sep="\n")
        assert not grade or grade[0] in ("A", "A+"), f"its grade is {grade}"
