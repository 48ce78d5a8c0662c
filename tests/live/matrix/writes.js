// Each answer is 400 small writes in one turn: chunked, and one writev of many buffers.
const fs = require('fs');
const name = fs.readFileSync('/proc/self/comm', 'utf8').trim();
const server = require('http').createServer((request, response) => {
  request.resume().on('end', () => {
    const [number, size] = request.url.split('/').slice(-2);
    const body = (number + '.').repeat(size / (number.length + 1) + 1).slice(0, size);
    const piece = Math.ceil(size / 400);
    response.writeHead(200, {'Content-Type': 'text/plain', 'X-Process': process.pid + ' ' + name});
    if (number % 2) response.cork();
    for (let at = 0; at < size; at += piece) response.write(body.slice(at, at + piece));
    if (number % 2) response.uncork();
    response.end();
  });
}).listen(0, '127.0.0.1', () => console.log(server.address().port));
