#!/usr/bin/env python3
"""Writes a `.m` model and its `.t` tokenizer as a GGUF file, so that llama.cpp reads the same bytes per token.

    benches/gguf_of_m.py model.m [out.gguf]

Weights are copied bit for bit: Q40 and Q80 blocks are GGUF's Q4_0 and Q8_0, the rows of q and k have the order that the
architecture wants there, embedding and norms stay F32 and the output matrix a tensor of its own. For the `llama` and
`qwen3` architectures, without experts.

The vocabulary becomes one of SentencePiece's kind, whose rule is that of `.t` files: merge the neighbours with the
highest score, the leftmost of equals. Text of ASCII characters gives the same tokens as here; other characters may not,
for llama.cpp starts from characters and dair from bytes.
"""

import math
import os
import struct
import sys

MODEL_MAGIC, TOKENIZER_MAGIC = 0x0A00ABCD, 0x00567124
ALIGNMENT = 32
ARCHITECTURES = {0xABCD00: "llama", 0xABCD01: "qwen3"}
# By the code of a `.m` file: values and bytes of a block, type in GGUF, `general.file_type`.
WEIGHT_TYPES = {0: (1, 4, 0, 0), 1: (1, 2, 1, 1), 2: (32, 18, 2, 2), 3: (32, 34, 8, 7)}
F32 = WEIGHT_TYPES[0]
NORMAL, CONTROL, UNUSED, BYTE = 1, 3, 5, 6
FALCON_ROPE = 1
COPY_BYTES = 16 << 20


def fail(line):
    raise SystemExit(f"error: {line}")


def read_pairs(file, magic):
    """The head of either kind of file: pairs of numbers behind a magic one."""
    found, head_bytes = struct.unpack("<Ii", file.read(8))
    if found != magic:
        fail(f"{file.name} starts with {found:#x} instead of {magic:#x}")
    count = (head_bytes - 8) // 8
    numbers = struct.unpack(f"<{2 * count}i", file.read(8 * count))
    return list(zip(numbers[::2], numbers[1::2]))


class Model:
    """What the header of a `.m` file says."""

    def __init__(self, file):
        header = dict(read_pairs(file, MODEL_MAGIC))
        self.arch = ARCHITECTURES.get(header[1]) or fail(f"architecture {header[1]:#x} has no counterpart here")
        self.dim, self.hidden_dim, self.n_layers, self.n_heads, self.n_kv_heads = (header[key] for key in range(2, 7))
        if header.get(7):
            fail("models with experts have no counterpart here")
        self.vocab_size, self.seq_len = header[9], header[10]
        self.rope_theta, self.weights = float(header.get(12, 10000)), WEIGHT_TYPES[header[13]]
        self.rope_factor, self.rope_low, self.rope_high = header.get(14, 1), header.get(15, 0), header.get(16, 0)
        self.rope_seq_len = header.get(17, 0)
        if self.arch == "llama" and header.get(18) == FALCON_ROPE:
            fail("a llama model with half-split RoPE has no counterpart here")
        self.head_dim = header.get(19) or self.dim // self.n_heads
        self.norm_epsilon = 10.0 ** -header.get(20, 5)

    def tensors(self):
        """Name, rows (0: a vector), columns and type of all tensors, in the order of the `.m` file."""
        q_dim, kv_dim = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        yield "token_embd", self.vocab_size, self.dim, F32
        for layer in range(self.n_layers):
            name = lambda part: f"blk.{layer}.{part}"
            yield name("attn_q"), q_dim, self.dim, self.weights
            yield name("attn_k"), kv_dim, self.dim, self.weights
            yield name("attn_v"), kv_dim, self.dim, self.weights
            yield name("attn_output"), self.dim, q_dim, self.weights
            yield name("ffn_gate"), self.hidden_dim, self.dim, self.weights
            yield name("ffn_down"), self.dim, self.hidden_dim, self.weights
            yield name("ffn_up"), self.hidden_dim, self.dim, self.weights
            if self.arch == "qwen3":
                yield name("attn_q_norm"), 0, self.head_dim, F32
                yield name("attn_k_norm"), 0, self.head_dim, F32
            yield name("attn_norm"), 0, self.dim, F32
            yield name("ffn_norm"), 0, self.dim, F32
        yield "output_norm", 0, self.dim, F32
        yield "output", self.vocab_size, self.dim, self.weights

    def rope_divisors(self):
        """What Llama 3.1 divides the frequency of each pair by; none where nothing is scaled."""
        if self.rope_factor == 1 or self.arch != "llama":
            return []
        divisors = []
        for pair in range(self.head_dim // 2):
            wave_len = 2 * math.pi * self.rope_theta ** (2 * pair / self.head_dim)
            # 0: far beyond the context of the training, stretched; 1: well within it, kept.
            keep = (self.rope_seq_len / wave_len - self.rope_low) / (self.rope_high - self.rope_low)
            keep = min(max(keep, 0.0), 1.0)
            divisors.append(1 / ((1 - keep) / self.rope_factor + keep))
        return divisors


def read_tokenizer(path):
    """Scores, texts, id of BOS, ids that end a text, whether BOS starts one."""
    with open(path, "rb") as file:
        pairs = read_pairs(file, TOKENIZER_MAGIC)
        header = dict(pairs)
        file.seek(header.get(7, 0) + header.get(8, 0), os.SEEK_CUR)
        count = header.get(9, 0)
        ends = [value for key, value in pairs if key in (4, 6)] + list(struct.unpack(f"<{count}i", file.read(4 * count)))
        scores, texts = [], []
        for _ in range(header[1]):
            score, text_bytes = struct.unpack("<fi", file.read(8))
            scores.append(score)
            texts.append(file.read(text_bytes))
    return scores, texts, header[3], ends, header.get(10) == 1


def string(text):
    text = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(text)) + text


def number(layout):
    return lambda value: struct.pack(layout, value)


VALUES = {bool: (7, number("<?")), int: (4, number("<I")), float: (6, number("<f")), str: (8, string)}
ELEMENTS = {int: (5, number("<i")), float: (6, number("<f")), bytes: (8, string)}


def field(key, value):
    """A key and its value; Python's type says which of GGUF it gets."""
    if isinstance(value, list):
        kind, pack = ELEMENTS[type(value[0])]
        return string(key) + struct.pack("<IIQ", 9, kind, len(value)) + b"".join(map(pack, value))
    kind, pack = VALUES[type(value)]
    return string(key) + struct.pack("<I", kind) + pack(value)


def vocabulary(path, vocab_size):
    scores, texts, bos, ends, add_bos = read_tokenizer(path)
    if len(texts) != vocab_size:
        fail(f"{path} has {len(texts)} tokens, the model {vocab_size}")
    kinds = [NORMAL if id < bos else CONTROL for id in range(vocab_size)]
    names, seen = [], set()
    for id, text in enumerate(texts):
        name = text.replace(b" ", "\u2581".encode())
        if len(text) == 1 and not 0 < text[0] < 128:  # such names are no strings
            name, kinds[id] = b"<0x%02X>" % text[0], BYTE
        if name in seen:  # llama.cpp wants all names to differ
            name, kinds[id] = b"<unused %d>" % id, UNUSED
        seen.add(name)
        names.append(name)
    fields = {"model": "llama", "tokens": names, "scores": scores, "token_type": kinds, "bos_token_id": bos}
    fields |= {"add_bos_token": add_bos, "add_eos_token": False, "add_space_prefix": False}
    if ends:
        fields["eos_token_id"] = ends[0]
    return {f"tokenizer.ggml.{key}": value for key, value in fields.items()}


def metadata(model, name):
    fields = {
        "vocab_size": model.vocab_size,
        "context_length": model.seq_len,
        "embedding_length": model.dim,
        "block_count": model.n_layers,
        "feed_forward_length": model.hidden_dim,
        "attention.head_count": model.n_heads,
        "attention.head_count_kv": model.n_kv_heads,
        "attention.key_length": model.head_dim,
        "attention.value_length": model.head_dim,
        "attention.layer_norm_rms_epsilon": model.norm_epsilon,
        "rope.dimension_count": model.head_dim,
        "rope.freq_base": model.rope_theta,
    }
    general = {"architecture": model.arch, "name": name, "file_type": model.weights[3], "alignment": ALIGNMENT}
    return {f"general.{key}": value for key, value in general.items()} | {
        f"{model.arch}.{key}": value for key, value in fields.items()
    }


def aligned(count):
    return -(-count // ALIGNMENT) * ALIGNMENT


def stored_bytes(rows, cols, kind):
    block_len, block_bytes, *_ = kind
    return (rows or 1) * cols // block_len * block_bytes


def convert(model_path, out_path):
    stem = os.path.splitext(model_path)[0]
    with open(model_path, "rb") as file:
        model = Model(file)
        fields = metadata(model, os.path.basename(stem)) | vocabulary(stem + ".t", model.vocab_size)
        tensors, divisors = list(model.tensors()), model.rope_divisors()
        sizes = [stored_bytes(*shape) for _, *shape in tensors]
        if file.tell() + sum(sizes) != os.path.getsize(model_path):
            fail(f"{model_path} has not the size that its header tells")
        if divisors:
            tensors.append(("rope_freqs", 0, len(divisors), F32))
        with open(out_path, "wb") as out:
            out.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields)))
            for key, value in fields.items():
                out.write(field(key, value))
            offset = 0
            for name, rows, cols, kind in tensors:
                dims = [cols, rows] if rows else [cols]
                out.write(string(f"{name}.weight") + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind[2], offset))
                offset += aligned(stored_bytes(rows, cols, kind))
            out.write(bytes(aligned(out.tell()) - out.tell()))
            for size in sizes:
                for start in range(0, size, COPY_BYTES):
                    out.write(file.read(min(COPY_BYTES, size - start)))
                out.write(bytes(aligned(size) - size))
            out.write(struct.pack(f"<{len(divisors)}f", *divisors))
            return out.tell()


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    model = sys.argv[1]
    out = sys.argv[2] if len(sys.argv) == 3 else os.path.splitext(model)[0] + ".gguf"
    try:
        print(f"{out}: {convert(model, out) / 1e6:.1f} MB")
    except OSError as error:
        fail(error)


if __name__ == "__main__":
    main()
