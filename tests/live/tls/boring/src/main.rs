//! hyper over BoringSSL (boring, tokio-boring), for the TLS matrix: `matrix-boring server LOG` prints its port and serves until
//! killed, `matrix-boring client PORT LOG` makes the connections that standard input names, eight at a time. TLS_BED is the
//! folder with certificates and pool.

use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use boring::sha::sha256;
use boring::ssl::{select_next_proto, AlpnError, SslAcceptor, SslConnector, SslContextBuilder, SslFiletype, SslMethod, SslVerifyMode};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{combinators::BoxBody, BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const OFFERED: &[u8] = b"\x08http/1.1";

struct Bed {
    folder: String,
    letters: Vec<u8>,
    log: File,
}

impl Bed {
    fn open(log: &str) -> Result<Arc<Bed>, Failure> {
        let folder = std::env::var("TLS_BED")?;
        let letters = std::fs::read(format!("{folder}/pool"))?;
        let log = File::options().append(true).create(true).open(log)?;
        Ok(Arc::new(Bed { folder, letters, log }))
    }

    /// A body, as exchanges.py says.
    fn content(&self, number: usize, size: usize, request: bool) -> Bytes {
        let start = (number * 4099 + if request { 500_009 } else { 0 }) % 1_000_000;
        let mut body = format!("{number}.").into_bytes();
        body.extend_from_slice(&self.letters[start..start + size]);
        body.truncate(size);
        body.into()
    }

    fn certificates(&self, context: &mut SslContextBuilder, role: &str) -> Result<(), Failure> {
        context.set_ca_file(format!("{}/ca.pem", self.folder))?;
        context.set_certificate_chain_file(format!("{}/{role}.pem", self.folder))?;
        context.set_private_key_file(format!("{}/{role}.key", self.folder), SslFiletype::PEM)?;
        context.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        Ok(())
    }

    /// A line of the log. `fact`: the method in a server, the status in a client; `end`: "peer" or "local", and the address.
    fn note(&self, number: usize, fact: &str, body: &[u8], end: (&str, &str)) -> Result<(), Failure> {
        let sum: String = sha256(body).iter().map(|byte| format!("{byte:02x}")).collect();
        let (whose, address) = end;
        let length = body.len();
        let line = format!(
            "{{\"number\": {number}, {fact}, \"bytes\": {length}, \"sha256\": \"{sum}\", \"{whose}\": \"{address}\"}}\n"
        );
        (&self.log).write_all(line.as_bytes())?;
        Ok(())
    }
}

fn numbers(path: &str) -> Result<(usize, usize), Failure> {
    let mut words = path.rsplit('/');
    let size = words.next().ok_or("no size")?.parse()?;
    Ok((words.next().ok_or("no number")?.parse()?, size))
}

async fn answer(bed: Arc<Bed>, peer: String, request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, Infallible>>, Failure> {
    let (number, size) = numbers(request.uri().path())?;
    let method = format!("\"method\": \"{}\"", request.method());
    let body = request.into_body().collect().await?.to_bytes();
    bed.note(number, &method, &body, ("peer", &peer))?;
    let text = bed.content(number, size, false);
    let body = if number % 4 == 3 {
        let pieces: Vec<Bytes> = text.chunks(16_000).map(Bytes::copy_from_slice).collect();
        BodyExt::boxed(StreamBody::new(stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(piece))))))
    } else {
        Full::new(text).boxed()
    };
    let status = if number % 7 == 0 { 201 } else { 200 };
    Ok(Response::builder().status(status).header("Content-Type", "text/plain").body(body)?)
}

async fn serve(bed: Arc<Bed>) -> Result<(), Failure> {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())?;
    bed.certificates(&mut acceptor, "server")?;
    acceptor.set_alpn_select_callback(|_, offered| select_next_proto(OFFERED, offered).ok_or(AlpnError::NOACK));
    let acceptor = acceptor.build();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (socket, peer) = listener.accept().await?;
        let (bed, acceptor) = (bed.clone(), acceptor.clone());
        socket.set_nodelay(true)?;
        tokio::spawn(async move {
            if let Ok(tls) = tokio_boring::accept(&acceptor, socket).await {
                let one = service_fn(|request| answer(bed.clone(), peer.to_string(), request));
                let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), one);
                let _ = connection.await; // clients may leave in the middle of an answer
            }
        });
    }
}

async fn exchange(bed: &Bed, sender: &mut SendRequest<Full<Bytes>>, reading: &str, word: &str, local: &str) -> Result<(), Failure> {
    let [method, path, bytes] = word.split(',').collect::<Vec<_>>()[..] else { return Err(word.into()) };
    let (number, size) = numbers(path)?;
    let body = bed.content(number, bytes.parse()?, true);
    let mut request = Request::builder().method(method).uri(path).header("Host", "localhost");
    if !body.is_empty() {
        request = request.header("Content-Type", "text/plain");
    }
    sender.ready().await?;
    let answer = sender.send_request(request.body(Full::new(body))?).await?;
    let status = format!("\"status\": {}", answer.status().as_u16());
    let (mut coming, mut have) = (answer.into_body(), Vec::new());
    while let Some(frame) = coming.frame().await {
        if reading == "stalled" && have.is_empty() && size > 1 << 20 {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        if reading == "partial" {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        have.extend_from_slice(frame?.data_ref().map_or(&[][..], |data| data));
        if reading == "abandoned" && have.len() > 100_000 {
            break;
        }
    }
    bed.note(number, &status, &have, ("local", local))
}

async fn converse(bed: Arc<Bed>, connector: SslConnector, port: u16, line: String) -> Result<(), Failure> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    socket.set_nodelay(true)?;
    let local = socket.local_addr()?.to_string();
    let tls = tokio_boring::connect(connector.configure()?, "127.0.0.1", socket).await?;
    let mut builder = hyper::client::conn::http1::Builder::new();
    if words[0] == "partial" {
        builder.max_buf_size(8192);
    }
    let (mut sender, connection) = builder.handshake(TokioIo::new(tls)).await?;
    let running = tokio::spawn(connection);
    for (place, word) in words.iter().enumerate().skip(1) {
        let early = words[0] == "abandoned" && place < words.len() - 1;
        exchange(&bed, &mut sender, if early { "whole" } else { words[0] }, word, &local).await?;
    }
    drop(sender);
    if words[0] == "abandoned" {
        running.abort();
    }
    let _ = running.await; // aborted, or closed by the server
    Ok(())
}

async fn call(bed: Arc<Bed>, port: u16) -> Result<(), Failure> {
    let mut connector = SslConnector::builder(SslMethod::tls())?;
    bed.certificates(&mut connector, "client")?;
    connector.set_alpn_protos(OFFERED)?;
    let (connector, free) = (connector.build(), Arc::new(Semaphore::new(8)));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let (bed, connector, place) = (bed.clone(), connector.clone(), free.clone().acquire_owned().await?);
        tokio::spawn(async move {
            if let Err(failure) = converse(bed, connector, port, line).await {
                eprintln!("{failure}");
                std::process::exit(1);
            }
            drop(place);
        });
    }
    let _all = free.acquire_many(8).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[1..] {
        [role, log] if role == "server" => serve(Bed::open(log)?).await,
        [role, port, log] if role == "client" => call(Bed::open(log)?, port.parse()?).await,
        [version] if version == "version" => {
            println!("{}", boring::version::version());
            Ok(())
        }
        _ => Err("server LOG, client PORT LOG, or version".into()),
    }
}
