#!/usr/bin/env python3
"""Publishes a run with nothing but Python's standard library: the NATS text protocol over a socket.

    examples/publish.py [--follow] [--nats HOST:PORT] [--namespace NAME] [--key KEY] [FILE]

FILE holds the JSON of one run request, or of {"runs": [...]}; without it a greeting is sent. Prints one JSON line for the
stored sequence and one for the receipt; with --follow also the events of the accepted runs until all have ended. Exit
code 0 if every run was accepted (with --follow: completed), else 1.
"""

import argparse
import json
import os
import socket
import sys

GREETING = {
    "v": 1,
    "definition": {
        "version": 1,
        "name": "hello",
        "workspace": {"mode": "none"},
        "steps": [{"id": "greet", "shell": "echo hello"}],
    },
}
FINAL = {"run.completed", "run.failed", "run.killed"}


class Nats:
    """One connection, with what is needed to publish and to listen."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=30)
        self.stream = self.socket.makefile("rb")
        if not self.stream.readline().startswith(b"INFO "):
            sys.exit(f"{host}:{port} is no NATS server")
        options = {"verbose": False, "pedantic": False, "headers": True, "lang": "python", "version": "1", "name": "publish.py"}
        self.send(b"CONNECT " + json.dumps(options).encode())

    def send(self, *lines):
        self.socket.sendall(b"".join(line + b"\r\n" for line in lines))

    def subscribe(self, subject, number):
        self.send(f"SUB {subject} {number}".encode())

    def publish(self, subject, reply, body, headers):
        if headers:
            head = "NATS/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
            head = head.encode()
            self.send(f"HPUB {subject} {reply} {len(head)} {len(head) + len(body)}".encode(), head + body)
        else:
            self.send(f"PUB {subject} {reply} {len(body)}".encode(), body)

    def next(self):
        """The next message: subject and body without headers."""
        while True:
            line = self.stream.readline()
            if not line:
                sys.exit("the server closed the connection")
            words = line.decode().split()
            if words[0] == "PING":
                self.send(b"PONG")
            elif words[0] == "-ERR":
                sys.exit(f"the server says: {line.decode().strip()}")
            elif words[0] in ("MSG", "HMSG"):
                head = int(words[-2]) if words[0] == "HMSG" else 0
                body = self.stream.read(int(words[-1]) + 2)[head:-2]
                return words[1], body


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?")
    parser.add_argument("--nats", default="127.0.0.1:8732", metavar="HOST:PORT")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--key", help="idempotency key")
    parser.add_argument("--follow", action="store_true")
    args = parser.parse_args()
    if args.file:
        with open(args.file, "rb") as file:
            body = file.read()
    else:
        body = json.dumps(GREETING).encode()

    host, _, port = args.nats.rpartition(":")
    nats = Nats(host, int(port))
    inbox = f"_INBOX.publish.{os.getpid()}.{os.urandom(8).hex()}"
    # Subscribed before publishing, so that no verdict and no event can be missed.
    nats.subscribe(inbox, 1)
    nats.subscribe(f"hopyard.receipt.{args.namespace}.*", 2)
    if args.follow:
        nats.subscribe(f"hopyard.event.{args.namespace}.*", 3)
    headers = {"Hopyard-Idempotency-Key": args.key} if args.key else {}
    nats.publish(f"hopyard.cmd.submit.{args.namespace}", inbox, body, headers)

    sequence, receipts, pages = None, {}, []
    while sequence is None or sequence not in receipts:
        subject, payload = nats.next()
        if subject == inbox:
            answer = json.loads(payload) if payload else {"error": "no stream takes submissions"}
            if "seq" not in answer:
                sys.exit(f"not stored: {answer.get('error')}")
            sequence = answer["seq"]
            print(json.dumps({"stored": sequence}), flush=True)
        elif subject.startswith("hopyard.receipt."):
            receipts[int(subject.rsplit(".", 1)[1])] = json.loads(payload)
        else:
            pages.append(json.loads(payload))

    receipt = receipts[sequence]
    print(json.dumps(receipt), flush=True)
    items = receipt["items"]
    good = all(item["status"] != "rejected" for item in items)
    if not args.follow:
        return 0 if good else 1

    # A duplicate's run may have ended long ago; its events do not come again.
    waiting = {item["run_id"] for item in items if item["status"] == "accepted"}
    while waiting:
        page = pages.pop(0) if pages else json.loads(nats.next()[1])
        for event in page.get("events", []):
            if event["run_id"] not in waiting:
                continue
            print(json.dumps(event), flush=True)
            if event["type"] in FINAL:
                waiting.discard(event["run_id"])
                good = good and event["type"] == "run.completed"
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
