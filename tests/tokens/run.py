#!/usr/bin/env python3
"""Every token of the table, on maille's proxy and on a real Envoy under maille's control plane: the same answer, and the same reaches the server.

    run.py              all of them
    run.py -k kid -v    those whose name has it, with everything that was seen

MAILLE, ENVOY and PYTHON as for the differential run, whose two planes, client and server these are.
"""
import argparse, asyncio, collections, json, pathlib, random, subprocess, sys, tempfile, time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "differential"))
import importlib.util

import client, groups, upstream
import table

spec = importlib.util.spec_from_file_location("differential", HERE.parent / "differential" / "run.py")
differential = importlib.util.module_from_spec(spec)
spec.loader.exec_module(differential)


class Keys:
    """Keys in files, and openssl, which signs by them."""

    def __init__(self, folder):
        self.folder = folder
        rsa = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
        ec = lambda curve: ["-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{curve}"]
        kinds = {"r1": rsa, "r2": rsa, "stray": rsa, "e256": ec("P-256"), "e384": ec("P-384"), "e521": ec("P-521"), "o": ["-algorithm", "ED25519"]}
        for name, options in kinds.items():
            self.openssl("genpkey", *options, "-out", f"{name}.key")
        self.pem = self.openssl("pkey", "-in", "r1.key", "-pubout")

    def openssl(self, *args, **more):
        return subprocess.run(["openssl", *args], cwd=self.folder, check=True, capture_output=True, **more).stdout

    def sign(self, alg, key, text):
        if alg[:2] == "HS":
            return table.hmac.new(self.pem, text, table.hashlib.sha256).digest()
        if alg[:2] == "Ed":
            (self.folder / "text").write_bytes(text)
            return self.openssl("pkeyutl", "-sign", "-rawin", "-inkey", f"{key}.key", "-in", "text")
        if alg[:2] not in ("RS", "PS", "ES"):
            return b"nothing"
        pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"] if alg[:2] == "PS" else []
        out = self.openssl("dgst", f"-sha{alg[2:]}", *pss, "-sign", f"{key}.key", input=text)
        return raw(out, {"e256": 32, "e384": 48, "e521": 66}[key]) if key[0] == "e" else out

    def public(self, name):
        der = self.openssl("pkey", "-in", f"{name}.key", "-pubout", "-outform", "DER")
        if name[0] == "r":
            number = int(self.openssl("rsa", "-in", f"{name}.key", "-noout", "-modulus").decode().split("=")[1], 16)
            return {"kty": "RSA", "kid": name, "n": table.b64(number.to_bytes(256, "big")), "e": "AQAB"}
        if name[0] == "o":
            return {"kty": "OKP", "crv": "Ed25519", "kid": name, "x": table.b64(der[-32:])}
        size, curve = {"e256": (32, "P-256"), "e384": (48, "P-384"), "e521": (66, "P-521")}[name]
        return {"kty": "EC", "crv": curve, "kid": name, "alg": f"ES{ {'e521': 512}.get(name, size * 8)}", "x": table.b64(der[-2 * size:-size]), "y": table.b64(der[-size:])}

    def sets(self):
        only = {k: v for k, v in self.public("r1").items() if k != "kid"}
        of = lambda *names: [self.public(n) for n in names]
        return {"@keys": of("r1", "r2", "e256", "e384", "e521", "o"), "@one": [only], "@rsa": of("r1", "r2"), "@ec": of("e256")}


def raw(der, size):
    """A signature of EC as tokens have it: two numbers of one length."""
    at, out = 3 if der[1] & 0x80 else 2, b""
    for _ in range(2):
        length = der[at + 1]
        out += int.from_bytes(der[at + 2:at + 2 + length], "big").to_bytes(size, "big")
        at += 2 + length
    return out


class Plane(differential.Plane):
    async def join(self):
        """No workloads; the gateways have to be there."""
        for name in table.GATEWAYS:
            while (await client.ask(self.ports, {"host": f"{name}.example", "to": name, "patience": 2}, "ready")).get("status") != 200:
                await asyncio.sleep(0.1)


def configure(book, sets):
    groups.base(book)
    for name, rules in table.GATEWAYS.items():
        book.group, book.count = name, 0
        book.gates.append(name)
        labels, host = {"app": f"tokens-{name}"}, f"{name}.example"
        server = {"port": {"number": f"@port:{name}@", "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
        book.doc("Gateway", name, {"selector": labels, "servers": [server]})
        service = book.service(["a"])
        book.doc("VirtualService", name, {"hosts": [host], "gateways": [name], "http": [{"route": [{"destination": {"host": service}}]}]})
        rules = [rule | {"jwks": json.dumps({"keys": sets[rule["jwks"]]})} for rule in rules]
        book.doc("RequestAuthentication", name, {"selector": {"matchLabels": labels}, "jwtRules": rules}, apiVersion="security.istio.io/v1")


async def run(args, work):
    files, keys = work / "files", work / "keys"
    files.mkdir(); keys.mkdir()
    keys = Keys(keys)
    world = upstream.World()
    server = await upstream.Server(world, "a").start()
    book = groups.Book(random.Random(1), {"a": server.port}, differential.free_port())
    configure(book, keys.sets())
    planes = [Plane(n, n, work, book, files, server.port) for n in ("maille", "envoy")]
    try:
        await asyncio.gather(*(asyncio.wait_for(p.ready(), 90) for p in planes))
        return await ask_all(args, world, planes, table.Tokens(keys))
    finally:
        for p in planes:
            p.stop()


async def ask_all(args, world, planes, tokens):
    asked, wrong, kinds = 0, 0, collections.Counter()
    for name, gateway, request, expected in table.rows(tokens):
        if args.k not in name:
            continue
        asked += 1
        send = {"host": f"{gateway}.example", "to": gateway, **request}
        pair = groups.Pair(name, send, [{}], "HTTP")
        found, ours, theirs = await differential.judge(world, planes, pair, 0)
        if on_purpose := table.OURS.get(name):
            found = [] if (ours.get("status"), ours.get("body")) == on_purpose and "upstream 1 path" not in ours else found
        said = "ok" if theirs.get("status") == 200 else theirs.get("body")
        expected = "" if send.get("method") == "HEAD" else expected
        kinds["ok" if said == "ok" else "refused"] += 1
        if said != expected:
            found.append(f"the table says {expected!r}, Envoy {theirs.get('status')} {said!r}")
        wrong += bool(found)
        if found or args.v:
            print(f"{'DIFFERS' if found else 'same'} {name}", *(d[:300] for d in found), sep="\n      ", flush=True)
        if args.v:
            print("      maille", json.dumps(ours, indent=1), "\n      Envoy", json.dumps(theirs, indent=1))
    print(f"{asked} tokens ({kinds['ok']} pass, {kinds['refused']} are refused), {wrong} judged otherwise than by Envoy or the table")
    return asked, wrong


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-k", default=""); p.add_argument("-v", action="store_true")
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="tokens-") as work:
        asked, wrong = asyncio.run(run(args, pathlib.Path(work)))
    sys.exit(bool(wrong) or not asked)


if __name__ == "__main__":
    main()
