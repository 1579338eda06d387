"""Searches codes over HTTP with ONNX Runtime and numpy alone: python onnx_server.py model.onnx codes.npy 8000

curl -d '[0.1, 0.2, ...]' localhost:8000        an embedding in; its 10 nearest [row, Hamming distance] out
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnxruntime

MODEL, CODES = onnxruntime.InferenceSession(sys.argv[1]), np.load(sys.argv[2], mmap_mode="r")  # codes: uint8 [N, W]


class Search(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        x = np.array([json.loads(self.rfile.read(int(self.headers["Content-Length"])))], np.float32)
        distances = np.bitwise_count(CODES ^ MODEL.run(["codes"], {"x": x})[0]).sum(1)
        rows = np.argsort(distances, kind="stable")[:10]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps([rows.tolist(), distances[rows].tolist()]).encode())


server = ThreadingHTTPServer(("localhost", int(sys.argv[3])), Search)
print("serving", flush=True)
server.serve_forever()
