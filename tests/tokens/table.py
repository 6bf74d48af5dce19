"""The table of tokens: what each is, where it is put, and what becomes of the request.

A row is (name, gateway, request, answer). The answer is "ok", or the body of the refusal (401 but where it says otherwise). Gateways differ
in their RequestAuthentication; see GATEWAYS. Times are relative to the moment the request is sent.
"""
import base64, hashlib, hmac, json, time

ISSUER, OTHER = "https://id.example", "https://other.example"


def b64(data):
    data = data if isinstance(data, bytes) else data.encode() if isinstance(data, str) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Tokens:
    """Makes tokens; `keys` signs."""

    def __init__(self, keys):
        self.keys = keys

    def make(self, alg="RS256", kid=None, key=None, header=None, payload=None, **claims):
        """`header` is merged in, or stands as it is when it is text; so does `payload`."""
        kid = {"RS": "r1", "PS": "r1", "HS": None, "Ed": "o"}.get(alg[:2], {"ES256": "e256", "ES384": "e384", "ES512": "e521"}.get(alg)) if kid is None else kid or None
        head = header if isinstance(header, str) else {k: v for k, v in ({"alg": alg, "typ": "JWT", "kid": kid} | (header or {})).items() if v is not None}
        claims = {k: v for k, v in ({"iss": ISSUER, "sub": "ann"} | claims).items() if v is not None}
        claims = {k: int(time.time()) + v if k in ("exp", "nbf", "iat") and type(v) is int and abs(v) < 1e7 else v for k, v in claims.items()}
        text = f"{b64(head)}.{b64(claims if payload is None else payload)}"
        return f"{text}.{b64(self.keys.sign(alg, key or kid, text.encode()))}"


def bearer(token):
    return {"headers": [("authorization", f"Bearer {token}")]}


GATEWAYS = {
    # every kind of key in one set
    "keys": [{"issuer": ISSUER, "jwks": "@keys"}],
    # one key, without a name
    "one": [{"issuer": ISSUER, "jwks": "@one"}],
    # everywhere a token may be, and it goes on
    "places": [{"issuer": ISSUER, "jwks": "@keys", "forwardOriginalToken": True, "fromParams": ["token", "t2"], "fromCookies": ["session"],
                "fromHeaders": [{"name": "x-token", "prefix": "Tok "}, {"name": "x-raw"}, {"name": "authorization", "prefix": "Bearer "}]}],
    # the same, and it ends here; what it says goes on
    "claims": [{"issuer": ISSUER, "jwks": "@keys", "fromParams": ["token"], "fromCookies": ["session"], "fromHeaders": [{"name": "x-token"}, {"name": "authorization", "prefix": "Bearer "}],
                "outputPayloadToHeader": "x-payload",
                "outputClaimToHeaders": [{"header": f"x-{c.replace('.', '-')}", "claim": c} for c in ("sub", "level", "admin", "ratio", "groups", "team.name", "team", "absent")]}],
    # two issuers, the first for some only
    "two": [{"issuer": ISSUER, "jwks": "@rsa", "audiences": ["shop", "https://bank.example/"]}, {"issuer": OTHER, "jwks": "@ec", "fromHeaders": [{"name": "x-other"}]}],
}

# Where maille answers otherwise on purpose, as docs/differences.md says.
OURS = {"claims: a claim with a line break": (401, "Jwt payload has a claim that no header can carry")}

MISSING_KEY = "Jwks doesn't have key to match kid or alg from Jwt"
FAILS, FORM = "Jwt verification fails", "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
HEADER_JSON, PAYLOAD_JSON, ALG = "Jwt header is an invalid JSON", "Jwt payload is an invalid JSON", "Jwt header [alg] is not supported"
EXPIRED, EARLY, ISSUERS, AUDIENCES = "Jwt is expired", "Jwt not yet valid", "Jwt issuer is not configured", "Audiences in Jwt are not allowed"


def rows(t):
    make, good = t.make, t.make()
    head, body, signature = good.split(".")

    def keys(name, token, answer):
        return (name, "keys", bearer(token), answer)

    for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"):
        yield keys(alg, make(alg), "ok")
    yield ("no token", "keys", {}, "ok")
    yield ("another scheme", "keys", {"headers": [("authorization", "Basic YTpi")]}, "ok")
    yield ("Bearer and nothing", "keys", {"headers": [("authorization", "Bearer ")]}, "ok")
    yield ("bearer in small letters", "keys", {"headers": [("authorization", f"bearer {good}")]}, "ok")
    yield ("two blanks behind Bearer", "keys", {"headers": [("authorization", f"Bearer  {good}")]}, "ok")
    yield ("something before Bearer", "keys", {"headers": [("authorization", f"x Bearer {good}")]}, "ok")
    yield ("something behind the token", "keys", {"headers": [("authorization", f"Bearer {good} x")]}, FAILS)
    yield ("a preflight needs none", "keys", {"method": "OPTIONS", "headers": [("origin", "http://a.example"), ("access-control-request-method", "GET"), ("authorization", "Bearer x")]}, "ok")
    yield ("OPTIONS that is no preflight", "keys", {"method": "OPTIONS", **bearer("x")}, FORM)
    yield ("over HTTP/2", "keys", {"protocol": "h2", **bearer(make(exp=-100))}, EXPIRED)
    yield ("HEAD", "keys", {"method": "HEAD", **bearer(make(exp=-100))}, EXPIRED)
    yield ("with a body", "keys", {"method": "POST", "body": 20000, **bearer(make(exp=-100))}, EXPIRED)
    yield ("a long path in the challenge", "keys", {"path": "/" + "p" * 400 + "?q=1", **bearer("x")}, FORM)

    # when it counts
    yield keys("exp ahead", make(exp=100), "ok")
    yield keys("expired", make(exp=-100), EXPIRED)
    yield keys("expired, within the skew", make(exp=-30), "ok")
    yield keys("expired, just beyond the skew", make(exp=-63), EXPIRED)
    yield keys("not yet valid", make(nbf=100), EARLY)
    yield keys("not yet valid, within the skew", make(nbf=30), "ok")
    yield keys("issued in the future", make(iat=1000), "ok")
    yield keys("exp 0", make(exp=0.0), "ok")
    yield keys("exp a fraction", make(exp=4102444800.7), "ok")
    yield keys("exp negative", make(payload={"iss": ISSUER, "exp": -1}), "Jwt payload [exp] field is not a positive 64 bit integer")
    yield keys("exp beyond counting", make(payload={"iss": ISSUER, "exp": 1e30}), "Jwt payload [exp] field is not a positive 64 bit integer")
    yield keys("exp in text", make(exp="4102444800"), "Jwt payload [exp] field is not an integer")
    yield keys("nbf in text", make(nbf="x"), "Jwt payload [nbf] field is not an integer")
    yield keys("iat a list", make(iat=[]), "Jwt payload [iat] field is not an integer")
    yield keys("exp null", make(payload={"iss": ISSUER, "exp": None}), "Jwt payload [exp] field is not an integer")

    # who made it, and for whom
    yield keys("another issuer", make(iss="https://evil.example"), ISSUERS)
    yield keys("an issuer with a slash more", make(iss=ISSUER + "/"), ISSUERS)
    yield keys("no issuer", make(iss=None), ISSUERS)
    yield keys("issuer empty", make(iss=""), ISSUERS)
    yield keys("issuer a number", make(iss=7), "Jwt payload [iss] field is not a string")
    yield keys("issuer a list", make(iss=[ISSUER]), "Jwt payload [iss] field is not a string")
    yield keys("issuer twice", make(payload=f'{{"iss":"https://evil.example","iss":"{ISSUER}"}}'), PAYLOAD_JSON)
    yield keys("issuer twice, the good one first", make(payload=f'{{"iss":"{ISSUER}","iss":"https://evil.example"}}'), PAYLOAD_JSON)
    yield keys("a name twice, further in", make(payload='{"iss":"%s","x":{"y":1,"y":2}}' % ISSUER), PAYLOAD_JSON)
    yield keys("alg twice", make(header='{"alg":"none","alg":"RS256","kid":"r1"}'), HEADER_JSON)
    yield keys("sub a number", make(sub=7), "Jwt payload [sub] field is not a string")
    yield keys("no sub", make(sub=None), "ok")
    yield keys("jti a number", make(jti=7), "Jwt payload [jti] field is not a string")
    yield keys("aud a number", make(aud=7), "Jwt payload [aud] field is not a string or string list")
    yield keys("aud mixed", make(aud=["shop", 7]), "Jwt payload [aud] field is not a string or string list")
    yield keys("aud where none is asked for", make(aud="anything"), "ok")

    # algorithms and keys
    yield keys("alg none", f'{b64({"alg": "none"})}.{body}.', FORM)
    yield keys("alg none with a signature", f'{b64({"alg": "none"})}.{body}.{signature}', ALG)
    yield keys("alg NoNe", make("NoNe"), ALG)
    yield keys("alg in small letters", make("RS256", header={"alg": "rs256"}), ALG)
    yield keys("no alg", make(header={"alg": None}), "Jwt header [alg] field is required and must be a string")
    yield keys("alg a number", make(header={"alg": 256}), "Jwt header [alg] field is required and must be a string")
    yield keys("HS256 with the RSA key as the secret", make("HS256", kid="r1", key="pem"), FAILS)
    yield keys("HS256 without kid", make("HS256", kid="", key="pem"), "Jwt ED25519 signature is wrong length")
    yield keys("RS256 said, signed by EC", make("RS256", header={"kid": "r1"}, key="e256"), FAILS)
    yield keys("ES256 said of an RSA key", make("ES256", kid="r1", key="r1"), FAILS)
    yield keys("ES384 of a P-256 key", make("ES384", kid="e256", key="e384"), MISSING_KEY)
    yield keys("PS256 said, PKCS1 signed", make("RS256", header={"alg": "PS256"}), FAILS)
    yield keys("kid of the other RSA key", make(kid="r2", key="r1"), FAILS)
    yield keys("kid that nobody has", make(kid="nobody", key="r1"), MISSING_KEY)
    yield keys("kid that is a path", make(kid="../../etc/passwd", key="r1"), MISSING_KEY)
    yield keys("kid empty", make(header={"kid": ""}), "ok")
    yield keys("kid a number", make(header={"kid": 7}), "Jwt header [kid] field is not a string")
    yield keys("no kid, several keys, the first", make(kid="", key="r1"), "ok")
    yield keys("no kid, several keys, the second", make(kid="", key="r2"), "ok")
    yield keys("no kid, a key of nobody's", make(kid="", key="stray"), "Jwt ED25519 signature is wrong length")
    yield keys("a key in the header", make(header={"jwk": {"kty": "oct", "k": "AAAA"}}), "ok")
    yield keys("crit in the header", make(header={"crit": ["x"], "x": 1}), "ok")
    yield ("the only key, kid or not", "one", bearer(make(kid="whatever", key="r1")), "ok")
    yield ("the only key, no kid", "one", bearer(make(kid="", key="r1")), "ok")
    yield ("not the only key", "one", bearer(make(kid="", key="r2")), FAILS)
    yield ("another algorithm of the only key", "one", bearer(make("RS512", kid="", key="r1")), "ok")
    yield ("another family than the only key's", "one", bearer(make("ES256", kid="", key="e256")), FAILS)

    # broken in transit, or on purpose
    yield keys("signature cut", good[:-4], FAILS)
    yield keys("signature of one byte", f"{head}.{body}.AA", FAILS)
    yield keys("no signature", f"{head}.{body}.", FORM)
    yield keys("two sections", f"{head}.{body}", FORM)
    yield keys("four sections", f"{good}.x", FORM)
    yield keys("a dot at the end", f"{good}.", "ok")
    yield keys("dots alone", "..", FORM)
    yield keys("another payload under the signature", f'{head}.{b64({"iss": ISSUER, "sub": "root"})}.{signature}', FAILS)
    yield keys("a bit of the signature changed", f'{head}.{body}.{"B" if signature[0] == "A" else "A"}{signature[1:]}', FAILS)
    yield keys("header no base64", f"!!.{body}.{signature}", FORM)
    yield keys("payload no base64", f"{head}.!!.{signature}", "Jwt payload is an invalid Base64url encoded")
    yield keys("signature no base64", f"{head}.{body}.!!", "Jwt signature is an invalid Base64url encoded")
    yield keys("padding", make(payload='{"iss":"%s"}' % ISSUER) + "==", "ok")
    yield keys("base64 of the other alphabet", f"{head}.{body}.{'+/' + signature[2:]}", "Jwt signature is an invalid Base64url encoded")
    yield keys("header no JSON", f'{b64("{")}.{body}.{signature}', HEADER_JSON)
    yield keys("header a list", f'{b64("[]")}.{body}.{signature}', HEADER_JSON)
    yield keys("payload no JSON", make(payload="no"), PAYLOAD_JSON)
    yield keys("payload a list", make(payload="[]"), PAYLOAD_JSON)
    yield keys("payload empty", make(payload="{}"), ISSUERS)
    yield keys("a JSON comment", make(payload='{"iss":"%s"/**/}' % ISSUER), PAYLOAD_JSON)
    yield keys("JSON and more", make(payload='{"iss":"%s"} x' % ISSUER), PAYLOAD_JSON)
    yield keys("nested deeply", make(payload='{"iss":"%s","x":%s}' % (ISSUER, "[" * 60 + "]" * 60)), "ok")
    yield keys("large", make(pad="x" * 30000), "ok")
    yield keys("text of other scripts", make(sub="Änne 漢 \U0001f600"), "ok")
    yield keys("the signature's last letter has loose bits", loose(good), "ok")
    yield keys("Ed25519 signature too short", f'{b64({"alg": "EdDSA", "kid": "o"})}.{body}.{b64(b"short")}', "Jwt ED25519 signature is wrong length")

    # where it stands
    expired = make(exp=-100)
    for name, request, answer in [
        ("header", {"headers": [("x-token", f"Tok {good}")]}, "ok"),
        ("header, no prefix", {"headers": [("x-token", good)]}, "ok"),
        ("header, prefix in small letters", {"headers": [("x-token", f"tok {good}")]}, "ok"),
        ("header, prefix somewhere", {"headers": [("x-token", f"x Tok {good}, y")]}, "Jwt signature is an invalid Base64url encoded"),
        ("header, bad", {"headers": [("x-token", f"Tok {expired}")]}, EXPIRED),
        ("header without prefix", {"headers": [("x-raw", good)]}, "ok"),
        ("header without prefix, empty", {"headers": [("x-raw", "")]}, FORM),
        ("parameter", {"path": f"/a?x=1&token={good}&y=2"}, "ok"),
        ("parameter, bad", {"path": f"/a?token={expired}"}, EXPIRED),
        ("parameter, empty", {"path": "/a?token="}, FORM),
        ("parameter twice, the bad one last", {"path": f"/a?token={good}&token={expired}"}, "ok"),
        ("parameter twice, the bad one first", {"path": f"/a?token={expired}&token={good}"}, EXPIRED),
        ("parameter, escaped", {"path": f"/a?token={good.replace('.', '%2E')}"}, "ok"),
        ("parameter behind #", {"path": f"/a#token={expired}"}, ""),
        ("the usual parameter is not looked at", {"path": f"/a?access_token={expired}"}, "ok"),
        ("cookie", {"headers": [("cookie", f"a=1; session={good}; b=2")]}, "ok"),
        ("cookie, bad", {"headers": [("cookie", f"session={expired}")]}, EXPIRED),
        ("cookie, empty", {"headers": [("cookie", "session=; other=1")]}, FORM),
        ("cookie in quotes", {"headers": [("cookie", f'session="{good}"')]}, "ok"),
        ("cookie twice", {"headers": [("cookie", f"session={good}; session={expired}")]}, "ok"),
        ("cookies in two lines", {"headers": [("cookie", "a=1"), ("cookie", f"session={expired}")]}, EXPIRED),
        ("header and parameter, both good", {"path": f"/?token={good}", "headers": [("x-raw", good)]}, "ok"),
        ("a bad parameter beside a good header", {"path": f"/?token={expired}", "headers": [("x-raw", good)]}, EXPIRED),
        ("a bad cookie beside a good header", {"headers": [("x-raw", good), ("cookie", f"session={expired}")]}, EXPIRED),
        ("two parameters", {"path": f"/?token={good}&t2={expired}"}, EXPIRED),
        ("a header in two lines", {"headers": [("x-raw", good), ("x-raw", expired)]}, EXPIRED),
        ("a header in two lines, the bad one first", {"headers": [("x-raw", expired), ("x-raw", good)]}, EXPIRED),
        ("authorization in two lines", {"headers": [("authorization", f"Bearer {good}"), ("authorization", f"Bearer {expired}")]}, FORM),
    ]:
        yield (f"places: {name}", "places", request, answer)

    # what it says goes on, and it does not
    full = make(level=3, admin=True, ratio=1.5, groups=["a", "b"], team={"name": "core"})
    spoofed = [("x-sub", "root"), ("x-payload", "x"), ("x-absent", "x")]
    for name, request, answer in [
        ("all kinds", {"headers": [("x-token", full)]}, "ok"),
        ("none, and what a client says of itself", {"headers": spoofed}, "ok"),
        ("some, and what a client says of itself", {"headers": [("authorization", f"Bearer {full}"), *spoofed]}, "ok"),
        ("from a parameter", {"path": f"/a?x=1&token={full}&y=2"}, "ok"),
        ("from the only parameter", {"path": f"/a?token={full}"}, "ok"),
        ("from a cookie", {"headers": [("cookie", f"a=1; session={full}; b=2")]}, "ok"),
        ("from a parameter, refused", {"path": f"/a?x=1&token={expired}&y=2"}, EXPIRED),
        ("from two places", {"path": f"/a?token={full}", "headers": [("x-token", make(sub="eve"))]}, "ok"),
        ("a claim with a line break", {"headers": [("x-token", make(sub="a\r\nx-evil: 1"))]}, "invalid header value for: x-sub"),
        ("claims of other kinds", {"headers": [("x-token", make(level="3", admin="x", team="core", groups=[]))]}, "ok"),
        ("numbers", {"headers": [("x-token", make(level=-0.0, ratio=0.1, groups=-7))]}, "ok"),
        ("small and negative numbers", {"headers": [("x-token", make(level=1e-9, ratio=-2.5, groups=9e18, admin=1e19, team=-1))]}, "ok"),
        ("an empty claim", {"headers": [("x-token", make(sub="", team=None))]}, "ok"),
        ("large numbers", {"headers": [("x-token", make(level=2**53 + 1, ratio=1e20, admin=False))]}, "ok"),
    ]:
        yield (f"claims: {name}", "claims", request, answer)

    # issuers and audiences
    other, shop = make("ES256", iss=OTHER), make(aud="shop")
    for name, request, answer in [
        ("the audience", bearer(shop), "ok"),
        ("one of several", bearer(make(aud=["x", "shop"])), "ok"),
        ("without the scheme and the slash", bearer(make(aud="bank.example")), "ok"),
        ("another", bearer(make(aud="evil")), AUDIENCES),
        ("none", bearer(make()), AUDIENCES),
        ("an empty list", bearer(make(aud=[])), AUDIENCES),
        ("in capitals", bearer(make(aud="SHOP")), AUDIENCES),
        ("the other issuer's in the first's place", bearer(other), ISSUERS),
        ("the other issuer", {"headers": [("x-other", other)]}, "ok"),
        ("the other's, signed by the first", {"headers": [("x-other", make(iss=OTHER))]}, MISSING_KEY),
        ("both good", {"headers": [("authorization", f"Bearer {shop}"), ("x-other", other)]}, "ok"),
        ("one good, one bad", {"headers": [("authorization", f"Bearer {shop}"), ("x-other", make("ES256", iss=OTHER, exp=-100))]}, "ok"),
        ("both bad", {"headers": [("authorization", f"Bearer {make(aud='evil')}"), ("x-other", make("ES256", iss=OTHER, exp=-100))]}, AUDIENCES),
        ("the usual parameter", {"path": f"/?access_token={shop}"}, "ok"),
        ("the usual parameter, bad", {"path": f"/?access_token={make(aud='evil')}"}, AUDIENCES),
    ]:
        yield (f"two: {name}", "two", request, answer)


def loose(token):
    """The same signature, spelled with bits set that no byte has."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + letters[letters.index(token[-1]) | 1]
