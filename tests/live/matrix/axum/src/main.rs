//! axum on hyper. Answers to GET are streamed in many chunks (chunked), those to POST are one body. Prints its port.
use axum::{
    body::{to_bytes, Body, Bytes},
    http::{Method, Request, Response},
    Router,
};
use futures_util::stream;
use std::convert::Infallible;

const CHUNK: usize = 500;

async fn answer(request: Request<Body>, process: String) -> Response<Body> {
    let (parts, body) = request.into_parts();
    to_bytes(body, 1 << 20).await.expect("request body");
    let mut path = parts.uri.path().rsplit('/');
    let size: usize = path.next().unwrap().parse().expect("size");
    let unit = format!("{}.", path.next().unwrap());
    let text = Bytes::from(unit.repeat(size / unit.len() + 1)).slice(..size);
    let body = if parts.method == Method::POST {
        Body::from(text)
    } else {
        let pieces: Vec<_> = (0..size)
            .step_by(CHUNK)
            .map(|at| Ok::<_, Infallible>(text.slice(at..size.min(at + CHUNK))))
            .collect();
        Body::from_stream(stream::iter(pieces))
    };
    Response::builder()
        .header("Content-Type", "text/plain")
        .header("X-Process", process)
        .body(body)
        .unwrap()
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    let process = format!("{} {}", std::process::id(), name.trim_end());
    let app = Router::new().fallback(move |request: Request<Body>| answer(request, process.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    axum::serve(listener, app).await.unwrap();
}
