//! Who is let in, and how much of each: connections, keys, other pages of a browser, sizes and times.

use super::error::ApiError;
use super::keys::KeyRing;
use super::routes;
use super::server::{Client, Server};
use super::tls::Tls;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tower_http::cors::{Any, CorsLayer};
use tower_http::timeout::RequestBodyTimeoutLayer;

/// Who is let in.
#[derive(Clone, Debug)]
pub struct Doors {
    /// Keys of which a client must have one, if there are any.
    pub keys: KeyRing,
    /// Origins of pages that may ask from a browser, besides our own; `*` for all.
    pub origins: Vec<String>,
    /// Only this machine can reach it.
    pub is_local: bool,
    /// Largest body of a request, in bytes.
    pub body_bytes: usize,
    /// Most connections at a time.
    pub connections: usize,
    /// With a certificate connections are encrypted.
    pub tls: Option<Tls>,
}

/// A client must have sent the head of a request after so long, and the next piece of its body.
pub(super) const HEAD: Duration = Duration::from_secs(30);
const BODY: Duration = Duration::from_secs(30);
/// Most bytes of the head of a request.
const HEAD_BYTES: usize = 64 << 10;
/// So long answers that are at their end may take to get to their clients, when the server ends.
const LEAVE: Duration = Duration::from_secs(5);
/// After an error of the system (no descriptors, mostly) nobody is let in for so long.
const PAUSE: Duration = Duration::from_millis(100);

/// What is open to all, besides the page: none of it has secrets.
const OPEN: &[&str] = &["/health", "/openapi.json"];

/// Answers requests, until `is_over`.
pub async fn serve(listener: TcpListener, server: Arc<Server>, doors: Doors, mut is_over: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(doors.connections));
    let tls = doors.tls.clone();
    let app = app(server, doors);
    let all = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = is_over.wait_for(|over| *over) => break,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // Where too many are connected, the next one hears nothing until another one goes.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        // Small pieces of a stream are not to wait for more.
        let _ = stream.set_nodelay(true);
        let (app, watcher, tls) = (app.clone(), all.watcher(), tls.clone());
        tokio::spawn(async move {
            // Who breaks off has told so already.
            match tls {
                None => drop(watcher.watch(connection(stream, peer, app)).await),
                Some(tls) => {
                    if let Some(stream) = tls.greet(stream).await {
                        drop(watcher.watch(connection(stream, peer, app)).await);
                    }
                }
            }
            drop(place);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(LEAVE, all.shutdown()).await;
}

type Connection<S> = hyper::server::conn::http1::Connection<TokioIo<S>, Known>;

/// A connection, whose requests are known by who makes them.
fn connection<S>(stream: S, peer: SocketAddr, app: Router) -> Connection<S>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    http.serve_connection(TokioIo::new(stream), Known { app: TowerToHyperService::new(app), peer: Peer(peer.ip()) })
}

/// All calls, for one whose address is known. A layer would make each of them anew, for every connection.
#[derive(Clone, Debug)]
struct Known {
    app: TowerToHyperService<Router>,
    peer: Peer,
}

impl Service<hyper::Request<Incoming>> for Known {
    type Response = Response;
    type Error = Infallible;
    type Future = <TowerToHyperService<Router> as Service<hyper::Request<Incoming>>>::Future;

    fn call(&self, mut request: hyper::Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        self.app.call(request)
    }
}

/// The address of who asks.
#[derive(Clone, Copy, Debug)]
struct Peer(IpAddr);

pub(super) fn app(server: Arc<Server>, doors: Doors) -> Router {
    let cors = cors(&doors.origins);
    let body_bytes = doors.body_bytes;
    routes(server)
        .layer(middleware::from_fn_with_state(Arc::new(doors), let_in))
        .layer(DefaultBodyLimit::max(body_bytes))
        .layer(RequestBodyTimeoutLayer::new(BODY))
        .layer(cors)
}

fn cors(origins: &[String]) -> CorsLayer {
    let layer = CorsLayer::new().allow_methods([Method::GET, Method::POST]).allow_headers(Any);
    if origins.iter().any(|origin| origin == "*") {
        return layer.allow_origin(Any);
    }
    layer.allow_origin(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect::<Vec<_>>())
}

/// Refuses pages of other sites, and those who have no key; says who the others are.
async fn let_in(State(doors): State<Arc<Doors>>, mut request: Request, next: Next) -> Response {
    if let Err(error) = check_origin(&doors, request.headers()) {
        return error.respond_at(request.uri().path());
    }
    let peer = request.extensions().get::<Peer>().map_or_else(|| "?".to_owned(), |Peer(ip)| ip.to_string());
    let is_open = request.method() == Method::GET && is_open(request.uri().path());
    let client = match name_of(&doors.keys, request.headers()) {
        Some(name) => format!("key {name}"),
        None if doors.keys.is_empty() || is_open => format!("address {peer}"),
        None => return unknown().respond_at(request.uri().path()),
    };
    request.extensions_mut().insert(Client(client));
    next.run(request).await
}

fn is_open(path: &str) -> bool {
    OPEN.contains(&path) || super::page::has(path)
}

/// Browsers say which page a request comes from. A page of another site must not use the server that its visitor can reach, nor one
/// that has got a name of its own for this machine's address.
fn check_origin(doors: &Doors, headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    if doors.is_local && !is_local_name(host) {
        let line = format!("this server is for its own machine only; {host:?} is no name of that");
        return Err(ApiError::new(StatusCode::FORBIDDEN, line));
    }
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let is_own = origin.split_once("://").is_some_and(|(_, rest)| rest == host);
    if is_own || doors.origins.iter().any(|allowed| allowed == "*" || allowed == origin) {
        return Ok(());
    }
    let line = format!("pages of {origin} may not ask here; --cors {origin} lets them");
    Err(ApiError::new(StatusCode::FORBIDDEN, line))
}

/// Whether a host, with or without a port, is this machine by its name or address.
fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) || name.is_empty()
}

/// The name of the key that a request comes with.
fn name_of<'k>(keys: &'k KeyRing, headers: &HeaderMap) -> Option<&'k str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
    keys.name_of(bearer.or(text("x-api-key"))?.trim())
}

fn unknown() -> ApiError {
    let line = "this server wants an API key: send it as Authorization: Bearer KEY";
    ApiError::new(StatusCode::UNAUTHORIZED, line).with_code("invalid_api_key")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors(is_local: bool, origins: &[&str]) -> Doors {
        let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        Doors { keys: KeyRing::default(), origins, is_local, body_bytes: 1000, connections: 1, tls: None }
    }

    fn check(doors: &Doors, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        check_origin(doors, &headers).is_ok()
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let open = doors(false, &["https://good.example"]);
        assert!(check(&open, "box:8080", None) && check(&open, "box:8080", Some("http://box:8080")));
        assert!(check(&open, "box:8080", Some("https://good.example")));
        assert!(!check(&open, "box:8080", Some("https://evil.example")) && !check(&open, "box:8080", Some("null")));
        assert!(check(&doors(false, &["*"]), "box:8080", Some("https://evil.example")));
    }

    #[test]
    fn a_name_that_somebody_gave_this_machine_is_none_of_its_own() {
        let local = doors(true, &[]);
        for host in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST", "127.3.2.1"] {
            assert!(check(&local, host, None), "{host}");
        }
        for host in ["evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1:8080"] {
            assert!(!check(&local, host, Some(&format!("http://{host}"))), "{host}");
        }
    }
}
