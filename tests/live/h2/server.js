// `server.js LOG` prints its port, then serves HTTP/2 until killed: inside TLS, or in clear if H2_CLEAR is set.
const http2 = require("http2");
const { content, logger, numbers, read, sha256 } = require("../tls/common.js");

const log = logger(process.argv[2]);
const clear = Boolean(process.env.H2_CLEAR);

function serve(stream, headers) {
  const asked = [];
  stream.on("data", (piece) => asked.push(piece));
  stream.on("end", () => {
    const body = Buffer.concat(asked);
    const [number, size] = numbers(headers[":path"]);
    const { remoteAddress, remotePort } = stream.session.socket;
    const peer = `${remoteAddress}:${remotePort}`;
    log({ number, method: headers[":method"], bytes: body.length, sha256: sha256(body), peer });
    const inPieces = number % 4 === 3;
    const fields = { ":status": number % 7 ? 200 : 201, "content-type": "text/plain" };
    if (!inPieces) fields["content-length"] = size;
    if (headers["x-early"]) stream.additionalHeaders({ ":status": 103, link: "</a>; rel=preload" });
    const answer = content(number, size);
    stream.respond(fields, { waitForTrailers: inPieces });
    if (inPieces) {
      stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": String(number) }));
      for (let at = 0; at < answer.length; at += 16000) stream.write(answer.subarray(at, at + 16000));
      stream.end();
    } else stream.end(answer);
  });
}

const server = clear
  ? http2.createServer()
  : http2.createSecureServer({ cert: read("server.pem"), key: read("server.key"), ALPNProtocols: ["h2"] });
server.on("stream", serve);
server.listen(0, "127.0.0.1", 512, () => console.log(server.address().port));
