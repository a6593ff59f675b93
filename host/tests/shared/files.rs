//! A server of files for tests, on loopback: what it answers, well or badly, the test says.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The path, with its query.
    pub path: String,
    /// First byte, and the one behind the last.
    pub range: Option<(u64, u64)>,
    /// Of `If-Range`.
    pub if_range: Option<String>,
    /// Of `Authorization`.
    pub token: Option<String>,
}

impl Asked {
    /// Whether this only asks what there is.
    pub fn is_probe(&self) -> bool {
        self.range == Some((0, 1))
    }

    /// Reads a request; none where the connection ends.
    pub fn read(from: impl std::io::Read) -> Option<Self> {
        let mut lines = BufReader::new(from).lines();
        let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
        let mut asked = Self { path, ..Self::default() };
        for line in lines {
            let line = line.ok()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            match &name.to_ascii_lowercase()[..] {
                "range" => {
                    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
                    asked.range = Some((first.parse().ok()?, last.parse::<u64>().ok()? + 1));
                }
                "if-range" => asked.if_range = Some(value.to_owned()),
                "authorization" => asked.token = Some(value.to_owned()),
                _ => {}
            }
        }
        Some(asked)
    }

    /// Head and body of the right answer, where the file holds `bytes` and has this tag.
    pub fn answer<'b>(&self, bytes: &'b [u8], tag: &str) -> (String, &'b [u8]) {
        let len = bytes.len() as u64;
        let is_same = self.if_range.as_ref().is_none_or(|wanted| wanted == tag);
        let tag = if tag.is_empty() { String::new() } else { format!("ETag: {tag}\r\n") };
        let head = |status, rest: String, len: u64| {
            format!("HTTP/1.1 {status}\r\nConnection: close\r\n{tag}{rest}Content-Length: {len}\r\n\r\n")
        };
        match self.range.filter(|_| is_same) {
            None => (head("200 OK", String::new(), len), bytes),
            Some((start, _)) if start >= len => {
                (head("416 Range Not Satisfiable", format!("Content-Range: bytes */{len}\r\n"), 0), b"")
            }
            Some((start, end)) => {
                let end = end.min(len);
                let range = format!("Content-Range: bytes {start}-{}/{len}\r\n", end - 1);
                (head("206 Partial Content", range, end - start), &bytes[start as usize..end as usize])
            }
        }
    }
}

/// A server that lives as long as the process.
pub struct FileServer {
    /// Where it is, with the name `localhost`.
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl FileServer {
    /// Answers each request by `answer`, which is told how many came before; each has a connection and a thread of its own.
    pub fn new(answer: impl Fn(usize, &Asked, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://localhost:{}", listener.local_addr().expect("an address").port());
        let all = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&all), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, log, answer) = (stream.expect("a client"), Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || {
                    let Some(asked) = Asked::read(&stream) else { return };
                    let before = {
                        let mut log = log.lock().expect("nobody panics");
                        log.push(asked.clone());
                        log.len() - 1
                    };
                    answer(before, &asked, &mut stream);
                });
            }
        });
        Self { url, asked: all }
    }

    /// What was asked for so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("nobody panics").clone()
    }
}

/// Sends an answer, as far as anybody reads it.
pub fn send(stream: &mut TcpStream, (head, body): (String, &[u8])) {
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}
