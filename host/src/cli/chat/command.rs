//! What a user typed: a text for the model, or a command for the chat.

use std::path::PathBuf;

/// One piece of input.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// Blanks.
    Nothing,
    /// For the model.
    Text(String),
    /// For the chat.
    Command(Command),
    /// Looks like a command and is none: what to tell the user.
    Refused(String),
}

/// What the chat does by itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Lists the commands.
    Help,
    /// Forgets the conversation, but not the system message.
    Clear,
    /// Sets the system message, or shows it.
    System(Option<String>),
    /// Asks the last question again.
    Retry,
    /// Writes the conversation to a file.
    Save(PathBuf),
    /// Goes on with the conversation of a file.
    Load(PathBuf),
    /// Shows figures.
    Stats,
    /// Ends the chat.
    Exit,
}

/// Name, argument, what it does; the first of several names is the one that is shown.
const COMMANDS: [(&[&str], &str, &str); 8] = [
    (&["help", "?"], "", "this list"),
    (&["clear"], "", "forget the conversation; the system message stays"),
    (&["system"], " [TEXT]", "set the instructions above the conversation, or show them"),
    (&["retry"], "", "ask the last question again, for another answer"),
    (&["save"], " FILE", "write the conversation to a file (JSON)"),
    (&["load"], " FILE", "go on with the conversation of such a file"),
    (&["stats"], "", "tokens, speed, context, memory, network"),
    (&["exit", "quit", "bye"], "", "end the chat; so does Ctrl-D"),
];

/// The names to complete, each with its slash.
pub fn names() -> impl Iterator<Item = String> {
    COMMANDS.iter().flat_map(|(names, ..)| names.iter().map(|name| format!("/{name}")))
}

/// The list for `/help`.
pub fn help() -> String {
    let mut text = String::new();
    for (names, argument, what) in COMMANDS {
        let usage = format!("/{}{argument}", names[0]);
        text.push_str(&format!("  {usage:<16} {what}\n"));
    }
    text.push_str(
        "  A blank or // before a slash sends the line to the model.
  Several lines: paste them, press Alt-Enter, end a line with \\, or put them between \"\"\" and \"\"\".
  Ctrl-C ends an answer or clears the line, Tab completes a command, arrows walk through earlier lines.\n",
    );
    text
}

/// Whether `line` would be a command.
pub fn is_command(line: &str) -> bool {
    matches!(parse(line), Input::Command(_))
}

/// Understands one piece of input: a line, or several lines that were typed or pasted as one.
pub fn parse(input: &str) -> Input {
    let text = input.trim_matches(['\r', '\n']).trim_end();
    if let Some(block) = quoted(text) {
        return if block.trim().is_empty() { Input::Nothing } else { Input::Text(block.into()) };
    }
    let several = text.contains('\n');
    if text.trim().is_empty() {
        return Input::Nothing;
    }
    let Some(line) = text.strip_prefix('/') else {
        // Pasted code keeps its indentation.
        return Input::Text(if several { text.into() } else { text.trim().into() });
    };
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    // Comments and lists of paths are pasted, too; of commands only this one has an argument of several lines.
    if several && word != "system" {
        return Input::Text(text.into());
    }
    if line.starts_with('/') {
        return Input::Text(line.into());
    }
    let name = COMMANDS.iter().find(|(names, ..)| names.contains(&word)).map(|(names, ..)| names[0]);
    let file = |command: fn(PathBuf) -> Command| match rest {
        "" => Input::Refused(format!("/{word} needs a file: /{word} chat.json")),
        path => Input::Command(command(home(path))),
    };
    match name {
        Some("save") => file(Command::Save),
        Some("load") => file(Command::Load),
        Some("system") => Input::Command(Command::System((!rest.is_empty()).then(|| rest.into()))),
        Some(name) if !rest.is_empty() => {
            Input::Refused(format!("/{name} takes nothing after it; a blank before it sends the line to the model"))
        }
        Some("help") => Input::Command(Command::Help),
        Some("clear") => Input::Command(Command::Clear),
        Some("retry") => Input::Command(Command::Retry),
        Some("stats") => Input::Command(Command::Stats),
        Some(_) => Input::Command(Command::Exit),
        None => Input::Refused(format!(
            "/{word} is no command: /help lists them, a blank before it sends the line to the model"
        )),
    }
}

/// The text between `"""` and `"""`, if that is all there is.
fn quoted(text: &str) -> Option<&str> {
    let inside = text.trim_start().strip_prefix("\"\"\"")?.strip_suffix("\"\"\"")?;
    (!inside.contains("\"\"\"")).then(|| inside.trim_matches(['\r', '\n']))
}

/// Whether a block that `"""` began waits for its end.
pub fn is_open(text: &str) -> bool {
    text.trim_start().starts_with("\"\"\"") && text.matches("\"\"\"").count() == 1
}

/// What shells do to `~/`, which no shell sees here.
fn home(path: &str) -> PathBuf {
    match path.strip_prefix("~/").zip(etcetera::home_dir().ok()) {
        Some((rest, home)) => home.join(rest),
        None => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Input {
        Input::Text(text.into())
    }

    #[test]
    fn every_listed_command_is_understood_by_each_of_its_names() {
        for name in names() {
            let with_file = matches!(&name[..], "/save" | "/load");
            let line = if with_file { format!("{name} a b.json") } else { name.clone() };
            assert!(matches!(parse(&line), Input::Command(_)), "{line}");
            assert!(help().contains(&name) || ["/?", "/quit", "/bye"].contains(&&name[..]), "{name}");
        }
        assert_eq!(parse("/save a b.json \r\n"), Input::Command(Command::Save("a b.json".into())));
        assert_eq!(parse("/system"), Input::Command(Command::System(None)));
        assert_eq!(parse("/system Be\nbrief."), Input::Command(Command::System(Some("Be\nbrief.".into()))));
        assert_eq!(parse("/bye"), Input::Command(Command::Exit));
    }

    #[test]
    fn what_only_looks_like_a_command_is_refused_with_a_way_to_send_it() {
        for line in ["/halp", "/", "/exit now", "/usr/bin/ls is what?", "/clear\tall"] {
            assert!(matches!(parse(line), Input::Refused(why) if why.contains("a blank before it")), "{line}");
        }
        assert!(matches!(parse("/save"), Input::Refused(why) if why.contains("/save chat.json")));
    }

    #[test]
    fn a_blank_or_a_second_slash_sends_a_slash() {
        assert_eq!(parse(" /help"), text("/help"));
        assert_eq!(parse("//help me"), text("/help me"));
        // Pasted comments stay whole.
        assert_eq!(parse("// one\n// two\n"), text("// one\n// two"));
        assert_eq!(parse("/usr/bin\n/usr/lib"), text("/usr/bin\n/usr/lib"));
    }

    #[test]
    fn blanks_are_nothing_and_indentation_is_kept_where_there_are_several_lines() {
        for line in ["", " ", "\r\n", "\t\n\n", "\"\"\"\"\"\"", "\"\"\"\n\"\"\""] {
            assert_eq!(parse(line), Input::Nothing, "{line:?}");
        }
        assert_eq!(parse("  one \r\n"), text("one"));
        assert_eq!(parse("\n  if a:\n    b\n\n"), text("  if a:\n    b"));
    }

    #[test]
    fn quotes_hold_a_block() {
        assert_eq!(parse("\"\"\"\n/help\n\n  me\n\"\"\""), text("/help\n\n  me"));
        assert_eq!(parse("\"\"\"one\"\"\""), text("one"));
        // A docstring and code after it are no block.
        assert_eq!(parse("\"\"\"Doc.\"\"\"\nx = 1"), text("\"\"\"Doc.\"\"\"\nx = 1"));
        assert!(is_open("\"\"\"one\ntwo") && !is_open("\"\"\"one\"\"\"") && !is_open("one \"\"\""));
    }
}
