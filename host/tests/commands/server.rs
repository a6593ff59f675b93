//! Servers for tests: the real one as a process, and one that says what a test wants.

use crate::model::Files;
use crate::run::{CACHE, signal, without_key};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// A server that ends with the test.
pub struct Server {
    process: Child,
    /// Whether it encrypts, by what stands before `://`.
    scheme: String,
    /// What stands behind that.
    pub address: String,
}

impl Server {
    /// A server of a model, on a port of its own.
    pub fn start(files: &Files, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dair"));
        command.args(["serve", "--model", &files.model, "--port", "0", "--template", "chatml", "--threads", "1"]);
        without_key(&mut command).args(flags).env("DAIR_CACHE", CACHE);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let (scheme, address) = line.trim_end().split_once("://").unwrap_or_else(|| panic!("{line:?}"));
        Self { process, scheme: scheme.to_owned(), address: address.to_owned() }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Status and body of an answer.
    pub fn ask(&self, path: &str, body: Option<&Value>) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        let (method, body) = body.map_or(("GET", String::new()), |body| ("POST", body.to_string()));
        let (host, len) = (&self.address, body.len());
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n");
        stream.write_all((head + &body).as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head[9..12].parse().expect("a status"), body.to_owned())
    }

    /// The object that an object is answered with.
    pub fn json(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(path, Some(body));
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).expect("JSON")
    }

    /// The object at a path.
    pub fn json_of(&self, path: &str) -> Value {
        let (status, answer) = self.ask(path, None);
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).expect("JSON")
    }

    /// Ends it, and gives its exit code and what it complained about.
    pub fn end(mut self) -> (Option<i32>, String) {
        signal(&self.process, "TERM");
        let status = self.process.wait().expect("it ends");
        let mut said = String::new();
        self.process.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        (status.code(), said)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server that gives each connection the next of some answers, whatever is asked, and then nobody listens any more.
pub struct Scripted {
    /// Where it is.
    pub url: String,
    /// What was asked, as it came; ends with the last answer.
    pub asked: Receiver<String>,
}

impl Scripted {
    /// A server with these answers, each the whole of a response.
    pub fn new(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (sender, asked) = channel();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("a client");
                let request = request(&stream);
                let is_endless = answer.ends_with(MORE);
                let _ = stream.write_all(answer.trim_end_matches(MORE).as_bytes());
                let _ = sender.send(request);
                if is_endless {
                    // Until the client goes away.
                    let _ = stream.read(&mut [0]);
                    let _ = sender.send("gone".to_owned());
                }
            }
        });
        Self { url, asked }
    }
}

/// Behind an answer that goes on and says nothing.
pub const MORE: &str = "\0";

/// A response of JSON.
pub fn response(status: &str, headers: &str, body: &Value) -> String {
    let body = body.to_string();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// The response that lists models.
pub fn models(names: &[&str]) -> String {
    let data: Vec<Value> = names.iter().map(|name| json!({ "id": name })).collect();
    response("200 OK", "", &json!({ "data": data }))
}

/// A response that is an answer in these pieces, and `end` behind them.
pub fn stream(pieces: &[&str], end: &str) -> String {
    let event = |piece: &&str| format!("data: {}\n\n", json!({ "choices": [{ "delta": { "content": piece } }] }));
    let events: String = pieces.iter().map(event).collect();
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n{events}{end}")
}

/// What a server says when an answer is there.
pub const DONE: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

fn request(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut head, mut len) = (String::new(), 0);
    while reader.read_line(&mut head).expect("a head") > 2 {
        let line = head.lines().next_back().unwrap_or_default().to_ascii_lowercase();
        len = line.strip_prefix("content-length: ").map_or(len, |len| len.parse().expect("a number"));
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).expect("a body");
    head + &String::from_utf8_lossy(&body)
}
