//! Calls told from text, in an answer that comes in pieces.

use super::Family;
use super::members::Members;
use super::parameters::Types;
use serde_json::Value;

/// Part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text.
    Text(&'a str),
    /// A call of this tool begins.
    Call(&'a str),
    /// More of the arguments of the call that has begun last: together they are JSON, as far as the model wrote such.
    Arguments(&'a str),
}

/// Finds calls in the text of an answer. What only looks like one is text.
#[derive(Debug)]
pub struct Calls {
    family: Family,
    types: Types,
    is_forced: bool,
    state: State,
    /// Text that is not sure yet.
    held_back: String,
    has_text: bool,
    begun: u32,
}

#[derive(Debug)]
enum State {
    Text,
    /// Behind what opens calls, and whether no call was there since.
    Between(bool),
    /// An object with a name and arguments; how much of the arguments was given on, if the call has begun.
    Object(Members, Option<usize>),
    /// Arguments of a call that has begun; how much of them was given on.
    Arguments(Members, usize),
    /// Parameters of a tool between tags; how many were given on.
    Parameters(String, u32),
}

use State::{Arguments, Between, Object, Parameters, Text};

/// What was found between calls.
enum Next {
    Text,
    /// A mark, and nothing else.
    Between,
    Object,
    /// The name of a tool, before its arguments.
    Named(String),
    /// The name of a tool, before its parameters.
    Parameters(String),
}

impl Next {
    fn state(self, is_open: bool) -> State {
        match self {
            Self::Text => Text,
            Self::Between => Between(is_open),
            Self::Object => Object(Members::default(), None),
            Self::Named(_) => Arguments(Members::default(), 0),
            Self::Parameters(tool) => Parameters(tool, 0),
        }
    }
}

/// Names of the arguments in an object.
const ARGUMENTS: [&str; 2] = ["arguments", "parameters"];
/// Members that a call may have.
const MEMBERS: [&str; 6] = ["name", "arguments", "parameters", "type", "function", "id"];
/// Longest text between what opens calls and the first one, in bytes: a name, and marks.
const HEAD_MAX: usize = 512;

impl Calls {
    /// For an answer that may call these tools, which are written as in the OpenAI API; one that is forced is nothing but calls.
    pub fn new(family: Family, tools: &[Value], is_forced: bool) -> Self {
        let types = Types::of(tools);
        Self { family, types, is_forced, state: Text, held_back: String::new(), has_text: false, begun: 0 }
    }

    /// How many calls have begun.
    pub fn count(&self) -> u32 {
        self.begun
    }

    /// Takes the next piece of text and gives on what is sure.
    pub fn push(&mut self, text: &str, say: &mut impl FnMut(Piece<'_>)) {
        self.held_back.push_str(text);
        while self.step(say) {}
    }

    /// Gives on what was held back: nothing more comes.
    pub fn finish(&mut self, say: &mut impl FnMut(Piece<'_>)) {
        let rest = std::mem::take(&mut self.held_back);
        match std::mem::replace(&mut self.state, Text) {
            // It was cut in its first call, or before another one.
            _ if self.is_forced => {}
            Text => self.text(&rest, say),
            Between(true) => self.text(&format!("{}{rest}", self.family.opens()), say),
            // Half a call behind others is none, and no text.
            Object(members, None) if self.begun == 0 => self.no_call(members.text(), say),
            Between(false) | Object(..) | Arguments(..) | Parameters(..) => {}
        }
    }

    /// One step; whether there may be another.
    fn step(&mut self, say: &mut impl FnMut(Piece<'_>)) -> bool {
        match std::mem::replace(&mut self.state, Text) {
            Text => self.step_text(say),
            Between(is_open) => self.step_between(is_open, say),
            Object(members, given) => self.step_object(members, given, say),
            Arguments(members, given) => self.step_arguments(members, given, say),
            Parameters(tool, given) => self.step_parameters(tool, given, say),
        }
    }

    /// Text up to what opens calls; a mark that may become whole is held back, and blanks that may stand before it.
    fn step_text(&mut self, say: &mut impl FnMut(Piece<'_>)) -> bool {
        let opens = self.family.opens();
        let is_start = self.family == Family::Llama && !self.has_text;
        if is_start && self.held_back.trim_start().starts_with('{') {
            self.state = Between(true);
            return true;
        }
        if let Some((before, behind)) = self.held_back.split_once(opens) {
            let (before, behind) = (before.trim_end().to_owned(), behind.to_owned());
            self.held_back = behind;
            self.text(&before, say);
            self.state = Between(true);
            return true;
        }
        let sure = self.held_back.len() - partial(&self.held_back, opens);
        let sure = self.held_back[..sure].trim_end().len();
        let rest = self.held_back.split_off(sure);
        let text = std::mem::replace(&mut self.held_back, rest);
        self.text(&text, say);
        false
    }

    fn step_between(&mut self, is_open: bool, say: &mut impl FnMut(Piece<'_>)) -> bool {
        let is_filling = |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '[' | ']' | '`');
        let text = match self.family {
            // Its tags begin with a bracket, too.
            Family::MistralArgs => self.held_back.trim_start().to_owned(),
            _ => self.held_back.trim_start_matches(is_filling).to_owned(),
        };
        if let Some((behind, next)) = self.behind(&text) {
            if let Next::Named(name) = &next {
                self.call(name, say);
            }
            self.held_back = behind.to_owned();
            self.state = next.state(is_open);
            return true;
        }
        if self.may_open(&text) && text.len() <= HEAD_MAX {
            self.state = Between(is_open);
            return false;
        }
        // It was none that opens calls: what follows is looked at as any text.
        let opens = if is_open { self.family.opens() } else { "" };
        self.has_text = true;
        self.text(opens, say);
        true
    }

    /// What comes next in calls, and what lies behind its mark.
    fn behind<'t>(&self, text: &'t str) -> Option<(&'t str, Next)> {
        if text.starts_with('{') {
            return Some((text, Next::Object));
        }
        let strip = |mark: &str, next: Next| text.strip_prefix(mark).map(|behind| (behind, next));
        match self.family {
            Family::Hermes | Family::QwenCoder => strip("</tool_call>", Next::Text).or_else(|| {
                let (tool, behind) = text.strip_prefix("<function=")?.split_once('>')?;
                Some((behind, Next::Parameters(tool.trim().to_owned())))
            }),
            Family::Llama => strip(self.family.opens(), Next::Between),
            Family::Mistral | Family::MistralArgs | Family::DeepSeek => {
                let marks = [self.family.opens(), "<｜tool▁calls▁end｜>"];
                marks.into_iter().find_map(|mark| strip(mark, Next::Between)).or_else(|| {
                    let (head, _) = text.split_once('{')?;
                    let name = name(head);
                    if name.is_empty() { None } else { Some((&text[head.len()..], Next::Named(name))) }
                })
            }
        }
    }

    /// Whether more text may make a call, or the end of calls, of this.
    fn may_open(&self, text: &str) -> bool {
        let may_become = |tag: &str| tag.starts_with(text) || text.starts_with(tag);
        match self.family {
            Family::Hermes | Family::QwenCoder => ["</tool_call>", "<function="].into_iter().any(may_become),
            Family::Llama => self.family.opens().starts_with(text),
            Family::Mistral | Family::MistralArgs | Family::DeepSeek => true,
        }
    }

    fn step_object(&mut self, mut members: Members, mut given: Option<usize>, say: &mut impl FnMut(Piece<'_>)) -> bool {
        let text = std::mem::take(&mut self.held_back);
        self.held_back = members.push(&text).to_owned();
        let is_call = members.first().is_none_or(|first| MEMBERS.contains(&&first.key[..]));
        if given.is_none()
            && is_call
            && let Some(tool) = members.string("name").or_else(|| members.string("function"))
        {
            // An answer of a Llama may be JSON about something else that has a name.
            if self.family != Family::Llama || self.types.names().any(|name| name == tool) {
                self.call(&tool, say);
                given = Some(0);
            }
        }
        let is_over = members.is_whole() || !is_call;
        match given {
            None if is_over => {
                // It was none. It may have a call within.
                self.held_back.insert_str(0, members.text());
                self.no_call("", say);
                return true;
            }
            None => {}
            Some(before) => {
                let (arguments, is_there) = members.value(&ARGUMENTS).unwrap_or(("", is_over));
                let now = match arguments.chars().next() {
                    Some('{') => arguments[before.min(arguments.len())..].to_owned(),
                    // JSON within a text; or none at all.
                    Some('"') if is_there && before == 0 => serde_json::from_str(arguments).unwrap_or_default(),
                    Some(_) if is_there && before == 0 && arguments != "null" => arguments.to_owned(),
                    _ if is_over && before == 0 => "{}".to_owned(),
                    _ => String::new(),
                };
                if !now.is_empty() {
                    say(Piece::Arguments(&now));
                }
                given = Some(before + now.len());
            }
        }
        self.state = if is_over { Between(false) } else { Object(members, given) };
        is_over
    }

    fn step_arguments(&mut self, mut members: Members, given: usize, say: &mut impl FnMut(Piece<'_>)) -> bool {
        let text = std::mem::take(&mut self.held_back);
        self.held_back = members.push(&text).to_owned();
        let now = &members.text()[given..];
        if !now.is_empty() {
            say(Piece::Arguments(now));
        }
        let (is_whole, given) = (members.is_whole(), members.text().len());
        self.state = if is_whole { Between(false) } else { Arguments(members, given) };
        is_whole
    }

    fn step_parameters(&mut self, tool: String, given: u32, say: &mut impl FnMut(Piece<'_>)) -> bool {
        if given == 0 && self.held_back.is_empty() {
            self.state = Parameters(tool, given);
            return false;
        }
        let text = self.held_back.trim_start();
        if let Some(behind) = text.strip_prefix("</function>") {
            let behind = behind.to_owned();
            if given == 0 {
                self.call(&tool, say);
            }
            say(Piece::Arguments(if given == 0 { "{}" } else { "}" }));
            self.held_back = behind;
            self.state = Between(false);
            return true;
        }
        let parameter = text.strip_prefix("<parameter=").and_then(|text| text.split_once('>'));
        let whole = parameter.and_then(|(key, text)| Some((key, text.split_once("</parameter>")?)));
        let Some((key, (value, behind))) = whole else {
            self.state = Parameters(tool, given);
            return false;
        };
        let value = value.strip_prefix('\n').unwrap_or(value);
        let value = value.strip_suffix('\n').unwrap_or(value);
        let (key, value) = (key.trim(), self.types.json(&tool, key.trim(), value));
        let member = format!("{}{}: {value}", if given == 0 { "{" } else { ", " }, Value::from(key));
        let behind = behind.to_owned();
        if given == 0 {
            self.call(&tool, say);
        }
        say(Piece::Arguments(&member));
        self.held_back = behind;
        self.state = Parameters(tool, given + 1);
        true
    }

    fn call(&mut self, tool: &str, say: &mut impl FnMut(Piece<'_>)) {
        self.begun += 1;
        say(Piece::Call(tool));
    }

    /// An object turned out to be none.
    fn no_call(&mut self, object: &str, say: &mut impl FnMut(Piece<'_>)) {
        let opens = if self.family == Family::Llama { "" } else { self.family.opens() };
        self.state = Text;
        self.has_text = true;
        self.text(&format!("{opens}{object}"), say);
    }

    /// Text; blanks beside calls are none.
    fn text(&mut self, text: &str, say: &mut impl FnMut(Piece<'_>)) {
        if text.is_empty() || self.begun > 0 && text.trim().is_empty() {
            return;
        }
        self.has_text |= !text.trim().is_empty();
        say(Piece::Text(text));
    }
}

/// How much at the end of a text may be the beginning of a mark, in bytes.
fn partial(text: &str, mark: &str) -> usize {
    let mut lens = mark.char_indices().rev().map(|(at, _)| at);
    lens.find(|len| text.ends_with(&mark[..*len])).unwrap_or(0)
}

/// The name of a tool in what stands before its arguments, between marks of all kinds.
fn name(head: &str) -> String {
    let mut head = head.trim();
    for mark in ["<｜tool▁call▁end｜>", "<｜tool▁call▁begin｜>", "function<｜tool▁sep｜>"] {
        head = head.strip_prefix(mark).unwrap_or(head).trim_start();
    }
    let end = ["[ARGS]", "[CALL_ID]", "<｜tool▁sep｜>", "\n", "```"].iter().filter_map(|mark| head.find(mark)).min();
    head[..end.unwrap_or(head.len())].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tools() -> Vec<Value> {
        let parameters =
            json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}});
        vec![
            json!({"type": "function", "function": {"name": "weather", "parameters": parameters}}),
            json!({"type": "function", "function": {"name": "time"}}),
        ]
    }

    /// Text, and calls with their arguments.
    fn read(family: Family, answer: &str, cut: usize) -> (String, Vec<(String, String)>) {
        read_as(family, answer, cut, false)
    }

    fn read_as(family: Family, answer: &str, cut: usize, is_forced: bool) -> (String, Vec<(String, String)>) {
        let mut calls = Calls::new(family, &tools(), is_forced);
        let (mut text, mut found) = (String::new(), Vec::<(String, String)>::new());
        let mut say = |piece: Piece<'_>| match piece {
            Piece::Text(more) => text.push_str(more),
            Piece::Call(name) => found.push((name.to_owned(), String::new())),
            Piece::Arguments(more) => found.last_mut().unwrap().1.push_str(more),
        };
        let chars: Vec<char> = answer.chars().collect();
        chars.chunks(cut).for_each(|piece| calls.push(&piece.iter().collect::<String>(), &mut say));
        calls.finish(&mut say);
        assert_eq!(calls.count() as usize, found.len());
        (text, found)
    }

    #[track_caller]
    fn check(family: Family, answer: &str, text: &str, calls: &[(&str, Value)]) {
        for cut in 1..=answer.chars().count() {
            let (got, found) = read(family, answer, cut);
            let found: Vec<(&str, Value)> = found
                .iter()
                .map(|(name, arguments)| {
                    (&name[..], serde_json::from_str(arguments).unwrap_or_else(|error| panic!("{arguments}: {error}")))
                })
                .collect();
            assert_eq!((&got[..], &found[..]), (text, calls), "{answer}, cut every {cut}");
        }
    }

    #[test]
    fn calls_of_all_families_are_found_wherever_the_text_is_cut() {
        let paris = json!({"city": "Paris", "days": 2});
        let both = [("weather", paris.clone()), ("time", json!({}))];
        let one = &both[..1];
        use Family::*;
        check(
            Hermes,
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\", \"days\": 2}}\n</tool_call>",
            "",
            one,
        );
        check(
            Hermes,
            "Let me see.\n<tool_call>{\"arguments\": {\"city\": \"Paris\", \"days\": 2}, \"name\": \"weather\"}</tool_call>\n\
             <tool_call>{\"name\": \"time\"}</tool_call>\n",
            "Let me see.",
            &both,
        );
        check(
            Hermes,
            "<tool_call>[{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\", \"days\": 2}}, {\"name\": \"time\", \"arguments\": {}}]</tool_call>",
            "",
            &both,
        );
        check(
            Hermes,
            "<tool_call>{\"name\": \"weather\", \"arguments\": \"{\\\"city\\\": \\\"Paris\\\", \\\"days\\\": 2}\"}</tool_call>",
            "",
            one,
        );
        check(
            QwenCoder,
            "I look.\n<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n2\n</parameter>\n\
             </function>\n</tool_call>\n<tool_call>\n<function=time>\n</function>\n</tool_call>",
            "I look.",
            &both,
        );
        check(Llama, "{\"name\": \"weather\", \"parameters\": {\"city\": \"Paris\", \"days\": 2}}", "", one);
        check(
            Llama,
            "<|python_tag|>{\"type\": \"function\", \"name\": \"weather\", \"parameters\": {\"city\": \"Paris\", \"days\": 2}}; {\"name\": \"time\", \"parameters\": {}}",
            "",
            &both,
        );
        check(
            Mistral,
            "[TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\", \"days\": 2}}, {\"name\": \"time\", \"arguments\": {}}]",
            "",
            &both,
        );
        check(
            MistralArgs,
            "[TOOL_CALLS]weather[ARGS]{\"city\": \"Paris\", \"days\": 2}[TOOL_CALLS]time[CALL_ID]abcdefghi[ARGS]{}",
            "",
            &both,
        );
        check(
            DeepSeek,
            "Well.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"Paris\", \"days\": 2}\n```\
             <｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>time<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            "Well.",
            &both,
        );
    }

    #[test]
    fn what_only_looks_like_a_call_is_text() {
        use Family::*;
        for (family, answer) in [
            (Hermes, "a < b, and <tool> is no <tool_call"),
            (Hermes, "<tool_call>not JSON</tool_call>"),
            (Hermes, "<tool_call>{\"city\": \"Paris\"}"),
            (Llama, "{\"city\": \"Paris\", \"name\": \"time\"}"),
            (Llama, "{\"name\": \"somebody else\", \"age\": 3}"),
            (Llama, "Use {\"name\": \"time\"}."),
            (Mistral, "[TOOL"),
            (DeepSeek, "x <｜tool"),
        ] {
            for cut in [1, 2, 5, 100] {
                assert_eq!(read(family, answer, cut), (answer.to_owned(), Vec::new()), "cut every {cut}");
            }
        }
    }

    #[test]
    fn arguments_come_as_they_are_written() {
        let mut calls = Calls::new(Family::Hermes, &tools(), false);
        let mut pieces = Vec::new();
        for piece in
            ["<tool_call>{\"name\": \"wea", "ther\", \"arguments\": {\"ci", "ty\": \"Pa", "ris\"}}</tool_call>"]
        {
            calls.push(piece, &mut |piece| pieces.push(format!("{piece:?}")));
        }
        let want =
            ["Call(\"weather\")", "Arguments(\"{\\\"ci\")", "Arguments(\"ty\\\": \\\"Pa\")", "Arguments(\"ris\\\"}\")"];
        assert_eq!(pieces, want);
        // An answer that was cut off in the middle.
        let one = "<tool_call>{\"name\": \"time\"}</tool_call>";
        let (text, found) = read(Family::Hermes, &format!("{one}{}", &one[..20]), 4);
        assert_eq!((&text[..], found.len()), ("", 1));
        let (text, found) = read(Family::Hermes, "<tool_call>{\"name\": \"time\", \"arguments\": {\"a", 4);
        assert_eq!((&text[..], &found[..]), ("", &[("time".to_owned(), "{\"a".to_owned())][..]));
    }

    #[test]
    fn what_is_left_of_a_forced_call_that_was_cut_is_no_text() {
        use Family::*;
        for (family, answer) in [
            (
                Hermes,
                "\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>\n<tool_call>",
            ),
            (
                QwenCoder,
                "<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
            ),
            (Llama, "{\"name\": \"weather\", \"parameters\": {\"city\": \"Paris\"}}; {\"name\""),
            (Mistral, "[TOOL_CALLS][{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}]"),
            (MistralArgs, "[TOOL_CALLS]weather[ARGS]{\"city\": \"Paris\"}[TOOL_CALLS]ti"),
            (
                DeepSeek,
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"Paris\"}\n```<｜tool▁call▁end｜>",
            ),
        ] {
            let mut counts = [0; 2];
            for (end, _) in answer.char_indices().chain([(answer.len(), ' ')]) {
                for cut in [1, 3, 100] {
                    let (text, found) = read_as(family, &answer[..end], cut, true);
                    assert_eq!(text, "", "{}", &answer[..end]);
                    assert!(found.iter().all(|(name, _)| name == "weather"), "{found:?}");
                    counts[found.len()] += 1;
                }
            }
            assert!(counts[0] > 0 && counts[1] > 0, "{family:?}");
        }
    }

    const SCRAPS: [&str; 22] = [
        "<tool_call>",
        "</tool_call>",
        "<function=time>",
        "</function>",
        "<parameter=a>",
        "</parameter>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "<|python_tag|>",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>",
        "<｜tool▁call▁end｜>",
        "{",
        "}",
        "[",
        "\"name\"",
        ": ",
        "\"time\"",
        "\"arguments\"",
        ", ",
        "é\n",
    ];

    proptest::proptest! {
        #[test]
        fn any_text_is_read_and_the_same_wherever_it_is_cut(
            scraps in proptest::collection::vec(proptest::sample::select(&SCRAPS[..]), 0..14),
            family in proptest::sample::select(&[Family::Hermes, Family::QwenCoder, Family::Llama, Family::Mistral, Family::MistralArgs, Family::DeepSeek][..]),
            cut in 1usize..12,
        ) {
            let text = scraps.concat();
            proptest::prop_assert_eq!(read(family, &text, cut), read(family, &text, text.len().max(1)));
        }
    }
}
