"""Free ports for tests: never one that the system may give to a connection in the meantime, and none twice."""
import os, random, socket

try:
    SYSTEM_OWN = int(open("/proc/sys/net/ipv4/ip_local_port_range").read().split()[0])
except OSError:
    SYSTEM_OWN = 32768
LOWEST, ISTIO = 10000, range(15000, 15100)
_random, _told = random.Random(os.getpid() * 7919 + int.from_bytes(os.urandom(4), "big")), set()


def free_port(address="127.0.0.1"):
    while True:
        port = _random.randrange(LOWEST, SYSTEM_OWN)
        if port in ISTIO or port in _told:
            continue
        with socket.socket() as s:
            try:
                s.bind((address, port))
            except OSError:
                continue
        _told.add(port)
        return port
