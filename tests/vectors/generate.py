#!/usr/bin/env python3
"""Writes the golden vectors of the wire, and from them the seeds of the fuzz targets.

It packs every byte itself, from WIRE.md and not from the Rust code, so that the
tests compare two independent writers. It is run by hand after the wire has
changed:

    pip install xxhash && python3 tests/vectors/generate.py

A vector is a text file: hex bytes, and a comment from '#' to the end of the line.
    accepted/  one file a frame; tests know which value each one is
    refused/   one file a frame that must be refused; tests know with which fault
    hashes.txt    length and XXH3-64 of the first bytes of pattern()
    digests.txt   chunks (hash, length) of a state and, after '=', its digest
"""

import pathlib
import shutil
import struct

import xxhash

HERE = pathlib.Path(__file__).resolve().parent
CORPUS = HERE.parent / "fuzz" / "corpus"

HELLO, ACCEPT, BEGIN, DATA, PHASE, INITIAL_SENT, INITIAL_LOADED, DISCARD, END = range(1, 10)
LOADED, HANDOVER, RUNNING, CREDIT, ABORT, MESSAGE, PING, PONG = range(10, 18)
ZERO, RAW, ZSTD = 0, 1, 2
NO_DEVICE = 0xFFFF_FFFF
SESSION = 0x0F1E2D3C4B5A69788796A5B4C3D2E1F0


def h64(data):
    return xxhash.xxh3_64_intdigest(data)


def u8(v, note):
    return (struct.pack("<B", v), note)


def u16(v, note):
    return (struct.pack("<H", v), note)


def u32(v, note):
    return (struct.pack("<I", v), note)


def u64(v, note):
    return (struct.pack("<Q", v), note)


def u128(v, note):
    return (v.to_bytes(16, "little"), note)


def raw(v, note):
    return (bytes(v), note)


def joined(fields):
    return b"".join(data for data, _ in fields)


def frame(kind, body=(), version=1, encoding=0, raw_bytes=0, device=0, epoch=0, sequence=0,
          offset=0, raw_hash=0, number=0, magic=b"VFRY", body_bytes=None, body_hash=None,
          header_hash=None):
    """The fields of a frame, header and body, with right hashes unless told otherwise."""
    content = joined(body)
    fields = [
        raw(magic, 'magic "VFRY"'),
        u8(version, "version"),
        u8(encoding, "encoding"),
        u16(kind, "kind"),
        u32(len(content) if body_bytes is None else body_bytes, "body_bytes"),
        u32(raw_bytes, "raw_bytes"),
        u32(device, "device"),
        u32(epoch, "epoch"),
        u64(sequence, "sequence"),
        u64(offset, "offset"),
        u64(h64(content) if body_hash is None else body_hash, "body_hash"),
        u64(raw_hash, "raw_hash"),
        u32(number, "number"),
    ]
    covered = joined(fields)
    assert len(covered) == 60
    true_hash = h64(covered) & 0xFFFF_FFFF
    fields.append(u32(true_hash if header_hash is None else header_hash, "header_hash"))
    return fields + list(body)


def numbered(fields, number):
    """The same frame as its stream's frame of this number."""
    at = [note for _, note in fields].index("number")
    head = fields[:at] + [u32(number, "number")]
    header_hash = u32(h64(joined(head)) & 0xFFFF_FFFF, "header_hash")
    return head + [header_hash] + fields[at + 2:]


def pattern(length):
    return bytes((i * 131 + (i >> 8) * 17 + 7) & 0xFF for i in range(length))


def hello(version_min=1, version_max=1, streams=4, stream=2, reserved=0, devices=3,
          chunk=262144, features=1, tail=b""):
    body = [
        u8(version_min, "version_min"),
        u8(version_max, "version_max"),
        u16(streams, "streams"),
        u16(stream, "stream"),
        u16(reserved, "reserved"),
        u32(devices, "devices"),
        u32(chunk, "chunk_bytes"),
        u64(features, "features"),
        u128(SESSION, "session"),
    ]
    if tail:
        body.append(raw(tail, "what a later version says more"))
    return body


def accept(version=1, reserved=0, chunk=131072, features=1):
    return [
        u8(version, "version"),
        raw(reserved.to_bytes(3, "little"), "reserved"),
        u32(chunk, "chunk_bytes"),
        u64(features, "features"),
        u128(SESSION, "session"),
    ]


def begin(flags, name, opaque, name_bytes=None, opaque_bytes=None):
    body = [
        u16(flags, "flags: 1 PRE_COPY, 2 P2P"),
        u16(len(name) if name_bytes is None else name_bytes, "name_bytes"),
        u32(len(opaque) if opaque_bytes is None else opaque_bytes, "opaque_bytes"),
    ]
    if name:
        body.append(raw(name, "name"))
    if opaque:
        body.append(raw(opaque, "opaque"))
    return body


def total(count, digest):
    return [u64(count, "bytes"), u128(digest, "digest")]


def discard(count, flags, reserved=0):
    return [
        u64(count, "discarded_bytes"),
        u32(flags, "flags: 1 STOP_COPY only"),
        u32(reserved, "reserved"),
    ]


def abort(cause, observed, errno, text, reserved=0, text_bytes=None):
    text = text.encode() if isinstance(text, str) else text
    body = [
        u16(cause, "cause"),
        u16(observed, "observed"),
        u32(errno, "errno"),
        u16(len(text) if text_bytes is None else text_bytes, "text_bytes"),
        u16(reserved, "reserved"),
    ]
    if text:
        body.append(raw(text, "text"))
    return body


def data(encoding, chunk, body, place, offset, **more):
    device, epoch, sequence = place
    return frame(DATA, [raw(body, "body")] if body else [], encoding=encoding,
                 raw_bytes=len(chunk), device=device, epoch=epoch, sequence=sequence,
                 offset=offset, raw_hash=h64(chunk), **more)


# A zstd frame written by hand: magic, single segment with a 2-byte size (4096 - 256), one last
# block of type RLE and size 4096, its byte 0x5a.
RLE = bytes.fromhex("28b52ffd" "60" "000f" "038000" "5a")
RLE_CHUNK = b"\x5a" * 4096

RAW_CHUNK = pattern(48)
DIGEST = 0x00112233445566778899AABBCCDDEEFF
PLACE = dict(device=2, epoch=5, sequence=0x0102030405060708)

ACCEPTED = {
    "hello": frame(HELLO, hello()),
    "hello_newer": frame(HELLO, hello(3, 9, features=0x8000000000000003, reserved=0xABCD,
                                      tail=b"new things")),
    "accept": frame(ACCEPT, accept()),
    "begin": frame(BEGIN, begin(3, "0000:3b:00.2 \u00e9".encode(), b"\x00\xff\x10"), device=2),
    "begin_bare": frame(BEGIN, begin(0, b"", b""), device=1),
    "data_zero": data(ZERO, bytes(4096), b"", (2, 5, 7), 1 << 40, number=1),
    "data_raw": data(RAW, RAW_CHUNK, RAW_CHUNK, (2, 5, 8), (1 << 40) + 4096, number=0x01020304),
    "data_zstd": data(ZSTD, RLE_CHUNK, RLE, (0, 0, 1), 0),
    "phase_pre_copy": frame(PHASE, [u32(1, "phase: PRE_COPY")], **PLACE),
    "phase_stop_copy": frame(PHASE, [u32(2, "phase: STOP_COPY")], **PLACE),
    "initial_data_sent": frame(INITIAL_SENT, **PLACE),
    "initial_data_loaded": frame(INITIAL_LOADED, device=2, epoch=5),
    "discard": frame(DISCARD, discard(0x1122334455667788, 0), device=2, epoch=6),
    "discard_stop_copy_only": frame(DISCARD, discard(9, 1), device=2, epoch=6),
    "end": frame(END, total(123456789, DIGEST), **PLACE),
    "loaded": frame(LOADED, total(123456789, DIGEST), device=2, epoch=5),
    "handover": frame(HANDOVER, number=0xFFFF_FFFF),
    "running": frame(RUNNING),
    "credit": frame(CREDIT, **PLACE),
    "abort_session": frame(ABORT, abort(7, 11, 0, "cancelled by the operator"),
                           device=NO_DEVICE, number=0xFFFF_FFFF),
    "abort_time": frame(ABORT, abort(9, 13, 0, "stall_limit (30 s) is over"), device=NO_DEVICE),
    "abort_device": frame(ABORT, abort(1, 1, 19, "the guest reset the device"), device=2),
    "abort_bare": frame(ABORT, abort(8, 12, 12, ""), device=NO_DEVICE),
    "abort_newer": frame(ABORT, abort(77, 300, 0x8000_0000, "why"), device=2),
    "abort_unknown_device": frame(ABORT, abort(2, 8, 5, "firmware"), device=64),
    "abort_unseen": frame(ABORT, abort(5, 9, 0, "\x1b[31mwhy\n\u202eyhw\0"), device=NO_DEVICE),
    "message": frame(MESSAGE, [raw(pattern(33), "the VMM's bytes")], number=0x8000_0000),
    "message_empty": frame(MESSAGE),
    "ping": frame(PING, sequence=0xFEDCBA9876543210),
    "pong": frame(PONG, sequence=0xFEDCBA9876543210),
    "optional_unknown": frame(0x8123, [raw(b"skip me", "a body of a later version")],
                              encoding=9, device=999, offset=5, raw_hash=3, number=1),
}

REFUSED = {
    "magic": frame(PING, magic=b"VFRZ"),
    "header_hash": frame(PING, header_hash=0x12345678),
    "version": frame(PING, version=2),
    "version_zero": frame(PING, version=0),
    "version_hello": frame(HELLO, hello(), version=2),
    "version_abort": frame(ABORT, abort(1, 1, 0, ""), version=2, device=NO_DEVICE),
    "kind_zero": frame(0),
    "kind_unknown": frame(18),
    "optional_too_long": frame(0x8123, body_bytes=65537),
    "unused_encoding": frame(HANDOVER, encoding=1),
    "unused_raw_bytes": frame(HANDOVER, raw_bytes=1),
    "unused_device": frame(HANDOVER, device=1),
    "unused_epoch": frame(ABORT, abort(1, 1, 0, ""), device=NO_DEVICE, epoch=1),
    "unused_sequence": frame(LOADED, total(0, 0), sequence=1),
    "unused_offset": frame(CREDIT, offset=1),
    "unused_raw_hash": frame(END, total(0, 0), raw_hash=1),
    "device_number": frame(CREDIT, device=64),
    "body_4g": frame(MESSAGE, body_bytes=0xFFFF_FFFF),
    "body_4g_data": data(ZSTD, pattern(64), b"x", (0, 0, 0), 0, body_bytes=0xFFFF_FFFF),
    "body_short": frame(END, total(0, 0)[:1]),
    "body_long": frame(END, total(0, 0) + [u8(0, "one more")]),
    "body_hash": frame(MESSAGE, [raw(b"abc", "body")], body_hash=h64(b"abd")),
    "body_hash_empty": frame(MESSAGE, body_hash=0),
    "data_encoding": data(3, RAW_CHUNK, RAW_CHUNK, (0, 0, 0), 0),
    "data_empty": data(ZERO, b"", b"", (0, 0, 0), 0),
    "data_zero_hash": data(ZERO, bytes(64), b"", (0, 0, 0), 0, body_hash=0),
    "data_zero_body": data(ZERO, bytes(64), b"x", (0, 0, 0), 0),
    "data_raw_length": data(RAW, RAW_CHUNK, RAW_CHUNK[:47], (0, 0, 0), 0),
    "data_raw_hash": data(RAW, RAW_CHUNK, RAW_CHUNK[::-1], (0, 0, 0), 0),
    "data_zstd_length": data(ZSTD, RAW_CHUNK, RAW_CHUNK, (0, 0, 0), 0),
    "data_zstd_empty": data(ZSTD, RAW_CHUNK, b"", (0, 0, 0), 0),
    "data_offset": data(RAW, RAW_CHUNK, RAW_CHUNK, (0, 0, 0), (1 << 64) - 47),
    "data_device": data(RAW, RAW_CHUNK, RAW_CHUNK, (64, 0, 0), 0),
    "hello_reserved": frame(HELLO, hello(reserved=1)),
    "hello_trailing": frame(HELLO, hello(tail=b"?")),
    "accept_reserved": frame(ACCEPT, accept(reserved=0x010000)),
    "begin_flags": frame(BEGIN, begin(4, b"x", b"")),
    "begin_name_cut": frame(BEGIN, begin(0, b"abc", b"", name_bytes=5)),
    "begin_name_long": frame(BEGIN, begin(0, b"n" * 256, b"")),
    "begin_name_text": frame(BEGIN, begin(0, b"\xc3\x28", b"")),
    "begin_name_unseen": frame(BEGIN, begin(0, "a\u202eb".encode(), b"")),
    "begin_opaque_4g": frame(BEGIN, begin(0, b"", b"", opaque_bytes=0xFFFF_FFFF)),
    "begin_trailing": frame(BEGIN, begin(0, b"n", b"ab", opaque_bytes=1)),
    "phase_zero": frame(PHASE, [u32(0, "phase")]),
    "phase_unknown": frame(PHASE, [u32(3, "phase")]),
    "discard_flags": frame(DISCARD, discard(0, 2)),
    "discard_reserved": frame(DISCARD, discard(0, 0, reserved=1)),
    "abort_reserved": frame(ABORT, abort(1, 1, 0, "", reserved=1), device=NO_DEVICE),
    "abort_text": frame(ABORT, abort(1, 1, 0, b"\xff"), device=NO_DEVICE),
    "abort_cut": frame(ABORT, abort(1, 1, 0, "ab", text_bytes=3), device=NO_DEVICE),
    "abort_trailing": frame(ABORT, abort(1, 1, 0, "ab", text_bytes=1), device=NO_DEVICE),
    "abort_text_long": frame(ABORT, abort(1, 1, 0, "ab", text_bytes=1025), device=NO_DEVICE),
}

# What travels on a stream: names of accepted frames in order. They are numbered from 0, but for
# those of "gap", whose third one is missing.
STREAMS = {
    "source": ["hello", "begin", "data_zero", "phase_pre_copy", "data_raw", "optional_unknown",
               "initial_data_sent", "discard", "data_zstd", "message", "end", "ping", "handover"],
    "target": ["accept", "credit", "initial_data_loaded", "pong", "message_empty", "loaded",
               "running"],
    "aborted": ["hello", "begin", "data_raw", "abort_device"],
    "newer": ["hello_newer", "abort_newer"],
    "gap": ["hello", "begin", None, "data_raw", "end"],
}

LENGTHS = [0, 1, 3, 4, 8, 9, 16, 17, 32, 128, 129, 240, 241, 256, 512, 1023, 1024, 1025, 4096,
           65536, 262144, 1000003]


def hex_text(name, fields):
    lines = [f"# {name}"]
    for content, note in fields:
        for start in range(0, max(len(content), 1), 16):
            part = content[start:start + 16].hex(" ")
            lines.append(f"{part:<48}# {note}" if start == 0 else part)
    return "\n".join(lines) + "\n"


def fresh(directory):
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def main():
    for group, vectors in (("accepted", ACCEPTED), ("refused", REFUSED)):
        directory = fresh(HERE / group)
        for name, fields in vectors.items():
            (directory / f"{name}.hex").write_text(hex_text(name, fields))

    lines = [f"{length} {h64(pattern(length)):016x}" for length in LENGTHS]
    (HERE / "hashes.txt").write_text("\n".join(lines) + "\n")

    lines = []
    for lengths in ([], [1], [4096, 4096, 17], [(i * 977) % 5000 + 1 for i in range(300)]):
        digest = xxhash.xxh3_128()
        for i, length in enumerate(lengths):
            chunk_hash = h64(pattern(length + i)[i:])
            digest.update(struct.pack("<QI", chunk_hash, length))
            lines.append(f"{chunk_hash:016x} {length}")
        lines.append(f"= {digest.intdigest():032x} {sum(lengths)}")
    (HERE / "digests.txt").write_text("\n".join(lines) + "\n")

    header, body, stream = (fresh(CORPUS / target) for target in ("header", "body", "stream"))
    for group, vectors in (("accepted", ACCEPTED), ("refused", REFUSED)):
        for name, fields in vectors.items():
            content = joined(fields)
            (header / f"{group}_{name}").write_bytes(content[:64])
            (body / f"{group}_{name}").write_bytes(content)
    for name, names in STREAMS.items():
        content = b"".join(joined(numbered(ACCEPTED[each], number))
                           for number, each in enumerate(names) if each)
        (stream / name).write_bytes(content)
        (stream / f"{name}_cut").write_bytes(content[:-3])


if __name__ == "__main__":
    main()
