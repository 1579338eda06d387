"""Runs operations of the emulated library: requests come by standard input, answers go to standard output."""

from __future__ import annotations

import pickle
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from operations import Device, DeviceError


def main() -> None:
    device = Device(sys.argv[1])
    answers = sys.stdout.buffer
    while len(size := sys.stdin.buffer.read(8)) == 8:
        operation, seed, shortfall, fault, arguments = pickle.loads(sys.stdin.buffer.read(struct.unpack("<q", size)[0]))
        try:
            answer = pickle.dumps((True, device.run(operation, seed, arguments, shortfall, fault)))
        except DeviceError as error:
            answer = pickle.dumps((False, str(error)))
        answers.write(struct.pack("<q", len(answer)) + answer)
        answers.flush()


if __name__ == "__main__":
    main()
