"""Texts in many scripts and forms, made here from words and rules: the same at every run."""
import json, random

PROSE = {
    "english": "It's a truth universally acknowledged, that a traveller in possession of a good map must be in want of a road; however little known the feelings or views of such a man may be on his first entering a neighbourhood. They'll say he'd gone, I've no doubt. \u201cReally?\u201d \u2014 \u2018yes\u2019\u2026 caf\u00e9, na\u00efve, r\u00f4le; 3.14159, 1,000,000 and 2024.",
    "german": "Die \u00dcberraschung war gro\u00df: F\u00fcnf Stra\u00dfen weiter l\u00f6schte die Feuerwehr schon. \u201eGl\u00fcck gehabt\u201c, sagte sie. Donaudampfschifffahrtsgesellschaftskapit\u00e4n, 12,50 \u20ac.",
    "french": "L\u2019\u00e9t\u00e9 dernier, d'accord, il n\u2019y avait qu\u2019un seul \u00ab probl\u00e8me \u00bb : o\u00f9 \u00e9tait le ch\u0153ur ? \u00c7a va, No\u00ebl.",
    "vietnamese": "Ti\u1ebfng Vi\u1ec7t l\u00e0 ng\u00f4n ng\u1eef c\u1ee7a ng\u01b0\u1eddi Vi\u1ec7t; t\u00f4i th\u00edch ph\u1edf b\u00f2 v\u00e0 c\u00e0 ph\u00ea s\u1eefa \u0111\u00e1.",
    "russian": "\u0412\u0441\u0435 \u0441\u0447\u0430\u0441\u0442\u043b\u0438\u0432\u044b\u0435 \u0434\u043e\u043c\u0430 \u043f\u043e\u0445\u043e\u0436\u0438, \u043a\u0430\u0436\u0434\u044b\u0439 \u0441\u0442\u0430\u0440\u044b\u0439 \u0434\u043e\u043c \u0441\u043a\u0440\u0438\u043f\u0438\u0442 \u043f\u043e-\u0441\u0432\u043e\u0435\u043c\u0443. \u0401\u043b\u043a\u0438, 1917 \u0433\u043e\u0434.",
    "greek": "\u0397 \u03b8\u03ac\u03bb\u03b1\u03c3\u03c3\u03b1 \u03b5\u03af\u03bd\u03b1\u03b9 \u03ae\u03c3\u03c5\u03c7\u03b7 \u03c3\u03ae\u03bc\u03b5\u03c1\u03b1\u00b7 \u03bf \u03ae\u03bb\u03b9\u03bf\u03c2 \u03bb\u03ac\u03bc\u03c0\u03b5\u03b9. \u1f08\u03c1\u03c7\u1f74 \u1f25\u03bc\u03b9\u03c3\u03c5 \u03c0\u03b1\u03bd\u03c4\u03cc\u03c2.",
    "hebrew": "\u05d4\u05d9\u05dc\u05d3 \u05d4\u05dc\u05da \u05dc\u05e9\u05d5\u05e7 \u05d5\u05e7\u05e0\u05d4 \u05ea\u05e4\u05d5\u05d7\u05d9\u05dd. \u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd!",
    "arabic": "\u0630\u0647\u0628 \u0627\u0644\u0648\u0644\u062f \u0625\u0644\u0649 \u0627\u0644\u0633\u0648\u0642\u060c \u0648\u0627\u0634\u062a\u0631\u0649 \u062a\u0641\u0627\u062d\u0627\u064b. \u0627\u0644\u0633\u0651\u064e\u0644\u0627\u0645\u064f \u0662\u0660\u0662\u0664",
    "hindi": "\u0932\u0921\u093c\u0915\u093e \u092c\u093e\u091c\u093c\u093e\u0930 \u0917\u092f\u093e \u0914\u0930 \u0938\u0947\u092c \u0916\u0930\u0940\u0926\u0947\u0964 \u0915\u094d\u0937\u0924\u094d\u0930\u093f\u092f \u0968\u0966\u0968\u096a",
    "bengali": "\u099b\u09c7\u09b2\u09c7\u099f\u09bf \u09ac\u09be\u099c\u09be\u09b0\u09c7 \u0997\u09bf\u09af\u09bc\u09c7 \u0986\u09aa\u09c7\u09b2 \u0995\u09bf\u09a8\u09c7\u099b\u09c7\u0964",
    "tamil": "\u0b9a\u0bbf\u0bb1\u0bc1\u0bb5\u0ba9\u0bcd \u0b9a\u0ba8\u0bcd\u0ba4\u0bc8\u0b95\u0bcd\u0b95\u0bc1\u0b9a\u0bcd \u0b9a\u0bc6\u0ba9\u0bcd\u0bb1\u0bbe\u0ba9\u0bcd.",
    "thai": "\u0e40\u0e14\u0e47\u0e01\u0e0a\u0e32\u0e22\u0e44\u0e1b\u0e15\u0e25\u0e32\u0e14\u0e41\u0e25\u0e30\u0e0b\u0e37\u0e49\u0e2d\u0e41\u0e2d\u0e1b\u0e40\u0e1b\u0e34\u0e49\u0e25 \u0e52\u0e50\u0e52\u0e54",
    "chinese": "\u7537\u5b69\u53bb\u5e02\u573a\u4e70\u4e86\u82f9\u679c\u3002\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u516c\u56ed\u5427\uff01\u300c\u597d\u300d2024\u5e74\uff12\uff10\uff12\uff14",
    "japanese": "\u5c11\u5e74\u306f\u5e02\u5834\u3078\u884c\u3063\u3066\u308a\u3093\u3054\u3092\u8cb7\u3044\u307e\u3057\u305f\u3002\u30b3\u30fc\u30d2\u30fc\u3001\uff76\uff80\uff76\uff85\u3002",
    "korean": "\uc18c\ub144\uc740 \uc2dc\uc7a5\uc5d0 \uac00\uc11c \uc0ac\uacfc\ub97c \uc0c0\uc2b5\ub2c8\ub2e4. \u1112\u1161\u11ab\u1100\u1173\u11af",
    "georgian": "\u10d1\u10d8\u10ed\u10d8 \u10d1\u10d0\u10d6\u10d0\u10e0\u10e8\u10d8 \u10ec\u10d0\u10d5\u10d8\u10d3\u10d0.",
    "emoji": "\U0001F600\U0001F468\u200d\U0001F469\u200d\U0001F467 ok \U0001F1EB\U0001F1F7 \u2764\ufe0f \U0001F44D\U0001F3FD \u00bd \u2192 \u2211 \u221e \u00b2 \u2160 \u2476",
}
CODE = [
    "def main(argv=None):\n    for i, x in enumerate(range(10)):\n        if x % 2 == 0:\n            print(f\"{i:>4}: {x!r}\")\n\n    return {'a': [1, 2, 3],\n            'b': None}\n\n\nif __name__ == '__main__':\n    main()\n",
    "pub fn merge<T: Copy>(left: &[T], right: &[T]) -> Vec<T> {\n    let mut out = Vec::with_capacity(left.len());\n\tout.extend_from_slice(left); // tabs, too\n    out\n}\n",
    "#include <stdio.h>\r\nint main(void) {\r\n  printf(\"%d\\n\", 0xFF);\r\n  return 0;\r\n}\r\n",
    "SELECT id, COUNT(*) AS n FROM users WHERE name LIKE 'a%' GROUP BY id HAVING n > 10;\n",
    "<html>\n  <body class=\"x\">\n    <p>It&#39;s &lt;b&gt;</p>\n  </body>\n</html>\n",
    "# Title\n\n* one\n* two\n    * nested\n\n1. first\n2. second\n\n```sh\n$ ls -la | grep \"x\"   \n```\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n",
    "2026-01-02T03:04:05.678Z  INFO  worker[17]: received 4096 bytes from 10.0.0.2:9990 in 1.25ms\n2026-01-02T03:04:06.001Z  WARN  retry 3/5\n",
]
SIGNS = list("  \n\t.,;:!?'\"()[]{}<>/\\|@#$%^&*-_=+~`0123456789abcXYZ") + ["\r\n", "\n\n", "   ", "'s", "'LL", "\u00a0", "\u3000", "\u2028", "\u0085", "\u200b", "\ufeff", "\u0301", "\u017f", "\u212a", "\u00ad", "\ue000", "\U0010ffff", "\u0130"]


def short_texts():
    """Single forms, each by itself and in the middle."""
    texts = list(PROSE.values()) + CODE
    for sign in SIGNS:
        texts += [sign, sign * 3, f"a{sign}b", f"a {sign} b", f"{sign}a", f"a{sign}"]
    for n in (1, 2, 3, 4, 5, 7, 10, 100):
        texts += [" " * n + "x", "x" + " " * n, "x" + " " * n + "y", "\n" * n + "x", "7" * n, "\t" * n + "x", "a" * n, "=" * n]
    return [text for text in texts if text and "\0" not in text]


def megabyte():
    """A million bytes of prose in many scripts, code, JSON, logs and noise, in parts."""
    chance = random.Random(20261125)
    parts, size = [], 0
    words = [word for text in PROSE.values() for word in text.split(" ")]
    while size < 1_000_000:
        kind = chance.randrange(6)
        if kind == 0:
            part = " ".join(chance.choice(list(PROSE.values())) for _ in range(20))
        elif kind == 1:
            part = "\n".join("    " * chance.randrange(3) + line for _ in range(10) for line in chance.choice(CODE).split("\n"))
        elif kind == 2:
            rows = [{"id": chance.randrange(10**6), "name": chance.choice(words), "tags": chance.sample(words, 3), "score": chance.random()} for _ in range(30)]
            part = json.dumps(rows, indent=chance.choice([None, 2, 4]), ensure_ascii=chance.random() < 0.5)
        elif kind == 3:
            part = "".join(chance.choice(SIGNS) for _ in range(2000))
        elif kind == 4:
            part = "".join(chance.choice([" ", " ", "\n", "  ", "\n\n", ", ", ". "]) + chance.choice(words) for _ in range(800))
        else:
            letters = [chr(c) for lo, hi in ((32, 0x250), (0x370, 0x600), (0x900, 0xE80), (0x1E00, 0x2070), (0x3040, 0x3100), (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0x1F300, 0x1F650)) for c in range(lo, hi)]
            part = "".join(chance.choice(letters) for _ in range(2000))
        part = part.replace("\0", "")
        parts.append(part)
        size += len(part.encode())
    return parts


def random_bytes(n):
    return random.Random(7).randbytes(n)
