//! Downloads from servers that do what servers do: they break off, lie, change their files and say nothing.

use super::*;
use crate::client::trust::Trust;
use files::{Asked, FileServer, send};
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use tempfile::TempDir;

#[path = "../../../tests/shared/files.rs"]
mod files;

/// Larger than a chunk, so that it comes in several.
const LARGE: usize = (3 << 20) + 12_345;

/// Bytes that are different everywhere.
fn content(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64).map(|at| ((at * 31 + seed) ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

fn client() -> Client {
    let patience = Patience { silence: Duration::from_millis(300), attempts: 4, pause: Duration::from_millis(1) };
    Client { patience, trust: Trust::default(), token: None }
}

/// A folder to download to.
struct Here {
    folder: TempDir,
    /// What was told of: "again WHY", "changed", and the first bytes that were here already.
    told: Vec<String>,
}

impl Here {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), told: Vec::new() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("file")
    }

    fn fetch(&mut self, urls: &[String]) -> Result<Vec<Got>, String> {
        self.fetch_until(urls, u64::MAX)
    }

    /// Until so many bytes are here.
    fn fetch_until(&mut self, urls: &[String], enough: u64) -> Result<Vec<Got>, String> {
        let parts: Vec<Place> = urls.iter().map(|url| url.parse().unwrap()).collect();
        let (to, told, mut is_first) = (self.path(), &mut self.told, true);
        let mut watch = |event: Event<'_>| {
            match event {
                Event::Again { why, .. } => told.push(format!("again: {why}")),
                Event::Changed(_) => told.push("changed".into()),
                Event::Progress { done, total } => {
                    assert!(done <= total);
                    if std::mem::take(&mut is_first) && done > 0 {
                        told.push(format!("{done} were here"));
                    }
                    if done >= enough {
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        };
        fetch(&Wanted { parts: &parts, to: &to, connections: 3 }, &client(), &mut watch)
            .map_err(|error| error.to_string())
    }

    /// The file, beside which nothing is left.
    fn whole(&self) -> Vec<u8> {
        assert_eq!(fs::read_dir(&self.folder).unwrap().count(), 1);
        fs::read(self.path()).unwrap()
    }
}

/// A server of one file that answers some requests in its own way: those for which `odd` is true.
fn server(odd: impl Fn(usize, &Asked, &mut TcpStream) -> bool + Send + Sync + 'static) -> (FileServer, Vec<u8>) {
    let bytes = content(LARGE, 7);
    let own = bytes.clone();
    let server = FileServer::new(move |before, asked, stream| {
        if !odd(before, asked, stream) {
            send(stream, asked.answer(&own, "\"v1\""));
        }
    });
    (server, bytes)
}

fn url(server: &FileServer) -> Vec<String> {
    vec![format!("{}/a.m", server.url)]
}

#[test]
fn a_file_comes_in_ranges_of_the_version_that_was_found() {
    let (server, bytes) = server(|_, _, _| false);
    let mut here = Here::new();
    let got = here.fetch(&url(&server)).unwrap();
    assert_eq!(here.whole(), bytes);
    let version = Some("etag \"v1\"".to_owned());
    assert_eq!(got, [Got { url: url(&server)[0].clone(), bytes: LARGE as u64, version }]);
    let asked = server.asked();
    assert_eq!((asked.len(), asked[0].is_probe()), (5, true));
    assert!(asked[1..].iter().all(|asked| asked.if_range.as_deref() == Some("\"v1\"")));
}

#[test]
fn parts_are_joined_in_their_order_from_the_web_and_from_a_disk() {
    let files: Vec<_> = [5, LARGE, 1].into_iter().zip(1..).map(|(len, seed)| content(len, seed)).collect();
    let own = files.clone();
    let server = FileServer::new(move |_, asked, stream| {
        let index: usize = asked.path[1..].parse().unwrap();
        send(stream, asked.answer(&own[index], "\"v\""));
    });
    let mut here = Here::new();
    here.fetch(&(0..3).map(|index| format!("{}/{index}", server.url)).collect::<Vec<_>>()).unwrap();
    assert_eq!(here.whole(), files.concat());

    let disk = TempDir::new().unwrap();
    let urls: Vec<_> = (0..3).map(|index| format!("file://{}/{index}", disk.path().display())).collect();
    files.iter().enumerate().for_each(|(index, bytes)| fs::write(disk.path().join(index.to_string()), bytes).unwrap());
    let mut here = Here::new();
    here.fetch(&urls).unwrap();
    assert_eq!(here.whole(), files.concat());
    fs::remove_file(disk.path().join("1")).unwrap();
    assert_eq!(Here::new().fetch(&urls), Err(format!("{}: there is no such file", urls[1])));
}

#[test]
fn connections_that_break_off_are_made_up_for() {
    // Every second request gets half of what it asks for, or less.
    let (server, bytes) = server(|before, asked, stream| {
        let is_odd = before % 2 == 1;
        if is_odd {
            let own = content(LARGE, 7);
            let (head, body) = asked.answer(&own, "\"v1\"");
            send(stream, (head, &body[..body.len() / 2]));
        }
        is_odd
    });
    let mut here = Here::new();
    here.fetch(&url(&server)).unwrap();
    assert_eq!(here.whole(), bytes);
    assert!(here.told.iter().any(|told| told == "again: it ends in the middle"), "{:?}", here.told);
    // What had come is not asked for again.
    let wanted: u64 = server.asked()[1..].iter().map(|asked| asked.range.map_or(0, |(start, end)| end - start)).sum();
    assert!(wanted < 2 * LARGE as u64, "{wanted} of {LARGE}");
}

#[test]
fn a_download_that_was_ended_goes_on_where_it_was() {
    let (server, bytes) = server(|_, _, _| false);
    let mut here = Here::new();
    assert_eq!(here.fetch_until(&url(&server), 1 << 20), Err("interrupted".into()));
    let before = server.asked().len();
    here.fetch(&url(&server)).unwrap();
    assert_eq!(here.whole(), bytes);
    let [told] = &here.told[..] else { panic!("{:?}", here.told) };
    let done: u64 = told.strip_suffix(" were here").unwrap().parse().unwrap();
    assert!((1 << 20..=LARGE as u64).contains(&done), "{told}");
    let asked = server.asked();
    let rest: u64 = asked[before + 1..].iter().map(|asked| asked.range.map_or(0, |(start, end)| end - start)).sum();
    assert_eq!(done + rest, LARGE as u64);
}

#[test]
fn a_file_that_was_changed_meanwhile_is_not_spliced() {
    let (first, second) = (content(LARGE, 1), content(LARGE, 2));
    let (old, new) = (first.clone(), second.clone());
    let is_new = std::sync::Arc::new(AtomicBool::new(false));
    let seen = std::sync::Arc::clone(&is_new);
    let server = FileServer::new(move |_, asked, stream| {
        let is_new = seen.load(Ordering::Relaxed);
        let (bytes, tag) = if is_new { (&new, "\"v2\"") } else { (&old, "\"v1\"") };
        send(stream, asked.answer(bytes, tag));
    });
    let mut here = Here::new();
    assert!(here.fetch_until(&url(&server), 1 << 20).is_err());
    is_new.store(true, Ordering::Relaxed);
    here.fetch(&url(&server)).unwrap();
    assert_eq!((here.whole(), &here.told[..]), (second, &["changed".to_owned()][..]));
    drop(first);
}

#[test]
fn a_file_that_changes_in_the_middle_begins_anew_and_one_that_always_does_is_given_up() {
    for (changes, tag) in [(1, "\"x\""), (1, "W/\"x\""), (u32::MAX, "\"x\"")] {
        let count = std::sync::atomic::AtomicU32::new(0);
        let server = FileServer::new(move |_, asked, stream| {
            // A probe finds another version than what follows.
            let now =
                if asked.is_probe() { count.fetch_add(1, Ordering::Relaxed) } else { count.load(Ordering::Relaxed) };
            let version = if asked.is_probe() { now.min(changes) } else { now.min(changes).max(1) };
            let own = content(LARGE, version.into());
            send(stream, asked.answer(&own, &tag.replace('x', &version.to_string())));
        });
        let mut here = Here::new();
        let result = here.fetch(&url(&server));
        if changes == 1 {
            result.unwrap();
            assert_eq!((here.whole(), &here.told[..]), (content(LARGE, 1), &["changed".to_owned()][..]));
        } else {
            assert!(result.unwrap_err().contains("again and again"));
            assert_eq!(fs::read_dir(&here.folder).unwrap().count(), 0);
        }
    }
}

#[test]
fn a_server_without_ranges_gives_the_whole_file_and_never_half_of_one() {
    let bytes = content(LARGE, 3);
    let own = bytes.clone();
    let server = FileServer::new(move |before, asked, stream| {
        let (head, body) = Asked { range: None, ..asked.clone() }.answer(&own, "\"v\"");
        send(stream, (head, if before == 1 { &body[..LARGE / 2] } else { body }));
    });
    let mut here = Here::new();
    here.fetch(&url(&server)).unwrap();
    assert_eq!((here.whole(), &here.told[..]), (bytes, &["again: it ends in the middle".to_owned()][..]));
}

#[test]
fn what_is_sent_beyond_a_file_is_never_written() {
    // Without a length, and without an end.
    let bytes = content(5000, 3);
    let own = bytes.clone();
    let server = FileServer::new(move |_, asked, stream| {
        let (head, body) = asked.answer(&own, "\"v\"");
        if asked.is_probe() {
            return send(stream, (head, body));
        }
        let head = head.lines().filter(|line| !line.starts_with("Content-Length")).collect::<Vec<_>>().join("\r\n");
        send(stream, (head + "\r\n", body));
        while stream.write_all(&[0; 65536]).is_ok() {}
    });
    let mut here = Here::new();
    here.fetch(&url(&server)).unwrap();
    assert_eq!(here.whole(), bytes);
}

#[test]
fn answers_that_are_none_are_named_after_the_last_attempt() {
    let says = |change: fn(String) -> String| {
        let (server, _) = server(move |_, asked, stream| {
            let own = content(LARGE, 7);
            let (head, body) = asked.answer(&own, "\"v1\"");
            let is_odd = !asked.is_probe();
            if is_odd {
                send(stream, (change(head), body));
            }
            is_odd
        });
        let mut here = Here::new();
        let line = here.fetch(&url(&server)).unwrap_err();
        assert!(!here.path().exists() && here.told.len() >= 3, "{line}: {:?}", here.told);
        assert!(line.contains("4 times in a row") && line.lines().count() == 1, "{line}");
        line
    };
    assert!(says(|head| head.replace("bytes 0-", "bytes 1-")).contains("another part than it was asked for"));
    assert!(says(|head| head.replace("Content-Range", "X")).contains("without saying which one"));
    assert!(says(|head| head.replace("206 Partial Content", "503 No")).contains("HTTP status 503"));
    assert!(says(|_| "HTTP/1.1 206".into()).contains("HTTP"));
    let all = |head: String| {
        let head = head.replace("206 Partial Content", "200 OK");
        head.lines().filter(|line| !line.starts_with("Content-Length")).collect::<Vec<_>>().join("\r\n") + "\r\n\r\n"
    };
    assert!(says(all).contains("all of it where a part was asked for"));
}

#[test]
fn who_says_nothing_or_hardly_anything_is_given_up() {
    let start = Instant::now();
    for drip in [false, true] {
        let (server, _) = server(move |_, asked, stream| {
            let is_odd = !asked.is_probe();
            if is_odd {
                let own = content(LARGE, 7);
                let (head, body) = asked.answer(&own, "\"v1\"");
                let _ = stream.write_all(head.as_bytes());
                for byte in body {
                    thread::sleep(Duration::from_millis(if drip { 40 } else { 5000 }));
                    if stream.write_all(&[*byte]).is_err() {
                        break;
                    }
                }
            }
            is_odd
        });
        let line = Here::new().fetch(&url(&server)).unwrap_err();
        let why = if drip { "hardly anything comes" } else { "nothing more comes" };
        assert!(line.contains(why), "{line}");
    }
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[test]
fn what_is_wrong_for_good_is_said_at_once() {
    let refusal = |response: &'static str| {
        let server = FileServer::new(move |_, _, stream| send(stream, (response.to_owned(), b"")));
        let mut here = Here::new();
        let line = here.fetch(&url(&server)).unwrap_err();
        assert_eq!((here.told.len(), server.asked().len(), line.lines().count()), (0, 1, 1), "{line}");
        assert!(line.contains("/a.m"), "{line}");
        line
    };
    let head = |status| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").leak() as &'static str;
    assert!(refusal(head("404 Not Found")).contains("no such file"));
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let line = refusal(head(status));
        assert!(line.contains("licence") && line.contains("--token-file") && line.contains("HF_TOKEN"), "{line}");
    }
    assert!(refusal(head("418 Teapot")).contains("418"));
    assert!(refusal(head("200 OK")).contains("empty"));
    assert!(refusal("HTTP/1.1 416 No\r\nContent-Range: bytes */0\r\nContent-Length: 0\r\n\r\n").contains("empty"));
    assert!(refusal("HTTP/1.1 200 OK\r\n\r\nabc").contains("how large"));
    assert!(
        refusal("HTTP/1.1 206 OK\r\nContent-Range: bytes 0-0/*\r\nContent-Length: 1\r\n\r\na").contains("how large")
    );
    assert!(refusal("HTTP/1.1 206 OK\r\nContent-Length: 1\r\n\r\na").contains("which one"));
    assert!(refusal("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\na").contains("compressed"));
    for total in ["99999999999999999", "18446744073709551615"] {
        let text = format!("HTTP/1.1 206 OK\r\nContent-Range: bytes 0-0/{total}\r\nContent-Length: 1\r\n\r\na");
        assert!(refusal(text.leak()).contains("larger than any model"));
    }
    let text =
        "HTTP/1.1 206 OK\r\nETag: \"a\"\r\nContent-Range: bytes 0-0/17592186044416\r\nContent-Length: 1\r\n\r\na";
    let server = FileServer::new(move |_, _, stream| send(stream, (text.to_owned(), b"")));
    let line = Here::new().fetch(&url(&server)).unwrap_err();
    assert!(line.contains("17592186.0 MB more are needed") && line.contains("DAIR_CACHE"), "{line}");
    assert!(refusal("not HTTP at all\r\n\r\n").contains("does not speak HTTP"));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let line = Here::new().fetch(&[format!("http://{closed}/a.m")]).unwrap_err();
    assert!(line.contains("cannot reach"), "{line}");
}

#[test]
fn redirects_are_followed_and_have_an_end() {
    let (target, bytes) = server(|_, _, _| false);
    let to = target.url.clone();
    let moved = FileServer::new(move |_, asked, stream| {
        let to = if asked.path == "/a.m" { format!("{to}/b.m") } else { "/again".into() };
        send(stream, (format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"), b""));
    });
    let mut here = Here::new();
    here.fetch(&url(&moved)).unwrap();
    assert_eq!(here.whole(), bytes);
    assert!(target.asked().iter().all(|asked| asked.path == "/b.m"));
    let line = Here::new().fetch(&[format!("{}/loop", moved.url)]).unwrap_err();
    assert!(line.contains("without end"), "{line}");
}

#[cfg(feature = "tls")]
mod encrypted {
    use super::*;
    use crate::client::ApiKey;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    use std::net::TcpListener;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};

    fn certificate() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/certificate.pem")
    }

    /// A server of `localhost` that answers by path, and tells what it was asked.
    fn server(answer: impl Fn(&Asked) -> Vec<u8> + Send + 'static) -> (u16, Receiver<Asked>) {
        let chain = crate::machine::pem::certificates(&certificate()).unwrap();
        let key = PrivateKeyDer::from_pem_file(certificate().with_file_name("key.pem")).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
        let port = listener.local_addr().unwrap().port();
        let (sender, asked) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let greeting = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = rustls::StreamOwned::new(greeting, stream.unwrap());
                let Some(request) = Asked::read(&mut stream) else { continue };
                let _ = stream.write_all(&answer(&request));
                stream.conn.send_close_notify();
                let _ = stream.flush();
                let _ = sender.send(request);
            }
        });
        (port, asked)
    }

    fn moved(to: &str) -> Vec<u8> {
        format!("HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    }

    fn fetch_with_token(place: &str) -> Result<Vec<u8>, String> {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "secret\n").unwrap();
        let token = Some((ApiKey::read(&file).unwrap(), "localhost".to_owned()));
        let place: Place = place.parse().unwrap();
        let trust = Trust::of("https://localhost", true, Some(&certificate())).unwrap();
        let (client, to) = (Client { trust, token, ..client() }, folder.path().join("file"));
        let wanted = Wanted { parts: &[place], to: &to, connections: 1 };
        fetch(&wanted, &client, &mut |_| ControlFlow::Continue(())).map_err(|error| error.to_string())?;
        Ok(fs::read(to).unwrap())
    }

    #[test]
    fn a_token_goes_to_its_host_alone_and_nothing_leaves_encryption() {
        let bytes = b"a model".to_vec();
        let own = bytes.clone();
        let (elsewhere, asked_elsewhere) = server(move |asked| {
            let (head, body) = asked.answer(&own, "\"v\"");
            [head.as_bytes(), body].concat()
        });
        let (port, asked) = server(move |asked| match &asked.path[..] {
            "/near" => moved("/far"),
            "/plain" => moved("http://localhost:1/x"),
            _ => moved(&format!("https://127.0.0.1:{elsewhere}/x")),
        });
        assert_eq!(fetch_with_token(&format!("https://localhost:{port}/near")), Ok(bytes));
        let token = |asked: Receiver<Asked>| asked.try_iter().map(|asked| asked.token).collect::<Vec<_>>();
        let line = fetch_with_token(&format!("https://localhost:{port}/plain")).unwrap_err();
        assert!(line.contains("nothing is encrypted") && !line.contains("secret"), "{line}");
        let shown = token(asked);
        assert!(shown.len() >= 5 && shown.iter().all(|token| token.as_deref() == Some("Bearer secret")), "{shown:?}");
        assert_eq!(token(asked_elsewhere), [None, None]);
    }

    #[test]
    fn a_token_is_not_sent_in_the_clear_or_to_another_host() {
        let server = FileServer::new(|_, asked, stream| send(stream, asked.answer(b"a model", "\"v\"")));
        fetch_with_token(&server.url).unwrap();
        assert!(server.asked().iter().all(|asked| asked.token.is_none()));
        let (port, asked) = self::server(|asked| {
            let (head, body) = asked.answer(b"a model", "\"v\"");
            [head.as_bytes(), body].concat()
        });
        fetch_with_token(&format!("https://127.0.0.1:{port}/x")).unwrap();
        assert!(asked.try_iter().all(|asked| asked.token.is_none()));
    }
}
