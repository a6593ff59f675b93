//! Texts that GBNF allows are allowed, and no others.

use super::read::{Grammar, Kind, Part, read};
use super::*;
use crate::chat::grammar::tests::{chatter, tokenizer};
use crate::chat::grammar::{Constraint, Form, Forms, NEVER};
use std::collections::BTreeSet;

/// Shapes of grammars that are in use.
const LIST: &str = r#"
root ::= item+
# Excludes various line break characters
item ::= "- " [^\r\n\x0b\x0c\x85\u2028\u2029]+ "\n"
"#;
const ARITHMETIC: &str = r#"
root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
"#;
const CHESS: &str = r#"
# Specifies chess moves as a list in algebraic notation
root ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")+
move ::= (pawn | nonpawn | castle) [+#]?
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle ::= "O-O" "-O"?
"#;
const JSON: &str = r#"
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"#;
/// As a schema becomes one: names of members are texts, too.
const SCHEMA: &str = r#"
char ::= [^"\\\x7F\x00-\x1F] | [\\] (["\\bfnrt] | "u" [0-9a-fA-F]{4})
item ::= object | string
item-kv ::= "\"item\"" space ":" space item
name-kv ::= "\"name\"" space ":" space string
root ::= "{" space name-kv ("," space ( item-kv ))? "}" space
object ::= "{" space ( string ":" space item ("," space string ":" space item)* )? "}" space
space ::= | " " | "\n"{1,2} [ \t]{0,20}
string ::= "\"" char* "\"" space
"#;

fn constraint(grammar: &str) -> Constraint {
    let lark = to_lark(grammar).unwrap_or_else(|error| panic!("{grammar}: {error}"));
    let forms = Forms::new(tokenizer()).unwrap();
    forms.read(&Form::Grammar(lark.clone()), None).unwrap_or_else(|error| panic!("{lark}: {error}"))
}

/// Whether a text may be said byte by byte, and end there.
fn is_taken(mut constraint: Constraint, text: &str) -> bool {
    let vocab = tokenizer().vocabulary();
    let find = |byte: u8| (0..vocab.vocab_size()).find(|id| vocab.bytes(*id) == Some(&[byte])).unwrap();
    let may = |constraint: &mut Constraint, token: u32| {
        let mut logits = vec![0.0; vocab.vocab_size() as usize];
        constraint.narrow(&mut logits).is_ok() && logits[token as usize] > NEVER
    };
    for (at, byte) in text.bytes().enumerate() {
        let token = find(byte);
        if !may(&mut constraint, token) {
            return false;
        }
        if constraint.push(token).unwrap() {
            return at + 1 == text.len();
        }
    }
    may(&mut constraint, vocab.header().eos[0])
}

/// Where a part may end that begins at a place in a text: GBNF as it is meant, however long that takes.
fn ends(grammar: &Grammar, part: &Part, text: &[char], at: usize, depth: u32) -> BTreeSet<usize> {
    let each = |part: &Part, starts: &BTreeSet<usize>| -> BTreeSet<usize> {
        starts.iter().flat_map(|at| ends(grammar, part, text, *at, depth)).collect()
    };
    match &part.kind {
        Kind::One(chars) => {
            let is_in = text.get(at).is_some_and(|c| chars::Chars::one(*c).meets(chars));
            is_in.then_some(at + 1).into_iter().collect()
        }
        Kind::Rule(_) if depth > 60 => BTreeSet::new(),
        Kind::Rule(rule) => ends(grammar, &grammar.rules[*rule], text, at, depth + 1),
        Kind::All(parts) => parts.iter().fold([at].into(), |starts, part| each(part, &starts)),
        Kind::Any(parts) => parts.iter().flat_map(|part| each(part, &[at].into())).collect(),
        Kind::Times(inner, least, most) => {
            let (mut all, mut now, mut times) = (BTreeSet::new(), BTreeSet::from([at]), 0);
            loop {
                if times >= *least {
                    let before = all.len();
                    all.extend(&now);
                    if times > *least && all.len() == before {
                        return all;
                    }
                }
                if now.is_empty() || most.is_some_and(|most| times >= most) {
                    return all;
                }
                now = each(inner, &now);
                times += 1;
            }
        }
    }
}

fn is_meant(grammar: &Grammar, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    ends(grammar, &grammar.rules[grammar.root], &text, 0, 0).contains(&text.len())
}

#[test]
fn texts_of_grammars_that_are_in_use_are_taken_and_others_are_not() {
    for (grammar, right, wrong) in [
        (LIST, &["- a\n", "- é, \u{2027}\n- b\n"][..], &["", "- \n", "- a", "a\n", "- a\u{2028}\n"][..]),
        (
            ARITHMETIC,
            &["x= 1\n", "x_1+(2*y )=3\n\n", "a=b\nc =d\n", "a =  \n\tb \n\n\n", "12=1\n34+5=6\n"],
            &["x=1", "=1\n", "x=(1\n", "x=\n", "a=bc d\n"],
        ),
        (
            CHESS,
            &["1. e4 e5\n2. Nf3 Nc6\n", "1. exd8=Q+ O-O-O\n10. Qa1xb2# O-O\n"],
            &["1. e4 e5\n", "1. e9 e5\n2. a1 a1\n", "1. e4\n"],
        ),
        (
            JSON,
            &[
                "{}",
                "{ \"a\":1}",
                "{\"a\": [true, null, -0.5e+12], \"\\u00e9\\\"é\":{\"x\":\"\"}}\n  ",
                "{\"n\":[10, 0, 1234]}",
            ],
            &["", "[]", "{\"a\"}", "{\"a\":01}", "{\"a\":tru}", "{\"a\":\"\n\"}", "{\"a\":1,}", "{\"a\":\"\\u00g0\"}"],
        ),
        (
            SCHEMA,
            &["{\"name\":\"x\"}", "{ \"name\": \"\\n\", \"item\":{\"name\":\"y\", \"q\": {}} }"],
            &["{\"nam\":\"x\"}", "{\"item\":\"x\"}", "{\"name\":{}}"],
        ),
        // What a greedy reader would swallow is left for what follows.
        ("root ::= (\"a\"* \"ab\" | \"(\" root \")\")", &["ab", "aaab", "((aab))"], &["a", "b", "(ab"]),
        (
            "root ::= x | \"<\" root \">\"\nx ::= \"a\" \"b\" \"c\" | \"ab\" \"d\" | [a-z]+ \"!\"",
            &["abc", "abd", "<<ab!>>", "abc!"],
            &["ab", "<abc"],
        ),
        ("root ::= \"\" | \"a\" root", &["", "aaa"], &["b"]),
        ("root ::= root \"+\" [0-9]{2,} | .{1,2}", &["é", "+", "1+22+333", "ab+44"], &["", "abc", "1+2"]),
        ("root ::= (\"a\" root?){,2}", &["", "a", "aaa"], &["b"]),
    ] {
        let (constraint, meant) = (constraint(grammar), read(grammar).unwrap());
        for (texts, is_right) in [(right, true), (wrong, false)] {
            for text in texts {
                assert_eq!(
                    is_taken(constraint.clone(), text),
                    is_right,
                    "{text:?} of {grammar}\n{}",
                    to_lark(grammar).unwrap()
                );
                if !grammar.contains("root ::= root") {
                    assert_eq!(is_meant(&meant, text), is_right, "{text:?} of {grammar}");
                }
            }
        }
    }
}

#[test]
fn whatever_a_model_says_is_of_the_grammar() {
    for grammar in [LIST, ARITHMETIC, CHESS, JSON, SCHEMA] {
        let (constraint, meant) = (constraint(grammar), read(grammar).unwrap());
        let mut over = 0;
        for seed in 0..12 {
            let (text, is_over) = chatter(tokenizer(), constraint.clone(), seed);
            // The other reader takes its time.
            if is_over && text.len() < 300 {
                assert!(is_meant(&meant, &text), "{text:?} of {grammar}");
                over += 1;
            }
        }
        assert!(over > 0, "{grammar}");
    }
}

#[test]
fn texts_of_json_stay_whole_pieces() {
    // Else each token would be looked at letter by letter.
    for grammar in [JSON, SCHEMA] {
        let lark = to_lark(grammar).unwrap();
        let wide = lark.lines().filter(|line| line.starts_with('T') && line.contains(r"\x{5d}-\x{7e}"));
        assert!(wide.clone().count() > 0 && wide.clone().all(|line| line.contains(")*")), "{lark}");
    }
}

#[test]
fn what_is_no_grammar_is_one_line_with_the_place() {
    for (text, line) in [
        ("root ::= \"a", "line 1, column 12: the grammar ends here; wanted is \""),
        ("root ::= [a", "line 1, column 12: the grammar ends here; wanted is ]"),
        ("root ::= []", "line 1, column 10: no character is of this class"),
        ("root ::= [z-a]", "line 1, column 10: the range from 'z' to 'a' goes backwards"),
        ("root ::= (\"a\"", "line 1, column 14: the grammar ends here; wanted is )"),
        (
            "root ::= \"a\" )",
            "line 1, column 14: ')' is there; wanted is the end of the line, or another part of the rule",
        ),
        ("root ::= \"a\"\n\n x : y", "line 3, column 4: ':' is there; wanted is ::="),
        ("é ::= \"a\"", "line 1, column 1: 'é' is there; wanted is the name of a rule"),
        ("root ::= \"\\q\"", "line 1, column 11: \\q is no escape"),
        ("root ::= \"\\xg0\"", "line 1, column 11: wanted are 2 hexadecimal digits of a character"),
        ("root ::= \"\\uD800\"", "line 1, column 11: wanted are 4 hexadecimal digits of a character"),
        ("root ::= \"\\U00110000\"", "line 1, column 11: wanted are 8 hexadecimal digits of a character"),
        ("root ::= \"a\"{3,2}", "line 1, column 13: the most is less than the least"),
        ("root ::= \"a\"{9999}", "line 1, column 14: at most 2000 repetitions are counted"),
        ("root ::= \"a\"{}", "line 1, column 14: '}' is there; wanted is a number"),
        ("root ::= \"a\"{1", "line 1, column 15: the grammar ends here; wanted is }"),
        ("root ::= \"a\"*+", "line 1, column 14: what is repeated is repeated again; put it between ( and )"),
        ("root ::= *", "line 1, column 10: '*' is there; wanted is the end of the line, or another part of the rule"),
        ("root ::= <[1000]>", "line 1, column 10: tokens are not told here; write their characters"),
        ("root ::= \"a\"\nroot ::= \"b\"", "line 2, column 1: the rule root is there twice"),
        ("root ::= a\n b ::= c", "line 1, column 10: there is no rule a"),
        ("a ::= \"b\"", "there is no rule root, with which texts begin"),
        ("::=", "line 1, column 1: ':' is there; wanted is the name of a rule"),
    ] {
        assert_eq!(to_lark(text), Err(GbnfError(line.into())), "{text}");
    }
    for text in [
        format!("root ::= {}", "(".repeat(100)),
        format!("root ::= {}", "a ".repeat(20_000)),
        format!("root ::= \"{}\"", "a".repeat(300_000)),
        format!("root ::= \"(\" root \")\" {}", "| [a-z] root ".repeat(3000)),
    ] {
        let error = to_lark(&text).unwrap_err().to_string();
        assert!(error.lines().count() == 1 && error.len() < 200, "{error}");
    }
}

#[test]
fn rules_may_be_deep_within_each_other_and_come_to_no_end() {
    let forms = Forms::new(tokenizer()).unwrap();
    let chain: String = (0..1000).map(|at| format!("a{at} ::= a{} a{}\n", at + 1, at + 1)).collect();
    let chain = format!("root ::= a0\n{chain}a1000 ::= \"x\"\n");
    let line = "rules and groups more than 200 deep within each other; make them simpler";
    assert_eq!(to_lark(&chain), Err(GbnfError(line.into())));
    let lark: String = (0..2000).map(|at| format!("a{at}: \"(\" a{} \")\"\n", at + 1)).collect();
    assert!(forms.read(&Form::Grammar(format!("start: a0\n{lark}a2000: \"x\"\n")), None).is_ok());
    // Bottom up, each rule is known before it is asked for.
    let up: String = (0..4000).rev().map(|at| format!("a{at} ::= (a{})?\n", at + 1)).collect();
    drop(to_lark(&format!("a4000 ::= [a-z]\n{up}root ::= a0")));
    let nested = |inner: &str| (0..60).fold(inner.to_owned(), |inner, _| format!("({inner})?"));
    let deep: String = (0..200).map(|at| format!("a{at} ::= {}\n", nested(&format!("a{}", at + 1)))).collect();
    drop(to_lark(&format!("root ::= a0\n{deep}a200 ::= \"x\"")));
    for text in [
        "root ::= ((\"a\" root?){2000}){2000}",
        "root ::= (((\"a\" [b-d]*){2000}){2000}){2000}",
        "root ::= root",
        "root ::= root \"a\"",
        "root ::= (root?)*",
        "root ::= (\"\"?)*",
        "root ::= \"\"",
        "root ::= \"a\"{0}",
    ] {
        // Read or refused: nothing panics, and nothing goes on for ever.
        if let Ok(lark) = to_lark(text)
            && let Ok(mut constraint) = forms.read(&Form::Grammar(lark), None)
        {
            let mut logits = vec![0.0; tokenizer().vocabulary().vocab_size() as usize];
            drop(constraint.narrow(&mut logits));
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]

    #[test]
    fn any_text_is_read_or_refused(text in r#"(root|a|::=|"|\[|\]|\^|-|\(|\)|\||\*|\{1,2\}|\\x4|\\|\.|#|é|<| |\n){0,40}"#) {
        if let Err(error) = to_lark(&text) {
            proptest::prop_assert_eq!(error.to_string().lines().count(), 1);
        }
        drop(to_lark(&format!("root ::= {text}")));
    }

    #[test]
    fn random_grammars_allow_what_they_are_meant_to(
        rules in proptest::collection::vec(r#"((a|b|"x"|"y"|"xy"|\[xy\]|"z")(\*|\+|\?|\{1,2\})?( | \| )){1,5}("x"|\("\(" root "\)"\)\?)"#, 3),
        texts in proptest::collection::vec("[xyz()]{0,6}", 12),
    ) {
        // A rule leads to later ones and, between brackets, to the first: no text has to be read from the left for ever.
        let (root, a, b) = (&rules[0], rules[1].replace('a', "b"), rules[2].replace(['a', 'b'], "\"z\""));
        let text = format!("root ::= {root}\na ::= {a}\nb ::= {b}\n");
        let meant = read(&text).unwrap();
        if let Ok(lark) = to_lark(&text) {
            let forms = Forms::new(tokenizer()).unwrap();
            let constraint = forms.read(&Form::Grammar(lark.clone()), None).unwrap();
            for one in texts {
                proptest::prop_assert_eq!(is_taken(constraint.clone(), &one), is_meant(&meant, &one), "{:?} of {}\n{}", one, text, lark);
            }
        }
    }
}
