//! `POST /v1/chat/completions`: an answer as it comes.

use super::error::{ClientError, Why};
use super::events::{EventError, Events};
use super::server::Server;
use serde_json::Value;
use std::io::BufReader;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use ureq::Agent;
use ureq::http::header;

const PATH: &str = "/v1/chat/completions";

/// A server that says nothing for so long has gone: the longest prompts take minutes.
const SILENCE: Duration = Duration::from_secs(1800);

/// Longest answer, in bytes, with all that stands around its words.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What comes of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// What the model thinks.
    Reasoning(String),
    /// What it says.
    Text(String),
    /// No more comes.
    End(End),
}

/// How an answer has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// It was cut where it might have gone on.
    pub is_cut: bool,
    /// What it took, if the server says so.
    pub usage: Option<Usage>,
}

/// Tokens of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt.
    pub prompt: u32,
    /// Of these, computed before.
    pub cached: u32,
    /// Of the answer.
    pub completion: u32,
}

/// A request that was sent. Where it is dropped, the connection is, and the server computes no more.
#[derive(Debug)]
pub struct Asked {
    parts: Receiver<Result<Part, ClientError>>,
    agent: Agent,
    url: String,
}

/// Asks for an answer in pieces: `object` is the body of the request.
///
/// # Errors
/// Where the system has no thread to read it.
pub fn ask(server: &Server, object: Value) -> std::io::Result<Asked> {
    let (sender, parts) = channel();
    let agent = server.agent(SILENCE);
    let (ours, url, server) = (agent.clone(), server.url.to_string(), server.clone());
    // A read that waits can't look after Ctrl-C; its thread ends with the connection.
    std::thread::Builder::new().name("answer".into()).spawn(move || {
        if let Err(error) = read(&server, &ours, &object, &sender) {
            let _ = sender.send(Err(error));
        }
    })?;
    Ok(Asked { parts, agent, url })
}

impl Asked {
    /// The next part, or `None` where none comes within so long.
    pub fn next(&self, within: Duration) -> Option<Result<Part, ClientError>> {
        match self.parts.recv_timeout(within) {
            Ok(part) => Some(part),
            Err(RecvTimeoutError::Timeout) => None,
            // The thread says why it ends, unless it panics.
            Err(RecvTimeoutError::Disconnected) => Some(Err(ClientError { url: self.url.clone(), why: Why::Ended })),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.agent.clone().shutdown();
    }
}

fn read(
    server: &Server,
    agent: &Agent,
    object: &Value,
    sender: &Sender<Result<Part, ClientError>>,
) -> Result<(), ClientError> {
    let response = server.post(agent, PATH, object)?;
    let refused = |why| server.error(PATH, why);
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("text/event-stream") {
        return Err(refused(Why::Foreign("answers do not come in pieces there")));
    }
    let mut events = Events::new(BufReader::new(response.into_body().into_reader()));
    let (mut end, mut has_ended, mut bytes) = (End::default(), false, 0);
    loop {
        let event = events.read().map_err(|error| match error {
            EventError::Read(error) => refused(Why::of_body(error)),
            EventError::TooLong => refused(Why::TooLong),
            EventError::NotText => refused(Why::Foreign("what comes is no text")),
        });
        let event = match event {
            // Some servers close the connection where others send [DONE].
            Ok(None) | Err(_) if has_ended => break,
            Ok(None) => return Err(refused(Why::Ended)),
            Ok(Some(event)) if event == "[DONE]" => break,
            Ok(Some(event)) => event,
            Err(error) => return Err(error),
        };
        bytes += event.len();
        if bytes > ANSWER_BYTES_MAX {
            return Err(refused(Why::TooLong));
        }
        let chunk: Value = serde_json::from_str(&event).map_err(|_| refused(Why::Foreign("what comes is no JSON")))?;
        if chunk.get("error").is_some_and(|error| !error.is_null()) {
            return Err(refused(Why::of_object(200, &chunk, None)));
        }
        for part in parts(&chunk) {
            if sender.send(Ok(part)).is_err() {
                return Ok(());
            }
        }
        if let Some(why) = chunk.pointer("/choices/0/finish_reason").and_then(Value::as_str) {
            (has_ended, end.is_cut) = (true, why == "length");
        }
        end.usage = usage(&chunk).or(end.usage);
    }
    // Nobody may listen any more.
    let _ = sender.send(Ok(Part::End(end)));
    Ok(())
}

/// What a chunk says; servers differ in what they call reasoning.
fn parts(chunk: &Value) -> impl Iterator<Item = Part> {
    let text = |names: &[&str]| {
        let found = names.iter().find_map(|name| chunk.pointer(&format!("/choices/0/delta/{name}"))?.as_str());
        found.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let reasoning = text(&["reasoning_content", "reasoning"]).map(Part::Reasoning);
    reasoning.into_iter().chain(text(&["content"]).map(Part::Text))
}

fn usage(chunk: &Value) -> Option<Usage> {
    let usage = chunk.get("usage").filter(|usage| usage.is_object())?;
    let count = |pointer| usage.pointer(pointer).and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok());
    let (prompt, completion) = (count("/prompt_tokens")?, count("/completion_tokens")?);
    let cached = count("/prompt_tokens_details/cached_tokens").unwrap_or(0).min(prompt);
    Some(Usage { prompt, cached, completion })
}

#[cfg(test)]
mod tests {
    use super::super::trust::Trust;
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// What comes of an answer whose stream is `body`, after which the server goes away.
    fn answer(kind: &str, body: &str) -> Vec<Result<Part, String>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n");
        let response = head + body;
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(response.as_bytes()).unwrap();
        });
        let asked = ask(&Server { url, key: None, trust: Trust::default() }, Value::Null).unwrap();
        server.join().unwrap();
        let mut all = Vec::new();
        loop {
            let Some(part) = asked.next(Duration::from_secs(20)) else { panic!("nothing comes") };
            let is_last = matches!(part, Err(_) | Ok(Part::End(_)));
            all.push(part.map_err(|error| error.to_string()));
            if is_last {
                return all;
            }
        }
    }

    const EVENTS: &str = "text/event-stream; charset=utf-8";

    #[test]
    fn an_answer_comes_in_parts_and_ends_with_its_figures() {
        let body = concat!(
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\n\n",
            "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"Hm\"}}]}\n\n: still there\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"42\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n",
        );
        let usage = Some(Usage { prompt: 9, cached: 4, completion: 2 });
        let want =
            [Ok(Part::Reasoning("Hm".into())), Ok(Part::Text("42".into())), Ok(Part::End(End { is_cut: true, usage }))];
        assert_eq!(answer(EVENTS, body), want);
        assert_eq!(answer(EVENTS, &format!("{body}data: [DONE]\n\n")), want);
    }

    #[test]
    fn what_ends_in_the_middle_or_is_no_answer_is_said_so() {
        let last = |kind, body| answer(kind, body).pop().unwrap().unwrap_err();
        let half = "data: {\"choices\":[{\"delta\":{\"content\":\"4\"}}]}\n\n";
        assert!(last(EVENTS, half).contains("ended in the middle"));
        assert!(last(EVENTS, &half[..half.len() - 5]).contains("ended in the middle"));
        assert!(last(EVENTS, "data: {\"error\":{\"message\":\"it broke\"}}\n\n").contains("it broke"));
        assert!(last(EVENTS, "data: <html>\n\n").contains("no JSON"));
        assert!(last("text/html", "<html>").contains("is that the right URL?"));
    }
}
